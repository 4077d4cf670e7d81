//! What `compare` found, the worst first: verdict, figures, and the interval of the ratio as a drawing. Nothing is judged here.

use crate::compare::schema::{CompareFile, Finding, SideFile, Verdict};
use crate::compare::{shown, summary};
use crate::report::command;
use crate::report::groups::{Bench, float};
use crate::report::html::{Align, Cell, escape, table_of};
use crate::report::page::{Detail, Page};
use crate::report::sections::dash;
use crate::report::strips::{Axis, Dot, percent};
use crate::results::units;
use std::cmp::Ordering;

use Align::{Left, Right};

/// The side of the page whose mark the dots have.
const NEW: usize = 1;

/// The section; empty without a base.
pub(super) fn section(page: &Page, benches: &[Bench<'_>], detail: Detail) -> String {
    let (Some(found), Some((base, new))) = (&page.found, &page.compared) else { return String::new() };
    let mut text = format!(
        "<section id=\"verdicts\"><h2>Verdicts</h2>\n{}<p>{}. {}</p>\n",
        tiles(found),
        escape(&summary(found)),
        rules(found)
    );
    text.push_str(&format!(
        "<p class=\"soft\">{} → {}</p>\n",
        about("base", &found.base),
        about("new", &found.new)
    ));
    for remark in &found.remarks {
        text.push_str(&format!("<p class=\"note\">{}</p>\n", coded(remark)));
    }
    if !found.added.is_empty() {
        let added = escape(&found.added.join(" "));
        text.push_str(&format!(
            "<p class=\"note\">Not in the base, so not judged: <code>{added}</code></p>\n"
        ));
    }
    let worst = worst_first(&found.cases);
    let (same, other): (Vec<&Finding>, Vec<&Finding>) =
        worst.into_iter().partition(|case| case.verdict == Verdict::Unchanged);
    let drawn = detail == Detail::Boots || same.len() < 200;
    if other.is_empty() {
        text.push_str("<p>Every figure is unchanged.</p>\n");
    } else {
        text.push_str(&lines("Changes, the worst first", benches, &other, true));
    }
    if !same.is_empty() {
        text.push_str(&format!(
            "<details><summary>{} unchanged</summary>{}</details>\n",
            same.len(),
            lines("Unchanged", benches, &same, drawn)
        ));
    }
    text.push_str(&command::block(
        "Reproduce the verdicts",
        &format!("cargo xtask compare {base} {new} --all"),
    ));
    text.push_str("</section>\n");
    text
}

/// A remark, its commands as code.
fn coded(remark: &str) -> String {
    let parts = remark.split('`').enumerate();
    parts
        .map(|(at, part)| if at % 2 == 1 { format!("<code>{}</code>", escape(part)) } else { escape(part) })
        .collect()
}

fn tiles(found: &CompareFile) -> String {
    let all = [
        Verdict::Regressed,
        Verdict::Missing,
        Verdict::Noisy,
        Verdict::Inconclusive,
        Verdict::Improved,
        Verdict::Unchanged,
    ];
    let tile = |verdict: Verdict| {
        let count = found.counts.get(&verdict).copied().unwrap_or(0);
        let class = match verdict {
            _ if count == 0 => "none",
            Verdict::Regressed | Verdict::Missing => "bad",
            Verdict::Improved => "good",
            Verdict::Noisy | Verdict::Inconclusive | Verdict::Unchanged => "",
        };
        format!("<li class=\"{class}\"><strong>{count}</strong> {}</li>", verdict.word().to_lowercase())
    };
    format!("<ul class=\"tiles\">{}</ul>\n", all.into_iter().map(tile).collect::<String>())
}

fn rules(found: &CompareFile) -> String {
    match found.alpha {
        Some(alpha) => format!(
            "A dot is the ratio of the medians of boots (Hodges and Lehmann), the bar its 95 % interval, the band what is of no \
             interest; {:.0} % false discoveries over all tests.",
            100.0 * alpha
        ),
        None => "Figures of this lane are exact: a dot is the ratio, and there is no interval.".to_owned(),
    }
}

fn about(name: &str, side: &SideFile) -> String {
    let commits: Vec<&str> = side.commits.iter().map(|commit| commit.get(..12).unwrap_or(commit)).collect();
    let commits = if commits.is_empty() { "unknown".to_owned() } else { commits.join(", ") };
    let boots =
        if side.boots == 0 { "committed figures".to_owned() } else { format!("{} boots", side.boots) };
    format!("{name}: {boots}, commit <code>{}</code>", escape(&commits))
}

/// By verdict, then by the size of the change.
fn worst_first(cases: &[Finding]) -> Vec<&Finding> {
    let mut sorted: Vec<&Finding> = cases.iter().collect();
    let size = |case: &Finding| change(case).map_or(0.0, f64::abs);
    sorted.sort_by(|a, b| {
        let sizes = size(b).partial_cmp(&size(a)).unwrap_or(Ordering::Equal);
        a.verdict.cmp(&b.verdict).then(sizes).then_with(|| a.id.cmp(&b.id))
    });
    sorted
}

/// The logarithm of the ratio of new to base.
fn change(case: &Finding) -> Option<f64> {
    match (&case.test, case.base, case.new) {
        (Some(test), ..) => Some(test.ratio.ln()),
        (None, Some(base @ 1..), Some(new @ 1..)) => Some((float(new) / float(base)).ln()),
        _ => None,
    }
}

fn lines(caption: &str, benches: &[Bench<'_>], cases: &[&Finding], drawn: bool) -> String {
    let reach = |case: &&Finding| match &case.test {
        Some(test) => vec![test.low.ln(), test.high.ln(), test.ratio.ln()],
        None => change(case).into_iter().collect(),
    };
    let axis = Axis::of(cases.iter().flat_map(reach));
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut head = vec![(text("case"), Left), (text("verdict"), Left), (text("figure"), Left)];
    head.extend(drawn.then(|| (Cell::Markup(axis.head("new to base")), Left)));
    head.extend(["change", "95 %", "base", "new"].map(|name| (text(name), Right)));
    head.extend(["unit", "why"].map(|name| (text(name), Left)));
    let lines: Vec<Vec<Cell>> = cases.iter().map(|case| line(benches, case, drawn.then_some(axis))).collect();
    table_of(caption, &head, &lines)
}

fn line(benches: &[Bench<'_>], case: &Finding, axis: Option<Axis>) -> Vec<Cell> {
    let name = case.id.split_once('/').map_or(case.id.as_str(), |(name, _)| name);
    let id = match benches.iter().position(|bench| bench.name == name) {
        Some(at) => Cell::Link(case.id.clone(), format!("b{at}")),
        None => case.id.clone().into(),
    };
    let unit = case.unit.as_deref();
    let mut line = vec![id, badge(case.verdict), case.measure.word().to_owned().into()];
    line.extend(axis.map(|axis| {
        let band = case.test.map(|test| test.threshold.ln());
        let interval = case.test.map(|test| (test.low.ln(), test.high.ln()));
        let dots: Vec<Dot> = change(case).map(|at| Dot { at, side: NEW }).into_iter().collect();
        Cell::Markup(axis.strip(band, interval, &dots))
    }));
    let interval = match case.test {
        Some(test) => format!("{} to {}", percent(test.low.ln()), percent(test.high.ln())),
        None if change(case).is_some() => "exact".to_owned(),
        None => dash(),
    };
    line.push(change(case).map_or_else(dash, percent).into());
    line.push(interval.into());
    line.extend([case.base, case.new].map(|value| Cell::from(shown(value, unit))));
    line.push(unit.map_or_else(dash, |unit| units::label(unit).to_owned()).into());
    line.push(case.reason.clone().into());
    line
}

fn badge(verdict: Verdict) -> Cell {
    let class = match verdict {
        Verdict::Regressed | Verdict::Missing => "bad",
        Verdict::Improved => "good",
        Verdict::Noisy | Verdict::Inconclusive | Verdict::Unchanged => "soft",
    };
    Cell::Markup(format!("<span class=\"{class}\">{}</span>", verdict.word()))
}

#[cfg(test)]
mod tests {
    use super::{section, worst_first};
    use crate::compare;
    use crate::compare::schema::{Finding, Verdict};
    use crate::compare::side::Side;
    use crate::compare::testing::{row, run};
    use crate::report::groups::benches;
    use crate::report::page::{Detail, Page, Shown};

    fn side(label: &str, medians: [u64; 3]) -> Shown {
        let rows = ["a/x=1", "a/x=2", "b"].iter().zip(medians);
        let rows = rows.flat_map(|(id, p50)| (0..2).map(move |boot| row(id, boot, p50))).collect();
        Shown { label: label.to_owned(), runs: vec![run(label, "icount", 2, rows)] }
    }

    #[test]
    fn the_worst_stands_first() {
        let sides = vec![side("base", [100_000, 100_000, 100_000]), side("new", [120_000, 190_000, 50_000])];
        let of = |side: &Shown| Side::of(side.runs.clone()).unwrap();
        let found = compare::runs(of(&sides[0]), &of(&sides[1])).unwrap();
        let names: Vec<(&str, Verdict)> = worst_first(&found.cases)
            .iter()
            .map(|case: &&Finding| (case.id.as_str(), case.verdict))
            .collect();
        let expected =
            [("a/x=2", Verdict::Regressed), ("a/x=1", Verdict::Regressed), ("b", Verdict::Improved)];
        assert_eq!(names, expected);
        let mut page = Page::of(sides, String::new()).unwrap();
        (page.found, page.compared) = (Some(found), Some(("B".to_owned(), "N".to_owned())));
        let text = section(&page, &benches(&page.sides), Detail::Boots);
        assert!(text.contains("<strong>2</strong> regressed") && text.contains("+90.0 %"), "{text}");
        assert!(
            text.contains("<a href=\"#b1\">b</a>") && text.contains("cargo xtask compare B N --all"),
            "{text}"
        );
    }
}
