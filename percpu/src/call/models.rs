//! Loom models of calls. Preemption bound: 2; the waiting loops make deeper bounds slow.
//!
//! Planted bugs that made them fail once: Relaxed instead of Release for `done` in `run` (a race on the cell); `wait` that does not
//! serve the own inbox (the initiators wait for ever, which loom reports as too many branches); a slot that is used again before its target is done.

use super::{CallSlot, Ipi, broadcast_from, call_from};
use crate::id::CoreId;
use crate::mailbox::Inbox;
use crate::pin::IrqOff;
use crate::set::CoreSet;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::vec::Vec;

/// Cores that poll and so need no interrupt.
struct Polling {
    inboxes: Vec<Inbox>,
    /// Cores that have got all they wanted.
    finished: AtomicUsize,
}

impl Polling {
    fn new(cores: usize) -> Arc<Self> {
        let inboxes = (0..cores).map(|_| Inbox::new()).collect();
        Arc::new(Self { inboxes, finished: AtomicUsize::new(0) })
    }

    /// A core goes on serving until every core has finished.
    fn finish(&self, own: CoreId, irq: &mut IrqOff) {
        self.finished.fetch_add(1, Ordering::AcqRel);
        while self.finished.load(Ordering::Acquire) < self.inboxes.len() {
            self.inboxes[own.index()].serve(irq);
            thread::yield_now();
        }
    }
}

impl Ipi for Polling {
    fn send(&self, _: CoreId) {}

    fn inbox(&self, core: CoreId) -> &Inbox {
        &self.inboxes[core.index()]
    }
}

/// A cell in which loom finds races.
struct Seen(UnsafeCell<u32>);

// SAFETY: only the target of a call writes it, and its initiator reads it after the call.
unsafe impl Sync for Seen {}

impl Seen {
    fn bump(&self) {
        // SAFETY: called by one target at a time.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    fn get(&self) -> u32 {
        // SAFETY: the call has returned.
        self.0.with(|value| unsafe { *value })
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// Two cores call each other at once: both return, and each sees what its function did.
#[test]
fn loom_mutual_calls_complete() {
    check(|| {
        let machine = Polling::new(2);
        let run = |machine: &Polling, own: u16, target: u16| {
            IrqOff::with(|irq| {
                let seen = Seen(UnsafeCell::new(0));
                call_from(CoreId::new(own), irq, machine, CoreId::new(target), |_| seen.bump());
                assert_eq!(seen.get(), 1);
                machine.finish(CoreId::new(own), irq);
            });
        };
        let other = {
            let machine = machine.clone();
            thread::spawn(move || run(&machine, 1, 0))
        };
        run(&machine, 0, 1);
        other.join().expect("core ends");
    });
}

/// A broadcast with fewer slots than targets reaches each target once, the caller included.
#[test]
fn loom_broadcast_reuses_slots() {
    check(|| {
        let machine = Polling::new(3);
        // One thread is both targets: they are called one after the other, as there is one slot.
        let others = {
            let machine = machine.clone();
            thread::spawn(move || {
                for core in [1, 2] {
                    while IrqOff::with(|irq| machine.inboxes[core].serve(irq)) == 0 {
                        thread::yield_now();
                    }
                }
            })
        };
        IrqOff::with(|irq| {
            let count = AtomicUsize::new(0);
            let mut slots = [CallSlot::new()];
            let own = CoreId::new(0);
            broadcast_from(own, irq, &*machine, &CoreSet::first(3), &mut slots, |_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), 3);
        });
        others.join().expect("cores end");
    });
}
