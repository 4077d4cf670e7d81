//! Percentiles, in integer arithmetic: the kernel has no floating point.

use super::Hist;

/// A share of the samples: `numerator / denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantile {
    numerator: u32,
    denominator: u32,
}

/// A percentile is reported only if at least so many samples are expected above it; a figure that rests on fewer says
/// more about chance than about the code.
const SAMPLES_ABOVE: u64 = 10;

impl Quantile {
    /// The median.
    pub const P50: Self = Self::new(50, 100);
    /// The 90th percentile.
    pub const P90: Self = Self::new(90, 100);
    /// The 99th percentile.
    pub const P99: Self = Self::new(99, 100);
    /// The 99.9th percentile.
    pub const P999: Self = Self::new(999, 1_000);
    /// The 99.99th percentile.
    pub const P9999: Self = Self::new(9_999, 10_000);

    /// A share below the whole.
    ///
    /// # Panics
    /// If the share is not below 1, an error of whoever wrote the constant.
    #[must_use]
    pub const fn new(numerator: u32, denominator: u32) -> Self {
        assert!(numerator < denominator, "P7: a quantile is below 1");
        Self { numerator, denominator }
    }

    /// The fewest samples that support this percentile: ten are to lie above it, so 10 / (1 - share).
    #[must_use]
    pub const fn samples_needed(self) -> u64 {
        (SAMPLES_ABOVE * self.denominator as u64).div_ceil((self.denominator - self.numerator) as u64)
    }

    /// How many of `n` samples lie at or below this percentile: `ceil(n * share)`, and at least one.
    #[must_use]
    pub const fn rank(self, n: u64) -> u64 {
        let rank = (n as u128 * self.numerator as u128).div_ceil(self.denominator as u128) as u64;
        if rank == 0 { 1 } else { rank }
    }
}

/// The figures of a case row. A percentile that the sample count does not support is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of samples.
    pub n: u64,
    /// Smallest value, exactly.
    pub min: Option<u64>,
    /// Median.
    pub p50: Option<u64>,
    /// 90th percentile.
    pub p90: Option<u64>,
    /// 99th percentile.
    pub p99: Option<u64>,
    /// 99.9th percentile.
    pub p999: Option<u64>,
    /// 99.99th percentile.
    pub p9999: Option<u64>,
    /// Greatest value, exactly.
    pub max: Option<u64>,
    /// Mean without its fraction.
    pub mean: Option<u64>,
}

impl<const DIGITS: u8> Hist<'_, DIGITS> {
    /// The highest value of the bucket that holds the sample of this percentile, as HdrHistogram reports it; `None` if
    /// there are no samples, if that sample is beyond the range, or if a bucket was saturated.
    #[must_use]
    pub fn value_at(&self, quantile: Quantile) -> Option<u64> {
        if self.saturated() != 0 {
            return None;
        }
        let rank = quantile.rank(self.len());
        let mut seen = 0;
        for (bucket, count) in self.buckets() {
            seen += u64::from(count);
            if seen >= rank {
                return Some(Self::LAYOUT.highest(bucket));
            }
        }
        None
    }

    /// The figures of a case row. Percentiles are cut off at the exact maximum, which may lie inside its bucket.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let n = self.len();
        let max = self.max();
        let supported = |quantile: Quantile| {
            let value = if n >= quantile.samples_needed() { self.value_at(quantile) } else { None };
            value.map(|value| value.min(max.unwrap_or(value)))
        };
        Summary {
            n,
            min: self.min(),
            p50: supported(Quantile::P50),
            p90: supported(Quantile::P90),
            p99: supported(Quantile::P99),
            p999: supported(Quantile::P999),
            p9999: supported(Quantile::P9999),
            max,
            mean: self.mean(),
        }
    }
}
