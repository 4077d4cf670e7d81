//! What people read of a comparison: a table for the terminal, one for a pull request.

use super::judge;
use super::schema::{CompareFile, Finding, SideFile, Verdict};
use crate::results::units;

impl Verdict {
    /// As it is shown; what needs eyes is in capitals.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Regressed => "REGRESSED",
            Self::Missing => "MISSING",
            Self::Noisy => "noisy",
            Self::Inconclusive => "inconclusive",
            Self::Improved => "improved",
            Self::Unchanged => "unchanged",
        }
    }
}

const HEAD: [&str; 9] = ["verdict", "case", "figure", "unit", "base", "new", "ratio", "95 %", "why"];

/// The table and what surrounds it; unchanged cases only with `all`.
pub(super) fn text(found: &CompareFile, all: bool) -> String {
    let shown = found.cases.iter().filter(|case| all || case.verdict != Verdict::Unchanged);
    let lines: Vec<Vec<String>> =
        std::iter::once(HEAD.map(ToOwned::to_owned).to_vec()).chain(shown.map(cells)).collect();
    let mut text = heading(found);
    if lines.len() > 1 {
        text.push_str(&aligned(&lines));
    }
    text.push_str(&ending(found));
    text
}

/// The same as markdown.
pub(super) fn markdown(found: &CompareFile) -> String {
    let row = |cells: &[String]| {
        let cells: Vec<String> =
            cells.iter().map(|cell| cell.replace('|', "\\|").replace('\n', " ")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = format!("**{}**\n\n", summary(found));
    text.push_str(&heading(found).replace('\n', "  \n"));
    let shown: Vec<&Finding> = found.cases.iter().filter(|case| case.verdict != Verdict::Unchanged).collect();
    if !shown.is_empty() {
        text.push('\n');
        text.push_str(&row(&HEAD.map(ToOwned::to_owned)));
        text.push_str("|---|---|---|---|---:|---:|---:|---|---|\n");
        shown.iter().for_each(|case| text.push_str(&row(&quoted(case))));
    }
    for remark in remarks(found) {
        text.push_str(&format!("\n{remark}\n"));
    }
    text
}

/// One finding in one line.
pub(super) fn sentence(case: &Finding) -> String {
    let unit = case.unit.as_deref();
    let label = unit.map_or("", units::label);
    let figures = match (case.base, case.new) {
        (Some(_), Some(_)) => {
            format!(": {} to {} {label}", judge::show(case.base, unit), judge::show(case.new, unit))
        }
        _ => String::new(),
    };
    format!("  {} {} {}{figures} ({})", case.verdict.word(), case.id, case.measure.word(), case.reason)
}

/// Cells of a markdown row: the key of a case is code.
fn quoted(case: &Finding) -> Vec<String> {
    let mut cells = cells(case);
    cells[1] = format!("`{}`", cells[1].replace('`', "'"));
    cells
}

fn cells(case: &Finding) -> Vec<String> {
    let unit = case.unit.as_deref();
    let (ratio, interval) = match (&case.test, case.base, case.new) {
        (Some(test), ..) => (format!("{:.3}", test.ratio), format!("{:.3}–{:.3}", test.low, test.high)),
        (None, Some(base @ 1..), Some(new)) => {
            (format!("{:.3}", judge::real(new) / judge::real(base)), "exact".to_owned())
        }
        _ => ("-".to_owned(), "-".to_owned()),
    };
    vec![
        case.verdict.word().to_owned(),
        case.id.clone(),
        case.measure.word().to_owned(),
        unit.map_or("-", units::label).to_owned(),
        judge::show(case.base, unit),
        judge::show(case.new, unit),
        ratio,
        interval,
        case.reason.clone(),
    ]
}

fn heading(found: &CompareFile) -> String {
    let side = |name: &str, side: &SideFile| {
        let commits: Vec<&str> =
            side.commits.iter().map(|commit| commit.get(..12).unwrap_or(commit)).collect();
        let boots = if side.boots == 0 { String::new() } else { format!(", {} boots", side.boots) };
        let runs = match side.runs.as_slice() {
            [run] => run.clone(),
            runs => format!("{} runs", runs.len()),
        };
        format!(
            "{name}: {runs}{boots}, commit {}\n",
            if commits.is_empty() { "unknown".to_owned() } else { commits.join(", ") }
        )
    };
    format!(
        "lane {}, machine {}, profile {}\n{}{}",
        found.lane,
        found.machine,
        found.profile,
        side("base", &found.base),
        side("new", &found.new)
    )
}

/// How many figures came to which verdict.
pub(crate) fn summary(found: &CompareFile) -> String {
    let counts: Vec<String> = found
        .counts
        .iter()
        .map(|(verdict, count)| format!("{count} {}", verdict.word().to_lowercase()))
        .collect();
    counts.join(", ")
}

fn remarks(found: &CompareFile) -> Vec<String> {
    let mut remarks = found.remarks.clone();
    if !found.added.is_empty() {
        remarks.push(format!("not in the base, so not judged: {}", found.added.join(", ")));
    }
    remarks
}

fn ending(found: &CompareFile) -> String {
    let remarks = remarks(found).into_iter().map(|remark| format!("note: {remark}\n"));
    remarks.chain([format!("{}\n", summary(found))]).collect()
}

/// Columns in line; figures to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let right = |column: usize| (4..=6).contains(&column);
    let pad = |(column, cell): (usize, &String)| {
        let width = widths[column];
        if right(column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    };
    let line = |line: &Vec<String>| {
        let cells: Vec<String> = line.iter().enumerate().map(pad).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}
