//! What the page says, section by section: overview, rows, benchmarks, peers, failures, environment.

use crate::error::Result;
use crate::report::charts;
use crate::report::groups::{self, Comparison, Group, float};
use crate::report::html::{Align, escape, table};
use crate::report::{self, systems};
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus, MatrixRef, Site, Target};
use crate::results::units;
use std::collections::{BTreeMap, BTreeSet};

/// Matrices with more labels than this are shown as node medians in the table; the chart shows every cell.
const WIDEST: usize = 64;

use Align::{Left, Right};

/// The body of the page.
pub(super) fn body(run: &Run) -> Result<String> {
    let groups = groups::groups(&run.rows);
    let comparisons = groups::comparisons(&run.rows);
    let mut text = format!("{}<main>\n{}", head(run, &groups, !comparisons.is_empty()), overview(run));
    text.push_str(&failures(run));
    text.push_str(&peers(&comparisons));
    text.push_str(&systems::section(run, &report::peers()));
    for (index, group) in groups.iter().enumerate() {
        text.push_str(&benchmark(run, index, group)?);
    }
    text.push_str(&environment(run));
    text.push_str("</main>\n");
    Ok(text)
}

fn head(run: &Run, groups: &[Group<'_>], peers: bool) -> String {
    let mut links = String::from("<li><a href=\"#overview\">Overview</a></li>");
    if peers {
        links.push_str("<li><a href=\"#peers\">Peers</a></li>");
    }
    for (index, group) in groups.iter().enumerate() {
        links.push_str(&format!("<li><a href=\"#b{index}\">{}</a></li>", escape(group.name)));
    }
    links.push_str("<li><a href=\"#environment\">Environment</a></li>");
    let (mark, word) = if run.is_complete() { ("good", "complete") } else { ("bad", "partial") };
    format!(
        "<header>\n<h1>Nearfield <span class=\"lane\">{}</span></h1>\n<p class=\"sub\">{} <span class=\"badge {mark}\">{word}\
         </span></p>\n<button id=\"theme\" type=\"button\">Theme: system</button>\n<nav aria-label=\"Sections\"><ul>{links}</ul>\
         </nav>\n</header>\n",
        escape(&run.run.lane),
        escape(&run.run.id)
    )
}

fn overview(run: &Run) -> String {
    let (file, counts) = (&run.run, run.run.counts);
    let repeats = format!("{} ({} boots)", file.repeats, file.boots);
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
        ("Repetitions", repeats),
    ];
    let mut text = String::from("<section id=\"overview\"><h2>Overview</h2>\n<ul class=\"tiles\">");
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
    if !run.is_complete() {
        text.push_str(
            "<p class=\"note bad\">This run is partial: it was interrupted or is still going on. The rows below are whole, \
             but not all rows are here.</p>\n",
        );
    }
    text.push_str(&list(&facts));
    for problem in &file.problems {
        text.push_str(&format!("<p class=\"note bad\">{}</p>\n", escape(problem)));
    }
    text.push_str(
        "<p><label for=\"filter\">Show cases whose name contains</label> <input id=\"filter\" type=\"search\" \
         autocomplete=\"off\"> <output id=\"shown\" for=\"filter\"></output></p>\n",
    );
    text.push_str(&format!(
        "<div id=\"all\">{}</div></section>\n",
        rows("All rows", run, &run.rows.iter().collect::<Vec<_>>())
    ));
    text
}

fn lane_says(lane: &str) -> &'static str {
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

fn list(facts: &[(&str, String)]) -> String {
    let items: String = facts
        .iter()
        .map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value)))
        .collect();
    format!("<dl>{items}</dl>\n")
}

const ROW_HEAD: [(&str, Align); 14] = [
    ("case", Left),
    ("placement", Left),
    ("scope", Left),
    ("unit", Left),
    ("n", Right),
    ("min", Right),
    ("p50", Right),
    ("p90", Right),
    ("p99", Right),
    ("p99.9", Right),
    ("p99.99", Right),
    ("max", Right),
    ("mean", Right),
    ("status", Left),
];

/// A table of rows. A figure that the samples do not support is a dash.
fn rows(caption: &str, run: &Run, rows: &[&CaseRow]) -> String {
    let lines: Vec<Vec<String>> = rows.iter().map(|row| cells(run, row)).collect();
    table(caption, &ROW_HEAD, &lines)
}

