//! Loom models of reclamation. Preemption bound: 3.
//!
//! The objects are loom cells: a read that is not ordered before the reclaiming write is a race that loom reports.
//!
//! Planted bugs that made them fail once: see each model.

use super::limbo::{Limbo, Reclaim, Retired};
use super::protocol::{Global, Seat};
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::boxed::Box;
use std::sync::atomic::AtomicBool as StdFlag;
use std::sync::atomic::Ordering as StdOrdering;

/// Two cores, two objects, and the shared place that says which object is current.
struct Machine {
    global: Global,
    seats: [Seat; 2],
    current: AtomicUsize,
    objects: [UnsafeCell<u32>; 2],
}

// SAFETY: whether the accesses to `objects` are ordered is what the models find out.
unsafe impl Sync for Machine {}
// SAFETY: as above.
unsafe impl Send for Machine {}

const NOOP: Reclaim = |_, _| {};

impl Machine {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            global: Global::new(),
            seats: [Seat::new(), Seat::new()],
            current: AtomicUsize::new(0),
            objects: [UnsafeCell::new(0), UnsafeCell::new(0)],
        })
    }

    /// What a system call does: finds the current object and looks at it.
    fn read(&self) {
        let found = self.current.load(Ordering::Acquire);
        // SAFETY: epochs keep the object from being reclaimed; the model checks it.
        self.objects[found].with(|object| unsafe { *object });
    }

    fn advance(&self, limbo: &mut Limbo) -> bool {
        self.global.advance(&mut limbo.scan, 2, |core| self.seats.get(core))
    }

    /// Core 0 replaces object 0, retires it, and goes on leaving the kernel. Returns whether it was reclaimed.
    fn replace_and_reclaim(&self, exits: usize) -> bool {
        let mut limbo = Limbo::new();
        let retired = NonNull::from(Box::leak(Box::new(Retired::new())));
        self.current.store(1, Ordering::Release);
        // SAFETY: the object is unlinked, and the leaked link stays valid.
        unsafe { limbo.push(retired, NOOP, self.seats[0].own_epoch().ripe()) };
        let mut reclaimed = false;
        for _ in 0..exits {
            let global = self.global.quiesce(&self.seats[0]);
            self.advance(&mut limbo);
            if limbo.pop_ripe(global).is_some() {
                // SAFETY: ripe: nobody reads it; the model checks it.
                self.objects[0].with_mut(|object| unsafe { *object = 1 });
                reclaimed = true;
            }
        }
        // SAFETY: leaked above and in no list that is still used.
        drop(unsafe { Box::from_raw(retired.as_ptr()) });
        reclaimed
    }
}

/// Runs core 0 against `other` on core 1 and checks that some execution did reclaim.
fn check(exits: usize, other: fn(&Machine)) {
    let reclaimed = std::sync::Arc::new(StdFlag::new(false));
    let report = reclaimed.clone();
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let machine = Machine::new();
        machine.global.wake(&machine.seats[0]);
        let second = {
            let machine = machine.clone();
            thread::spawn(move || other(&machine))
        };
        if machine.replace_and_reclaim(exits) {
            report.store(true, StdOrdering::Relaxed);
        }
        second.join().expect("core ends");
    });
    assert!(reclaimed.load(StdOrdering::Relaxed), "the model is too short to reclaim anything");
}

/// A core that goes in and out of the kernel.
#[test]
fn loom_active_reader_is_waited_for() {
    check(4, |machine| {
        machine.global.wake(&machine.seats[1]);
        for _ in 0..3 {
            machine.read();
            machine.global.quiesce(&machine.seats[1]);
        }
        machine.seats[1].rest();
    });
}

/// A core that idles and wakes (E3).
#[test]
fn loom_waking_reader_is_seen() {
    check(4, |machine| {
        for _ in 0..2 {
            machine.global.wake(&machine.seats[1]);
            machine.read();
            machine.seats[1].rest();
        }
    });
}

/// E1: a core in the kernel is never more than one epoch behind, also when it wakes while others advance.
#[test]
fn loom_awake_core_is_at_most_one_behind() {
    check(4, |machine| {
        machine.global.wake(&machine.seats[1]);
        let announced = machine.seats[1].own_epoch();
        let global = machine.global.epoch.load(Ordering::Acquire);
        assert!(global <= announced.next().raw(), "E1: {global} is too far beyond {announced:?}");
        machine.read();
        machine.advance(&mut Limbo::new());
        machine.seats[1].rest();
    });
}
