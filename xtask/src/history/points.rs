//! Where a sequence changes: binary segmentation by energy distance with a permutation test, after E-divisive (Matteson and James, J. Am.
//! Stat. Assoc. 109 (2014)), of which the search for a second end of the later part is left out.

use crate::compare::stats::float;
use perf::prng::Prng;

/// Values on each side of a change.
const LEAST: usize = 3;
/// Permutations behind a probability.
const PERMUTATIONS: u32 = 399;
/// Probability up to which a change is believed.
const LEVEL: f64 = 0.01;
/// A comparison of the same values gives the same points.
const SEED: u64 = 0x6e65_6172;

/// A change before the value `at`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) at: usize,
    /// Probability of a split as good, had nothing changed.
    pub(super) p: f64,
}

/// Every change, in order. `allowed` says before which values there may be one.
pub(super) fn changes(values: &[f64], allowed: &dyn Fn(usize) -> bool) -> Vec<Change> {
    let mut found = Vec::new();
    let mut parts = vec![(0, values.len())];
    while let Some((from, to)) = parts.pop() {
        let inside = |at: usize| allowed(from + at);
        if let Some(Change { at, p }) = split(&values[from..to], &inside) {
            let at = from + at;
            found.push(Change { at, p });
            parts.extend([(from, at), (at, to)]);
        }
    }
    found.sort_by_key(|change| change.at);
    found
}

/// The best split, if it is better than those of shuffled values.
fn split(values: &[f64], allowed: &dyn Fn(usize) -> bool) -> Option<Change> {
    let (at, best) = best(values, allowed)?;
    let mut random = Prng::new(SEED);
    let mut shuffled = values.to_vec();
    let mut as_good = 1;
    for _ in 0..PERMUTATIONS {
        random.shuffle(&mut shuffled);
        as_good += u32::from(self::best(&shuffled, allowed).is_some_and(|(_, other)| other >= best));
    }
    let p = f64::from(as_good) / f64::from(PERMUTATIONS + 1);
    (p <= LEVEL).then_some(Change { at, p })
}

/// The split into the two parts that are furthest apart, and how far: Matteson and James, equation (7), with exponent 1.
fn best(values: &[f64], allowed: &dyn Fn(usize) -> bool) -> Option<(usize, f64)> {
    let count = values.len();
    let distance = |i: usize, part: &[f64]| part.iter().map(|value| (value - values[i]).abs()).sum::<f64>();
    // before[t], after[t]: the distances between all pairs of the values before t, and from t on.
    let (mut before, mut after) = (vec![0.0; count + 1], vec![0.0; count + 1]);
    for t in 0..count {
        before[t + 1] = before[t] + distance(t, &values[..t]);
    }
    for t in (0..count).rev() {
        after[t] = after[t + 1] + distance(t, &values[t + 1..]);
    }
    let pairs = |n: usize| float(n * (n - 1) / 2);
    let apart = |t: usize| {
        let (left, right) = (t, count - t);
        let across = before[count] - before[t] - after[t];
        let energy =
            2.0 * across / (float(left) * float(right)) - before[t] / pairs(left) - after[t] / pairs(right);
        float(left) * float(right) / float(count) * energy
    };
    let splits = (LEAST..(count + 1).saturating_sub(LEAST)).filter(|&t| allowed(t)).map(|t| (t, apart(t)));
    splits.max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::{Change, changes};
    use crate::compare::stats::tests::normal;
    use perf::prng::Prng;

    fn at(values: &[f64]) -> Vec<usize> {
        changes(values, &|_| true).iter().map(|change: &Change| change.at).collect()
    }

    fn noisy(levels: &[(usize, f64)], sigma: f64, random: &mut Prng) -> Vec<f64> {
        let levels = levels.iter().flat_map(|&(count, level)| std::iter::repeat_n(level, count));
        levels.map(|level| level + sigma * normal(random)).collect()
    }

    #[test]
    fn planted_changes_are_found_where_they_are() {
        let mut random = Prng::new(4);
        let mut right = 0;
        for _ in 0..20 {
            let values = noisy(&[(20, 0.0), (15, 0.08), (15, 0.02)], 0.01, &mut random);
            let found = at(&values);
            let near = |wanted: usize| found.iter().any(|at| at.abs_diff(wanted) <= 1);
            right += u32::from(near(20) && near(35));
        }
        assert!(right >= 19, "{right} of 20");
    }

    /// Planted: no permutation test.
    #[test]
    fn noise_has_no_changes() {
        let mut random = Prng::new(5);
        let wrong = (0..400).filter(|_| !at(&noisy(&[(30, 0.0)], 0.02, &mut random)).is_empty()).count();
        // One in a hundred is what the level allows: four, and three standard deviations more.
        assert!(wrong <= 10, "{wrong} of 400");
        assert!(at(&[1.0; 40]).is_empty());
        assert!(at(&[]).is_empty() && at(&[1.0, 9.0]).is_empty());
    }

    #[test]
    fn a_change_is_where_it_may_be_and_can_be_repeated() {
        let values: Vec<f64> = (0..20).map(|i| if i < 9 { 0.0 } else { 1.0 }).collect();
        assert_eq!(at(&values), [9]);
        let even = changes(&values, &|at| at % 4 == 0);
        assert_eq!(even.iter().map(|change| change.at).collect::<Vec<_>>(), [8]);
        assert_eq!(even, changes(&values, &|at| at % 4 == 0));
    }
}
