//! The section of one benchmark: percentile curves, boots, scaling, matrices, each with its table, and how the figures came about.

use crate::error::Result;
use crate::report::charts::{self, Charts};
use crate::report::groups::{self, Bench, Boot, Case, Scaling, float};
use crate::report::html::{Align, Cell, escape, table, table_of};
use crate::report::page::{Detail, Page};
use crate::report::sections::dash;
use crate::report::strips::{Axis, Dot, legend, percent};
use crate::report::{command, matrices};
use crate::results::schema::{CaseRow, CaseStatus, Placement, Site};
use crate::results::units;

use Align::{Left, Right};

/// Panels of cases that are open at first; the others are a key press away.
const PANELS: usize = 6;

/// The section.
pub(super) fn section(
    page: &Page,
    index: usize,
    bench: &Bench<'_>,
    detail: Detail,
    charts: &mut Charts,
) -> Result<String> {
    let mut text = format!("<section id=\"b{index}\" class=\"bench\"><h2>{}</h2>\n", escape(bench.name));
    if !page.alone() {
        let labels: Vec<&str> = page.sides.iter().map(|side| side.label.as_str()).collect();
        text.push_str(&legend(&labels));
    }
    text.push_str(&panels(charts.curves(page, bench, detail)?));
    let percentiles =
        rows(page, &format!("{}: percentiles", bench.name), std::slice::from_ref(bench), detail);
    if page.alone() {
        text.push_str(&percentiles);
    } else {
        text.push_str(&format!(
            "<details><summary>Table of the percentiles</summary>{percentiles}</details>\n"
        ));
    }
    text.push_str(&boots(page, bench));
    let curves: Vec<(usize, Scaling)> = (0..page.sides.len())
        .flat_map(|side| groups::scaling(bench, side).into_iter().map(move |curve| (side, curve)))
        .collect();
    if !curves.is_empty() {
        text.push_str(&charts.scaling(page, &curves));
        text.push_str(&scaling(page, bench, &curves));
    }
    for case in &bench.cases {
        text.push_str(&matrices::section(page, case, detail, charts)?);
    }
    text.push_str(&metrics(page, bench));
    text.push_str(&method(page, bench, detail));
    text.push_str(&command::measure(page, &filter(bench)));
    text.push_str("</section>\n");
    Ok(text)
}

/// The filter that selects a benchmark, and no other whose name begins like it where the keys have parameters.
fn filter(bench: &Bench<'_>) -> String {
    let all = bench.cases.iter().all(|case| case.id.contains('/'));
    format!("{}{}", bench.name, if all { "/" } else { "" })
}

/// Charts side by side; many of them are folded.
fn panels(holders: Vec<String>) -> String {
    let single = holders.len() < 2;
    if single {
        return holders.concat();
    }
    let (open, folded) = holders.split_at(holders.len().min(PANELS));
    let mut text = format!("<div class=\"panels\">{}</div>\n", open.concat());
    if !folded.is_empty() {
        text.push_str(&format!(
            "<details class=\"more\"><summary>Curves of {} more cases</summary><div class=\"panels\">{}</div></details>\n",
            folded.len(),
            folded.concat()
        ));
    }
    text
}

/// How a column gets its figure out of a row.
type Figure = fn(&CaseRow) -> Option<u64>;

const FIGURES: [(&str, Figure); 8] = [
    ("min", |row| row.min),
    ("p50", |row| row.p50),
    ("p90", |row| row.p90),
    ("p99", |row| row.p99),
    ("p99.9", |row| row.p999),
    ("p99.99", |row| row.p9999),
    ("max", |row| row.max),
    ("mean", |row| row.mean),
];

/// A row of the page: the number of its side, the boot's number on that side, and the boot.
type Placed<'r> = (usize, usize, Boot<'r>);

