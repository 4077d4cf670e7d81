//! The page from top to bottom: head, overview, what failed, and the sections of the other modules.

use crate::compare::schema::Verdict;
use crate::error::Result;
use crate::report::charts::Charts;
use crate::report::groups::{self, Bench, Case, Comparison};
use crate::report::html::{Align, Cell, escape, table, table_of};
use crate::report::page::{Detail, Page, Shown};
use crate::report::strips::{legend, percent};
use crate::report::{self, benches, command, environment, history, systems, verdicts};
use crate::results::schema::{CaseRow, CaseStatus};
use crate::results::units;
use std::collections::{BTreeMap, BTreeSet};

use Align::{Left, Right};

/// The body of the page.
pub(super) fn body(page: &Page, detail: Detail, charts: &mut Charts) -> Result<String> {
    let found = groups::benches(&page.sides);
    let order = order(page, &found);
    let comparisons = groups::comparisons(&page.newest().last().rows);
    let mut text = format!(
        "{}<main>\n{}",
        head(page, &found, &order, !comparisons.is_empty()),
        overview(page, &found, detail)
    );
    text.push_str(&verdicts::section(page, &found, detail));
    if !page.alone() {
        // After the verdicts: what changed is what a reader of a comparison looks for.
        let cases = cases(page, &found, detail);
        text.push_str(&format!("<section id=\"cases\"><h2>All cases</h2>\n{cases}</section>\n"));
    }
    text.push_str(&failures(page));
    if let Some(series) = &page.history {
        text.push_str(&history::section(page, series, charts));
    }
    text.push_str(&peers(&comparisons));
    text.push_str(&systems::section(page.newest().last(), &report::peers()));
    for &at in &order {
        text.push_str(&benches::section(page, at, &found[at], detail, charts)?);
    }
    text.push_str(&environment::section(page));
    text.push_str("</main>\n");
    Ok(text)
}

