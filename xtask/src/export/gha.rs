//! github-action-benchmark: `[{name, unit, value, range, extra}]`, one file for what should be small and one for what should be great.

use crate::export::series::{self, Series, Spread};
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, Direction};
use crate::results::units;
use serde::Serialize;

/// One point of a chart.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    name: String,
    unit: String,
    value: f64,
    /// How far the boots lie apart; absent when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    extra: String,
}

/// The series for which `direction` is better.
pub(super) fn render(run: &Run, direction: Direction) -> Vec<Entry> {
    let all = series::series(run);
    all.iter()
        .filter(|series| series.direction == direction)
        .filter_map(|series| entry(run, series))
        .collect()
}

fn entry(run: &Run, series: &Series<'_>) -> Option<Entry> {
    let spread = series.spread(CaseRow::typical)?;
    let several = series.rows.len() > 1;
    Some(Entry {
        name: series.name.clone(),
        unit: series::word(series.unit).to_owned(),
        value: series::shown(spread.middle, series.unit),
        range: several.then(|| range(spread, series.unit)),
        extra: extra(run, series),
    })
}

fn range(spread: Spread, unit: &str) -> String {
    format!("{} to {}", series::shown(spread.low, unit), series::shown(spread.high, unit))
}

fn extra(run: &Run, series: &Series<'_>) -> String {
    let samples: u64 = series.rows.iter().map(|row| row.n).sum();
    let commit = run.env.git.describe.as_deref().unwrap_or("no commit");
    let boots = match series.rows.len() {
        1 => "1 boot".to_owned(),
        several => format!("{several} boots"),
    };
    let mut text = format!("lane {}, median of {samples} samples, {boots}, {commit}", run.run.lane);
    if let Some(p99) = series.spread(|row| row.p99) {
        text.push_str(&format!(
            ", p99 {} {}",
            units::show(p99.middle, series.unit),
            series::word(series.unit)
        ));
    }
    if !run.is_complete() {
        text.push_str(", INCOMPLETE run");
    }
    text
}
