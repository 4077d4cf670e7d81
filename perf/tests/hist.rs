//! The histogram against the `hdrhistogram` crate: same values in, same counts and percentiles out.

use hdrhistogram::Histogram;
use perf::hist::{DEFAULT_COUNTS, Hist, Layout, Malformed, Quantile, SparsePairs};
use perf::prng::Prng;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

const HIGHEST: u64 = 1 << 40;
const QUANTILES: [(Quantile, f64); 5] = [
    (Quantile::P50, 0.5),
    (Quantile::P90, 0.9),
    (Quantile::P99, 0.99),
    (Quantile::P999, 0.999),
    (Quantile::P9999, 0.9999),
];

/// Values around every power of two, where the layout changes, and small and wide ones.
fn value() -> impl Strategy<Value = u64> {
    let edge = (0_u32..40, -2_i64..=2).prop_map(|(bit, off)| (1_u64 << bit).saturating_add_signed(off));
    prop_oneof![
        0_u64..5_000,
        edge,
        0..HIGHEST,
        (0_u32..41, any::<u64>()).prop_map(|(b, v)| v >> (63 - b) >> 1)
    ]
}

fn reference(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST, digits).expect("valid bounds")
}

/// Compares everything that both sides offer.
fn compare<const DIGITS: u8>(values: &[u64]) {
    let layout = Hist::<DIGITS>::LAYOUT;
    let mut theirs = reference(DIGITS);
    let mut counts = vec![7; layout.counts(HIGHEST)];
    assert_eq!(counts.len(), theirs.distinct_values());
    let mut ours = Hist::<DIGITS>::new(&mut counts);
    assert!(ours.is_empty());
    for &value in values {
        ours.record(value);
        theirs.record(value).expect("in range");
        let bucket = layout.bucket(value);
        assert_eq!(layout.lowest(bucket), theirs.lowest_equivalent(value));
        assert_eq!(layout.highest(bucket), theirs.highest_equivalent(value));
    }
    let mut all = ours.buckets().peekable();
    for (bucket, step) in theirs.iter_all().enumerate() {
        let count = all.next_if(|&(own, _)| own == bucket).map_or(0, |(_, count)| u64::from(count));
        assert_eq!(count, step.count_at_value(), "bucket {bucket}");
        assert_eq!(layout.highest(bucket), step.value_iterated_to());
    }
    assert_eq!(all.next(), None);
    assert_eq!((ours.len(), ours.overflow(), ours.saturated()), (theirs.len(), 0, 0));
    assert_eq!(ours.min(), values.iter().copied().min());
    assert_eq!(ours.max(), values.iter().copied().max());
    if let (Some(min), Some(max)) = (ours.min(), ours.max()) {
        assert_eq!(layout.lowest(layout.bucket(min)), theirs.min());
        assert_eq!(layout.highest(layout.bucket(max)), theirs.max());
    }
    let sum: u128 = values.iter().copied().map(u128::from).sum();
    assert_eq!(ours.mean().map(u128::from), sum.checked_div(values.len() as u128));
    compare_quantiles(&ours, &theirs);
}

fn compare_quantiles<const DIGITS: u8>(ours: &Hist<'_, DIGITS>, theirs: &Histogram<u64>) {
    for (quantile, share) in QUANTILES {
        // Their rank is a rounded product of floats, ours is exact: where they part, so may the values.
        let rank = ((share * theirs.len() as f64).ceil() as u64).max(1);
        if theirs.is_empty() || quantile.rank(theirs.len()) == rank {
            assert_eq!(ours.value_at(quantile).unwrap_or(0), theirs.value_at_quantile(share), "{quantile:?}");
        } else {
            assert!(quantile.rank(theirs.len()).abs_diff(rank) == 1, "{quantile:?}");
        }
    }
}

#[test]
fn agrees_on_edges() {
    compare::<3>(&[]);
    compare::<3>(&[0]);
    compare::<3>(&[HIGHEST]);
    let edges: Vec<u64> = (0..=40).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]).collect();
    compare::<1>(&edges);
    compare::<2>(&edges);
    compare::<3>(&edges);
    compare::<4>(&edges);
    compare::<5>(&edges);
}

#[test]
fn agrees_on_many_values() {
    let mut prng = Prng::new(1);
    let values: Vec<u64> = (0..50_000).map(|_| prng.bits() >> (24 + prng.below(40))).collect();
    compare::<3>(&values);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn agrees_on_random_values(values in prop::collection::vec(value(), 0..200)) {
        compare::<2>(&values);
        compare::<3>(&values);
    }

    #[test]
    fn merging_is_recording_twice(a in prop::collection::vec(value(), 0..60), b in prop::collection::vec(value(), 0..60)) {
        let (mut own, mut other, mut both) = (vec![0; DEFAULT_COUNTS], vec![0; DEFAULT_COUNTS], vec![0; DEFAULT_COUNTS]);
        let (mut own, mut other, mut both) =
            (Hist::<3>::new(&mut own), Hist::<3>::new(&mut other), Hist::<3>::new(&mut both));
        a.iter().for_each(|&value| { own.record(value); both.record(value); });
        b.iter().for_each(|&value| { other.record(value); both.record(value); });
        own.merge(&other);
        prop_assert!(own.buckets().eq(both.buckets()));
        prop_assert_eq!(own.summary(), both.summary());
    }

    #[test]
    fn sparse_bytes_keep_every_count(values in prop::collection::vec(value(), 0..200), room in 10_usize..200) {
        let mut counts = vec![0; DEFAULT_COUNTS];
        let mut hist = Hist::<3>::new(&mut counts);
        values.iter().for_each(|&value| hist.record(value));
        let (mut pairs, mut from) = (Vec::new(), Some(0));
        while let Some(bucket) = from {
            let mut chunk = vec![0; room];
            let (used, next) = hist.encode_sparse(bucket, &mut chunk);
            pairs.extend(SparsePairs::new(&chunk[..used]).map(Result::unwrap));
            from = next;
        }
        let expected: Vec<(u32, u32)> = hist.buckets().map(|(bucket, count)| (bucket as u32, count)).collect();
        prop_assert_eq!(pairs, expected);
    }

    #[test]
    fn bad_sparse_bytes_end(bytes in prop::collection::vec(prop_oneof![Just(0xff_u8), any::<u8>()], 0..40)) {
        let pairs: Vec<_> = SparsePairs::new(&bytes).collect();
        prop_assert!(pairs.iter().rev().skip(1).all(Result::is_ok));
    }
}

