//! Always-on histograms: cheap enough to count every event of a running system.
//!
//! Buckets are those of `hist` with two significant bits instead of three digits: values below 8 have a bucket of their own, every
//! doubling after that has four, so a bucket is at most a quarter of its lowest value wide. Values above [`HIGHEST`] count as that.
//! [`BUCKETS`] of 64 bits are 1 KiB, of which a busy path touches two or three lines.
//!
//! Whoever counts owns the memory: it adds one to the bucket that [`bucket`] names. [`Summary`] reads a copy.

use abi::debug::{BUCKETS, Latencies};

use crate::hist::Quantile;

/// log2 of the buckets of a doubling.
const SUB_BITS: u32 = 2;

/// The greatest value that is told apart: 1.4 s at 3 GHz.
pub const HIGHEST: u64 = u32::MAX as u64;

const _: () = assert!(bucket(HIGHEST) < BUCKETS && bucket(HIGHEST) == bucket(u64::MAX));

/// The bucket of a value; below [`BUCKETS`].
#[inline(always)]
#[must_use]
pub const fn bucket(value: u64) -> usize {
    let value = if value > HIGHEST { u32::MAX } else { value as u32 };
    // The OR keeps small values in the finest range, and the operand of the bit scan non-zero.
    let doubling = (value | ((2 << SUB_BITS) - 1)).ilog2() - SUB_BITS;
    let bucket = (value >> doubling) + (doubling << SUB_BITS);
    // Changes nothing (the assertion above); spares whoever indexes with it the check.
    bucket as usize % BUCKETS
}

/// The lowest value of a bucket.
#[must_use]
pub const fn lowest(bucket: usize) -> u64 {
    let doubling = doubling(bucket);
    ((bucket - ((doubling as usize) << SUB_BITS)) as u64) << doubling
}

/// The highest value of a bucket; that of the last also stands for all above it.
#[must_use]
pub const fn highest(bucket: usize) -> u64 {
    lowest(bucket) + ((1 << doubling(bucket)) - 1)
}

const fn doubling(bucket: usize) -> u32 {
    ((bucket >> SUB_BITS) as u32).saturating_sub(1)
}

/// Events for each one that is timed, on average, where not every one is.
pub const SAMPLE_MEAN: u32 = 64;

/// Distances that occur: from this one on, one less than the mean of them.
const LEAST_DISTANCE: u32 = SAMPLE_MEAN / 2 + 1;
const DISTANCES: u32 = SAMPLE_MEAN - 1;
/// Coprime to the number of distances, so that all of them come before one comes again.
const STEP: u32 = 29;

/// From one event that is timed to the next, given the distance before: [`SAMPLE_MEAN`] on average, and no loop can keep in step with it.
#[must_use]
pub const fn next_distance(previous: u32) -> u32 {
    LEAST_DISTANCE + (previous.wrapping_sub(LEAST_DISTANCE) % DISTANCES + STEP) % DISTANCES
}

/// What a histogram says. Every value is the highest of its bucket: right or too high by at most a quarter, never too low, except
/// that values above [`HIGHEST`] show as that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of values.
    pub n: u64,
    /// Median; absent, as every percentile, unless ten values are to lie above it.
    pub p50: Option<u64>,
    /// 99th percentile.
    pub p99: Option<u64>,
    /// 99.9th percentile.
    pub p999: Option<u64>,
    /// The greatest.
    pub max: Option<u64>,
}

impl Summary {
    /// What `latencies` says.
    #[must_use]
    pub fn of(latencies: &Latencies) -> Self {
        let n = latencies.buckets.iter().fold(0_u64, |sum, &count| sum.saturating_add(count));
        let supported = |quantile: Quantile| {
            (n >= quantile.samples_needed()).then(|| value_at(latencies, quantile.rank(n))).flatten()
        };
        Self {
            n,
            p50: supported(Quantile::P50),
            p99: supported(Quantile::P99),
            p999: supported(Quantile::P999),
            max: latencies.buckets.iter().rposition(|&count| count > 0).map(highest),
        }
    }
}

/// The highest value of the bucket that holds the `rank`th smallest value.
fn value_at(latencies: &Latencies, rank: u64) -> Option<u64> {
    let mut seen = 0_u64;
    let place = latencies.buckets.iter().position(|&count| {
        seen = seen.saturating_add(count);
        seen >= rank
    });
    place.map(highest)
}
