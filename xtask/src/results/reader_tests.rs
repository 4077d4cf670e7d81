//! Tests of the run reader: damage is refused, an unfinished run is accepted.

use super::{Run, csv};
use crate::error::Class;
use crate::report;
use crate::results::disk::FileSystem;
use crate::results::schema::RunStatus;
use crate::results::testing::{self, TempDir};
use crate::results::writer::RunWriter;
use std::fs;
use std::path::PathBuf;

fn complete(dir: &TempDir, id: &str) -> PathBuf {
    let mut writer =
        RunWriter::create(FileSystem, dir.path(), testing::run_file(id), testing::env_file()).unwrap();
    writer.case(testing::finished("a.b/x=1")).unwrap();
    writer.case(testing::finished("a.b/x=2")).unwrap();
    writer.complete("2026-01-02T03:05:00Z".to_owned(), report::render).unwrap();
    writer.dir().to_owned()
}

fn refused(path: &std::path::Path) -> String {
    let error = Run::open(path).unwrap_err();
    assert_eq!(error.class(), Class::BadRun);
    error.to_string()
}

#[test]
fn the_latest_run_is_found() {
    let dir = TempDir::new("latest");
    assert_eq!(Run::latest(dir.path()).unwrap_err().class(), Class::BadRun);
    complete(&dir, "20260101T000000Z-x-1");
    let last = complete(&dir, "20260103T000000Z-x-1");
    complete(&dir, "20260102T000000Z-x-1");
    assert_eq!(Run::latest(dir.path()).unwrap().dir, last);
}

#[test]
fn damage_is_refused() {
    let dir = TempDir::new("damage");
    assert!(refused(&dir.path().join("absent")).contains("not a directory"));
    assert!(refused(dir.path()).contains("run.json"));

    let run = complete(&dir, "cut");
    let text = fs::read(run.join("cases.jsonl")).unwrap();
    fs::write(run.join("cases.jsonl"), &text[..text.len() - 10]).unwrap();
    assert!(refused(&run).contains("cases.jsonl"));

    let run = complete(&dir, "unknown-field");
    let text = fs::read_to_string(run.join("run.json")).unwrap().replace("\"filter\"", "\"filtre\"");
    fs::write(run.join("run.json"), text).unwrap();
    assert!(refused(&run).contains("filtre"));

    let run = complete(&dir, "version");
    let text = fs::read_to_string(run.join("run.json")).unwrap().replace("\"schema\": 1", "\"schema\": 9");
    fs::write(run.join("run.json"), text).unwrap();
    assert!(refused(&run).contains("version 9"));

    let run = complete(&dir, "short-hist");
    fs::write(run.join("hist/a.b~x=1.hlog"), "").unwrap();
    assert!(refused(&run).contains("hlog"));
}

#[test]
fn a_run_without_complete_is_partial_and_usable() {
    let dir = TempDir::new("partial");
    let run = complete(&dir, "p");
    fs::remove_file(run.join("COMPLETE")).unwrap();
    let read = Run::open(&run).unwrap();
    assert_eq!((read.run.status, read.rows.len()), (RunStatus::Partial, 2));

    let text = fs::read(run.join("cases.jsonl")).unwrap();
    for cut in 0..text.len() {
        fs::write(run.join("cases.jsonl"), &text[..cut]).unwrap();
        let whole = text[..cut].iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(Run::open(&run).unwrap().rows.len(), whole, "{cut}");
    }
}

#[test]
fn files_outside_the_run_are_not_read() {
    let dir = TempDir::new("outside");
    let run = Run::open(&complete(&dir, "o")).unwrap();
    for path in ["../x.csv", "/etc/passwd", "matrix/../../x"] {
        assert_eq!(run.matrix(path).unwrap_err().class(), Class::BadRun);
    }
}

#[test]
fn csv_reads_what_the_writer_quotes() {
    assert_eq!(csv("m,\"a,\"\"b\"\"\"\n0,1\n").unwrap(), [vec!["m", "a,\"b\""], vec!["0", "1"]]);
    assert_eq!(csv("\"a"), None);
}
