//! The JSON that JMH writes (`-rf json`), mode `sample`: one entry for each row, histogram included.
//!
//! Names are `nearfield.<lane>.<benchmark>`, `nearfield.incomplete.<lane>.<benchmark>` of a run that is not complete (X1). The score is the
//! mean, as it is there; an error is not given, because the unit of statistics is the boot and an entry is one of them.

use crate::error::Result;
use crate::export::series;
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus};
use serde::Serialize;
use std::collections::BTreeMap;

/// One benchmark.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    benchmark: String,
    mode: &'static str,
    threads: u32,
    forks: u32,
    warmup_iterations: u32,
    warmup_time: &'static str,
    warmup_batch_size: u32,
    measurement_iterations: u32,
    measurement_time: &'static str,
    measurement_batch_size: u32,
    params: BTreeMap<String, String>,
    primary_metric: Metric,
    secondary_metrics: BTreeMap<String, String>,
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metric {
    score: f64,
    /// JMH writes the string for what it does not know.
    score_error: &'static str,
    score_confidence: [&'static str; 2],
    score_percentiles: BTreeMap<&'static str, f64>,
    score_unit: String,
    /// By fork, by iteration: value and count.
    raw_data_histogram: Vec<Vec<Vec<(f64, u64)>>>,
}

/// Windows are counted, not timed.
const UNTIMED: &str = "single-shot";
const UNKNOWN: &str = "NaN";

/// The whole file.
pub(super) fn render(run: &Run) -> Result<Vec<Entry>> {
    let good = run.rows.iter().filter(|row| row.status == CaseStatus::Ok && row.mean.is_some());
    good.map(|row| entry(run, row)).collect()
}

fn entry(run: &Run, row: &CaseRow) -> Result<Entry> {
    let state = if run.is_complete() { "" } else { "incomplete." };
    let mut params = row.params.clone();
    params.insert("machine".to_owned(), run.run.machine.clone());
    params.insert("version".to_owned(), row.version.to_string());
    if run.run.repeats > 1 {
        params.insert("boot".to_owned(), row.repeat.to_string());
    }
    Ok(Entry {
        benchmark: format!("nearfield.{state}{}.{}", row.lane, row.name),
        mode: "sample",
        threads: row.placement.as_ref().map_or(1, |placement| placement.cores),
        forks: 1,
        warmup_iterations: row.warmup.unwrap_or(0),
        warmup_time: UNTIMED,
        warmup_batch_size: row.batch.unwrap_or(1),
        measurement_iterations: 1,
        measurement_time: UNTIMED,
        measurement_batch_size: row.batch.unwrap_or(1),
        params,
        primary_metric: metric(run, row)?,
        secondary_metrics: BTreeMap::new(),
    })
}

fn metric(run: &Run, row: &CaseRow) -> Result<Metric> {
    let unit = row.unit.as_deref().unwrap_or_default();
    let histogram = match &row.hist {
        Some(reference) => {
            let histogram = run.histogram(reference)?;
            histogram
                .iter_recorded()
                .map(|step| (shown(step.value_iterated_to(), unit), step.count_at_value()))
                .collect()
        }
        None => vec![(row.mean.map_or(0.0, |mean| shown(mean, unit)), row.n)],
    };
    let percentiles = [
        ("0.0", row.min),
        ("50.0", row.p50),
        ("90.0", row.p90),
        ("99.0", row.p99),
        ("99.9", row.p999),
        ("99.99", row.p9999),
        ("100.0", row.max),
    ];
    Ok(Metric {
        score: row.mean.map_or(0.0, |mean| shown(mean, unit)),
        score_error: UNKNOWN,
        score_confidence: [UNKNOWN, UNKNOWN],
        score_percentiles: percentiles
            .into_iter()
            .filter_map(|(name, value)| Some((name, shown(value?, unit))))
            .collect(),
        score_unit: format!("{}/op", series::word(unit)),
        raw_data_histogram: vec![vec![histogram]],
    })
}

fn shown(value: u64, unit: &str) -> f64 {
    series::shown(value, unit)
}
