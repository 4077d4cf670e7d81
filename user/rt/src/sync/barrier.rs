//! A barrier: nobody goes on until all have come.

use abi::task::NEVER;

use super::Futex;
use super::atomic::{AtomicU32, Ordering};

/// A meeting point of a fixed number of threads, used again and again.
#[derive(Debug)]
pub struct Barrier<F: Futex> {
    /// Those that are still to come.
    missing: AtomicU32,
    /// How often all had come; the word to sleep on.
    round: AtomicU32,
    count: u32,
    futex: F,
}

impl<F: Futex> Barrier<F> {
    perf::const_fn! {
        /// A barrier of so many threads.
        pub const fn with(count: u32, futex: F) -> Self {
            Self { missing: AtomicU32::new(count), round: AtomicU32::new(0), count, futex }
        }
    }

    /// Waits until all have come. Gives true to one of them.
    pub fn wait(&self) -> bool {
        // ORDER: Relaxed; this thread's coming, below, keeps the round from ending before it was read.
        let round = self.round.load(Ordering::Relaxed);
        // ORDER: AcqRel: the last one sees what all others wrote before they came.
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            // ORDER: Relaxed; published by the round.
            self.missing.store(self.count, Ordering::Relaxed);
            // ORDER: Release pairs with Acquire below.
            self.round.fetch_add(1, Ordering::Release);
            self.futex.wake(&self.round, u32::MAX);
            return true;
        }
        // ORDER: Acquire pairs with Release above.
        while self.round.load(Ordering::Acquire) == round {
            let _ = self.futex.wait(&self.round, round, NEVER);
        }
        false
    }
}

#[cfg(target_os = "none")]
impl Barrier<super::Kernel> {
    /// A barrier of so many threads.
    #[must_use]
    pub const fn new(count: u32) -> Self {
        Self::with(count, super::Kernel)
    }
}
