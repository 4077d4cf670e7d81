//! Loom models of things that move. Preemption bound: 2, as for calls.
//!
//! What lives at a core is a loom cell, which only its home may touch: a function that runs elsewhere, or while it is on its way, races.
//!
//! Planted bugs that made them fail once: a function that runs wherever it is sent, or while the thing is on its way to there; no service of
//! the own inbox between two tries.

use super::{Place, at_home_from};
use crate::call::Ipi;
use crate::id::CoreId;
use crate::lock::Held;
use crate::mailbox::{Inbox, Node, Urgency};
use crate::pin::IrqOff;
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

const CORES: [CoreId; 2] = [CoreId::new(0), CoreId::new(1)];

/// A thing that moves; the node is first.
#[repr(C)]
struct Thing {
    node: Node,
    place: Place,
    to: CoreId,
    value: UnsafeCell<u64>,
}

impl Thing {
    /// What only its home may do.
    fn bump(&self) -> u64 {
        // SAFETY: at its home (J1), which is what the model shows.
        self.value.with_mut(|value| unsafe {
            *value += 1;
            *value
        })
    }
}

/// # Safety
/// 1. `node` is that of a living [`Thing`].
unsafe fn arrive(node: NonNull<Node>, _: &mut Held<'_, 0>) {
    // SAFETY: obligation 1; it is first.
    let thing: &Thing = unsafe { node.cast().as_ref() };
    thing.place.settle(thing.to);
    thing.bump();
}

/// Two cores that poll.
struct Machine {
    inboxes: [Inbox; 2],
    thing: Thing,
    finished: AtomicUsize,
}

// SAFETY: the thing's cell is its home's alone (J1).
unsafe impl Send for Machine {}
// SAFETY: as above.
unsafe impl Sync for Machine {}

impl Ipi for Machine {
    fn send(&self, _: CoreId) {}

    fn inbox(&self, core: CoreId) -> &Inbox {
        &self.inboxes[core.index()]
    }
}

impl Machine {
    fn ask(&self, own: usize, irq: &mut IrqOff) -> u64 {
        at_home_from(CORES[own], irq, self, &self.thing.place, |_| self.thing.bump())
    }

    /// The home, core 0, gives it to core 1.
    fn give_away(&self) {
        self.thing.bump();
        self.thing.place.depart(self.thing.to);
        // SAFETY: in no inbox; the machine outlives both cores; `arrive` expects a thing's node.
        let _ = unsafe { self.inboxes[1].push(NonNull::from(&self.thing.node), arrive, Urgency::Eager) };
    }

    fn finish(&self, own: usize, irq: &mut IrqOff) {
        self.finished.fetch_add(1, Ordering::AcqRel);
        while self.finished.load(Ordering::Acquire) < 2 {
            self.inboxes[own].serve(irq);
            thread::yield_now();
        }
    }
}

fn check(asks: [bool; 2]) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let thing =
            Thing { node: Node::new(), place: Place::new(CORES[0]), to: CORES[1], value: UnsafeCell::new(0) };
        let inboxes = [Inbox::new(), Inbox::new()];
        let machine = Arc::new(Machine { inboxes, thing, finished: AtomicUsize::new(0) });
        let second = {
            let machine = machine.clone();
            thread::spawn(move || {
                IrqOff::with(|irq| {
                    if asks[1] {
                        machine.ask(1, irq);
                    }
                    machine.finish(1, irq);
                });
            })
        };
        IrqOff::with(|irq| {
            machine.give_away();
            if asks[0] {
                machine.ask(0, irq);
            }
            machine.finish(0, irq);
        });
        second.join().expect("core ends");
        // Given away once, arrived once, asked once each.
        let expected = 2 + asks.iter().filter(|&&asks| asks).count() as u64;
        // SAFETY: both cores have ended.
        assert_eq!(machine.thing.value.with(|value| unsafe { *value }), expected, "J2: once");
    });
}

/// The core that it comes to asks for it while it is on its way: it does not wait for itself, and asks once.
#[test]
fn loom_the_next_home_asks() {
    check([false, true]);
}

/// The core that has given it away asks for it.
#[test]
fn loom_the_last_home_asks() {
    check([true, false]);
}