/// The benchmarks in the order in which they stand on the page: those with the worst verdict first, otherwise as measured.
fn order(page: &Page, found: &[Bench<'_>]) -> Vec<usize> {
    let mut worst: BTreeMap<&str, Verdict> = BTreeMap::new();
    for case in page.found.iter().flat_map(|found| &found.cases) {
        let name = case.id.split_once('/').map_or(case.id.as_str(), |(name, _)| name);
        worst.entry(name).and_modify(|verdict| *verdict = case.verdict.min(*verdict)).or_insert(case.verdict);
    }
    let mut order: Vec<usize> = (0..found.len()).collect();
    order.sort_by_key(|&at| worst.get(found[at].name).copied().unwrap_or(Verdict::Unchanged));
    order
}

fn head(page: &Page, found: &[Bench<'_>], order: &[usize], peers: bool) -> String {
    let mut links = String::from("<li><a href=\"#overview\">Overview</a></li>");
    let mut link = |shown: bool, id: &str, name: &str| {
        if shown {
            links.push_str(&format!("<li><a href=\"#{id}\">{name}</a></li>"));
        }
    };
    link(page.found.is_some(), "verdicts", "Verdicts");
    link(!page.alone(), "cases", "All cases");
    link(page.history.is_some(), "history", "History");
    link(peers, "peers", "Peers");
    link(true, "environment", "Environment");
    let benches: String = order
        .iter()
        .map(|&at| format!("<li><a href=\"#b{at}\">{}</a></li>", escape(found[at].name)))
        .collect();
    let newest = &page.newest().last().run;
    let title = if page.alone() {
        let (mark, word) =
            if page.newest().last().is_complete() { ("good", "complete") } else { ("bad", "partial") };
        format!("{} <span class=\"badge {mark}\">{word}</span>", escape(&newest.id))
    } else {
        let labels: Vec<String> = page.sides.iter().map(|side| escape(&side.label)).collect();
        format!("{} on {}", labels.join(" · "), escape(&newest.machine))
    };
    format!(
        "<a class=\"skip\" href=\"#overview\">To the overview</a>\n<header>\n<h1>Nearfield <span class=\"lane\">{}</span></h1>\n<p \
         class=\"sub\">{title}</p>\n<button id=\"theme\" type=\"button\">Theme: system</button>\n<nav \
         aria-label=\"Sections\"><ul>{links}</ul></nav>\n<nav aria-label=\"Benchmarks\"><ul class=\"benches\">{benches}</ul></nav>\n\
         </header>\n",
        escape(&newest.lane)
    )
}

fn overview(page: &Page, found: &[Bench<'_>], detail: Detail) -> String {
    let mut text = String::from("<section id=\"overview\"><h2>Overview</h2>\n");
    if page.alone() {
        text.push_str(&alone(page.newest()));
    } else {
        text.push_str(&sides(page));
    }
    for side in &page.sides {
        for run in &side.runs {
            if !run.is_complete() {
                text.push_str(&format!(
                    "<p class=\"note bad\">The run {} is partial: it was interrupted or is still going on. Its rows below are whole, \
                     but not all rows are here.</p>\n",
                    escape(&run.run.id)
                ));
            }
            for problem in &run.run.problems {
                text.push_str(&format!("<p class=\"note bad\">{}</p>\n", escape(problem)));
            }
        }
    }
    if let Some(says) = detail.says() {
        text.push_str(&format!("<p class=\"note\">{says}</p>\n"));
    }
    if page.alone() {
        text.push_str(&cases(page, found, detail));
    }
    text.push_str(&format!("{}</section>\n", command::block("This page", &page.command)));
    text
}

/// The table of all cases, and what filters it.
fn cases(page: &Page, found: &[Bench<'_>], detail: Detail) -> String {
    let all = if page.alone() && !page.boots() {
        benches::rows(page, "All cases", found, detail)
    } else {
        pivot(page, found)
    };
    format!(
        "<p><label for=\"filter\">Show cases whose name contains</label> <input id=\"filter\" type=\"search\" \
         autocomplete=\"off\"> <output id=\"shown\" for=\"filter\"></output></p>\n<div id=\"all\">{all}</div>\n"
    )
}

/// Tiles and facts of a page with one side.
fn alone(side: &Shown) -> String {
    let run = side.last();
    let (file, counts) = (&run.run, run.run.counts);
    let boots = if side.runs.len() > 1 {
        format!("{} ({} runs)", side.boots(), side.runs.len())
    } else {
        format!("{} ({} machine starts)", file.repeats, file.boots)
    };
    let facts = [
        ("Machine", file.machine.clone()),
        ("Lane", lane_says(&file.lane).to_owned()),
        ("Commit", run.env.git.describe.clone().unwrap_or_else(|| "not in a git work tree".to_owned())),
        ("Started", file.started.clone()),
        ("Finished", file.finished.clone().unwrap_or_else(|| "no".to_owned())),
        (
            "Profile",
            file.samples
                .map_or(file.profile.clone(), |samples| format!("{} ({samples} samples)", file.profile)),
        ),
        ("Filter", if file.filter.is_empty() { "everything".to_owned() } else { file.filter.clone() }),
        ("Boots", boots),
    ];
    let mut text = String::from("<ul class=\"tiles\">");
    let tiles = [
        ("ok", counts.ok),
        ("failed", counts.failed),
        ("refused", counts.refused),
        ("skipped", counts.skipped),
    ];
    for (name, count) in tiles {
        let class = if name == "failed" && count > 0 { " class=\"bad\"" } else { "" };
        text.push_str(&format!("<li{class}><strong>{count}</strong> {name}</li>"));
    }
    text.push_str(&format!("<li><strong>{}</strong> expected</li></ul>\n", counts.expected));
    text.push_str(&environment::list(&facts));
    text.push_str(&command::whole(if side.runs.len() > 1 { "These runs" } else { "This run" }, side));
    text
}

/// What is shown together, and how each run was made.
fn sides(page: &Page) -> String {
    let head = [
        ("side", Left),
        ("run", Left),
        ("commit", Left),
        ("boots", Right),
        ("ok", Right),
        ("failed", Right),
        ("profile", Left),
        ("started", Left),
    ];
    let mut lines = Vec::new();
    let mut commands = String::new();
    for side in &page.sides {
        for run in &side.runs {
            let file = &run.run;
            lines.push(vec![
                side.label.clone(),
                file.id.clone(),
                run.env.git.describe.clone().unwrap_or_else(|| "none".to_owned()),
                file.repeats.to_string(),
                file.counts.ok.to_string(),
                file.counts.failed.to_string(),
                file.samples
                    .map_or(file.profile.clone(), |samples| format!("{}, {samples} samples", file.profile)),
                file.started.clone(),
            ]);
        }
        commands.push_str(&command::whole(&format!("Measure {}", side.label), side));
    }
    let labels: Vec<&str> = page.sides.iter().map(|side| side.label.as_str()).collect();
    format!(
        "<p>{}. Each side keeps its colour, mark and line in all charts.</p>\n{}{}{}{commands}",
        escape(lane_says(&page.newest().last().run.lane)),
        legend(&labels),
        table("Sides", &head, &lines),
        environment::summary(page),
    )
}

/// A line for each case, with the median of the boots of each side.
fn pivot(page: &Page, found: &[Bench<'_>]) -> String {
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut head = vec![(text("case"), Left), (text("unit"), Left)];
    for side in &page.sides {
        let label = if page.alone() { "p50".to_owned() } else { format!("{} p50", side.label) };
        head.push((label.into(), Right));
        head.push((text("boots"), Right));
    }
    if !page.alone() {
        head.push((format!("{} / {}", page.newest().label, page.sides[0].label).into(), Right));
    }
    head.push((text("status"), Left));
    let line = |(at, case): (usize, &Case<'_>)| {
        let unit = case.unit();
        let mut line =
            vec![Cell::Link(case.id.to_owned(), format!("b{at}")), units::label(unit).to_owned().into()];
        for side in 0..page.sides.len() {
            line.push(case.figure(side).map_or_else(dash, |figure| units::show(figure, unit)).into());
            line.push(case.boots[side].len().to_string().into());
        }
        if !page.alone() {
            line.push(case.change(0, page.sides.len() - 1).map_or_else(dash, percent).into());
        }
        line.push(status(case).into());
        line
    };
    let cases =
        found.iter().enumerate().flat_map(|(at, bench)| bench.cases.iter().map(move |case| (at, case)));
    let lines: Vec<Vec<Cell>> = cases.map(line).collect();
    let caption = if page.alone() {
        "All cases: medians of the boots"
    } else {
        "All cases: medians of the boots, no judgement"
    };
    table_of(caption, &head, &lines)
}

/// The worst that happened to a case.
fn status(case: &Case<'_>) -> String {
    let bad = case.boots.iter().flatten().find(|boot| boot.row.status != CaseStatus::Ok);
    units::status(bad.map_or(CaseStatus::Ok, |boot| boot.row.status)).to_owned()
}

pub(super) fn lane_says(lane: &str) -> &'static str {
    match lane {
        "hw" => "hw: bare metal",
        "kvm" => "kvm: hardware virtualisation",
        "tcg" => "tcg: emulated; shapes mean something, absolute times and tails measure the host",
        "icount" => {
            "icount: emulated; a tick is one guest instruction, and cores share one instruction stream"
        }
        "native" => "native: portable code in a process on the host",
        _ => "unknown",
    }
}

pub(super) fn dash() -> String {
    "–".to_owned()
}

/// Rows without figures; boots and cases of one reason are told once.
fn failures(page: &Page) -> String {
    type Told<'r> = BTreeMap<(&'r str, &'r str, &'r str), Vec<&'r CaseRow>>;
    let mut sides = Vec::new();
    for side in &page.sides {
        let mut told = Told::new();
        for row in side.runs.iter().flat_map(|run| &run.rows).filter(|row| row.status != CaseStatus::Ok) {
            let reason = row.reason.as_deref().unwrap_or("no reason given");
            told.entry((&side.label, units::status(row.status), reason)).or_default().push(row);
        }
        sides.push(told);
    }
    if sides.iter().all(BTreeMap::is_empty) {
        return String::new();
    }
    let mut text = String::from("<section id=\"failures\"><h2>Rows without figures</h2>\n");
    for ((label, status, reason), rows) in sides.into_iter().flatten() {
        let ids: BTreeSet<String> =
            rows.iter().map(|row| format!("<code>{}</code>", escape(&row.id))).collect();
        let of = if label.is_empty() { String::new() } else { format!("{}: ", escape(label)) };
        let boots = if rows.len() > ids.len() { format!(" ({} rows)", rows.len()) } else { String::new() };
        text.push_str(&format!(
            "<p class=\"note {}\">{of}<strong>{}</strong> {}{boots}: {}</p>\n",
            if status == units::status(CaseStatus::Failed) { "bad" } else { "" },
            status,
            ids.into_iter().collect::<Vec<_>>().join(" "),
            escape(reason)
        ));
        for row in rows.iter().filter(|row| !row.log_tail.is_empty()) {
            text.push_str(&format!("<pre tabindex=\"0\">{}</pre>\n", escape(&row.log_tail.join("\n"))));
        }
    }
    text.push_str("</section>\n");
    text
}

fn peers(comparisons: &[Comparison<'_>]) -> String {
    if comparisons.is_empty() {
        return String::new();
    }
    let names: BTreeSet<&str> =
        comparisons.iter().flat_map(|comparison| comparison.peers.keys().copied()).collect();
    let mut head = vec![("case", Left), ("unit", Left), ("nearfield", Right)];
    head.extend(names.iter().map(|&name| (name, Right)));
    let lines: Vec<Vec<String>> =
        comparisons.iter().map(|comparison| comparison_cells(comparison, &names)).collect();
    format!(
        "<section id=\"peers\"><h2>Peers</h2>\n<p>Medians (or the only sample) of the same run in the same process; in brackets \
         how many times better ours is, taken from the same windows where the peer's row has ours beside it. Below 1 the peer is \
         better.</p>\n{}</section>\n",
        table("Peers", &head, &lines)
    )
}

fn comparison_cells(comparison: &Comparison<'_>, names: &BTreeSet<&str>) -> Vec<String> {
    let unit = comparison.ours.unit.as_deref().unwrap_or_default();
    let show = |value: Option<u64>| value.map_or_else(dash, |value| units::show(value, unit));
    let mut line =
        vec![comparison.name.clone(), units::label(unit).to_owned(), show(comparison.ours.typical())];
    line.extend(names.iter().map(|name| match comparison.peers.get(name) {
        None => dash(),
        Some(peer) => match peer.times {
            Some(times) => format!("{} ({times:.2}×)", show(peer.row.typical())),
            None => show(peer.row.typical()),
        },
    }));
    line
}
