//! The inter-processor interrupt: it only makes its target look at its inbox.

use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CoreId, CoreSet, IrqOff, core_local, mailbox};
use perf::trace::Event;

use super::apic;
use crate::{machine, trace};

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

/// Counts one that this core has taken.
#[inline(always)]
pub(crate) fn count(irq: &IrqOff) {
    let count = TAKEN.local(irq);
    // ORDER: Relaxed; this core is the only writer.
    let before = count.load(Ordering::Relaxed);
    // ORDER: Release pairs with Acquire in `taken`.
    count.store(before + 1, Ordering::Release);
}

/// Called by `irq_ipi`. A core that was busy answers at once: it may run a program that never enters the kernel by itself. The idle loop
/// answers after its sleep, because it has more to do on waking.
///
/// The handler may serve, although what it delivers takes locks and uses core-local data: interrupts are on only where no [`IrqOff`] is in
/// use, that is in user mode, in the idle loop's sleep and in `cores::expose`. So nothing that needs one was interrupted halfway.
pub(super) extern "C" fn on_ipi() {
    // SAFETY: the CPU turned interrupts off when it took this one, and `irq_ipi` returns with them as they were.
    let mut irq = unsafe { IrqOff::assume() };
    let count = TAKEN.local(&irq);
    // ORDER: Relaxed; this core is the only writer.
    let before = count.load(Ordering::Relaxed);
    // ORDER: Release pairs with Acquire in `taken`.
    count.store(before + 1, Ordering::Release);
    trace::event(&irq, Event::Ipi, 0, 0, 0);
    apic::end_of_interrupt();
    mailbox::serve_unless_armed(&mut irq);
}