/// A table of rows. A figure that the samples do not support is a dash; a column of nothing else is left out.
pub(super) fn rows(page: &Page, caption: &str, benches: &[Bench<'_>], detail: Detail) -> String {
    let cases = benches.iter().flat_map(|bench| &bench.cases);
    let placed: Vec<Placed<'_>> = cases.flat_map(|case| placed(page, case, detail)).collect();
    let figures: Vec<(&str, Figure)> = FIGURES
        .into_iter()
        .filter(|(_, figure)| placed.iter().any(|placed| figure(placed.2.row).is_some()))
        .collect();
    let fine = placed.iter().all(|placed| placed.2.row.status == CaseStatus::Ok);
    let several = detail == Detail::Boots && page.boots();
    let mut head = vec![("case", Left)];
    head.extend((!page.alone()).then_some(("side", Left)));
    head.extend(several.then_some(("boot", Right)));
    head.extend([("placement", Left), ("scope", Left), ("unit", Left), ("n", Right)]);
    head.extend(figures.iter().map(|&(name, _)| (name, Right)));
    head.extend((!fine).then_some(("status", Left)));
    let line = |&(side, number, Boot { row, .. }): &Placed<'_>| {
        let unit = row.unit.as_deref().unwrap_or_default();
        let mut line = vec![row.id.clone()];
        line.extend((!page.alone()).then(|| page.sides[side].label.clone()));
        line.extend(several.then(|| (number + 1).to_string()));
        line.push(row.placement.as_ref().map_or_else(dash, placement));
        line.push(row.scope.clone().unwrap_or_else(dash));
        line.push(units::label(unit).to_owned());
        line.push(row.n.to_string());
        let show = |value: Option<u64>| value.map_or_else(dash, |value| units::show(value, unit));
        line.extend(figures.iter().map(|(_, figure)| show(figure(row))));
        line.extend((!fine).then(|| units::status(row.status).to_owned()));
        line
    };
    let lines: Vec<Vec<String>> = placed.iter().map(line).collect();
    table(caption, &head, &lines)
}

/// The boots of a case that are shown.
fn placed<'r>(page: &Page, case: &Case<'r>, detail: Detail) -> Vec<Placed<'r>> {
    let side = |side: usize| -> Vec<Placed<'r>> {
        let all = case.boots[side].iter().enumerate().map(move |(number, &boot)| (side, number, boot));
        match detail {
            Detail::Boots => all.collect(),
            Detail::Typical | Detail::Tables => {
                case.typical(side).into_iter().map(|boot| (side, 0, boot)).collect()
            }
        }
    };
    (0..page.sides.len()).flat_map(side).collect()
}

fn placement(placement: &Placement) -> String {
    let site = |site: Site| format!("C{}/N{}", site.core, site.node);
    match (placement.source, placement.target) {
        (Some(source), Some(target)) => format!("{} {} → {}", placement.class, site(source), site(target)),
        (Some(source), None) => format!("{} {}", placement.class, site(source)),
        _ => format!("{} {} cores", placement.class, placement.cores),
    }
}

