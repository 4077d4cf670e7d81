//! Tests of the run writer: order of writes, a full disk at every byte, names.

use super::{Matrix, RunWriter, csv, file_name};
use crate::error::Class;
use crate::report;
use crate::results::disk::FileSystem;
use crate::results::reader::Run;
use crate::results::schema::RunStatus;
use crate::results::testing::{self, SmallDisk, TempDir};
use std::path::Path;

const DONE: &str = "2026-01-02T03:05:00Z";

/// Writes a run of two cases; returns how many rows were accepted before the disk was full.
fn write(root: &Path, disk: SmallDisk) -> (usize, crate::error::Result<()>) {
    let mut accepted = 0;
    let body = |accepted: &mut usize| {
        let mut writer = RunWriter::create(disk, root, testing::run_file("r"), testing::env_file())?;
        for id in ["a.b/x=1", "a.b/x=2"] {
            writer.serial(b"hello from the guest\n")?;
            writer.case(testing::finished(id))?;
            *accepted += 1;
        }
        writer.complete(DONE.to_owned(), report::render)
    };
    let result = body(&mut accepted);
    (accepted, result)
}

#[test]
fn a_finished_run_reads_back() {
    let dir = TempDir::new("writer");
    let (accepted, result) = write(dir.path(), SmallDisk::new(usize::MAX));
    result.unwrap();
    let run = Run::latest(dir.path()).unwrap();
    assert!(run.is_complete());
    let report = std::fs::read_to_string(run.dir.join("report.html")).unwrap();
    assert!(report.contains(">complete</span>") && !report.contains(">partial</span>"));
    assert_eq!((accepted, run.rows.len(), run.run.counts.ok), (2, 2, 2));
    let row = &run.rows[0];
    assert_eq!(run.histogram(row.hist.as_ref().unwrap()).unwrap().len(), row.n);
    assert_eq!(run.matrix(&row.matrices[0].file).unwrap()[2], ["1", "13", ""]);
}

/// Whatever byte the disk fills up at: the error is its own class, the run is partial, every accepted row is there.
#[test]
fn a_full_disk_never_looks_complete() {
    let whole = TempDir::new("full-size");
    write(whole.path(), SmallDisk::new(usize::MAX)).1.unwrap();
    let (mut partial_rows, mut reports, mut without) = (0, 0, 0);
    // Finely where the run is written, coarsely through the report.
    for room in (0..20_000).step_by(97).chain((20_000..).step_by(211)) {
        let dir = TempDir::new("full");
        let (accepted, result) = write(dir.path(), SmallDisk::new(room));
        let Err(error) = result else { break };
        assert_eq!(error.class(), Class::DiskFull, "{room}: {error}");
        let runs = crate::results::reader::list(dir.path());
        for run in runs {
            assert!(!run.join("COMPLETE").exists(), "{room}");
            reports += usize::from(run.join("report.html").exists());
            without += usize::from(!run.join("report.html").exists());
            if run.join("env.json").exists() && run.join("cases.jsonl").exists() {
                let run = Run::open(&run).unwrap();
                assert_eq!(run.run.status, RunStatus::Partial);
                assert!(run.rows.len() >= accepted, "{room}");
                partial_rows = partial_rows.max(run.rows.len());
            }
        }
    }
    assert_eq!(partial_rows, 2, "the sweep must reach runs that hold every row but are not complete");
    assert!(reports > 0 && without > 0, "and those that hold the report, too: {reports}, {without}");
}

#[test]
fn an_old_run_is_never_written_into() {
    let dir = TempDir::new("again");
    RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file())
        .map(|_| ())
        .unwrap();
    let again =
        RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file()).map(|_| ());
    assert_eq!(again.unwrap_err().class(), Class::Io);
}

#[test]
fn repetitions_share_a_histogram_file() {
    let dir = TempDir::new("repeat");
    let mut writer =
        RunWriter::create(FileSystem, dir.path(), testing::run_file("r"), testing::env_file()).unwrap();
    for repeat in 0..3 {
        let mut finished = testing::finished("a.b/x=1");
        (finished.row.repeat, finished.row.boot) = (repeat, repeat);
        let hist = writer.case(finished).unwrap().hist.clone().unwrap();
        assert_eq!((hist.file.as_str(), hist.interval), ("hist/a.b~x=1.hlog", repeat));
    }
    writer.complete(DONE.to_owned(), report::render).unwrap();
    let run = Run::latest(dir.path()).unwrap();
    assert!(run.rows.iter().all(|row| run.histogram(row.hist.as_ref().unwrap()).unwrap().len() == 1500));
}

#[test]
fn file_names_are_safe_and_distinct() {
    assert_eq!(file_name("a.b/x=1,y=z"), "a.b~x=1,y=z");
    assert_eq!(file_name("~ ../é"), "%7e%20..~%c3%a9");
    assert_ne!(file_name("a~b"), file_name("a/b"));
}

#[test]
fn csv_has_labels_and_empty_cells() {
    let matrix = Matrix {
        name: "m".to_owned(),
        unit: "ps".to_owned(),
        row_axis: "\"from\", core".to_owned(),
        col_axis: "to".to_owned(),
        rows: vec![7],
        cols: vec![0, 5],
        cells: vec![Some(1), None],
    };
    assert_eq!(csv(&matrix), "\"\"\"from\"\", core / to\",0,5\n7,1,\n");
}
