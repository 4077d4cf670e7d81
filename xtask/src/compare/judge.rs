//! The verdicts where figures have noise: the boot is the sampling unit.
//!
//! Y1: a case regressed only if the difference is significant over all tests together, beyond the smallest difference of practical
//!     interest on this machine, and resolved by the clock. Y2: what is not there, or failed, is never passed over in silence.

use super::schema::{Finding, Measure, Noise, NoiseFile, TestFile, Verdict};
use super::side::{Series, Side};
use super::stats::{self, Shift, float};
use crate::results::schema::Direction;
use crate::results::units;
use std::collections::BTreeMap;

/// Accepted rate of false discoveries.
pub(super) const ALPHA: f64 = 0.05;
/// Ticks of a timed window that a difference must amount to.
const TICKS: f64 = 2.0;
/// Standard errors of the A/A noise that a difference must amount to.
const NOISE_ERRORS: f64 = 2.0;

impl Measure {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::P50, Self::P99, Self::Throughput];

    /// As it is written.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Throughput => "throughput",
        }
    }

    /// The smallest change of practical interest.
    const fn interest(self) -> f64 {
        match self {
            Self::P50 | Self::Throughput => 0.03,
            Self::P99 => 0.10,
        }
    }
}

/// A figure that both sides have, before the tests are adjusted for their number.
struct Candidate<'a> {
    id: &'a str,
    measure: Measure,
    unit: Option<String>,
    direction: Direction,
    base: Vec<u64>,
    new: Vec<u64>,
    shift: Shift,
    /// Logarithm of the ratio from which a change counts.
    threshold: f64,
    /// Difference that the clock resolves, in recorded units.
    resolution: f64,
    /// Largest standard deviation between the boots of a side.
    spread: f64,
}

/// Everything found, in the order of the cases, and the cases that only the new side has.
pub(super) fn judge(base: &Side, new: &Side, noise: Option<&NoiseFile>) -> (Vec<Finding>, Vec<String>) {
    let mut findings = Vec::new();
    let mut candidates = Vec::new();
    for (id, old) in &base.series {
        match pair(id, old, base, new) {
            Pair::Both(both) => candidates.extend(self::candidates(id, old, both, new.hz, noise)),
            Pair::Missing(reason) => findings.push(missing(id, old.unit(), reason)),
            Pair::Aside => {}
        }
    }
    for (id, measure) in lost(base, new) {
        let reason = "the new side no longer has this figure".to_owned();
        findings.push(Finding { measure, ..missing(id, None, reason) });
    }
    let p: Vec<f64> = candidates.iter().map(|candidate| candidate.shift.p).collect();
    let q = stats::adjusted(&p);
    findings.extend(candidates.iter().zip(q).map(|(candidate, q)| candidate.finding(q, p.len())));
    (findings, added(base, new))
}

/// What the two sides say of a case of the base.
pub(super) enum Pair<'a> {
    /// Both can be compared.
    Both(&'a Series),
    /// One of them cannot; why.
    Missing(String),
    /// Nothing to compare: it makes no sense here, has no better side, or begins a new series.
    Aside,
}

/// Looks for the counterpart of a case of the base.
pub(super) fn pair<'a>(id: &str, old: &Series, base: &Side, new: &'a Side) -> Pair<'a> {
    if old.skipped() {
        return Pair::Aside;
    }
    if let Some(flaw) = old.flaw(base.boots()) {
        return Pair::Missing(format!("in the base: {flaw}"));
    }
    counterpart(id, old.version(), old.direction(), new)
}

/// Looks for a case of this version on the new side.
pub(super) fn counterpart<'a>(id: &str, version: u32, direction: Direction, new: &'a Side) -> Pair<'a> {
    let Some(series) = new.series.get(id) else {
        return Pair::Missing("the new side has no such case".to_owned());
    };
    if let Some(flaw) = series.flaw(new.boots()) {
        return Pair::Missing(flaw);
    }
    if series.version() != version || direction == Direction::Neutral {
        return Pair::Aside;
    }
    Pair::Both(series)
}

