//! The inter-processor interrupt: it only makes its target look at its inbox.

use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CoreId, CoreSet, Pinned, core_local};

use super::apic;
use crate::machine;

core_local! {
    /// Inter-processor interrupts that this core has taken. Written by its own handler only; other cores may read it.
    static TAKEN: AtomicU64 = AtomicU64::new(0);
}

/// Sends interrupts for `percpu::call` and `percpu::mailbox`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupts;

impl percpu::Ipi for Interrupts {
    #[inline]
    fn send(&self, core: CoreId) {
        apic::send(machine::apic_id(core));
    }

    fn send_set(&self, cores: &CoreSet) {
        apic::send_set(cores);
    }
}

/// How many inter-processor interrupts a core has taken; 0 for a core without core-local data.
#[inline]
pub(crate) fn taken(core: CoreId) -> u64 {
    // ORDER: Acquire pairs with Release in `on_ipi`.
    TAKEN.of(core).map_or(0, |count| count.load(Ordering::Acquire))
}

/// Called by `irq_ipi` with interrupts off. The interrupted code serves the inbox: it sleeps, or it looks before it sleeps.
pub(super) extern "C" fn on_ipi() {
    // SAFETY: an interrupt handler stays on the core it was taken on.
    let pin = unsafe { Pinned::assume() };
    let count = TAKEN.local(&pin);
    // ORDER: Relaxed; this core is the only writer.
    let before = count.load(Ordering::Relaxed);
    // ORDER: Release pairs with Acquire in `taken`.
    count.store(before + 1, Ordering::Release);
    apic::end_of_interrupt();
}
