//! Bencher Metric Format: `{benchmark: {measure: {value, lower_value, upper_value}}}`
//! (bencher.dev/docs/reference/bencher-metric-format).
//!
//! The format knows no units, so the measure names it: `p50-instructions`. The value is the median of the boots, the limits are
//! the smallest and the largest of them.

use crate::export::series::{self, Series};
use crate::results::reader::Run;
use crate::results::schema::CaseRow;
use serde::Serialize;
use std::collections::BTreeMap;

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Metric {
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_value: Option<f64>,
}

/// Measures by benchmark.
pub(super) type Report = BTreeMap<String, BTreeMap<String, Metric>>;

/// A measure and what it is of a row.
type Measure = (&'static str, fn(&CaseRow) -> Option<u64>);

const FIGURES: [Measure; 2] = [("p50", CaseRow::typical), ("p99", |row| row.p99)];

/// The whole file.
pub(super) fn render(run: &Run) -> Report {
    series::series(run).iter().map(|series| (series.name.clone(), measures(series))).collect()
}

fn measures(series: &Series<'_>) -> BTreeMap<String, Metric> {
    let unit = series.unit;
    let several = series.rows.len() > 1;
    let measure = |(name, figure): Measure| {
        let spread = series.spread(figure)?;
        let limit = |value| several.then(|| series::shown(value, unit));
        let value = series::shown(spread.middle, unit);
        let metric = Metric { value, lower_value: limit(spread.low), upper_value: limit(spread.high) };
        Some((format!("{name}-{}", series::word(unit)), metric))
    };
    FIGURES.into_iter().filter_map(measure).collect()
}
