//! Tests of the driver with a scripted target.

use super::{Outcome, Plan, Suite, limits};
use crate::bench::progress::Output;
use crate::bench::target::Target;
use crate::error::{Class, Result};
use crate::guest::{End, Flow, Limits};
use crate::results::disk::{Disk, FileSystem};
use crate::results::reader::{Run, list};
use crate::results::schema::{CaseStatus, TraceRow};
use crate::results::testing::{self, SmallDisk, TempDir};
use crate::results::writer::RunWriter;
use abi::boot::{Lane, Params, Profile};
use abi::exit::Exit;
use perf::record::{Demux, Done, Encoder, Event, Record, TraceChunk};
use perf::trace::{self, TraceRecord};
use std::collections::VecDeque;

const KEYS: [&str; 3] = ["a.b/x=1", "a.b/x=2", "c"];
/// Frames before the first case, and of each case.
const HEAD: usize = 5;
const EACH: usize = 7;

/// What a start of the scripted target says before it ends so.
struct Script {
    bytes: Vec<u8>,
    end: End,
}

/// A target that plays scripts and remembers its command lines.
struct Scripted {
    scripts: VecDeque<Script>,
    command_lines: Vec<String>,
}

impl Scripted {
    fn new(scripts: Vec<Script>) -> Self {
        Self { scripts: scripts.into(), command_lines: Vec::new() }
    }
}

impl Target for Scripted {
    fn boot(&mut self, cmdline: &str, _: Limits, listener: &mut dyn FnMut(Event<'_>) -> Flow) -> Result<End> {
        Params::parse(cmdline).expect("the kernel must understand the line");
        self.command_lines.push(cmdline.to_owned());
        let script = self.scripts.pop_front().expect("no more starts are scripted");
        let mut flow = Flow::Continue;
        let mut demux = Demux::new();
        let mut report = |event: Event<'_>| {
            if flow == Flow::Stop {
                return;
            }
            flow = listener(event);
        };
        demux.feed(&script.bytes, &mut report);
        demux.finish(&mut report);
        Ok(if flow == Flow::Stop { End::Stopped } else { script.end })
    }
}

fn whole(after: u32) -> Script {
    Script { bytes: testing::suite_frames(&KEYS, after).concat(), end: End::Exit(Exit::Success) }
}

/// A start that ends after so many frames, with some last words.
fn cut(after: u32, frames: usize, words: &str, end: End) -> Script {
    let mut bytes = testing::suite_frames(&KEYS, after)[..frames].concat();
    bytes.extend_from_slice(words.as_bytes());
    Script { bytes, end }
}

fn plan(repeats: u32) -> Plan {
    Plan {
        filter: String::new(),
        profile: Profile::Quick,
        samples: None,
        lane: Lane::Tcg,
        repeats,
        trace: String::new(),
        limits: limits(Profile::Quick, Lane::Tcg),
    }
}

/// Runs a suite to its end, as `bench` does.
fn run(dir: &TempDir, disk: impl Disk, plan: Plan, target: &mut Scripted) -> Result<Outcome> {
    let writer = RunWriter::create(disk, dir.path(), testing::run_file("r"), testing::env_file())?;
    let mut suite = Suite::new(writer, plan, Output::Lines(|_| ()));
    suite.run(target).and_then(|outcome| suite.close().map(|()| outcome))
}

fn read(dir: &TempDir) -> Run {
    Run::latest(dir.path()).unwrap()
}

fn statuses(run: &Run) -> Vec<CaseStatus> {
    run.rows.iter().map(|row| row.status).collect()
}

