//! `cargo xtask trace`: what a run has traced, as a file for Perfetto or chrome://tracing.
//!
//! [`chrome`] makes the events of the file; `trace.jsonl` of the run and the table in `perf::trace` are what it starts from.

mod chrome;

use crate::cli::TraceArgs;
use crate::error::{Class, Error, Result};
use crate::results::disk::{Disk, FileSystem};
use crate::results::reader::Run;
use crate::results::schema::TraceRow;
use crate::results::writer::TRACE;
use crate::{bench, ui};
use std::path::{Path, PathBuf};

/// Name of the file in a run directory.
const NAME: &str = "trace.chrome.json";

/// The subcommand.
///
/// # Errors
/// The run cannot be read or has no trace, or the file cannot be written.
pub fn execute(args: &TraceArgs) -> Result<()> {
    let run = match &args.run {
        Some(path) => Run::open(directory(path))?,
        None => Run::latest(&bench::runs())?,
    };
    let (path, events) = write(&run, args.boot, args.output.clone())?;
    ui::line(&format!("trace: {events} events: {}", path.display()));
    ui::line("trace: open it in https://ui.perfetto.dev or chrome://tracing");
    Ok(())
}

/// The run directory that a path means.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if path.file_name().is_some_and(|name| name == TRACE) => dir,
        _ => path,
    }
}

/// Writes the file of one machine start; where it is, and how many events were traced.
fn write(run: &Run, boot: Option<u32>, output: Option<PathBuf>) -> Result<(PathBuf, usize)> {
    let rows = run.trace()?.unwrap_or_default();
    let Some(first) = rows.first() else {
        let what = format!("{} has no trace", run.dir.display());
        return Err(
            Error::new(Class::BadRun, what).next("make one with `cargo xtask bench --trace all FILTER`")
        );
    };
    let boot = boot.unwrap_or(first.boot);
    let rows: Vec<TraceRow> = rows.into_iter().filter(|row| row.boot == boot).collect();
    if rows.is_empty() {
        let what = format!("nothing was traced in machine start {boot} of {}", run.dir.display());
        return Err(Error::new(Class::BadRun, what).next("leave --boot out to see the first that was"));
    }
    let target = run.env.target.as_ref().filter(|target| target.clock.hz > 0);
    let target = target.ok_or_else(|| {
        Error::new(Class::BadRun, format!("env.json of {} does not tell the clock's rate", run.dir.display()))
    })?;
    let nodes = target.cores.iter().map(|core| (core.id, core.node)).collect();
    let text = chrome::render(&rows, target.clock.hz, &nodes)?;
    let path = output.unwrap_or_else(|| run.dir.join(NAME));
    FileSystem.replace(&path, &text).map_err(|error| Error::io(&error, "write", &path))?;
    Ok((path, rows.len()))
}

#[cfg(test)]
mod tests {
    use super::{TRACE, directory, write};
    use crate::error::Class;
    use crate::report;
    use crate::results::disk::FileSystem;
    use crate::results::reader::Run;
    use crate::results::testing::{self, TempDir};
    use crate::results::writer::RunWriter;
    use std::path::Path;

    fn writer(dir: &TempDir) -> RunWriter<FileSystem> {
        RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file()).unwrap()
    }

    /// Planted: rows of other machine starts are not left out.
    #[test]
    fn a_traced_run_becomes_a_file_beside_it() {
        let dir = TempDir::new("trace");
        let mut writer = writer(&dir);
        writer
            .trace(&[testing::trace_row(0, 0, 5, "ipi", &[]), testing::trace_row(0, 1, 9, "ipi", &[])])
            .unwrap();
        writer.complete("2026-01-02T03:05:00Z".to_owned(), report::render).unwrap();
        let run = Run::open(directory(&writer.dir().join(TRACE))).unwrap();
        let (path, events) = write(&run, None, None).unwrap();
        assert_eq!((path.file_name().unwrap(), events), (Path::new("trace.chrome.json").as_os_str(), 2));
        let value: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(value["traceEvents"].is_array());
        // The run is still whole: the file is none of those that `COMPLETE` lists.
        assert!(Run::open(&run.dir).unwrap().is_complete());
        let elsewhere = dir.path().join("elsewhere.json");
        assert_eq!(write(&run, Some(0), Some(elsewhere.clone())).unwrap(), (elsewhere, 2));
        assert_eq!(write(&run, Some(3), None).unwrap_err().class(), Class::BadRun);
    }

    #[test]
    fn a_run_without_trace_says_how_to_get_one() {
        let dir = TempDir::new("untraced");
        let writer = writer(&dir);
        let run = Run::open(writer.dir()).unwrap();
        let error = write(&run, None, None).unwrap_err();
        assert_eq!(error.class(), Class::BadRun);
        assert!(error.to_string().contains("bench --trace"), "{error}");
    }
}
