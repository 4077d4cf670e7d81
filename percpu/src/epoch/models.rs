//! Loom models of reclamation. Preemption bound: 3, and 2 with three cores.
//!
//! The objects are loom cells: a read that is not ordered before the reclaiming write is a race that loom reports.
//!
//! Planted bugs that made them fail once: objects that ripen one or two epochs too early; Relaxed for each Release and Acquire of
//! `announce`, `has_passed`, `quiesce` and `advance` in turn; no fence in `wake`, none in `advance`; `wake` that does not look at the
//! global epoch again; `advance` that looks at no seat.

use super::limbo::{Limbo, Reclaim, Retired};
use super::protocol::{Global, Seat};
use super::word::Epoch;
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use std::boxed::Box;
use std::sync::atomic::AtomicBool as StdFlag;
use std::sync::atomic::Ordering as StdOrdering;

/// Three cores, two objects, and the shared place that says which object is current.
struct Machine {
    global: Global,
    seats: [Seat; 3],
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
            seats: [Seat::new(), Seat::new(), Seat::new()],
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
        self.global.advance(&mut limbo.scan, 3, |core| self.seats.get(core))
    }

    /// One exit from the kernel, with what the models leave to chance: the others may run in between.
    fn exit(&self, core: usize, limbo: &mut Limbo) -> Epoch {
        let global = self.global.quiesce(&self.seats[core]);
        self.advance(limbo);
        // Loom does not explore every order of a load and a later exchange by itself; a yield makes it.
        thread::yield_now();
        global
    }

    /// One exit of a core that leaves advancing to others.
    fn exit_only(&self, core: usize) -> Epoch {
        let global = self.global.quiesce(&self.seats[core]);
        thread::yield_now();
        global
    }

    /// Core 0 replaces object 0, retires it, and goes on leaving the kernel. Returns whether it was reclaimed.
    fn replace_and_reclaim(&self, exit: fn(&Self, &mut Limbo) -> Epoch) -> bool {
        let mut limbo = Limbo::new();
        let retired = NonNull::from(Box::leak(Box::new(Retired::new())));
        // Once out, so that G can be one ahead of what this core has announced when it retires.
        exit(self, &mut limbo);
        self.current.store(1, Ordering::Release);
        // SAFETY: the object is unlinked, and the leaked link stays valid.
        unsafe { limbo.push(retired, NOOP, self.seats[0].own_epoch().ripe()) };
        let reclaimed = (0..EXITS).any(|_| {
            let global = exit(self, &mut limbo);
            limbo.pop_ripe(global).is_some()
        });
        if reclaimed {
            // SAFETY: ripe: nobody reads it; the model checks it.
            self.objects[0].with_mut(|object| unsafe { *object = 1 });
        }
        // SAFETY: leaked above and in no list that is still used.
        drop(unsafe { Box::from_raw(retired.as_ptr()) });
        reclaimed
    }
}

impl Machine {
    /// Core 0 takes object 0 away and waits until that moment is past: then nobody looks at it. Returns whether it was.
    fn take_away_and_wait(&self, exit: fn(&Self, &mut Limbo) -> Epoch) -> bool {
        let mut limbo = Limbo::new();
        exit(self, &mut limbo);
        self.current.store(1, Ordering::Relaxed);
        let moment = self.global.moment();
        let past = (0..EXITS).any(|_| {
            exit(self, &mut limbo);
            self.global.until_past(moment) == 0
        });
        if past {
            // SAFETY: past: nobody reads it; the model checks it.
            self.objects[0].with_mut(|object| unsafe { *object = 1 });
        }
        past
    }
}

/// Exits after which core 0 gives up: enough for three advances with the other core at its heels.
const EXITS: usize = 5;

/// Runs core 0, advancing by itself, against `other` on core 1.
fn check(other: fn(&Arc<Machine>)) {
    check_with(3, |machine, limbo| machine.exit(0, limbo), other);
}

/// Runs core 0, leaving by `exit`, against `other` on core 1, and checks that some execution did reclaim.
fn check_with(preemptions: usize, exit: fn(&Machine, &mut Limbo) -> Epoch, other: fn(&Arc<Machine>)) {
    let reclaimed = std::sync::Arc::new(StdFlag::new(false));
    let report = reclaimed.clone();
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let machine = Machine::new();
        machine.global.wake(&machine.seats[0]);
        let second = {
            let machine = machine.clone();
            thread::spawn(move || other(&machine))
        };
        if machine.replace_and_reclaim(exit) {
            report.store(true, StdOrdering::Relaxed);
        }
        second.join().expect("core ends");
    });
    assert!(reclaimed.load(StdOrdering::Relaxed), "the model is too short to reclaim anything");
}