/// The finding on a case that cannot be compared.
pub(super) fn missing(id: &str, unit: Option<&str>, reason: String) -> Finding {
    Finding {
        id: id.to_owned(),
        measure: Measure::P50,
        verdict: Verdict::Missing,
        reason,
        unit: unit.map(ToOwned::to_owned),
        base: None,
        new: None,
        test: None,
    }
}

/// Figures that the base has of a case and the new side, which has the case, has not.
fn lost<'a>(base: &'a Side, new: &Side) -> Vec<(&'a str, Measure)> {
    let mut lost = Vec::new();
    for (id, old) in &base.series {
        if let Pair::Both(series) = pair(id, old, base, new) {
            let gone =
                |&measure: &Measure| old.figures(measure).is_some() && series.figures(measure).is_none();
            lost.extend(Measure::ALL.into_iter().filter(gone).map(|measure| (id.as_str(), measure)));
        }
    }
    lost
}

/// Cases that begin a new series on the new side.
pub(super) fn added(base: &Side, new: &Side) -> Vec<String> {
    let known = |id: &String, series: &Series| {
        base.series.get(id).is_some_and(|old| old.version() == 0 || old.version() == series.version())
    };
    let fresh = new.series.iter().filter(|(id, series)| !series.skipped() && !known(id, series));
    fresh.map(|(id, _)| id.clone()).collect()
}

fn candidates<'a>(
    id: &'a str,
    old: &Series,
    new: &Series,
    hz: Option<u64>,
    noise: Option<&NoiseFile>,
) -> Vec<Candidate<'a>> {
    let known: Option<&BTreeMap<Measure, Noise>> = noise.and_then(|noise| noise.cases.get(id));
    let candidate = |measure: Measure| {
        let (base, new_figures) = (old.figures(measure)?, new.figures(measure)?);
        let (from, to) = (logarithms(&base), logarithms(&new_figures));
        let noise = known.and_then(|known| known.get(&measure));
        let rate = measure == Measure::Throughput;
        Some(Candidate {
            id,
            measure,
            unit: if rate { Some("count".to_owned()) } else { old.unit().map(ToOwned::to_owned) },
            direction: if rate { Direction::Greater } else { old.direction() },
            shift: stats::shift(&from, &to, seed(id, measure)),
            threshold: threshold(measure, noise, from.len(), to.len()),
            resolution: if rate { 0.0 } else { resolution(old, new, hz) },
            spread: stats::spread(&from).max(stats::spread(&to)),
            base,
            new: new_figures,
        })
    };
    Measure::ALL.into_iter().filter_map(candidate).collect()
}

/// The logarithm of the ratio from which a change counts: what is of interest, or what boots of one build differ by.
fn threshold(measure: Measure, noise: Option<&Noise>, base: usize, new: usize) -> f64 {
    let least = measure.interest().ln_1p();
    let Some(noise) = noise else { return least };
    let error = noise.sigma * (1.0 / float(base) + 1.0 / float(new)).sqrt();
    least.max(NOISE_ERRORS * error).max(noise.drift)
}

/// Whether noise has raised the bound of a finding.
pub(super) fn raised(case: &Finding) -> bool {
    case.test.is_some_and(|test| test.threshold.ln() > case.measure.interest().ln_1p() + 1e-9)
}

/// The difference per operation that two ticks of the timed window amount to, in recorded units; 0 where no clock is involved.
fn resolution(old: &Series, new: &Series, hz: Option<u64>) -> f64 {
    let tick = match (old.unit(), hz) {
        (Some("milliticks" | "milliinstructions"), _) => 1000.0,
        (Some("ps"), Some(hz @ 1..)) => 1e12 / real(hz),
        _ => 0.0,
    };
    TICKS * tick / f64::from(old.batch().min(new.batch()).max(1))
}

