//! The statistics of comparisons: two groups of boots, few of them, of any distribution.
//!
//! Mann and Whitney, Ann. Math. Stat. 18 (1947): the test, exact for small groups, ties included (the distribution of the rank sum
//! over all ways to deal the pooled midranks, counted by dynamic programming as in Streitberg and Röhmel, Stat. Software Newsletter
//! 12 (1986)). Hodges and Lehmann, Ann. Math. Stat. 34 (1963): the shift. Cliff, Psych. Bull. 114 (1993): delta. Benjamini and
//! Hochberg, J. R. Stat. Soc. B 57 (1995): many tests at once.

use perf::prng::Prng;
use statrs::distribution::{ContinuousCDF, Normal};

/// Values of both groups together up to which the test counts every deal.
const EXACT: usize = 40;
/// Resamplings behind an interval. Tests make thousands of intervals without optimisation, and no accusation rests on one.
const RESAMPLINGS: u32 = if cfg!(test) { 200 } else { 1000 };
/// Share of the resamplings that an interval leaves out on each side, in thousandths: it covers 95 %.
const TAIL: usize = 25;

/// What two groups differ by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shift {
    /// Two-sided probability of a difference as large by chance.
    pub(super) p: f64,
    /// Median of all differences, new less base.
    pub(super) estimate: f64,
    /// Lower end of its 95 % interval.
    pub(super) low: f64,
    /// Upper end.
    pub(super) high: f64,
    /// Cliff's delta: share of pairs in which new is greater, less that in which it is smaller.
    pub(super) delta: f64,
}

/// Compares two groups, neither of them empty. The same groups and seed give the same result.
pub(super) fn shift(base: &[f64], new: &[f64], seed: u64) -> Shift {
    let (low, high) = interval(base, new, seed);
    Shift {
        p: mann_whitney(base, new),
        estimate: hodges_lehmann(base, new),
        low,
        high,
        delta: cliff(base, new),
    }
}

/// The two-sided probability, were both groups of one distribution, of rank sums as far apart.
pub(super) fn mann_whitney(base: &[f64], new: &[f64]) -> f64 {
    let ranks = double_midranks(base, new);
    let found: usize = ranks[base.len()..].iter().sum();
    // Every rank is doubled, and so is the mean of their sum: no fractions.
    let expected = new.len() * (ranks.len() + 1);
    let far = found.abs_diff(expected);
    if ranks.len() <= EXACT {
        counted(&ranks, new.len(), expected, far)
    } else {
        approximated(&ranks, base.len(), new.len(), far)
    }
}

/// Twice the rank of each value in the pool, tied values sharing the mean of their ranks; base first.
fn double_midranks(base: &[f64], new: &[f64]) -> Vec<usize> {
    let pool: Vec<f64> = base.iter().chain(new).copied().collect();
    let rank = |value: &f64| {
        let below = pool.iter().filter(|other| *other < value).count();
        let equal = pool.iter().filter(|other| *other == value).count();
        2 * below + equal + 1
    };
    pool.iter().map(rank).collect()
}