/// A core that goes in and out of the kernel.
#[test]
fn loom_active_reader_is_waited_for() {
    check(|machine| {
        machine.global.wake(&machine.seats[1]);
        for _ in 0..4 {
            machine.read();
            machine.global.quiesce(&machine.seats[1]);
            thread::yield_now();
        }
        machine.seats[1].rest();
    });
}

/// A core that first looks after it has passed through some epochs: it must not find what was unlinked before them.
#[test]
fn loom_late_reader_finds_no_old_object() {
    check(|machine| {
        machine.global.wake(&machine.seats[1]);
        for _ in 0..3 {
            machine.exit_only(1);
        }
        machine.read();
        machine.global.quiesce(&machine.seats[1]);
        machine.seats[1].rest();
    });
}

/// One core retires, one reads and a third advances: what the first two did reaches each other through the third.
#[test]
fn loom_third_core_passes_on_what_it_saw() {
    check_with(
        2,
        |machine, _| machine.exit_only(0),
        |machine| {
            let advancer = {
                let machine = machine.clone();
                thread::spawn(move || {
                    let mut limbo = Limbo::new();
                    for _ in 0..EXITS {
                        machine.exit(2, &mut limbo);
                    }
                })
            };
            machine.global.wake(&machine.seats[1]);
            machine.exit_only(1);
            machine.read();
            machine.exit_only(1);
            machine.seats[1].rest();
            advancer.join().expect("core ends");
        },
    );
}

/// A core that idles and wakes (E3).
#[test]
fn loom_waking_reader_is_seen() {
    check(|machine| {
        for _ in 0..2 {
            machine.global.wake(&machine.seats[1]);
            machine.read();
            machine.seats[1].rest();
            thread::yield_now();
        }
    });
}

fn check_moment(preemptions: usize, exit: fn(&Machine, &mut Limbo) -> Epoch, other: fn(&Arc<Machine>)) {
    let past = std::sync::Arc::new(StdFlag::new(false));
    let report = past.clone();
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let machine = Machine::new();
        machine.global.wake(&machine.seats[0]);
        let second = machine.clone();
        let second = thread::spawn(move || other(&second));
        if machine.take_away_and_wait(exit) {
            report.store(true, StdOrdering::Relaxed);
        }
        second.join().expect("core ends");
    });
    assert!(past.load(StdOrdering::Relaxed), "the model is too short for a moment to be past");
}

/// E5: what a core has found before a moment is not used any more when it is past.
///
/// Planted: a moment that is past one epoch too early.
#[test]
fn loom_moment_waits_for_an_active_core() {
    check_moment(
        3,
        |machine, limbo| machine.exit(0, limbo),
        |machine| {
            machine.global.wake(&machine.seats[1]);
            for _ in 0..4 {
                machine.read();
                machine.exit_only(1);
            }
            machine.seats[1].rest();
        },
    );
}

/// As before, with a core that idles and wakes.
#[test]
fn loom_moment_waits_for_a_waking_core() {
    check_moment(
        3,
        |machine, limbo| machine.exit(0, limbo),
        |machine| {
            for _ in 0..2 {
                machine.global.wake(&machine.seats[1]);
                machine.read();
                machine.seats[1].rest();
                thread::yield_now();
            }
        },
    );
}

/// As before, where a third core advances.
///
/// Planted: Relaxed in `moment`, and in `until_past`.
#[test]
fn loom_third_core_makes_a_moment_past() {
    check_moment(
        2,
        |machine, _| {
            // It waits outside of the kernel, as one that idles.
            machine.seats[0].rest();
            thread::yield_now();
            Epoch::FIRST
        },
        |machine| {
            let advancer = {
                let machine = machine.clone();
                thread::spawn(move || {
                    let mut limbo = Limbo::new();
                    for _ in 0..EXITS {
                        machine.exit(2, &mut limbo);
                    }
                })
            };
            machine.global.wake(&machine.seats[1]);
            machine.exit_only(1);
            machine.read();
            machine.exit_only(1);
            machine.seats[1].rest();
            advancer.join().expect("core ends");
        },
    );
}

/// E1: a core in the kernel is never more than one epoch behind, also when it wakes while others advance.
#[test]
fn loom_awake_core_is_at_most_one_behind() {
    check(|machine| {
        machine.global.wake(&machine.seats[1]);
        let announced = machine.seats[1].own_epoch();
        let global = machine.global.epoch.load(Ordering::Acquire);
        assert!(global <= announced.next().raw(), "E1: {global} is too far beyond {announced:?}");
        machine.read();
        machine.advance(&mut Limbo::new());
        machine.seats[1].rest();
    });
}
