//! The result table of the README, between two markers.

use crate::error::{Class, Error, Result};
use crate::peers::PeerFile;
use crate::report::systems;
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus};
use crate::results::units;

const BEGIN: &str = "<!-- results:begin -->";
const END: &str = "<!-- results:end -->";

/// A run as a markdown table: one line for each row with figures, then where they come from.
#[must_use]
pub(super) fn table(run: &Run, peers: &[PeerFile]) -> String {
    let systems = systems::beside(run, peers).systems;
    let titles: String = systems.iter().map(|file| format!(" {} |", file.title())).collect();
    let rules = "---|".repeat(systems.len());
    let mut text = format!("| case | unit | p50 | p99 |{titles}\n|---|---|---:|---:|{rules}\n");
    for row in run.rows.iter().filter(|row| row.status == CaseStatus::Ok && row.typical().is_some()) {
        let beside: String = systems.iter().map(|file| format!(" {} |", systems::cell(file, row))).collect();
        text.push_str(&format!("{}{beside}\n", line(row, run.run.repeats)));
    }
    let commit = run.env.git.describe.as_deref().unwrap_or("no commit");
    let state = if run.is_complete() { "" } else { ", incomplete" };
    let (lane, machine, profile) = (&run.run.lane, &run.run.machine, &run.run.profile);
    let day = run.run.started.get(..10).unwrap_or(&run.run.started);
    text.push_str(&format!(
        "\nLane `{lane}`, machine `{machine}`, profile `{profile}`, commit `{commit}`, {day}{state}."
    ));
    text
}

fn line(row: &CaseRow, repeats: u32) -> String {
    let unit = row.unit.as_deref().unwrap_or_default();
    let figure = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| units::show(value, unit));
    let boot = if repeats > 1 { format!(", boot {}", row.repeat + 1) } else { String::new() };
    let (p50, p99) = (figure(row.typical()), figure(row.p99));
    format!("| `{}`{boot} | {} | {p50} | {p99} |", row.id.replace('|', "\\|"), units::label(unit))
}

/// `text` with what is between the markers replaced by `table`.
///
/// # Errors
/// The markers are missing or in the wrong order.
pub(super) fn replace(text: &str, table: &str) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| missing(BEGIN))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| missing(END))?;
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

fn missing(marker: &str) -> Error {
    Error::new(Class::Io, format!("the marker {marker} is missing"))
        .next(format!("put the lines {BEGIN} and {END} where the table belongs"))
}

#[cfg(test)]
mod tests {
    use super::{replace, table};
    use crate::results::disk::FileSystem;
    use crate::results::reader::Run;
    use crate::results::testing::{self, TempDir};
    use crate::results::writer::RunWriter;

    #[test]
    fn the_table_lists_rows_with_figures() {
        let dir = TempDir::new("markdown");
        let mut writer =
            RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file()).unwrap();
        writer.case(testing::finished("a.b/x=1")).unwrap();
        writer.case(testing::finished("a.b/x=2")).unwrap();
        let text = table(&Run::open(writer.dir()).unwrap(), &[]);
        assert!(text.contains("| `a.b/x=1` | ticks | 0.25 | 0.50 |\n"), "{text}");
        assert!(text.ends_with("2026-01-02, incomplete."), "{text}");
    }

    #[test]
    fn only_the_marked_part_changes() {
        let old = "a\n<!-- results:begin -->\nold\n<!-- results:end -->\nb\n";
        let new = "a\n<!-- results:begin -->\nnew\n<!-- results:end -->\nb\n";
        assert_eq!(replace(old, "new").unwrap(), new);
        assert_eq!(replace(new, "new").unwrap(), new);
        assert!(replace("no markers", "new").is_err());
        assert!(replace("<!-- results:end --><!-- results:begin -->", "new").is_err());
    }
}
