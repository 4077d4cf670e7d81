//! What the formats share: series, and figures in the unit people read.

use crate::report::float;
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus, Direction};
use crate::results::units;

/// One case with the figures of all its boots: what a dashboard keeps one point of.
#[derive(Debug)]
pub(super) struct Series<'r> {
    /// Lane, machine, case and version, after `incomplete/` if the run is (X1).
    pub(super) name: String,
    /// Its rows with figures, one for each boot.
    pub(super) rows: Vec<&'r CaseRow>,
    /// Unit of its figures as recorded.
    pub(super) unit: &'r str,
    /// Which way is better.
    pub(super) direction: Direction,
}

/// The smallest, the median and the largest of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) low: u64,
    pub(super) middle: u64,
    pub(super) high: u64,
}

/// The series of a run: only what was measured.
pub(super) fn series(run: &Run) -> Vec<Series<'_>> {
    let mut all: Vec<Series<'_>> = Vec::new();
    let good = |row: &&CaseRow| row.status == CaseStatus::Ok && row.typical().is_some();
    for row in run.rows.iter().filter(good) {
        let (Some(unit), Some(direction)) = (row.unit.as_deref(), row.direction) else { continue };
        let name = name(run, row);
        match all.iter_mut().find(|known| known.name == name && known.unit == unit) {
            Some(known) => known.rows.push(row),
            None => all.push(Series { name, rows: vec![row], unit, direction }),
        }
    }
    all
}

fn name(run: &Run, row: &CaseRow) -> String {
    let state = if run.is_complete() { "" } else { "incomplete/" };
    format!("{state}{}/{}/{}/v{}", row.lane, run.run.machine, row.id, row.version)
}

impl Series<'_> {
    /// How a figure of its rows spreads over the boots; `None` unless every row has it.
    pub(super) fn spread(&self, figure: impl Fn(&CaseRow) -> Option<u64>) -> Option<Spread> {
        let mut values: Vec<u64> = self.rows.iter().map(|row| figure(row)).collect::<Option<_>>()?;
        let (low, high) = (*values.iter().min()?, *values.iter().max()?);
        Some(Spread { low, middle: perf::stats::median(&mut values)?, high })
    }
}

/// A recorded figure in the unit people read.
pub(super) fn shown(value: u64, unit: &str) -> f64 {
    float(value) / float(units::scale(unit))
}

/// The unit people read, as a word of letters.
pub(super) fn word(unit: &str) -> &str {
    match units::label(unit) {
        "%" => "percent",
        "" => "count",
        label => label,
    }
}
