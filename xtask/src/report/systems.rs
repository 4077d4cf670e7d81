//! Other systems beside our rows: the figures of `results/peers/` whose lane, name and parameters a row has.

use crate::peers::{Figure, PeerFile};
use crate::report::groups::float;
use crate::report::html::{Align, escape, table};
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus};
use crate::results::units;

/// What stands where a system has no figure.
const NONE: &str = "–";

/// The systems that have a figure for some row of the run, and those rows.
pub(super) struct Beside<'r> {
    /// Rows that some system has a figure for.
    pub(super) rows: Vec<&'r CaseRow>,
    /// Systems that have one.
    pub(super) systems: Vec<&'r PeerFile>,
}

/// Finds what stands beside a run.
pub(super) fn beside<'r>(run: &'r Run, files: &'r [PeerFile]) -> Beside<'r> {
    let measured = |row: &&CaseRow| row.status == CaseStatus::Ok && row.typical().is_some();
    let known = |row: &&CaseRow| files.iter().any(|file| file.beside(row).next().is_some());
    let rows: Vec<&CaseRow> = run.rows.iter().filter(measured).filter(known).collect();
    let systems =
        files.iter().filter(|file| rows.iter().any(|row| file.beside(row).next().is_some())).collect();
    Beside { rows, systems }
}

/// The section of the page; empty where nothing stands beside anything.
pub(super) fn section(run: &Run, files: &[PeerFile]) -> String {
    let Beside { rows, systems } = beside(run, files);
    if rows.is_empty() {
        return String::new();
    }
    let titles: Vec<String> = systems.iter().map(|file| file.title()).collect();
    let mut head = vec![("case", Align::Left), ("unit", Align::Left), ("Nearfield", Align::Right)];
    head.extend(titles.iter().map(|title| (title.as_str(), Align::Right)));
    let lines: Vec<Vec<String>> = rows.iter().map(|row| line(run, row, &systems)).collect();
    let about = |file: &&PeerFile| {
        let (title, how, from) = (escape(&file.title()), escape(&file.configuration), escape(&file.obtained));
        format!("<dt>{title}</dt><dd>{how}. {from}</dd>")
    };
    let sources: String = systems.iter().map(about).collect();
    format!(
        "<section id=\"systems\"><h2>Other systems</h2>\n<p>Typical cost of one operation in the lane {}; after each figure of another \
         system what it did, and how many times more that is than ours.</p>\n{}<dl>{sources}</dl></section>\n",
        escape(&run.run.lane),
        table("Other systems", &head, &lines)
    )
}

fn line(run: &Run, row: &CaseRow, systems: &[&PeerFile]) -> Vec<String> {
    let unit = row.unit.as_deref().unwrap_or_default();
    let boot = if run.run.repeats > 1 { format!(" (boot {})", row.repeat + 1) } else { String::new() };
    let ours = row.typical().map_or_else(|| NONE.to_owned(), |value| units::show(value, unit));
    let mut cells = vec![format!("{}{boot}", row.id), units::label(unit).to_owned(), ours];
    cells.extend(systems.iter().map(|file| cell(file, row)));
    cells
}

/// Every figure that a system has for a row.
pub(super) fn cell(file: &PeerFile, row: &CaseRow) -> String {
    let one = |figure: &Figure| {
        let shown = units::show(figure.figure, &figure.unit);
        match row.typical().filter(|&ours| ours > 0) {
            Some(ours) => format!("{shown} ({}; {:.2}×)", figure.by, float(figure.figure) / float(ours)),
            None => format!("{shown} ({})", figure.by),
        }
    };
    let all: Vec<String> = file.beside(row).map(one).collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{beside, cell, section};
    use crate::peers::{Figure, PeerFile};
    use crate::results::disk::FileSystem;
    use crate::results::reader::Run;
    use crate::results::testing::{self, TempDir};
    use crate::results::writer::RunWriter;
    use std::collections::BTreeMap;

    fn peer(system: &str, lane: &str, name: &str) -> PeerFile {
        let figure = Figure {
            name: name.to_owned(),
            params: BTreeMap::from([("x".to_owned(), "1".to_owned())]),
            by: "<call>".to_owned(),
            figure: 500,
            unit: "milliticks".to_owned(),
        };
        let text = |text: &str| text.to_owned();
        PeerFile {
            schema: 1,
            system: text(system),
            version: text("1"),
            configuration: text("c"),
            lane: text(lane),
            obtained: text("<measured>"),
            figures: vec![figure],
        }
    }

    /// Planted: systems of other lanes get a column.
    #[test]
    fn only_systems_of_the_lane_that_have_a_figure_are_shown() {
        let dir = TempDir::new("systems");
        let mut writer =
            RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file()).unwrap();
        for id in ["a.b/x=1", "a.b/x=2"] {
            writer.case(testing::finished(id)).unwrap();
        }
        let run = Run::open(writer.dir()).unwrap();
        let files = [peer("One", "tcg", "a.b"), peer("Two", "icount", "a.b"), peer("Three", "tcg", "c")];
        let found = beside(&run, &files);
        assert_eq!((found.rows.len(), found.systems.len()), (1, 1));
        assert_eq!(cell(found.systems[0], found.rows[0]), "0.50 (<call>; 2.00×)");
        let text = section(&run, &files);
        assert!(text.contains("One 1") && !text.contains("Two") && !text.contains("Three"), "{text}");
        assert!(text.contains("&lt;call&gt;") && text.contains("&lt;measured&gt;"), "{text}");
        assert_eq!(section(&run, &files[1..]), "");
    }
}
