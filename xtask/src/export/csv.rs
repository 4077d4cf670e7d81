//! CSV (RFC 4180): one line for each row, failed ones included. Figures are as recorded, the column `unit` says in what.

use crate::error::{Class, Error, Result};
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, Direction};
use crate::results::units;

const HEAD: [&str; 27] = [
    "run",
    "complete",
    "lane",
    "machine",
    "commit",
    "started",
    "id",
    "version",
    "status",
    "reason",
    "unit",
    "direction",
    "scope",
    "class",
    "cores",
    "batch",
    "n",
    "min",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "p99.99",
    "max",
    "mean",
    "repeat",
    "boot",
];

/// The whole file.
pub(super) fn render(run: &Run) -> Result<String> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let fail = |error: csv::Error| Error::new(Class::Io, format!("cannot encode CSV: {error}"));
    writer.write_record(HEAD).map_err(fail)?;
    for row in &run.rows {
        writer.write_record(cells(run, row)).map_err(fail)?;
    }
    let bytes =
        writer.into_inner().map_err(|error| Error::new(Class::Io, format!("cannot encode CSV: {error}")))?;
    String::from_utf8(bytes).map_err(|error| Error::new(Class::Io, format!("cannot encode CSV: {error}")))
}

fn cells(run: &Run, row: &CaseRow) -> [String; HEAD.len()] {
    let file = &run.run;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let placement = row.placement.as_ref();
    [
        file.id.clone(),
        run.is_complete().to_string(),
        row.lane.clone(),
        file.machine.clone(),
        text(&run.env.git.commit),
        file.started.clone(),
        row.id.clone(),
        row.version.to_string(),
        units::status(row.status).to_lowercase(),
        text(&row.reason),
        text(&row.unit),
        row.direction.map(direction).unwrap_or_default().to_owned(),
        text(&row.scope),
        placement.map(|placement| placement.class.clone()).unwrap_or_default(),
        number(placement.map(|placement| u64::from(placement.cores))),
        number(row.batch.map(u64::from)),
        row.n.to_string(),
        number(row.min),
        number(row.p50),
        number(row.p90),
        number(row.p99),
        number(row.p999),
        number(row.p9999),
        number(row.max),
        number(row.mean),
        row.repeat.to_string(),
        row.boot.to_string(),
    ]
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Smaller => "smaller",
        Direction::Greater => "greater",
        Direction::Neutral => "neutral",
    }
}
