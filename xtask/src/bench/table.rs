//! The table at the end of a run: aligned percentiles, then what failed and why.

use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus};
use crate::results::units;

const HEAD: [&str; 8] = ["case", "unit", "n", "p50", "p90", "p99", "max", "status"];

/// The whole table, as printed.
pub(super) fn render(run: &Run) -> String {
    let mut lines: Vec<Vec<String>> = vec![HEAD.iter().map(|&head| head.to_owned()).collect()];
    lines.extend(run.rows.iter().map(|row| cells(row, run.run.repeats)));
    let mut text = aligned(&lines);
    text.push_str(&remarks(run));
    text
}

fn cells(row: &CaseRow, repeats: u32) -> Vec<String> {
    let figure = |value: Option<u64>| match (value, row.unit.as_deref()) {
        (Some(value), Some(unit)) => units::show(value, unit),
        _ => "-".to_owned(),
    };
    let boot = if repeats > 1 { format!(" (boot {})", row.repeat + 1) } else { String::new() };
    vec![
        format!("{}{boot}", row.id),
        row.unit.as_deref().map_or("-", units::label).to_owned(),
        row.n.to_string(),
        figure(row.p50),
        figure(row.p90),
        figure(row.p99),
        figure(row.max),
        units::status(row.status).to_owned(),
    ]
}

/// Text columns to the left, numbers to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            match column {
                0 => text.push_str(&format!("{cell:<width$}")),
                1 | 7 => text.push_str(&format!("  {cell:<width$}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn remarks(run: &Run) -> String {
    let mut text = String::new();
    for row in run.rows.iter().filter(|row| row.status != CaseStatus::Ok) {
        let reason = row.reason.as_deref().unwrap_or("no reason given");
        text.push_str(&format!("\n{}: {}: {reason}", units::status(row.status), row.id));
        let from = row.log_tail.len().saturating_sub(5);
        row.log_tail.iter().skip(from).for_each(|line| text.push_str(&format!("\n  | {line}")));
    }
    for problem in &run.run.problems {
        text.push_str(&format!("\nproblem: {problem}"));
    }
    let counts = run.run.counts;
    let state = if run.is_complete() { "" } else { ", the run is PARTIAL" };
    text.push_str(&format!(
        "\n{} ok, {} failed, {} refused, {} skipped of {} rows{state}",
        counts.ok, counts.failed, counts.refused, counts.skipped, counts.expected
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::results::disk::FileSystem;
    use crate::results::reader::Run;
    use crate::results::schema::CaseStatus;
    use crate::results::testing::{self, TempDir};
    use crate::results::writer::{Finished, RunWriter};

    #[test]
    fn figures_align_and_failures_say_why() {
        let dir = TempDir::new("table");
        let mut writer =
            RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file()).unwrap();
        writer.case(testing::finished("a.b/x=1")).unwrap();
        let mut row = testing::row("a.long.name/x=1,mem=local");
        (row.status, row.reason, row.unit) =
            (CaseStatus::Failed, Some("the kernel panicked".to_owned()), None);
        row.log_tail.push("PANIC at mm".to_owned());
        writer
            .case(Finished { row, hist: None, interval: Default::default(), matrices: Vec::new() })
            .unwrap();
        let text = render(&Run::open(writer.dir()).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "case                       unit      n   p50   p90   p99   max  status");
        assert_eq!(lines[1], "a.b/x=1                    ticks  1500  0.25  0.45  0.50  0.50  ok");
        assert_eq!(lines[2], "a.long.name/x=1,mem=local  -         0     -     -     -     -  FAILED");
        assert!(text.contains("FAILED: a.long.name/x=1,mem=local: the kernel panicked\n  | PANIC at mm"));
        assert!(
            text.ends_with("1 ok, 1 failed, 0 refused, 0 skipped of 2 rows, the run is PARTIAL"),
            "{text}"
        );
    }
}
