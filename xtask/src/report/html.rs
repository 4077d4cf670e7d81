//! The page: one file with style, scripts, tables and chart data inside, and nothing from the network.

use crate::error::Result;
use crate::report::{charts, sections};
use crate::results::reader::Run;

const STYLE: &str = include_str!("assets/report.css");
const SCRIPT: &str = include_str!("assets/report.js");
const UPLOT: &str = include_str!("assets/uPlot.iife.min.js");
const UPLOT_STYLE: &str = include_str!("assets/uPlot.min.css");
const UPLOT_LICENCE: &str = include_str!("assets/uPlot.LICENSE");

/// What the page may load: nothing but what is in it.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:";

/// The whole page.
pub(super) fn page(run: &Run) -> Result<String> {
    let title = escape(&format!("Nearfield {} {}", run.run.lane, run.run.id));
    let data = charts::embed(&charts::data(run)?);
    let body = sections::body(run)?;
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

/// A table whose first column heads its lines. Cells are text and get escaped.
pub(super) fn table(caption: &str, head: &[(&str, Align)], lines: &[Vec<String>]) -> String {
    let class = |align: Align| if align == Align::Right { " class=\"num\"" } else { "" };
    let mut text = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table><caption>{0}</caption><thead><tr>",
        escape(caption)
    );
    for &(name, align) in head {
        text.push_str(&format!("<th scope=\"col\"{}>{}</th>", class(align), escape(name)));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for line in lines {
        text.push_str("<tr>");
        for (column, (cell, &(_, align))) in line.iter().zip(head).enumerate() {
            let cell = escape(cell);
            match column {
                0 => text.push_str(&format!("<th scope=\"row\">{cell}</th>")),
                _ => text.push_str(&format!("<td{}>{cell}</td>", class(align))),
            }
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::{Align, SCRIPT, UPLOT, escape, page, table};
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
        let page = page(&Run::open(writer.dir()).unwrap()).unwrap();
        assert!(!page.contains("<img"), "markup of a run must not become markup of the page");
        let ends = page.matches("</script").count();
        assert_eq!(ends, 3, "the data element, uPlot, our script");
        assert!(page.len() < 2 << 20);
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
