//! The medians of the cases over many runs, with the changes that `history` found.

use crate::history::{ChangeFile, SeriesFile};
use crate::report::charts::Charts;
use crate::report::command;
use crate::report::groups::float;
use crate::report::html::{Align, escape, table};
use crate::report::page::Page;
use crate::report::sections::dash;
use crate::report::strips::percent;
use crate::results::units;
use std::cmp::Ordering;

use Align::{Left, Right};

/// Series with a change that are drawn.
const DRAWN: usize = 12;

/// The section.
pub(super) fn section(page: &Page, series: &[SeriesFile], charts: &mut Charts) -> String {
    let mut changed: Vec<&SeriesFile> = series.iter().filter(|one| !one.changes.is_empty()).collect();
    // The series that changed most in its last change first.
    changed.sort_by(|a, b| {
        last(b).partial_cmp(&last(a)).unwrap_or(Ordering::Equal).then_with(|| a.id.cmp(&b.id))
    });
    let mut text = format!(
        "<section id=\"history\"><h2>History</h2>\n<p>{} of {} series of the cases shown have a change point. A dot is the median of \
         one boot, a line the level between changes, a dashed one a change.</p>\n",
        changed.len(),
        series.len()
    );
    let drawn: Vec<String> = changed.iter().take(DRAWN).map(|one| charts.history(one)).collect();
    text.push_str(&format!("<div class=\"panels\">{}</div>\n", drawn.concat()));
    if changed.len() > DRAWN {
        text.push_str(&format!(
            "<p class=\"soft\">Drawn are the {DRAWN} whose last change is the largest; the table has all.</p>\n"
        ));
    }
    if !changed.is_empty() {
        text.push_str(&changes(&changed));
    }
    let steady: Vec<&SeriesFile> = series.iter().filter(|one| one.changes.is_empty()).collect();
    if !steady.is_empty() {
        text.push_str(&format!(
            "<details><summary>{} series without a change</summary>{}</details>\n",
            steady.len(),
            unchanged(&steady)
        ));
    }
    let names: Vec<&str> =
        changed.iter().take(DRAWN).map(|one| one.id.split('/').next().unwrap_or("")).collect();
    let mut names: Vec<&str> = names;
    names.dedup();
    let words =
        if names.is_empty() { String::new() } else { format!(" {}", command::quoted(&names.join(","))) };
    let root = page.history_root.as_deref();
    let runs = root.map_or_else(String::new, |root| format!(" --runs {}", command::path(root)));
    text.push_str(&command::block("Reproduce the history", &format!("cargo xtask history{words}{runs}")));
    text.push_str(&format!(
        "<p class=\"soft\">Machine {}.</p></section>\n",
        escape(&page.newest().last().run.machine)
    ));
    text
}

fn size(change: &ChangeFile) -> f64 {
    if change.before == 0 || change.after == 0 {
        return 0.0;
    }
    (float(change.after) / float(change.before)).ln()
}

fn last(series: &SeriesFile) -> f64 {
    series.changes.last().map_or(0.0, |change| size(change).abs())
}

fn changes(changed: &[&SeriesFile]) -> String {
    let head = [
        ("case", Left),
        ("change", Right),
        ("before", Right),
        ("after", Right),
        ("unit", Left),
        ("p", Right),
        ("since run", Left),
        ("profile", Left),
    ];
    let mut lines = Vec::new();
    for series in changed {
        for change in series.changes.iter().rev() {
            let point = usize::try_from(change.at).ok().and_then(|at| series.points.get(at));
            lines.push(vec![
                series.id.clone(),
                percent(size(change)),
                units::show(change.before, &series.unit),
                units::show(change.after, &series.unit),
                units::label(&series.unit).to_owned(),
                change.p.map_or_else(|| "exact".to_owned(), |p| format!("{p:.4}")),
                point.map_or_else(dash, |point| point.run.clone()),
                series.profile.clone(),
            ]);
        }
    }
    table("Changes, the newest of each series first", &head, &lines)
}

fn unchanged(series: &[&SeriesFile]) -> String {
    let head = [("case", Left), ("boots", Right), ("newest", Right), ("unit", Left), ("profile", Left)];
    let line = |one: &&SeriesFile| {
        vec![
            one.id.clone(),
            one.points.len().to_string(),
            one.points.last().map_or_else(dash, |point| units::show(point.p50, &one.unit)),
            units::label(&one.unit).to_owned(),
            one.profile.clone(),
        ]
    };
    let lines: Vec<Vec<String>> = series.iter().map(line).collect();
    table("Series without a change", &head, &lines)
}
