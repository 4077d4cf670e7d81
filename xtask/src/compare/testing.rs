//! Runs made up for the tests of the laboratory.

use super::side::Side;
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, RunStatus};
use crate::results::testing;
use std::path::PathBuf;

/// A good row with this median.
pub(crate) fn row(id: &str, boot: u32, p50: u64) -> CaseRow {
    let mut row = testing::row(id);
    (row.repeat, row.boot, row.n, row.p50) = (boot, boot, 100, Some(p50));
    row
}

/// A complete run of so many boots.
pub(crate) fn run(id: &str, lane: &str, boots: u32, rows: Vec<CaseRow>) -> Run {
    let mut run = testing::run_file(id);
    (run.lane, run.repeats, run.boots, run.status) = (lane.to_owned(), boots, boots, RunStatus::Complete);
    let mut env = testing::env_file();
    env.lane = lane.to_owned();
    let rows = rows.into_iter().map(|row| CaseRow { lane: lane.to_owned(), ..row }).collect();
    Run { dir: PathBuf::from(id), run, env, rows }
}

/// A side of runs that fit together.
pub(crate) fn side(runs: Vec<Run>) -> Side {
    Side::of(runs).unwrap()
}
