//! What a core has done for shootdowns: counted by the core, read by anybody.

use percpu::const_fn;
use percpu::sync::atomic::{AtomicU64, Ordering};

/// A number that only its core changes.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    const_fn! {
        const fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// Only the owner adds. Not under loom, where each step multiplies the executions and no model asks for the sums.
    #[inline(always)]
    pub(super) fn add(&self, count: usize) {
        if cfg!(not(loom)) {
            // ORDER: Relaxed: this core is the only writer.
            let before = self.0.load(Ordering::Relaxed);
            // ORDER: Relaxed: a figure; whoever compares it with what happened has been told of that by other means.
            self.0.store(before.wrapping_add(count as u64), Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        // ORDER: Relaxed: as in `add`.
        self.0.load(Ordering::Relaxed)
    }
}

/// A core's counters.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | all | the core | any | Relaxed | one of their own |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Counters {
    pub(super) initiated: Counter,
    pub(super) messages: Counter,
    pub(super) interrupts: Counter,
    pub(super) skipped: Counter,
    pub(super) served: Counter,
    pub(super) pages: Counter,
    pub(super) flushes: Counter,
}

/// What [`Counters`] stand at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Shootdowns that this core began.
    pub initiated: u64,
    /// Requests that it sent to other cores.
    pub messages: u64,
    /// Cores that it interrupted for them.
    pub interrupts: u64,
    /// Cores of a set that it did not ask, because the space was not current there.
    pub skipped: u64,
    /// Requests of other cores that it has answered.
    pub served: u64,
    /// Pages that it has invalidated one by one.
    pub pages: u64,
    /// Times that it has dropped all translations of a space because of a change.
    pub flushes: u64,
}

impl Counters {
    const_fn! {
        /// All zero.
        #[must_use]
        pub const fn new() -> Self {
            Self {
                initiated: Counter::new(),
                messages: Counter::new(),
                interrupts: Counter::new(),
                skipped: Counter::new(),
                served: Counter::new(),
                pages: Counter::new(),
                flushes: Counter::new(),
            }
        }
    }

    /// What they stand at, each at its own moment.
    #[must_use]
    pub fn read(&self) -> Counts {
        Counts {
            initiated: self.initiated.get(),
            messages: self.messages.get(),
            interrupts: self.interrupts.get(),
            skipped: self.skipped.get(),
            served: self.served.get(),
            pages: self.pages.get(),
            flushes: self.flushes.get(),
        }
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Counters>() == percpu::CACHE_LINE);