impl Candidate<'_> {
    /// The finding, given the adjusted probability and the number of tests.
    fn finding(&self, q: f64, tests: usize) -> Finding {
        let (verdict, reason) = self.verdict(q, tests);
        let boots = |group: &[u64]| u32::try_from(group.len()).unwrap_or(u32::MAX);
        Finding {
            id: self.id.to_owned(),
            measure: self.measure,
            verdict,
            reason,
            unit: self.unit.clone(),
            base: Some(middle(&self.base)),
            new: Some(middle(&self.new)),
            test: Some(TestFile {
                base_boots: boots(&self.base),
                new_boots: boots(&self.new),
                ratio: self.shift.estimate.exp(),
                low: self.shift.low.exp(),
                high: self.shift.high.exp(),
                delta: self.shift.delta,
                p: self.shift.p,
                q,
                threshold: self.threshold.exp(),
            }),
        }
    }

    fn verdict(&self, q: f64, tests: usize) -> (Verdict, String) {
        let Shift { estimate, low, high, .. } = self.shift;
        let least = stats::least_p(self.base.len(), self.new.len());
        if least > ALPHA {
            let reason = format!(
                "{} and {} boots can show nothing; {} on each side can",
                self.base.len(),
                self.new.len(),
                stats::boots_for(ALPHA)
            );
            return (Verdict::Inconclusive, reason);
        }
        let bound = percent(self.threshold);
        let resolved = real(middle(&self.base).abs_diff(middle(&self.new))) >= self.resolution;
        if q <= ALPHA && estimate.abs() >= self.threshold && resolved {
            let worse = (estimate > 0.0) == (self.direction == Direction::Smaller);
            let verdict = if worse { Verdict::Regressed } else { Verdict::Improved };
            return (verdict, format!("significant, and beyond {bound}"));
        }
        // How far the ends of the interval are from the base, in recorded units.
        let reach = real(middle(&self.base)) * low.exp_m1().abs().max(high.exp_m1().abs());
        if reach < self.resolution {
            return (Verdict::Unchanged, "within two ticks of the timed window".to_owned());
        }
        if low > -self.threshold && high < self.threshold {
            return (Verdict::Unchanged, format!("within {bound}"));
        }
        if self.spread > self.threshold {
            let spread = percent(self.spread);
            return (Verdict::Noisy, format!("boots of a side differ by {spread}, {bound} is looked for"));
        }
        (Verdict::Inconclusive, self.undecided(least, tests))
    }

    /// What is missing for a verdict.
    fn undecided(&self, least: f64, tests: usize) -> String {
        let needed = ALPHA / float(tests.max(1));
        if least > needed {
            let boots = stats::boots_for(needed);
            return format!("among {tests} tests a lone difference needs {boots} boots on each side");
        }
        let more = 2 * self.base.len().max(self.new.len());
        format!("the interval reaches beyond {}; try {more} boots on each side", percent(self.threshold))
    }
}

/// The logarithms of figures; 0 counts as one unit, a thousandth of what people read.
pub(crate) fn logarithms(figures: &[u64]) -> Vec<f64> {
    figures.iter().map(|&figure| real(figure.max(1)).ln()).collect()
}

/// The median of recorded figures, the lower of two.
pub(crate) fn middle(figures: &[u64]) -> u64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// The change a logarithm stands for.
fn percent(logarithm: f64) -> String {
    format!("{:.1} %", 100.0 * logarithm.exp_m1())
}

/// Of the name, so that a comparison can be repeated and no two cases share their resamplings (FNV-1a).
fn seed(id: &str, measure: Measure) -> u64 {
    let bytes = id.bytes().chain(measure.word().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "recorded figures are below 2^52 and are shown with five digits"
)]
pub(super) fn real(value: u64) -> f64 {
    value as f64
}

/// A figure as people read it.
pub(crate) fn show(value: Option<u64>, unit: Option<&str>) -> String {
    match (value, unit) {
        (Some(value), Some(unit)) => units::show(value, unit),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
