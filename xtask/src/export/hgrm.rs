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
const TICKS: f64 = 5.0;

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
    for Point { value, share, total } in points(histogram) {
        let value = float(value) / scale;
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

/// One line: the value of a bucket, the share that had to be reached, the samples up to there.
struct Point {
    value: u64,
    share: f64,
    total: u64,
}

/// The points of the reference's `PercentileIterator`: five for each halving of what is left, and the end. Counted in hundredths as there: the
/// crate counts from 0 to 1, where 0.3 comes out a little above three tenths of the samples, and so takes a bucket too many.
fn points(histogram: &Histogram<u64>) -> Vec<Point> {
    let all = histogram.len();
    let (mut points, mut level, mut total) = (Vec::new(), 0.0, 0);
    for step in histogram.iter_recorded() {
        total += step.count_at_value();
        let reached = 100.0 * float(total) / float(all);
        while level <= reached {
            points.push(Point { value: step.value_iterated_to(), share: level / 100.0, total });
            if total == all {
                break;
            }
            let halvings = (100.0 / (100.0 - level)).log2().floor() + 1.0;
            level += 100.0 / (TICKS * halvings.exp2());
        }
    }
    points.extend(histogram.iter_recorded().last().map(|step| Point {
        value: step.value_iterated_to(),
        share: 1.0,
        total: all,
    }));
    points
}
