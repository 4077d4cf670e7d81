//! The host's clock: the monotonic clock of the operating system, in nanoseconds.
//!
//! It costs some 20 ns and resolves one, so every native row batches hundreds of operations in a window. Reading the time-stamp
//! counter itself would need unsafe code here and gain nothing for such windows.

use perf::clock::{Clock, Frequency, Ticks, Timebase};
use std::time::Instant;

/// Nanoseconds since the process began to measure.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    zero: Instant,
}

impl HostClock {
    /// Ticks are nanoseconds.
    pub const TIMEBASE: Timebase = Timebase::new(Frequency::GIGAHERTZ);

    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { zero: Instant::now() }
    }

    fn now(&self) -> Ticks {
        Ticks::new(u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn start(&self) -> Ticks {
        self.now()
    }

    fn stop(&self) -> Ticks {
        self.now()
    }
}
