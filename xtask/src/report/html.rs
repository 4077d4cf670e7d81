//! The page: one file with style, scripts, tables and chart data inside, and nothing from the network.

use crate::error::Result;
use crate::report::charts::{self, Charts};
use crate::report::page::{Detail, Page};
use crate::report::sections;

const STYLE: &str = include_str!("assets/report.css");
const SCRIPT: &str = include_str!("assets/report.js");
const UPLOT: &str = include_str!("assets/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("assets/uPlot.min.css");
const UPLOT_LICENCE: &str = include_str!("assets/uPlot.LICENSE");

/// What the page may load: nothing but what is in it.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// What a page must stay below, in bytes: larger ones are slow to open and are cut off by mail and by reviews of changes.
pub(super) const LIMIT: usize = 2 << 20;

/// The whole page, with as much of every boot as there is room for.
pub(super) fn page(page: &Page) -> Result<String> {
    let mut text = String::new();
    for detail in Detail::ALL {
        text = whole(page, detail)?;
        if text.len() < LIMIT {
            return Ok(text);
        }
    }
    Ok(text)
}

fn whole(page: &Page, detail: Detail) -> Result<String> {
    let newest = &page.newest().last().run;
    let title = escape(&match page.sides.as_slice() {
        [_] => format!("Nearfield {} {}", newest.lane, newest.id),
        sides => format!("Nearfield {}: {} sides, {}", newest.lane, sides.len(), newest.id),
    });
    let mut charts = Charts::default();
    let body = sections::body(page, detail, &mut charts)?;
    let data = charts::embed(&charts.json());
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n\
         <style>\n{UPLOT_STYLE}\n{STYLE}</style>\n</head>\n<body>\n{body}\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>\n/*\nuPlot, {UPLOT_LICENCE}\n*/\n{UPLOT}\n</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    ))
}

/// Text as HTML, also inside a quoted attribute (H1).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// What stands in a cell.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// Text, which gets escaped.
    Text(String),
    /// Text that leads to a section.
    Link(String, String),
    /// Markup of our own making.
    Markup(String),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Cell {
    fn html(&self) -> String {
        match self {
            Self::Text(text) => escape(text),
            Self::Link(text, section) => format!("<a href=\"#{}\">{}</a>", escape(section), broken(text)),
            Self::Markup(markup) => markup.clone(),
        }
    }
}

/// Text that may go on in a new line after each comma and slash: the key of a case.
fn broken(text: &str) -> String {
    // What replaces a character in `escape` has neither.
    escape(text).replace(',', ",<wbr>").replace('/', "/<wbr>")
}

/// A table whose first column heads its lines. Cells are text and get escaped.
pub(super) fn table(caption: &str, head: &[(&str, Align)], lines: &[Vec<String>]) -> String {
    let lines: Vec<Vec<Cell>> =
        lines.iter().map(|line| line.iter().cloned().map(Cell::from).collect()).collect();
    let head: Vec<(Cell, Align)> =
        head.iter().map(|&(name, align)| (name.to_owned().into(), align)).collect();
    table_of(caption, &head, &lines)
}

/// A table of any cells.
pub(super) fn table_of(caption: &str, head: &[(Cell, Align)], lines: &[Vec<Cell>]) -> String {
    let class = |align: Align| if align == Align::Right { " class=\"num\"" } else { "" };
    let mut text = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table><caption>{0}</caption><thead><tr>",
        escape(caption)
    );
    for (name, align) in head {
        let drawn = if matches!(name, Cell::Markup(_)) { " data-drawn" } else { "" };
        text.push_str(&format!("<th scope=\"col\"{}{drawn}>{}</th>", class(*align), name.html()));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for line in lines {
        text.push_str("<tr>");
        for (column, (cell, &(_, align))) in line.iter().zip(head).enumerate() {
            match (column, cell) {
                (0, Cell::Text(key)) => text.push_str(&format!("<th scope=\"row\">{}</th>", broken(key))),
                (0, cell) => text.push_str(&format!("<th scope=\"row\">{}</th>", cell.html())),
                _ => text.push_str(&format!("<td{}>{}</td>", class(align), cell.html())),
            }
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::{Align, Cell, LIMIT, SCRIPT, UPLOT, escape, page, table, table_of};
    use crate::compare::testing::{row, run};
    use crate::report;
    use crate::report::page::{Page, Shown};
    use crate::results::disk::FileSystem;
    use crate::results::reader::Run;
    use crate::results::testing::{self, TempDir};
    use crate::results::writer::RunWriter;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<a href=\"x\" o='y'>&"), "&lt;a href=&quot;x&quot; o=&#39;y&#39;&gt;&amp;");
        let text =
            table("c", &[("h", Align::Left), ("n", Align::Right)], &[vec!["<b>".to_owned(), "1".to_owned()]]);
        assert!(text.contains("<th scope=\"row\">&lt;b&gt;</th><td class=\"num\">1</td>"));
        assert!(
            table("c", &[("h", Align::Left)], &[vec!["a.b/x=<,y".to_owned()]])
                .contains("a.b/<wbr>x=&lt;,<wbr>y")
        );
        let link = Cell::Link("<b>".to_owned(), "\"x".to_owned());
        let text = table_of("c", &[("h".to_owned().into(), Align::Left)], &[vec![link]]);
        assert!(text.contains("<a href=\"#&quot;x\">&lt;b&gt;</a>"), "{text}");
    }

    #[test]
    fn a_hostile_run_cannot_break_out_of_the_page() {
        let dir = TempDir::new("hostile");
        let hostile = "</script><img src=x onerror=alert(1)>";
        let mut run = testing::run_file("r");
        run.problems.push(hostile.to_owned());
        let mut writer = RunWriter::create(FileSystem, dir.path(), run, testing::env_file()).unwrap();
        let mut finished = testing::finished(&format!("a.b/x={hostile}"));
        finished.row.reason = Some(hostile.to_owned());
        finished.row.log_tail.push(hostile.to_owned());
        finished.matrices[0].name = hostile.to_owned();
        writer.case(finished).unwrap();
        let (_, page) = report::render(&Run::open(writer.dir()).unwrap()).unwrap();
        assert!(!page.contains("<img"), "markup of a run must not become markup of the page");
        let ends = page.matches("</script").count();
        assert_eq!(ends, 3, "the data element, uPlot, our script");
        assert!(page.len() < LIMIT);
    }

    #[test]
    fn a_page_that_would_be_too_large_shows_less_of_each_boot() {
        let rows =
            |boot: u32| (0..1200).map(move |case| row(&format!("a.b/order={case},mem=local"), boot, 100_000));
        let run = run("r", "tcg", 6, (0..6).flat_map(rows).collect());
        let side = Shown { label: String::new(), runs: vec![run] };
        let page = page(&Page::of(vec![side], String::new()).unwrap()).unwrap();
        assert!(page.len() < LIMIT, "{}", page.len());
        assert!(page.contains("boot whose median is in the middle"));
    }

    #[test]
    fn scripts_load_nothing_and_can_be_embedded() {
        for script in [SCRIPT, UPLOT] {
            assert!(!script.contains("</script"));
            for network in ["fetch(", "XMLHttpRequest", "import(", "WebSocket"] {
                assert!(!script.contains(network), "{network}");
            }
        }
    }
}
