//! Latency histograms with the bucket layout of HdrHistogram (Gil Tene, <https://hdrhistogram.github.io/HdrHistogram>).
//!
//! The layout is the one with lowest discernible value 1: values below 2 × 10^digits have a bucket of their own (rounded
//! up to a power of two), and each doubling after that has half as many buckets of twice the width. A bucket index means
//! the same in every implementation, so the reference tools read these counts unchanged.
//!
//! Counts are 32 bits in memory that the caller gives: one slice per core, on the core's node, touched by
//! [`Hist::new`] before anything is timed. With [`DEFAULT_COUNTS`] buckets (3 digits, up to 2^41 - 1) that is 128 KiB; the
//! head of the histogram itself is below 100 bytes. Exact minimum, maximum and sum are kept beside the counts.

mod quantile;
mod sparse;

pub use quantile::{Quantile, Summary};
pub use sparse::{Malformed, SparsePairs};

/// Significant decimal digits unless a caller has a reason for other ones: buckets are at most 0.1 % wide.
pub const DEFAULT_DIGITS: u8 = 3;

/// Buckets of a histogram with 3 digits that reaches 2^40 (1.1 s in picoseconds, 10^9 ticks in milliticks).
pub const DEFAULT_COUNTS: usize = Layout::new(DEFAULT_DIGITS).counts(1 << 40);

const _: () = assert!(DEFAULT_COUNTS == 32 << 10);

/// The arithmetic between values and bucket indices, for a number of significant decimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// log2 of half the number of buckets that share the finest width.
    half_bits: u32,
}

impl Layout {
    /// The layout for so many significant decimal digits, from 1 to 5.
    ///
    /// # Panics
    /// With another number of digits, an error of whoever wrote the constant.
    #[must_use]
    pub const fn new(digits: u8) -> Self {
        assert!(1 <= digits && digits <= 5, "P6: 1 to 5 significant digits");
        let finest = 2 * 10_u64.pow(digits as u32);
        Self { half_bits: finest.next_power_of_two().trailing_zeros() - 1 }
    }

    /// The number of buckets needed to tell values up to `highest` apart.
    #[must_use]
    pub const fn counts(self, highest: u64) -> usize {
        let last = self.bucket(highest) >> self.half_bits;
        let doublings = if last == 0 { 1 } else { last };
        (doublings + 1) << self.half_bits
    }

    /// The bucket of a value.
    #[inline]
    #[must_use]
    pub const fn bucket(self, value: u64) -> usize {
        // The OR keeps small values in the finest range, and the operand of the bit scan non-zero.
        let finest = (2 << self.half_bits) - 1;
        let doubling = (value | finest).ilog2() - self.half_bits;
        let within = (value >> doubling) as usize;
        within + ((doubling as usize) << self.half_bits)
    }

    /// The lowest value of a bucket.
    #[must_use]
    pub const fn lowest(self, bucket: usize) -> u64 {
        let doubling = self.doubling(bucket);
        ((bucket - ((doubling as usize) << self.half_bits)) as u64) << doubling
    }

    /// The highest value of a bucket.
    #[must_use]
    pub const fn highest(self, bucket: usize) -> u64 {
        self.lowest(bucket) + ((1 << self.doubling(bucket)) - 1)
    }

    /// How often the width of a bucket was doubled. The finest range is two blocks of buckets long, every other one.
    const fn doubling(self, bucket: usize) -> u32 {
        ((bucket >> self.half_bits) as u32).saturating_sub(1)
    }
}

/// A histogram over buckets that the caller lends.
#[derive(Debug)]
pub struct Hist<'m, const DIGITS: u8 = DEFAULT_DIGITS> {
    counts: &'m mut [u32],
    sum: u128,
    min: u64,
    max: u64,
    overflow: u64,
    saturated: u64,
}

impl<'m, const DIGITS: u8> Hist<'m, DIGITS> {
    /// The arithmetic of this histogram.
    pub const LAYOUT: Layout = Layout::new(DIGITS);

    /// An empty histogram over `counts`, whose length sets the range: see [`Layout::counts`] and [`DEFAULT_COUNTS`].
    /// Writes every count, which touches the memory on the calling core.
    #[must_use]
    pub fn new(counts: &'m mut [u32]) -> Self {
        let mut hist = Self { counts, sum: 0, min: u64::MAX, max: 0, overflow: 0, saturated: 0 };
        hist.clear();
        hist
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.sum, self.min, self.max, self.overflow, self.saturated) = (0, u64::MAX, 0, 0, 0);
    }

    /// Counts a value. Compiled for baseline x86-64 this is 19 instructions with the return, one more when the value is a
    /// new minimum or a new maximum; no call, no panic.
    #[inline]
    pub fn record(&mut self, value: u64) {
        // Branches instead of `min` and `max`: once the extremes are found they cost a compare with memory each.
        if value < self.min {
            self.min = value;
        }
        if value > self.max {
            self.max = value;
        }
        self.sum = self.sum.wrapping_add(value as u128);
        let Some(count) = self.counts.get_mut(Self::LAYOUT.bucket(value)) else {
            self.overflow = self.overflow.wrapping_add(1);
            return;
        };
        *count = count.wrapping_add(1);
        if *count == 0 {
            *count = u32::MAX;
            self.saturated = self.saturated.wrapping_add(1);
        }
    }

    /// Adds what another histogram has recorded; counts beyond the range of this one join its overflow.
    pub fn merge(&mut self, other: &Hist<'_, DIGITS>) {
        for (bucket, more) in other.buckets() {
            let Some(count) = self.counts.get_mut(bucket) else {
                self.overflow += u64::from(more);
                continue;
            };
            let sum = u64::from(*count) + u64::from(more);
            *count = u32::try_from(sum).unwrap_or(u32::MAX);
            self.saturated += sum - u64::from(*count);
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.overflow += other.overflow;
        self.saturated += other.saturated;
    }

    /// The non-empty buckets in ascending order, with their counts.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.counts.iter().copied().enumerate().filter(|&(_, count)| count != 0)
    }

    /// Number of values recorded.
    #[must_use]
    pub fn len(&self) -> u64 {
        let counted: u64 = self.counts.iter().copied().map(u64::from).sum();
        counted + self.overflow + self.saturated
    }

    /// Whether nothing has been recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.min > self.max
    }

    /// The smallest value, exactly.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.min)
    }

    /// The greatest value, exactly; also if it is beyond the range.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.max)
    }

    /// The mean of the values, exact but for its fraction, which is dropped.
    #[must_use]
    pub fn mean(&self) -> Option<u64> {
        u64::try_from(self.sum.checked_div(u128::from(self.len()))?).ok()
    }

    /// Values beyond the range: part of [`len`](Self::len), [`max`](Self::max) and the mean, in no bucket.
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Values that their bucket could not count any more. If not zero, percentiles are wrong and must not be used.
    #[must_use]
    pub fn saturated(&self) -> u64 {
        self.saturated
    }

    /// Number of buckets.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.counts.len()
    }
}
