//! Time: the machine's time-stamp counter, which every core shows alike.

use abi::task::NEVER;
use perf::clock::{Clock, Nanos, Ticks};

use crate::start::Start;
use crate::{arch, sys};

/// A time to wait until, as the counter shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub u64);

impl Deadline {
    /// Never comes.
    pub const NEVER: Self = Self(NEVER);
    /// Has passed.
    pub const PASSED: Self = Self(0);

    /// So long from now.
    #[must_use]
    pub fn after(time: Nanos) -> Self {
        Self(now().saturating_add(Start::get().timebase().ticks(time)).count())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        now().count() >= self.0
    }
}

/// The present time.
#[must_use]
#[inline(always)]
pub fn now() -> Ticks {
    Ticks::new(arch::clock::now())
}

/// Sleeps until a time.
pub fn sleep(until: Deadline) {
    // SAFETY: no address is passed. The call has no way to fail but by its deadline.
    let _ = unsafe { sys::sleep(until.0) };
}

/// The counter as the clock that measures.
#[derive(Clone, Copy, Debug)]
pub struct Tsc;

impl Clock for Tsc {
    #[inline(always)]
    fn start(&self) -> Ticks {
        Ticks::new(arch::clock::start())
    }

    #[inline(always)]
    fn stop(&self) -> Ticks {
        Ticks::new(arch::clock::stop())
    }
}