/// The medians of all boots: a dot for each, relative to the median of the first side that has the case.
fn boots(page: &Page, bench: &Bench<'_>) -> String {
    if !page.boots() && page.alone() {
        return String::new();
    }
    let sides = 0..page.sides.len();
    let relative = |case: &Case<'_>, side: usize| -> Vec<f64> {
        let medians = case.medians(side);
        let Some(of) = sides.clone().find_map(|side| case.figure(side)).filter(|&of| of > 0) else {
            return Vec::new();
        };
        medians.iter().map(|&median| (float(median.max(1)) / float(of)).ln()).collect()
    };
    let all = bench
        .cases
        .iter()
        .flat_map(|case| sides.clone().flat_map(|side| relative(case, side)).collect::<Vec<_>>());
    let axis = Axis::of(all);
    let mut lines: Vec<Vec<Cell>> = Vec::new();
    for case in &bench.cases {
        for side in sides.clone() {
            let medians = case.medians(side);
            let (Some(figure), Some(&low), Some(&high)) =
                (case.figure(side), medians.iter().min(), medians.iter().max())
            else {
                continue;
            };
            let dots: Vec<Dot> = relative(case, side).into_iter().map(|at| Dot { at, side }).collect();
            let unit = case.unit();
            let mut line: Vec<Cell> = vec![case.label().to_owned().into()];
            line.extend((!page.alone()).then(|| Cell::from(page.sides[side].label.clone())));
            line.push(Cell::Markup(axis.strip(None, None, &dots)));
            let change = if low > 0 { percent((float(high) / float(low)).ln()) } else { dash() };
            let shown = [figure, low, high].map(|value| Cell::from(units::show(value, unit)));
            line.push(units::label(unit).to_owned().into());
            line.push(medians.len().to_string().into());
            line.extend(shown);
            line.push(change.trim_start_matches('+').to_owned().into());
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut head = vec![(text("case"), Left)];
    head.extend((!page.alone()).then(|| (text("side"), Left)));
    head.push((Cell::Markup(axis.head("p50 of each boot")), Left));
    head.extend([(text("unit"), Left), (text("boots"), Right)]);
    head.extend(["median", "lowest", "highest", "range"].map(|name| (text(name), Right)));
    let first = if page.alone() { "the median of the boots" } else { "the median of the first side" };
    format!(
        "<h3>Boots</h3>\n<p class=\"soft\">One dot is the median of one boot, relative to {first}; all lines share the axis.</p>\n{}",
        table_of(&format!("{}: boots", bench.name), &head, &lines)
    )
}

fn scaling(page: &Page, bench: &Bench<'_>, curves: &[(usize, Scaling)]) -> String {
    let unit = bench.cases.first().map_or("", Case::unit);
    let head =
        [("cases", Left), ("cores", Right), ("p50", Right), ("speed-up", Right), ("share of ideal", Right)];
    let mut lines = Vec::new();
    for (side, curve) in curves {
        let fewest = curve.points.first().map_or(1, |point| point.cores);
        for point in &curve.points {
            let share = point.speedup * f64::from(fewest) / f64::from(point.cores) * 100.0;
            lines.push(vec![
                charts::named(page, *side, &curve.name),
                point.cores.to_string(),
                format!("{} {}", units::show(point.p50, unit), units::label(unit)),
                format!("{:.2}", point.speedup),
                format!("{share:.0} %"),
            ]);
        }
    }
    table(&format!("{}: scaling", bench.name), &head, &lines)
}

fn metrics(page: &Page, bench: &Bench<'_>) -> String {
    let mut lines = Vec::new();
    for case in &bench.cases {
        for (side, number, boot) in placed(page, case, Detail::Boots) {
            for metric in &boot.row.metrics {
                lines.push(vec![
                    charts::named(page, side, case.label()),
                    (number + 1).to_string(),
                    metric.name.clone(),
                    units::show(metric.value, &metric.unit),
                    units::label(&metric.unit).to_owned(),
                ]);
            }
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let head = [("case", Left), ("boot", Right), ("figure", Left), ("value", Right), ("unit", Left)];
    let table = table(&format!("{}: further figures", bench.name), &head, &lines);
    if page.alone() && !page.boots() {
        return table;
    }
    format!("<details><summary>Further figures</summary>{table}</details>\n")
}

/// How the figures came about: what a reader needs to distrust them properly.
fn method(page: &Page, bench: &Bench<'_>, detail: Detail) -> String {
    let head = [
        ("case", Left),
        ("version", Right),
        ("operations per sample", Right),
        ("warm-up", Right),
        ("overhead (ticks)", Right),
        ("clamped", Right),
        ("machine start", Right),
        ("remark", Left),
    ];
    let line = |(side, _, Boot { row, .. }): Placed<'_>, label: &str| {
        let number = |value: Option<u64>| value.map_or_else(dash, |value| value.to_string());
        vec![
            charts::named(page, side, label),
            row.version.to_string(),
            number(row.batch.map(u64::from)),
            number(row.warmup.map(u64::from)),
            row.overhead.map_or_else(dash, |cost| format!("{:.3}", float(cost.min) / 1000.0)),
            number(row.clamped),
            row.boot.to_string(),
            row.reason.clone().unwrap_or_default(),
        ]
    };
    let lines: Vec<Vec<String>> = bench
        .cases
        .iter()
        .flat_map(|case| {
            placed(page, case, detail)
                .into_iter()
                .map(|placed| line(placed, case.label()))
                .collect::<Vec<_>>()
        })
        .collect();
    let table = table(&format!("{}: method", bench.name), &head, &lines);
    format!("<details><summary>How these figures came about</summary>{table}</details>\n")
}

#[cfg(test)]
mod tests {
    use super::{boots, filter, rows};
    use crate::compare::testing::{row, run};
    use crate::report::groups::benches;
    use crate::report::page::{Detail, Page, Shown};

    fn page() -> Page {
        let rows =
            |first: u64| (0..3).map(|boot| row("a.b/x=1", boot, first + 1000 * u64::from(boot))).collect();
        let side = |label: &str, first| Shown {
            label: label.to_owned(),
            runs: vec![run(label, "tcg", 3, rows(first))],
        };
        Page::of(vec![side("base", 100_000), side("new", 120_000)], String::new()).unwrap()
    }

    #[test]
    fn every_boot_of_every_side_is_a_dot() {
        let page = page();
        let found = benches(&page.sides);
        let text = boots(&page, &found[0]);
        assert_eq!(
            (text.matches("<circle class=\"m0\"").count(), text.matches("class=\"m1\"").count()),
            (3, 3)
        );
        assert!(
            text.contains(
                "<td class=\"num\">101.0</td><td class=\"num\">100.0</td><td class=\"num\">102.0</td>"
            ),
            "{text}"
        );
        assert_eq!(filter(&found[0]), "a.b/");
    }

    #[test]
    fn less_detail_is_one_row_for_each_side() {
        let page = page();
        let found = benches(&page.sides);
        let lines = |detail| rows(&page, "c", &found, detail).matches("<th scope=\"row\">").count();
        assert_eq!((lines(Detail::Boots), lines(Detail::Typical)), (6, 2));
        let text = rows(&page, "c", &found, Detail::Boots);
        assert!(
            !text.contains("p99.99") && !text.contains("status"),
            "columns without figures are left out: {text}"
        );
    }
}
