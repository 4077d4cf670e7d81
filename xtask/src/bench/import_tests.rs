//! Tests of imported captures: whole, cut at every byte, damaged, of several starts, and onto a disk that is full.

use super::{About, Capture, write};
use crate::bench::progress::Output;
use crate::bench::suite::Outcome;
use crate::error::{Class, Error};
use crate::results::disk::{Disk, FileSystem};
use crate::results::reader::{Run, list};
use crate::results::schema::{CaseStatus, Git};
use crate::results::testing::{self, TempDir};
use perf::record::{Demux, Event, Record};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

const KEYS: [&str; 3] = ["a.b/x=1", "a.b/x=2", "c"];

fn whole() -> Vec<u8> {
    let frames = testing::suite_frames(&KEYS, 0);
    [b"boot log\r\n".as_slice(), &frames.concat(), b"\nbye\n"].concat()
}

/// Imports to `out`; the run if there is a directory, and what went wrong.
fn import_to(disk: impl Disk, out: &Path, bytes: &[u8]) -> (Option<Run>, Option<Error>) {
    let about = About::of(bytes, None).expect("a capture with records");
    let mut capture = Capture::new(bytes);
    let quiet = Output::Lines(|_| ());
    match write(disk, out, &mut capture, about, Git::default(), SystemTime::now(), quiet) {
        Ok((dir, outcome)) => {
            let failed = |outcome: Outcome| {
                outcome.first_failure.map_or(Ok(()), |class| Err(Error::new(class, "a row")))
            };
            (Run::open(&dir).ok(), outcome.and_then(failed).err())
        }
        Err(error) => (None, Some(error)),
    }
}

fn import(bytes: &[u8]) -> (Run, Option<Class>) {
    let dir = TempDir::new("import");
    let (run, error) = import_to(FileSystem, dir.path(), bytes);
    (run.expect("a run"), error.map(|error| error.class()))
}

/// Rows that arrived whole.
fn rows_in(bytes: &[u8]) -> usize {
    let mut rows = 0;
    Demux::new().feed(bytes, &mut |event| {
        rows += usize::from(matches!(event, Event::Frame { record: Record::Case(_), .. }));
    });
    rows
}

#[test]
fn a_whole_capture_is_a_complete_run() {
    let (run, error) = import(&whole());
    assert_eq!((run.is_complete(), run.rows.len(), error), (true, 3, None));
    assert_eq!(
        (run.run.lane.as_str(), run.run.machine.as_str(), run.run.repeats),
        ("tcg", "qemu-q35-1c1n", 1)
    );
    assert!(run.rows.iter().all(|row| row.status == CaseStatus::Ok && row.p50.is_some()));
}

#[test]
fn what_holds_no_records_is_refused() {
    for bytes in [&b""[..], b"only text\n", &[0, 1, 2, 0, 0xfe, 0xf8, 0]] {
        assert!(About::of(bytes, None).is_none());
    }
}

/// Planted: the beginning of the suite is not missed.
#[test]
fn a_capture_that_begins_late_keeps_its_rows() {
    let frames = testing::suite_frames(&KEYS, 0);
    let (run, error) = import(&frames[5..].concat());
    assert_eq!((run.is_complete(), run.run.machine.as_str()), (false, "unknown"));
    assert_eq!((run.rows.len(), error), (3, Some(Class::CorruptFrame)));
}

/// Planted: the end of a capture that was cut counts as the end of its case, which completes the run.
#[test]
fn a_capture_cut_anywhere_is_partial_and_loses_no_completed_case() {
    let bytes = whole();
    // Without the last record and its closing delimiter: from there on the suite is told to be over.
    let last = bytes.len() - b"\nbye\n".len();
    assert!(import(&bytes[..last]).0.is_complete());
    assert!(!import(&bytes[..last - 1]).0.is_complete());
    let frames = testing::suite_frames(&KEYS, 0);
    let mut boundary = b"boot log\r\n".len();
    for (index, frame) in frames.iter().enumerate() {
        // Before, inside and at the end of every frame.
        for cut in [boundary + 1, boundary + frame.len() / 2, boundary + frame.len() - 1] {
            if About::of(&bytes[..cut], None).is_none() {
                continue;
            }
            let (run, error) = import(&bytes[..cut]);
            assert!(!run.is_complete() && !run.dir.join("COMPLETE").exists(), "frame {index}, byte {cut}");
            assert_eq!(
                (run.rows.len(), error),
                (rows_in(&bytes[..cut]), Some(Class::CorruptFrame)),
                "byte {cut}"
            );
            assert!(run.rows.iter().all(|row| row.status == CaseStatus::Ok), "byte {cut}");
        }
        boundary += frame.len();
    }
}

#[test]
fn several_starts_are_repetitions_or_go_on_after_a_failure() {
    let (run, error) = import(&[whole(), whole()].concat());
    assert_eq!((run.is_complete(), run.rows.len(), run.run.repeats, error), (true, 6, 2, None));
    assert_eq!(run.rows.iter().map(|row| row.repeat).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);

    // The second case of the first start dies, a second start goes on behind it.
    let died =
        [testing::suite_frames(&KEYS, 0)[..5 + 7 + 3].concat(), b"\0PANIC at mm: M3\n".to_vec()].concat();
    let (run, _) = import(&[died.clone(), testing::suite_frames(&KEYS, 2).concat()].concat());
    assert!(run.is_complete());
    let statuses: Vec<CaseStatus> = run.rows.iter().map(|row| row.status).collect();
    assert_eq!(statuses, [CaseStatus::Ok, CaseStatus::Failed, CaseStatus::Ok]);
    assert!(
        run.rows[1].log_tail.iter().any(|line| line.contains("PANIC at mm")),
        "{:?}",
        run.rows[1].log_tail
    );

    // A start that does not go on where the one before ended is not mixed with it.
    let (run, error) = import(&[died, testing::suite_frames(&KEYS, 1).concat()].concat());
    assert_eq!((run.is_complete(), error), (false, Some(Class::CorruptFrame)));
}

/// A file system of so many KiB, unmounted when dropped; `None`, with a line about it, where that is not allowed.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(dir: &TempDir, kib: u32) -> Option<Self> {
        let size = format!("size={kib}k");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir.path().to_owned()));
        }
        let _ = writeln!(io::stderr(), "skipped: a run on a full disk: mounting a tmpfs is not allowed");
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A real disk fills up at every stage: the class says so, and no run looks complete.
#[test]
fn a_full_disk_is_said_and_never_looks_complete() {
    let bytes = whole();
    let (mut full, mut complete) = (0, 0);
    for kib in (8..=400).step_by(56) {
        let dir = TempDir::new("tmpfs");
        let Some(disk) = Tmpfs::mount(&dir, kib) else { return };
        let (run, error) = import_to(FileSystem, &disk.0, &bytes);
        match error {
            Some(error) => {
                assert_eq!(error.class(), Class::DiskFull, "{kib} KiB: {error}");
                assert!(list(&disk.0).iter().all(|run| !run.join("COMPLETE").exists()), "{kib} KiB");
                full += 1;
            }
            None => {
                assert!(run.is_some_and(|run| run.is_complete()), "{kib} KiB");
                complete += 1;
            }
        }
    }
    assert!(
        full > 0 && complete > 0,
        "the sweep must cross the size of a run: {full} full, {complete} complete"
    );
}
