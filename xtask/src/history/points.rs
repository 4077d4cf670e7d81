//! Where a series changes. Candidates are those of E-divisive (Matteson and James, J. Am. Stat. Assoc. 109 (2014)): the two neighbouring
//! parts whose boots have the largest energy distance, the later of which need not reach to the end, so that a change that was taken back
//! does not hide. One is believed if boots dealt anew seldom give as large a distance, *and* if it is large beside what separates runs that
//! no change separates.
//!
//! Y3: boots of one run resemble each other more than boots of two (the host, its caches, its neighbours), so a test that takes boots for
//!     independent finds "changes" in a third of all series. The second test has the run as its unit.
//! Y4: a change must show in [`RUNS`] runs and [`LEAST`] boots on each side: one run can have met a busy host.

use crate::compare::stats::{self, float};
use perf::prng::Prng;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Boots on each side of a change.
const LEAST: usize = 3;
/// Runs on each side of a change.
const RUNS: usize = 2;
/// Permutations behind a probability.
const PERMUTATIONS: u32 = 399;
/// Probability up to which a change is believed.
const LEVEL: f64 = 0.01;
/// A comparison of the same values gives the same points.
const SEED: u64 = 0x6e65_6172;

/// A change before the first boot of the run `run`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) run: usize,
    /// Probability of a split as good, had nothing changed: the larger of the two tests'.
    pub(super) p: f64,
}

/// Every change of a series, in order. A run is the figures of its boots; none is empty.
pub(super) fn changes(runs: &[Vec<f64>]) -> Vec<Change> {
    let mut found = Vec::new();
    let mut parts = vec![(0, runs.len())];
    while let Some((from, to)) = parts.pop() {
        if let Some(Change { run, p }) = split(&runs[from..to]) {
            let run = from + run;
            found.push(Change { run, p });
            parts.extend([(from, run), (run, to)]);
        }
    }
    found.sort_by_key(|change| change.run);
    found
}

/// The best split, if both tests believe it.
fn split(runs: &[Vec<f64>]) -> Option<Change> {
    let mut bounds = vec![0];
    bounds.extend(runs.iter().scan(0, |sum, run| {
        *sum += run.len();
        Some(*sum)
    }));
    let candidates = candidates(&bounds);
    let mut values = runs.concat();
    let (best, distance) = best(&values, &bounds, &candidates)?;
    let [left, right] = [&runs[..best.at], &runs[best.at..best.to]].map(medians);
    let between = (student(&left, &right) * float(candidates.len())).min(1.0);
    if between > LEVEL {
        return None;
    }
    let mut random = Prng::new(SEED);
    let mut as_good = 1;
    for _ in 0..PERMUTATIONS {
        random.shuffle(&mut values);
        let other = self::best(&values, &bounds, &candidates);
        as_good += u32::from(other.is_some_and(|(_, other)| other >= distance));
        // No luck of the others could bring it back below the level.
        if share(as_good) > LEVEL {
            return None;
        }
    }
    Some(Change { run: best.at, p: between.max(share(as_good)) })
}

fn share(as_good: u32) -> f64 {
    f64::from(as_good) / f64::from(PERMUTATIONS + 1)
}

/// The runs before `at`, and those from there up to `to`.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    at: usize,
    to: usize,
}

/// Where parts may begin and end, given the place of each run's first boot and the number of all boots.
fn candidates(bounds: &[usize]) -> Vec<Candidate> {
    let runs = bounds.len() - 1;
    let enough = |from: usize, to: usize| to - from >= RUNS && bounds[to] - bounds[from] >= LEAST;
    let ends =
        |at: usize| (at + 1..=runs).filter(move |&to| enough(at, to)).map(move |to| Candidate { at, to });
    (1..runs).filter(|&at| enough(0, at)).flat_map(ends).collect()
}

/// The candidate whose two parts are furthest apart, and how far: Matteson and James, equation (7), with exponent 1.
fn best(values: &[f64], bounds: &[usize], candidates: &[Candidate]) -> Option<(Candidate, f64)> {
    let within = within(values, bounds);
    let pairs = |boots: usize| float(boots * (boots - 1) / 2);
    let apart = |&candidate: &Candidate| {
        let Candidate { at, to } = candidate;
        let (left, right) = (bounds[at], bounds[to] - bounds[at]);
        let (before, after) = (within[0][at], within[at][to]);
        let across = within[0][to] - before - after;
        let energy =
            2.0 * across / (float(left) * float(right)) - before / pairs(left) - after / pairs(right);
        (candidate, float(left) * float(right) / float(left + right) * energy)
    };
    candidates.iter().map(apart).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// For the runs from each to each other, the distances between all pairs of their boots.
fn within(values: &[f64], bounds: &[usize]) -> Vec<Vec<f64>> {
    let runs = bounds.len() - 1;
    let boots = |run: usize| &values[bounds[run]..bounds[run + 1]];
    let distance =
        |value: &f64, others: &[f64]| others.iter().map(|other| (value - other).abs()).sum::<f64>();
    let inside = |run: usize| {
        let boots = boots(run);
        boots.iter().enumerate().map(|(at, value)| distance(value, &boots[at + 1..])).sum::<f64>()
    };
    let across = |a: usize, b: usize| boots(a).iter().map(|value| distance(value, boots(b))).sum::<f64>();
    let mut within = vec![vec![0.0; runs + 1]; runs + 1];
    for to in 1..=runs {
        within[to - 1][to] = inside(to - 1);
        for from in (0..to - 1).rev() {
            // Counted in both: what is between the first and the last run.
            within[from][to] =
                within[from + 1][to] + within[from][to - 1] - within[from + 1][to - 1] + across(from, to - 1);
        }
    }
    within
}

fn medians(runs: &[Vec<f64>]) -> Vec<f64> {
    runs.iter().map(|run| stats::median(&mut run.clone())).collect()
}

/// Student's test: the two-sided probability that two groups of equal spread have means so far apart. Both have [`RUNS`] values or more.
fn student(left: &[f64], right: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / float(values.len());
    let (from, to) = (mean(left), mean(right));
    let squares = |values: &[f64], mean: f64| values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let freedom = float(left.len() + right.len() - 2);
    let spread = ((squares(left, from) + squares(right, to)) / freedom).sqrt();
    let error = spread * (1.0 / float(left.len()) + 1.0 / float(right.len())).sqrt();
    if error <= f64::EPSILON * from.abs().max(to.abs()) {
        return if from == to { 1.0 } else { 0.0 };
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(1.0, |student| 2.0 * student.sf((to - from).abs() / error))
}

#[cfg(test)]
#[path = "points_tests.rs"]
mod tests;
