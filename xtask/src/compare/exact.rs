//! The verdicts where figures are exact: instructions counted by the emulator.
//!
//! There are no statistics: boots must agree in every figure, and one median is compared with another. The limit leaves room for what a
//! compiler does to code that nobody touched.

use super::judge::{self, Pair};
use super::schema::{BaselineCase, BaselineFile, Finding, VERSION, Verdict};
use super::side::{self, Series, Side};
use crate::error::{Class, Error, Result};
use crate::results::schema::{CaseRow, Direction};
use crate::results::units;
use std::collections::BTreeMap;

/// Change that is let pass, in thousandths of the base.
const SHARE: u64 = 5;
/// Change of instructions that is let pass in any case, in thousandths of an instruction.
const INSTRUCTIONS: u64 = 5000;

/// The exact figures of a side, as they are committed.
///
/// # Errors
/// [`Class::Unusable`]: a case is not `ok` in every boot, boots differ, or there is but one boot.
pub(super) fn bless(side: &Side) -> Result<BaselineFile> {
    let refused = |what: String| {
        let next = "blessed are complete runs in which every case went well: measure again, with `--boots 2`";
        Err(Error::new(Class::Unusable, what).next(next))
    };
    if !side::exact(&side.identity.lane) {
        return refused(format!("figures of the lane {} are not exact", side.identity.lane));
    }
    if side.boots() < 2 {
        return refused("one boot does not show that boots agree".to_owned());
    }
    let (cases, flaws) = figures(side);
    if let Some(flaw) = flaws.first() {
        return refused(format!("{}: {}", flaw.id, flaw.reason));
    }
    let first = &side.runs[0];
    Ok(BaselineFile {
        schema: VERSION,
        lane: side.identity.lane.clone(),
        machine: side.identity.machine.clone(),
        profile: side.identity.profile.clone(),
        filter: first.run.filter.clone(),
        samples: side.identity.samples,
        run: first.run.id.clone(),
        commit: first.env.git.commit.clone(),
        rustc: first.env.rustc.clone(),
        qemu: first.env.qemu.as_ref().map(|qemu| qemu.version.clone()),
        cases,
    })
}

/// The figures of a side, and its cases that have none to rely on.
pub(super) fn figures(side: &Side) -> (BTreeMap<String, BaselineCase>, Vec<Finding>) {
    let (mut cases, mut flaws) = (BTreeMap::new(), Vec::new());
    for (id, series) in side.series.iter().filter(|(_, series)| !series.skipped()) {
        match series.flaw(side.boots()).or_else(|| differing(series)) {
            Some(flaw) => flaws.push(judge::missing(id, series.unit(), format!("in the base: {flaw}"))),
            None => cases.extend(figure(series).map(|case| (id.clone(), case))),
        }
    }
    (cases, flaws)
}

/// The figure of a case that is compared; none if neither way is better, or it has no median.
fn figure(series: &Series) -> Option<BaselineCase> {
    let row = series.rows.first().filter(|_| series.direction() != Direction::Neutral)?;
    Some(BaselineCase { version: row.version, unit: row.unit.clone()?, p50: row.p50? })
}

/// In what two boots differ.
fn differing(series: &Series) -> Option<String> {
    let figures = |row: &CaseRow| {
        let counts = [Some(row.n), row.clamped, row.min, row.max, row.mean];
        let percentiles = [row.p50, row.p90, row.p99, row.p999, row.p9999];
        (counts, percentiles)
    };
    let first = series.rows.first()?;
    let other = series.rows.iter().find(|row| figures(row) != figures(first))?;
    let unit = series.unit();
    let of = |row: &CaseRow| {
        let figures = [row.p50, row.p99, row.max, row.mean].map(|figure| judge::show(figure, unit));
        figures.join(" ")
    };
    Some(format!("boots differ: p50, p99, max, mean are {} and {}", of(first), of(other)))
}

/// Compares with exact figures.
pub(super) fn judge(base: &BTreeMap<String, BaselineCase>, new: &Side) -> (Vec<Finding>, Vec<String>) {
    let findings = base.iter().filter_map(|(id, old)| finding(id, old, new)).collect();
    let fresh = |(id, series): &(&String, &Series)| {
        let known = base.get(*id).is_some_and(|old| old.version == series.version());
        figure(series).is_some() && !known
    };
    (findings, new.series.iter().filter(fresh).map(|(id, _)| id.clone()).collect())
}

/// What is found of a case of the base; nothing if a new series begins.
fn finding(id: &str, old: &BaselineCase, new: &Side) -> Option<Finding> {
    let found = |verdict, reason, figure| Finding {
        verdict,
        base: Some(old.p50),
        new: figure,
        ..judge::missing(id, Some(&old.unit), reason)
    };
    let series = match judge::counterpart(id, old.version, Direction::Smaller, new) {
        Pair::Both(series) => series,
        Pair::Missing(reason) => return Some(found(Verdict::Missing, reason, None)),
        Pair::Aside => return None,
    };
    let Some(case) = figure(series) else {
        return Some(found(Verdict::Missing, "it has no median".to_owned(), None));
    };
    if let Some(difference) = differing(series) {
        return Some(found(Verdict::Noisy, difference, Some(case.p50)));
    }
    if case.unit != old.unit {
        return Some(found(Verdict::Missing, format!("its unit is now {}", case.unit), Some(case.p50)));
    }
    let (verdict, reason) = change(old, case.p50, series.direction());
    Some(found(verdict, reason, Some(case.p50)))
}

/// The verdict on a change from one exact figure to another.
fn change(old: &BaselineCase, new: u64, direction: Direction) -> (Verdict, String) {
    let counted = units::label(&old.unit) == units::label("milliinstructions");
    let least = if counted { INSTRUCTIONS } else { 0 };
    let allowed = (old.p50 / 1000 * SHARE + old.p50 % 1000 * SHARE / 1000).max(least);
    let difference = new.abs_diff(old.p50);
    let sign = if new >= old.p50 { '+' } else { '-' };
    let label = units::label(&old.unit);
    let (shown, limit) = (units::show(difference, &old.unit), units::show(allowed, &old.unit));
    let reason = format!("{sign}{shown} {label}, {limit} are let pass");
    if difference <= allowed {
        return (Verdict::Unchanged, reason);
    }
    let worse = (new > old.p50) == (direction == Direction::Smaller);
    (if worse { Verdict::Regressed } else { Verdict::Improved }, reason)
}

#[cfg(test)]
#[path = "exact_tests.rs"]
mod tests;
