//! Percentile distributions as `HistogramLogProcessor` and `outputPercentileDistribution` of HdrHistogram write them: what its plotter reads.
//!
//! One file for each row that has a histogram. Lines that begin with `#` say case, lane and unit; the plotter skips them.

use crate::error::Result;
use crate::export::series;
use crate::report::float;
use crate::results::reader::Run;
use crate::results::schema::CaseRow;
use crate::results::{units, writer};
use hdrhistogram::Histogram;

/// Lines for each halving of what is left, the reference's default.
const TICKS: u32 = 5;

/// Name and content of each file.
pub(super) fn files(run: &Run) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for row in &run.rows {
        let Some(reference) = &row.hist else { continue };
        let name = format!("{}+boot{}.hgrm", writer::file_name(&row.id), row.boot);
        files.push((name, format!("{}{}", about(run, row), distribution(&run.histogram(reference)?, row))));
    }
    Ok(files)
}

fn about(run: &Run, row: &CaseRow) -> String {
    let unit = series::word(row.unit.as_deref().unwrap_or_default());
    let state = if run.is_complete() { "complete" } else { "INCOMPLETE" };
    let (lane, machine, id) = (&row.lane, &run.run.machine, &run.run.id);
    format!("#[case {}, lane {lane}, machine {machine}, unit {unit}, {state} run {id}]\n", row.id)
}

fn distribution(histogram: &Histogram<u64>, row: &CaseRow) -> String {
    let unit = row.unit.as_deref().unwrap_or_default();
    let scale = float(units::scale(unit));
    let mut text =
        format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let (value, share) = (float(step.value_iterated_to()) / scale, step.quantile_iterated_to());
        text.push_str(&format!("{value:>12.3} {share:>2.12} {total:>10}"));
        if share < 1.0 {
            text.push_str(&format!(" {:>14.2}", 1.0 / (1.0 - share)));
        }
        text.push('\n');
    }
    let (mean, deviation) = (histogram.mean() / scale, histogram.stdev() / scale);
    text.push_str(&format!("#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]\n"));
    let max = float(histogram.max()) / scale;
    text.push_str(&format!("#[Max     = {max:>12.3}, Total count    = {:>12}]\n", histogram.len()));
    text
}
