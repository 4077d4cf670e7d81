//! Every core is itself, on its own memory, and reachable.

use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{AtomicCoreSet, IrqOff};

use super::{Bed, Result, ensure};
use crate::{cores, machine};

/// A function sent to a core runs on that core, which knows its own number, and every core answers once.
pub(super) fn identity(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let seen = AtomicCoreSet::new();
    let calls = AtomicU64::new(0);
    bed.crew.run(&all, |held| {
        seen.insert(held.core());
        // ORDER: Relaxed; the call's completion publishes it.
        calls.fetch_add(1, Ordering::Relaxed);
    });
    ensure!(seen.snapshot() == all, "cores that answered: {:?}, online: {all:?}", seen.snapshot());
    // ORDER: Relaxed; see above.
    let calls = calls.load(Ordering::Relaxed);
    ensure!(calls == all.len() as u64, "{calls} calls ran on {} cores", all.len());
    ensure!(IrqOff::with(|irq| irq.core()) == machine::boot_core(), "the boot core does not know itself");
    Ok(())
}