fn cells(run: &Run, row: &CaseRow) -> Vec<String> {
    let unit = row.unit.as_deref().unwrap_or_default();
    let boot = if run.run.repeats > 1 { format!(" (boot {})", row.repeat + 1) } else { String::new() };
    let mut line = vec![
        format!("{}{boot}", row.id),
        row.placement.as_ref().map_or_else(dash, placement),
        row.scope.clone().unwrap_or_else(dash),
        units::label(unit).to_owned(),
        row.n.to_string(),
    ];
    for value in [row.min, row.p50, row.p90, row.p99, row.p999, row.p9999, row.max, row.mean] {
        line.push(value.map_or_else(dash, |value| units::show(value, unit)));
    }
    line.push(units::status(row.status).to_owned());
    line
}

fn dash() -> String {
    "–".to_owned()
}

fn placement(placement: &crate::results::schema::Placement) -> String {
    let site = |site: Site| format!("C{}/N{}", site.core, site.node);
    match (placement.source, placement.target) {
        (Some(source), Some(target)) => format!("{} {} → {}", placement.class, site(source), site(target)),
        (Some(source), None) => format!("{} {}", placement.class, site(source)),
        _ => format!("{} {} cores", placement.class, placement.cores),
    }
}

fn failures(run: &Run) -> String {
    let bad: Vec<&CaseRow> = run.rows.iter().filter(|row| row.status != CaseStatus::Ok).collect();
    if bad.is_empty() {
        return String::new();
    }
    let mut text = String::from("<section id=\"failures\"><h2>Rows without figures</h2>\n");
    for row in bad {
        let reason = row.reason.as_deref().unwrap_or("no reason given");
        let class = if row.status == CaseStatus::Failed { "bad" } else { "" };
        text.push_str(&format!(
            "<p class=\"note {class}\"><strong>{}</strong> <code>{}</code>: {}</p>\n",
            units::status(row.status),
            escape(&row.id),
            escape(reason)
        ));
        if !row.log_tail.is_empty() {
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

fn benchmark(run: &Run, index: usize, group: &Group<'_>) -> Result<String> {
    let mut text = format!("<section id=\"b{index}\" class=\"bench\"><h2>{}</h2>\n", escape(group.name));
    if group.rows.iter().any(|row| row.hist.is_some()) {
        text.push_str(&format!("<div class=\"chart\" data-group=\"{index}\" data-kind=\"curves\"></div>\n"));
    }
    text.push_str(&rows(&format!("{}: percentiles", group.name), run, &group.rows));
    let curves = groups::scaling(group);
    if !curves.is_empty() {
        text.push_str(&format!("<div class=\"chart\" data-group=\"{index}\" data-kind=\"scaling\"></div>\n"));
        text.push_str(&scaling(group, &curves));
    }
    let matrices = group.rows.iter().flat_map(|row| row.matrices.iter().map(move |matrix| (row, matrix)));
    for (place, (row, matrix)) in matrices.enumerate() {
        text.push_str(&format!(
            "<div class=\"chart\" data-group=\"{index}\" data-kind=\"matrix\" data-matrix=\"{place}\"></div>\n"
        ));
        text.push_str(&matrix_table(run, row, matrix)?);
    }
    text.push_str(&metrics(run, group));
    text.push_str(&method(run, group));
    text.push_str("</section>\n");
    Ok(text)
}

fn scaling(group: &Group<'_>, curves: &[groups::Scaling]) -> String {
    let unit = group.rows.iter().find_map(|row| row.unit.as_deref()).unwrap_or_default();
    let head =
        [("cases", Left), ("cores", Right), ("p50", Right), ("speed-up", Right), ("share of ideal", Right)];
    let mut lines = Vec::new();
    for curve in curves {
        let fewest = curve.points.first().map_or(1, |point| point.cores);
        for point in &curve.points {
            let share = point.speedup * f64::from(fewest) / f64::from(point.cores) * 100.0;
            lines.push(vec![
                curve.name.clone(),
                point.cores.to_string(),
                format!("{} {}", units::show(point.p50, unit), units::label(unit)),
                format!("{:.2}", point.speedup),
                format!("{share:.0} %"),
            ]);
        }
    }
    table(&format!("{}: scaling", group.name), &head, &lines)
}

fn matrix_table(run: &Run, row: &CaseRow, matrix: &MatrixRef) -> Result<String> {
    let nodes = node_map(run);
    let cells = charts::sorted(run.matrix(&matrix.file)?, matrix, &nodes);
    let caption = format!("{}: {} [{}]", row.id, matrix.name, units::label(&matrix.unit));
    let file = escape(&matrix.file);
    let show = |cell: &String| cell.parse().map_or_else(|_| dash(), |value| units::show(value, &matrix.unit));
    let wide = cells.len() > WIDEST || cells[0].len() > WIDEST;
    let cells = if wide { by_node(&cells, matrix, &nodes) } else { cells };
    let caption = if wide { format!("{caption}, medians by node") } else { caption };
    let head: Vec<(&str, Align)> = cells[0]
        .iter()
        .enumerate()
        .map(|(column, label)| (label.as_str(), if column == 0 { Left } else { Right }))
        .collect();
    let lines: Vec<Vec<String>> = cells
        .iter()
        .skip(1)
        .map(|line| std::iter::once(line[0].clone()).chain(line.iter().skip(1).map(show)).collect())
        .collect();
    Ok(format!(
        "<details><summary>Table of this matrix (<code>{file}</code>)</summary>{}</details>\n",
        table(&caption, &head, &lines)
    ))
}

fn node_map(run: &Run) -> BTreeMap<u32, u32> {
    run.env.target.iter().flat_map(|target| target.cores.iter().map(|core| (core.id, core.node))).collect()
}

/// The medians of a matrix between nodes.
fn by_node(cells: &[Vec<String>], matrix: &MatrixRef, nodes: &BTreeMap<u32, u32>) -> Vec<Vec<String>> {
    let node = |axis: &str, label: &str| {
        let id = label.parse::<u32>().unwrap_or(u32::MAX);
        if axis.contains("node") { id } else { nodes.get(&id).copied().unwrap_or(u32::MAX) }
    };
    let mut values: BTreeMap<(u32, u32), Vec<u64>> = BTreeMap::new();
    for line in cells.iter().skip(1) {
        for (label, cell) in cells[0].iter().zip(line).skip(1) {
            let place = (node(&matrix.row_axis, &line[0]), node(&matrix.col_axis, label));
            values.entry(place).or_default().extend(cell.parse::<u64>().ok());
        }
    }
    let cols: BTreeSet<u32> = values.keys().map(|&(_, col)| col).collect();
    let rows: BTreeSet<u32> = values.keys().map(|&(row, _)| row).collect();
    let head =
        std::iter::once("node".to_owned()).chain(cols.iter().map(|col| format!("node {col}"))).collect();
    let mut table = vec![head];
    for row in rows {
        let median = |col: &u32| {
            let mut values = values.get(&(row, *col)).cloned().unwrap_or_default();
            perf::stats::median(&mut values).map(|value| value.to_string()).unwrap_or_default()
        };
        table.push(std::iter::once(format!("node {row}")).chain(cols.iter().map(median)).collect());
    }
    table
}

fn metrics(run: &Run, group: &Group<'_>) -> String {
    let mut lines = Vec::new();
    for row in &group.rows {
        for metric in &row.metrics {
            let value = units::show(metric.value, &metric.unit);
            lines.push(vec![
                charts::label(row, run),
                metric.name.clone(),
                value,
                units::label(&metric.unit).to_owned(),
            ]);
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let head = [("case", Left), ("figure", Left), ("value", Right), ("unit", Left)];
    table(&format!("{}: further figures", group.name), &head, &lines)
}

/// How the figures came about: what a reader needs to distrust them properly.
fn method(run: &Run, group: &Group<'_>) -> String {
    let head = [
        ("case", Left),
        ("version", Right),
        ("operations per sample", Right),
        ("warm-up", Right),
        ("overhead (ticks)", Right),
        ("clamped", Right),
        ("boot", Right),
        ("remark", Left),
    ];
    let line = |row: &&CaseRow| {
        let number = |value: Option<u64>| value.map_or_else(dash, |value| value.to_string());
        vec![
            charts::label(row, run),
            row.version.to_string(),
            number(row.batch.map(u64::from)),
            number(row.warmup.map(u64::from)),
            row.overhead.map_or_else(dash, |cost| format!("{:.3}", float(cost.min) / 1000.0)),
            number(row.clamped),
            row.boot.to_string(),
            row.reason.clone().unwrap_or_default(),
        ]
    };
    let lines: Vec<Vec<String>> = group.rows.iter().map(line).collect();
    let table = table(&format!("{}: method", group.name), &head, &lines);
    format!("<details><summary>How these figures came about</summary>{table}</details>\n")
}

fn environment(run: &Run) -> String {
    let env = &run.env;
    let mut facts = vec![
        ("Commit", env.git.commit.clone().unwrap_or_else(|| "none".to_owned())),
        (
            "Work tree",
            env.git.dirty.map_or("unknown", |dirty| if dirty { "changed" } else { "clean" }).to_owned(),
        ),
        ("Compiler", env.rustc.clone()),
        ("Host CPU", format!("{} ({} threads)", env.host.cpu, env.host.threads)),
        ("Host kernel", env.host.kernel.clone()),
        ("Host governor", env.host.governor.clone().unwrap_or_else(|| "not readable".to_owned())),
    ];
    if let Some(qemu) = &env.qemu {
        facts.push(("Emulator", qemu.version.clone()));
    }
    let mut text = String::from("<section id=\"environment\"><h2>Environment</h2>\n");
    match &env.target {
        Some(target) => {
            facts.extend(target_facts(target));
            text.push_str(&list(&facts));
            text.push_str(&topology(target));
        }
        None => text.push_str(&list(&facts)),
    }
    if let Some(qemu) = &env.qemu {
        let command = escape(&qemu.command.join(" "));
        text.push_str(&format!("<h3>Command of the first boot</h3>\n<pre tabindex=\"0\">{command}</pre>\n"));
    }
    text.push_str("</section>\n");
    text
}

fn target_facts(target: &Target) -> Vec<(&'static str, String)> {
    let clock = &target.clock;
    let mut facts = vec![
        ("Measured CPU", format!("{} ({})", target.cpu, target.vendor)),
        ("Hypervisor", target.hypervisor.clone().unwrap_or_else(|| "none".to_owned())),
        ("Interrupts", target.apic.clone().unwrap_or_else(|| "not applicable".to_owned())),
        ("Clock", format!("{} MHz from {}", clock.hz / 1_000_000, clock.source)),
        ("Memory", format!("{} MiB", target.memory_bytes >> 20)),
        ("Kernel version", target.version.clone()),
        ("Command line", target.command_line.clone()),
        ("Seed", target.seed.to_string()),
        ("CPU features", target.features.join(" ")),
    ];
    if !target.mitigations.is_empty() {
        facts.push(("Speculation", target.mitigations.join(" ")));
    }
    if target.boot_ticks > 0 && clock.hz > 0 {
        let seconds = float(target.boot_ticks) / float(clock.hz);
        facts.push(("Reset to all cores online", format!("{seconds:.3} s of target time")));
    }
    if target.kernel_memory_bytes > 0 {
        facts.push(("Kernel memory", format!("{} KiB", target.kernel_memory_bytes >> 10)));
    }
    facts
}

fn topology(target: &Target) -> String {
    let ids: Vec<String> = target.nodes.iter().map(|node| format!("to {}", node.id)).collect();
    let mut head = vec![("node", Left), ("cores", Left), ("memory (MiB)", Right)];
    head.extend(ids.iter().map(|id| (id.as_str(), Right)));
    let lines: Vec<Vec<String>> = target
        .nodes
        .iter()
        .map(|node| {
            let cores: Vec<u32> =
                target.cores.iter().filter(|core| core.node == node.id).map(|core| core.id).collect();
            let memory = (node.memory_bytes >> 20).to_string();
            let distances = node.distances.iter().map(ToString::to_string);
            [node.id.to_string(), spans(&cores), memory].into_iter().chain(distances).collect()
        })
        .collect();
    let cores: Vec<Vec<String>> = target
        .cores
        .iter()
        .map(|core| {
            [core.id, core.apic_id, core.node, core.package, core.llc, core.smt]
                .map(|id| id.to_string())
                .to_vec()
        })
        .collect();
    let core_head = [
        ("core", Left),
        ("APIC id", Right),
        ("node", Right),
        ("package", Right),
        ("LLC group", Right),
        ("SMT group", Right),
    ];
    format!(
        "{}<details><summary>Cores</summary>{}</details>\n",
        table("Nodes and distances", &head, &lines),
        table("Cores", &core_head, &cores)
    )
}

/// `0-3, 8` for 0, 1, 2, 3, 8.
fn spans(ids: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &id in ids {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => parts.push((id, id)),
        }
    }
    let part = |&(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    if parts.is_empty() { "none".to_owned() } else { parts.iter().map(part).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::spans;

    #[test]
    fn core_lists_are_short() {
        assert_eq!(spans(&[0, 1, 2, 3, 8, 10, 11]), "0-3, 8, 10-11");
        assert_eq!(spans(&[]), "none");
    }
}