#[test]
fn a_good_suite_is_complete() {
    let dir = TempDir::new("good");
    let mut target = Scripted::new(vec![whole(0), whole(0)]);
    assert_eq!(run(&dir, FileSystem, plan(2), &mut target).unwrap(), Outcome::default());
    let run = read(&dir);
    assert!(run.is_complete());
    assert_eq!(run.env.lane, run.run.lane);
    assert_eq!((run.rows.len(), run.run.boots, run.run.counts.expected, run.run.counts.ok), (6, 2, 6, 6));
    assert_eq!(run.rows.iter().map(|row| row.repeat).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    assert_eq!(run.rows[4].hist.as_ref().unwrap().interval, 1);
    assert_eq!(target.command_lines[0], "mode=bench lane=tcg profile=quick");
}

/// Planted: the suite drops what was traced; the plan leaves the word out.
#[test]
fn what_was_traced_is_part_of_the_run() {
    let dir = TempDir::new("traced");
    let mut encoder = Encoder::new();
    let ring = TraceChunk { core: 1, first: 9, records: &TraceRecord { ticks: 4, ..IPI }.to_bytes() };
    let mut frames = testing::suite_frames(&KEYS, 0);
    // Numbered as the last frame, which it takes the place of; that of the end comes after it.
    let last = frames.len() - 1;
    (0..last).for_each(|_| assert!(encoder.encode(&Record::Trace(ring)).is_ok()));
    frames[last] = encoder.encode(&Record::Trace(ring)).unwrap().to_vec();
    frames.push(encoder.encode(&Record::Done(Done { run: 3, failed: 0, skipped: 0 })).unwrap().to_vec());
    let mut target = Scripted::new(vec![Script { bytes: frames.concat(), end: End::Exit(Exit::Success) }]);
    let plan = Plan { trace: "interrupt".to_owned(), ..plan(1) };
    assert_eq!(run(&dir, FileSystem, plan, &mut target).unwrap(), Outcome::default());
    assert_eq!(target.command_lines[0], "mode=bench lane=tcg profile=quick trace=interrupt");
    let run = read(&dir);
    assert!(run.is_complete());
    let row = TraceRow { number: 9, ..testing::trace_row(0, 1, 4, "ipi", &[]) };
    assert_eq!(run.trace().unwrap(), Some(vec![row]));
}

const IPI: TraceRecord = TraceRecord { ticks: 0, a: 0, b: 0, c: 0, core: 1, event: trace::Event::Ipi as u16 };

#[test]
fn a_panic_fails_its_row_and_the_suite_goes_on() {
    let dir = TempDir::new("panic");
    let words = "\nPANIC at mm: M3\n";
    let panic = cut(0, HEAD + EACH + 3, words, End::Exit(Exit::Panic));
    let mut target = Scripted::new(vec![panic, whole(2)]);
    let outcome = run(&dir, FileSystem, plan(1), &mut target).unwrap();
    assert_eq!(outcome.first_failure, Some(Class::GuestPanic));
    let run = read(&dir);
    assert!(run.is_complete());
    assert_eq!(statuses(&run), [CaseStatus::Ok, CaseStatus::Failed, CaseStatus::Ok]);
    let failed = &run.rows[1];
    assert_eq!(failed.id, KEYS[1]);
    assert!(failed.reason.as_ref().unwrap().contains("panicked"));
    assert_eq!(failed.log_tail.last().unwrap(), "PANIC at mm: M3");
    assert_eq!(run.rows[2].boot, 1);
    assert!(target.command_lines[1].ends_with("after=2"));
}

#[test]
fn counted_instructions_may_take_longer() {
    let silence = |lane| limits(Profile::Quick, lane).silence;
    assert!(silence(Lane::Icount) > 3 * silence(Lane::Tcg));
}

#[test]
fn a_silent_last_case_needs_no_further_start() {
    let dir = TempDir::new("silent");
    let silence = limits(Profile::Quick, Lane::Tcg).silence;
    let mut target = Scripted::new(vec![cut(0, HEAD + 2 * EACH + 1, "", End::Silent(silence))]);
    let outcome = run(&dir, FileSystem, plan(1), &mut target).unwrap();
    assert_eq!(outcome.first_failure, Some(Class::Timeout));
    assert_eq!(statuses(&read(&dir)), [CaseStatus::Ok, CaseStatus::Ok, CaseStatus::Failed]);
    assert!(read(&dir).is_complete());
}

/// Wherever the user interrupts: every case that ended is in the run, which is partial and readable.
#[test]
fn an_interrupt_at_every_frame_leaves_a_usable_run() {
    let frames = testing::suite_frames(&KEYS, 0).len();
    for at in 0..frames {
        let dir = TempDir::new("interrupt");
        let mut target = Scripted::new(vec![cut(0, at, "", End::Interrupted)]);
        let error = run(&dir, FileSystem, plan(1), &mut target).unwrap_err();
        assert_eq!(error.class(), Class::Interrupted);
        let run = read(&dir);
        assert!(!run.is_complete() && !run.dir.join("COMPLETE").exists());
        assert_eq!(run.rows.len(), at.saturating_sub(HEAD) / EACH, "{at}");
        assert!(run.rows.iter().all(|row| run.histogram(row.hist.as_ref().unwrap()).unwrap().len() == 40));
    }
}

#[test]
fn a_guest_that_never_starts_ends_the_suite() {
    for (end, class) in [
        (End::Exit(Exit::NothingMatched), Class::NothingMatched),
        (End::Exit(Exit::BadElf), Class::GuestRefused),
        (End::Qemu("no".to_owned()), Class::QemuFailed),
    ] {
        let dir = TempDir::new("never");
        let mut target = Scripted::new(vec![cut(0, 0, "sorry\n", end)]);
        let error = run(&dir, FileSystem, plan(1), &mut target).unwrap_err();
        assert_eq!(error.class(), class);
        assert!(error.to_string().contains("sorry"));
        assert!(!read(&dir).is_complete());
    }
}

#[test]
fn a_filter_that_matches_nothing_is_its_own_error() {
    let dir = TempDir::new("nothing");
    let frames = testing::suite_frames(&[], 0);
    let script = Script { bytes: frames.concat(), end: End::Exit(Exit::NothingMatched) };
    let error = run(&dir, FileSystem, plan(1), &mut Scripted::new(vec![script])).unwrap_err();
    assert_eq!(error.class(), Class::NothingMatched);
    assert!(!read(&dir).is_complete());
}

#[test]
fn a_guest_that_dies_between_cases_is_restarted_once() {
    let dir = TempDir::new("between");
    let dies = || cut(0, HEAD + EACH, "", End::Exit(Exit::Exception));
    let mut target = Scripted::new(vec![dies(), cut(1, HEAD, "", End::Exit(Exit::Exception))]);
    let error = run(&dir, FileSystem, plan(1), &mut target).unwrap_err();
    assert_eq!((error.class(), read(&dir).rows.len()), (Class::GuestPanic, 1));
    assert_eq!(target.command_lines.len(), 2);

    let dir = TempDir::new("between-2");
    let mut target = Scripted::new(vec![dies(), whole(1)]);
    assert_eq!(run(&dir, FileSystem, plan(1), &mut target).unwrap().first_failure, Some(Class::CorruptFrame));
    assert_eq!(read(&dir).rows.len(), 3);
}

/// Each byte of the second case's histogram frame is damaged in turn: the row fails, the others stand.
#[test]
fn a_damaged_frame_fails_its_row() {
    let frames = testing::suite_frames(&KEYS, 0);
    let hist = HEAD + EACH + 5;
    for at in (1..frames[hist].len() - 1).step_by(9) {
        let mut damaged = frames.clone();
        damaged[hist][at] ^= 0x40;
        let dir = TempDir::new("damage");
        let script = Script { bytes: damaged.concat(), end: End::Exit(Exit::Success) };
        let outcome = run(&dir, FileSystem, plan(1), &mut Scripted::new(vec![script])).unwrap();
        assert_eq!(outcome.first_failure, Some(Class::CorruptFrame), "byte {at}");
        let run = read(&dir);
        assert_eq!(statuses(&run), [CaseStatus::Ok, CaseStatus::Failed, CaseStatus::Ok], "byte {at}");
        assert!(!run.run.problems.is_empty());
        assert!(run.is_complete());
    }
}

#[test]
fn a_case_that_vanished_leaves_the_run_partial() {
    let mut frames = testing::suite_frames(&KEYS, 0);
    frames.drain(HEAD + EACH..HEAD + 2 * EACH);
    let dir = TempDir::new("vanished");
    let script = Script { bytes: frames.concat(), end: End::Exit(Exit::Success) };
    let outcome = run(&dir, FileSystem, plan(1), &mut Scripted::new(vec![script])).unwrap();
    assert_eq!(outcome.first_failure, Some(Class::CorruptFrame));
    assert!(!read(&dir).is_complete());
}

#[test]
fn a_full_disk_stops_the_suite_and_the_run_stays_partial() {
    let mut rows = Vec::new();
    for room in (0..40_000).step_by(301).chain((40_000..).step_by(9_973)) {
        let dir = TempDir::new("full-suite");
        match run(&dir, SmallDisk::new(room), plan(1), &mut Scripted::new(vec![whole(0)])) {
            Ok(_) => {
                let run = read(&dir);
                assert!(run.is_complete() && run.dir.join("report.html").exists());
                break;
            }
            Err(error) => assert_eq!(error.class(), Class::DiskFull, "{room}"),
        }
        for path in list(dir.path()) {
            assert!(!path.join("COMPLETE").exists());
            rows.extend(Run::open(&path).map(|run| run.rows.len()));
        }
    }
    assert!(rows.contains(&0) && rows.contains(&3), "the sweep must cross every stage: {rows:?}");
}