#[test]
fn a_rank_is_rounded_up() {
    let ranks = |quantile: Quantile| [1, 2, 3, 100, 101, 10_000].map(|n| quantile.rank(n));
    assert_eq!(ranks(Quantile::P50), [1, 1, 2, 50, 51, 5_000]);
    assert_eq!(ranks(Quantile::P99), [1, 2, 3, 99, 100, 9_900]);
    assert_eq!(ranks(Quantile::P9999), [1, 2, 3, 100, 101, 9_999]);
    assert_eq!(Quantile::P50.rank(0), 1);
}

#[test]
fn a_pair_that_is_cut_off_is_malformed() {
    assert_eq!(SparsePairs::new(&[5]).next(), Some(Err(Malformed)));
    assert_eq!(SparsePairs::new(&[5, 0x80]).next(), Some(Err(Malformed)));
}

#[test]
fn values_beyond_the_range_are_counted_apart() {
    let mut counts = vec![0; Layout::new(3).counts(10_000)];
    let reach = Hist::<3>::LAYOUT.highest(counts.len() - 1);
    let mut hist = Hist::<3>::new(&mut counts);
    for value in [reach, reach + 1, u64::MAX] {
        hist.record(value);
    }
    assert_eq!((hist.len(), hist.overflow()), (3, 2));
    assert_eq!((hist.min(), hist.max()), (Some(reach), Some(u64::MAX)));
    assert_eq!(hist.value_at(Quantile::new(1, 3)), Some(reach));
    assert_eq!(
        hist.value_at(Quantile::P99),
        None,
        "the sample lies beyond the range: its value is not known"
    );
}

#[test]
fn a_full_bucket_takes_the_percentiles_away() {
    let mut counts = vec![0; DEFAULT_COUNTS];
    Hist::<3>::new(&mut counts).record(9);
    let (mut double, mut half) = (vec![0; DEFAULT_COUNTS], vec![0; DEFAULT_COUNTS]);
    let (mut double, mut half) = (Hist::<3>::new(&mut double), Hist::<3>::new(&mut half));
    half.record(9);
    for _ in 0..32 {
        // After round k both hold 2^k values each; the 32nd would need 2^32 in one count.
        double.merge(&half);
        half.merge(&double);
        if double.saturated() > 0 {
            break;
        }
    }
    assert!(double.saturated() > 0);
    assert_eq!(double.buckets().collect::<Vec<_>>(), [(9, u32::MAX)]);
    assert_eq!(double.len(), u64::from(u32::MAX) + double.saturated(), "nothing is lost from the total");
    assert_eq!(double.value_at(Quantile::P50), None);
    let before = double.saturated();
    double.record(9);
    assert_eq!((double.buckets().next(), double.saturated()), (Some((9, u32::MAX)), before + 1));
}

#[test]
fn a_percentile_needs_its_samples() {
    let mut counts = vec![0; DEFAULT_COUNTS];
    let mut hist = Hist::<3>::new(&mut counts);
    let mut fill = |n: u64| {
        (hist.len()..n).for_each(|_| hist.record(5));
        let summary = hist.summary();
        [summary.p50, summary.p90, summary.p99, summary.p999, summary.p9999].map(|value| value == Some(5))
    };
    assert_eq!(fill(19), [false, false, false, false, false]);
    assert_eq!(fill(20), [true, false, false, false, false]);
    assert_eq!(fill(99), [true, false, false, false, false]);
    assert_eq!(fill(100), [true, true, false, false, false]);
    assert_eq!(fill(1_000), [true, true, true, false, false]);
    assert_eq!(fill(9_999), [true, true, true, false, false]);
    assert_eq!(fill(10_000), [true, true, true, true, false]);
    assert_eq!(fill(100_000), [true, true, true, true, true]);
}

#[test]
fn no_percentile_of_a_summary_exceeds_the_maximum() {
    let mut counts = vec![0; DEFAULT_COUNTS];
    let mut hist = Hist::<3>::new(&mut counts);
    (0..20).for_each(|_| hist.record(1_000_001));
    assert!(hist.value_at(Quantile::P50) > hist.max());
    assert_eq!((hist.summary().p50, hist.summary().max), (Some(1_000_001), Some(1_000_001)));
}
