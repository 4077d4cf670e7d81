//! Time: what a clock must offer, and conversions that do not drift.
//!
//! A [`Clock`] brackets a window with two reads that the CPU may not move code across. `perf` forbids unsafe code,
//! so the kernel and the host implement it. On x86-64 the pair is `lfence; rdtsc; lfence` before the window and
//! `rdtscp; lfence` after it (Intel SDM vol. 2B, RDTSC and RDTSCP).

use core::fmt;
use core::num::NonZeroU64;

/// A count of clock ticks: an instant since the clock's zero, or the distance between two of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(u64);

impl Ticks {
    /// No ticks.
    pub const ZERO: Self = Self(0);

    /// A count read from a counter.
    #[must_use]
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The bare count.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0
    }

    /// The ticks since `earlier`; `None` if `earlier` is in fact later, as after a clock went backwards.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Option<Self> {
        match self.0.checked_sub(earlier.0) {
            Some(count) => Some(Self(count)),
            None => None,
        }
    }

    /// The sum, or the largest count that can be held.
    #[must_use]
    pub const fn saturating_add(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }
}

impl fmt::Debug for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.0)
    }
}

/// A count of nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(u64);

impl Nanos {
    /// A count of nanoseconds.
    #[must_use]
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// A count of milliseconds, or the largest count that can be held.
    #[must_use]
    pub const fn from_millis(count: u64) -> Self {
        Self(count.saturating_mul(1_000_000))
    }

    /// The bare count.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

/// The two reads around a timed window. Monomorphised into every measuring loop; a unit struct in the kernel.
///
/// The compiler must not move memory accesses across a read either: an `asm!` block without `nomem` keeps to that.
pub trait Clock: Copy {
    /// Reads the clock such that everything before the call is done, and nothing after it has begun.
    fn start(&self) -> Ticks;
    /// Reads the clock such that everything before the call is done, and nothing after it has begun.
    fn stop(&self) -> Ticks;
}

/// Converts counts of one frequency into counts of another by one 128-bit multiplication and one shift.
///
/// Conversion is monotonic. The factor has 64 significant bits and is rounded up, so that the result is the exact
/// quotient rounded down while the count is below about 2^32, and never more than one above it while it fits 63 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    factor: u64,
    shift: u32,
}

impl Rate {
    /// The conversion of counts at `from` into counts at `to`.
    #[must_use]
    pub const fn new(from: Frequency, to: Frequency) -> Self {
        let (from, to) = (from.hertz() as u128, to.hertz() as u128);
        // The shift that puts the leading one of `to / from` at bit 63 or 64; in the latter case, one less.
        let mut shift = 64 + to.leading_zeros() - from.leading_zeros();
        if scaled(to, shift, from) > u64::MAX as u128 {
            shift -= 1;
        }
        Self { factor: scaled(to, shift, from) as u64, shift }
    }

    /// The converted count, or the largest count that can be held.
    #[must_use]
    pub const fn convert(self, count: u64) -> u64 {
        let wide = (count as u128 * self.factor as u128) >> self.shift;
        if wide > u64::MAX as u128 { u64::MAX } else { wide as u64 }
    }
}

/// `ceil(to * 2^shift / from)` without overflow: `shift` can exceed 64, hence long division in two steps.
const fn scaled(to: u128, shift: u32, from: u128) -> u128 {
    let first = if shift > 64 { 64 } else { shift };
    let rest = shift - first;
    let high = (to << first) / from;
    let left = (to << first) % from;
    let low = left << rest;
    (high << rest) + low / from + if low.is_multiple_of(from) { 0 } else { 1 }
}

/// A frequency; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frequency(NonZeroU64);

impl Frequency {
    /// One count per nanosecond.
    pub const GIGAHERTZ: Self = Self(NonZeroU64::new(1_000_000_000).unwrap());
    /// One count per picosecond.
    pub const TERAHERTZ: Self = Self(NonZeroU64::new(1_000_000_000_000).unwrap());

    /// A frequency in hertz; `None` for zero.
    #[must_use]
    pub const fn new(hertz: u64) -> Option<Self> {
        match NonZeroU64::new(hertz) {
            Some(hertz) => Some(Self(hertz)),
            None => None,
        }
    }

    /// The frequency in hertz.
    #[must_use]
    pub const fn hertz(self) -> u64 {
        self.0.get()
    }
}

/// The frequency of a clock with its conversions worked out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timebase {
    frequency: Frequency,
    to_nanos: Rate,
    from_nanos: Rate,
}

impl Timebase {
    /// The time base of a clock of this frequency.
    #[must_use]
    pub const fn new(frequency: Frequency) -> Self {
        Self {
            frequency,
            to_nanos: Rate::new(frequency, Frequency::GIGAHERTZ),
            from_nanos: Rate::new(Frequency::GIGAHERTZ, frequency),
        }
    }

    /// The frequency of the clock.
    #[must_use]
    pub const fn frequency(self) -> Frequency {
        self.frequency
    }

    /// The time that so many ticks take.
    #[must_use]
    pub const fn nanos(self, ticks: Ticks) -> Nanos {
        Nanos::new(self.to_nanos.convert(ticks.count()))
    }

    /// The ticks that fit this time.
    #[must_use]
    pub const fn ticks(self, nanos: Nanos) -> Ticks {
        Ticks::new(self.from_nanos.convert(nanos.count()))
    }
}