/// The share of all ways to deal `taken` of the ranks whose sum is at least `far` from `expected`.
fn counted(ranks: &[usize], taken: usize, expected: usize, far: usize) -> f64 {
    let top: usize = ranks.iter().sum();
    // ways[k][s]: how many choices of k ranks have the sum s.
    let mut ways = vec![vec![0.0_f64; top + 1]; taken + 1];
    ways[0][0] = 1.0;
    for &rank in ranks {
        for k in (1..=taken).rev() {
            let (fewer, more) = ways.split_at_mut(k);
            let (from, to) = (&fewer[k - 1], &mut more[0]);
            to[rank..].iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
    let all: f64 = ways[taken].iter().sum();
    let extreme: f64 = ways[taken]
        .iter()
        .enumerate()
        .filter(|(sum, _)| sum.abs_diff(expected) >= far)
        .map(|(_, ways)| ways)
        .sum();
    extreme / all
}

/// The normal approximation, with corrections for ties and for continuity.
fn approximated(ranks: &[usize], base: usize, new: usize, far: usize) -> f64 {
    let (count, product) = (float(ranks.len()), float(base) * float(new));
    let tied = |rank: &usize| float(ranks.iter().filter(|other| *other == rank).count());
    // Summed over values instead of over groups of ties: (t³ - t) / t each.
    let ties: f64 = ranks.iter().map(|rank| tied(rank).powi(2) - 1.0).sum();
    let variance = product / 12.0 * (count + 1.0 - ties / (count * (count - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((float(far) / 2.0 - 0.5) / variance.sqrt()).max(0.0);
    (2.0 * Normal::standard().sf(z)).min(1.0)
}

/// The smallest probability that groups of these sizes can come to: all of one above all of the other.
pub(super) fn least_p(base: usize, new: usize) -> f64 {
    // The binomial coefficient, factor by factor.
    let deals = (1..=base).fold(1.0, |deals, k| deals * float(new + k) / float(k));
    (2.0 / deals).min(1.0)
}

/// How many boots on each side could come below `p`.
pub(super) fn boots_for(p: f64) -> usize {
    (1..).find(|&boots| least_p(boots, boots) <= p).unwrap_or(usize::MAX)
}

/// The median of all differences.
pub(super) fn hodges_lehmann(base: &[f64], new: &[f64]) -> f64 {
    hodges_lehmann_into(base, new, &mut Vec::new())
}

/// As [`hodges_lehmann`], with room for the differences: thousands of resamplings share it.
fn hodges_lehmann_into(base: &[f64], new: &[f64], differences: &mut Vec<f64>) -> f64 {
    differences.clear();
    for new in new {
        differences.extend(base.iter().map(|base| new - base));
    }
    median(differences)
}

/// Cliff's delta.
pub(super) fn cliff(base: &[f64], new: &[f64]) -> f64 {
    let sign = |new: f64, base: f64| match new.total_cmp(&base) {
        std::cmp::Ordering::Less => -1.0,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => 1.0,
    };
    let sum: f64 = new.iter().flat_map(|&new| base.iter().map(move |&base| sign(new, base))).sum();
    sum / (float(base.len()) * float(new.len()))
}

/// The 95 % percentile interval of the shift over resamplings of both groups.
fn interval(base: &[f64], new: &[f64], seed: u64) -> (f64, f64) {
    let mut random = Prng::new(seed);
    let (mut from, mut to, mut room) = (base.to_vec(), new.to_vec(), Vec::new());
    let mut shifts = Vec::new();
    for _ in 0..RESAMPLINGS {
        resample(base, &mut from, &mut random);
        resample(new, &mut to, &mut random);
        shifts.push(hodges_lehmann_into(&from, &to, &mut room));
    }
    shifts.sort_unstable_by(f64::total_cmp);
    let out = shifts.len() * TAIL / 1000;
    (shifts[out], shifts[shifts.len() - 1 - out])
}

/// Fills `into` with values drawn from `group`, any of them any number of times.
fn resample(group: &[f64], into: &mut [f64], random: &mut Prng) {
    let count = u64::try_from(group.len()).unwrap_or(u64::MAX);
    into.fill_with(|| group[usize::try_from(random.below(count)).unwrap_or(0)]);
}

/// The median; puts the values in another order. There must be one.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    let (half, even) = (values.len() / 2, values.len().is_multiple_of(2));
    let (below, &mut middle, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    if even { f64::midpoint(below.iter().copied().fold(f64::MIN, f64::max), middle) } else { middle }
}

/// The standard deviation as the median distance from the median says it, which a few outliers do not move.
pub(crate) fn spread(values: &[f64]) -> f64 {
    let centre = median(&mut values.to_vec());
    let mut distances: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    // 1 / Φ⁻¹(3/4): what makes it the standard deviation of normal values.
    1.482_602_2 * median(&mut distances)
}

/// Benjamini and Hochberg: for each probability the smallest rate of false discoveries at which it counts as one.
pub(super) fn adjusted(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least: f64 = 1.0;
    for (above, &index) in order.iter().enumerate() {
        let rank = p.len() - above;
        least = least.min(p[index] * float(p.len()) / float(rank));
        adjusted[index] = least;
    }
    adjusted
}

#[expect(clippy::cast_precision_loss, reason = "counts of boots and of ways to deal them, far below 2^52")]
pub(crate) fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
#[path = "stats_tests.rs"]
pub(crate) mod tests;
