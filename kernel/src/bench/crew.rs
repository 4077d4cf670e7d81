//! Measuring on several cores at once: every core has its own meter and histogram, and all start together.

use core::cell::RefCell;

use percpu::mailbox::INBOX;
use percpu::sync::atomic::{AtomicUsize, Ordering};
use percpu::{CoreCell, CoreSet, Held, Lock, core_local};
use perf::clock::Clock;
use perf::hist::DEFAULT_COUNTS;
use perf::runner::{Meter, Probe, Trouble};

use super::{Lab, Tsc, place};
use crate::{cores, memory};

core_local! {
    /// Memory of this core's histogram, on its own node; the boot core's first one is the harness's.
    static COUNTS: CoreCell<Option<&'static mut [u32]>> = CoreCell::new(None);
}

/// Gives every core the memory of its histogram and touches it; `false` if there is not enough.
pub(super) fn equip(lab: &mut Lab) -> bool {
    let all = cores::all_online();
    let equipped = AtomicUsize::new(0);
    lab.crew.run(&all, |held| {
        if let Some(counts) = memory::array(DEFAULT_COUNTS, 0_u32) {
            COUNTS.with_mut(held, |slot| *slot = Some(counts));
            // ORDER: Relaxed; the end of the call publishes it.
            equipped.fetch_add(1, Ordering::Relaxed);
        }
    });
    // ORDER: Relaxed; see above.
    equipped.load(Ordering::Relaxed) == all.len()
}

/// A line that cores wait at for each other.
#[repr(align(64))]
pub(super) struct Gate(AtomicUsize);

impl Gate {
    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Counts one more arrival.
    pub(super) fn arrive(&self) {
        // ORDER: Release pairs with Acquire in `open`.
        self.0.fetch_add(1, Ordering::Release);
    }

    /// Whether so many have arrived.
    pub(super) fn open(&self, count: usize) -> bool {
        // ORDER: Acquire pairs with Release in `arrive`.
        self.0.load(Ordering::Acquire) >= count
    }

    /// Arrives and waits for the others.
    pub(super) fn pass(&self, count: usize) {
        self.arrive();
        while !self.open(count) {
            core::hint::spin_loop();
        }
    }
}

/// What happens in a window on each core: prepared, timed, cleaned up.
pub(super) trait Body: Sync {
    /// What a core works on.
    type State;

    /// Prepares a core; `None` if it cannot take part.
    fn state(&self, held: &Held<'_, 0>) -> Option<Self::State>;
    /// Before a window, not timed.
    fn before(&self, _state: &mut Self::State, _held: &mut Held<'_, 0>) {}
    /// In the window: `batch` operations.
    fn timed(&self, state: &mut Self::State, held: &mut Held<'_, 0>, batch: u32);
    /// After a window, not timed.
    fn after(&self, _state: &mut Self::State, _held: &mut Held<'_, 0>) {}
    /// At the end.
    fn close(&self, _state: Self::State, _held: &mut Held<'_, 0>) {}
}

/// Measures `body` on every core of the set at once. Cores that have their samples go on working until the last one has its own, so that
/// the load stays the same; all samples end up in `meter`.
pub(super) fn measure<B: Body>(
    lab: &mut Lab,
    set: &CoreSet,
    meter: &mut Meter<'_, Tsc>,
    body: &B,
) -> Result<(), Trouble> {
    let (plan, count) = (meter.plan(), set.len());
    let (start, finished, unfit) = (Gate::new(), Gate::new(), Gate::new());
    let total: Lock<30, _> = Lock::new(meter.tally());
    lab.crew.run(set, |held| {
        let Some(counts) = COUNTS.with_mut(held, Option::take) else {
            unfit.arrive();
            finished.arrive();
            return start.arrive();
        };
        // The slice is lent to the meter and comes back when the meter is gone.
        let own = Meter::new(Tsc, plan, &mut *counts);
        let state = body.state(held);
        match (own, state) {
            (Ok(mut own), Some(mut state)) => {
                start.pass(count);
                windows(&mut own, body, &mut state, held, (&finished, count));
                body.close(state, held);
                let (tally, _) = own.close();
                total.with(held, |total, _| total.absorb(&tally));
            }
            (_, state) => {
                unfit.arrive();
                start.arrive();
                finished.arrive();
                if let Some(state) = state {
                    body.close(state, held);
                }
            }
        }
        COUNTS.with_mut(held, |slot| *slot = Some(counts));
    });
    if unfit.open(1) {
        Err(Trouble::Skipped(
            "a core could not take part: no free block of this size there, or an unsteady clock",
        ))
    } else {
        Ok(())
    }
}

fn windows<B: Body>(
    meter: &mut Meter<'_, Tsc>,
    body: &B,
    state: &mut B::State,
    held: &mut Held<'_, 0>,
    (finished, count): (&Gate, usize),
) {
    let batch = meter.batch();
    let mut counted = false;
    loop {
        body.before(state, held);
        let from = Tsc.start();
        body.timed(state, held, batch);
        let to = Tsc.stop();
        body.after(state, held);
        if meter.more() {
            meter.window(from, to);
        } else if !counted {
            finished.arrive();
            counted = true;
        }
        if counted && finished.open(count) {
            return;
        }
        if counted {
            core::hint::spin_loop();
        }
    }
}

/// Fills a probe with windows of one operation, each after `before`, which is not timed.
pub(super) fn fill<const N: usize>(probe: &mut Probe<N>, mut before: impl FnMut(), mut op: impl FnMut()) {
    while probe.more() {
        before();
        let start = Tsc.start();
        op();
        probe.window(start, Tsc.stop());
    }
}

/// Before a window that needs no preparation.
pub(super) fn nothing() {}

/// Turns of a loop that let a core that has announced its sleep fall asleep.
const SETTLE: u32 = 64;

/// Waits, for a moment, until a core that was about to sleep does.
pub(super) fn settle() {
    for _ in 0..SETTLE {
        core::hint::spin_loop();
    }
}

/// Waits until all these cores sleep in the idle loop: their inboxes are armed, and they have had time for the last instructions.
pub(super) fn await_idle(cores: &CoreSet) {
    for inbox in cores.iter().filter_map(|core| INBOX.of(core)) {
        while inbox.is_quiet() {
            core::hint::spin_loop();
        }
    }
    settle();
}

/// Something that only the boot core touches, inside a function that also runs on others: the harness's own meter, say.
pub(super) struct BootOnly<T>(RefCell<T>);

// SAFETY: `with` lets the boot core pass and nobody else, so T never moves to, or is seen by, another core.
unsafe impl<T> Sync for BootOnly<T> {}

impl<T> BootOnly<T> {
    pub(super) fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    pub(super) fn with<R>(&self, held: &Held<'_, 0>, f: impl FnOnce(&mut T) -> R) -> R {
        assert_eq!(held.core(), place::here(), "the harness's own meter is used by the boot core only");
        f(&mut self.0.borrow_mut())
    }
}
