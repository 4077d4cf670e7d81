//! Threads of other cores that do the same as the measuring one, from before it begins until it has ended.

use perf::clock::Nanos;
use rt::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use rt::time::{self, Deadline};

/// What they have in common.
#[derive(Default)]
pub(super) struct Crowd {
    at_work: AtomicU32,
    stop: AtomicBool,
}

impl Crowd {
    /// Does something again and again until all are to stop; a thread of the crowd calls this.
    pub(super) fn work(&self, mut cycle: impl FnMut()) {
        cycle();
        // ORDER: Relaxed; counts who has begun, and publishes nothing.
        self.at_work.fetch_add(1, Ordering::Relaxed);
        // ORDER: Relaxed; only asks to end.
        while !self.stop.load(Ordering::Relaxed) {
            cycle();
        }
    }

    /// Waits until so many have begun.
    pub(super) fn await_all(&self, count: u32) {
        // ORDER: Relaxed; see `work`.
        while self.at_work.load(Ordering::Relaxed) < count {
            time::sleep(Deadline::after(Nanos::from_millis(1)));
        }
    }

    /// Has all of them stop.
    pub(super) fn stop(&self) {
        // ORDER: Relaxed; see `work`.
        self.stop.store(true, Ordering::Relaxed);
    }
}
