//! The cheap histogram: buckets cover every value once, and summaries keep the stated error.

use abi::debug::{BUCKETS, Latencies};
use perf::tally::{self, HIGHEST, SAMPLE_MEAN, Summary};
use proptest::prelude::{any, prop};
use proptest::proptest;

/// Planted: `lowest` knows of one significant bit only; `bucket` leaves the OR out.
#[test]
fn buckets_follow_each_other_without_gap_or_overlap() {
    let last = tally::bucket(u64::MAX);
    assert_eq!((tally::lowest(0), last), (0, 123));
    assert!(last < BUCKETS);
    for bucket in 0..=last {
        let (low, high) = (tally::lowest(bucket), tally::highest(bucket));
        assert_eq!((tally::bucket(low), tally::bucket(high)), (bucket, bucket));
        assert_eq!(tally::bucket(high + 1), (bucket + 1).min(last));
        assert!(high - low <= low / 4, "{bucket}: {low} to {high}");
    }
    assert_eq!(tally::highest(last), HIGHEST);
}

proptest! {
    /// Against the sorted values themselves. Planted: `value_at` returns the lowest of the bucket.
    #[test]
    fn summaries_are_never_too_low_and_a_quarter_too_high_at_most(values in prop::collection::vec(any::<u64>(), 1..3000), shift in 32_u32..64) {
        let mut values: Vec<u64> = values.into_iter().map(|value| value >> shift).collect();
        let mut latencies = Latencies::EMPTY;
        values.iter().for_each(|&value| latencies.buckets[tally::bucket(value)] += 1);
        values.sort_unstable();
        let summary = Summary::of(&latencies);
        let n = values.len();
        assert_eq!(summary.n, n as u64);
        let good = |figure: u64, exact: u64| assert!(exact <= figure && figure <= exact + exact / 4, "{figure} for {exact}");
        good(summary.max.unwrap(), values[n - 1]);
        for (share, needed, figure) in [(500, 20, summary.p50), (990, 1000, summary.p99), (999, 10_000, summary.p999)] {
            assert_eq!(figure.is_some(), n >= needed, "{share} of {n}");
            figure.into_iter().for_each(|figure| good(figure, values[(n * share).div_ceil(1000) - 1]));
        }
    }
}

#[test]
fn an_empty_histogram_says_nothing() {
    let summary = Summary::of(&Latencies::EMPTY);
    assert_eq!(summary, Summary { n: 0, p50: None, p99: None, p999: None, max: None });
}

/// Every distance comes once before one comes again, and the mean is what is told.
///
/// Planted: a step of 27, which shares a factor with the number of distances.
#[test]
fn timed_events_keep_their_mean_distance_and_have_no_beat() {
    for first in [0, 33, 64, 95, u32::MAX] {
        let mut distances = vec![tally::next_distance(first)];
        for _ in 2..SAMPLE_MEAN {
            distances.push(tally::next_distance(distances[distances.len() - 1]));
        }
        assert_eq!(distances.iter().sum::<u32>(), (SAMPLE_MEAN - 1) * SAMPLE_MEAN);
        distances.sort_unstable();
        distances.dedup();
        assert_eq!(distances.len() as u32, SAMPLE_MEAN - 1);
    }
}
