//! `cargo xtask import`: a capture of the serial port, of real hardware for example, becomes a run.
//!
//! The capture is played to the same [`Suite`] that listens to QEMU. I1: a run is complete only if the capture holds the end of every
//! repetition that it holds the beginning of; otherwise it stays partial, with every case whose row is whole.

use crate::bench::progress::Output;
use crate::bench::suite::{self, Plan, Suite};
use crate::bench::target::Target;
use crate::bench::{conclude, runs};
use crate::cli::ImportArgs;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow, Limits};
use crate::results::disk::{Disk, FileSystem};
use crate::results::env;
use crate::results::schema::{Counts, EnvFile, Git, RunFile, RunStatus, VERSION};
use crate::results::writer::RunWriter;
use abi::boot::{Lane, Params, Profile};
use perf::record::{Demux, Event, Record};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The subcommand.
///
/// # Errors
/// The capture cannot be read or holds no records, or it is not whole: the run is then partial.
pub fn execute(args: &ImportArgs) -> Result<()> {
    let bytes = fs::read(&args.capture).map_err(|error| Error::io(&error, "read", &args.capture))?;
    let taken =
        fs::metadata(&args.capture).and_then(|about| about.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut capture = Capture::new(&bytes);
    let about = About::of(&bytes, args.machine.clone()).ok_or_else(|| {
        let what = format!("{} holds no record of a benchmark", args.capture.display());
        let next = "capture the serial port as it is, without translating line ends; serial.log of a run is text only";
        Error::new(Class::BadRun, what).next(next)
    })?;
    let git = Git { commit: args.commit.clone(), ..Git::default() };
    let out = args.out.clone().unwrap_or_else(runs);
    let (dir, outcome) = write(FileSystem, &out, &mut capture, about, git, taken, Output::detect())?;
    conclude(&dir, outcome)
}

/// Plays the capture into a new run directory; where that is, and how it went.
fn write(
    disk: impl Disk,
    out: &Path,
    capture: &mut Capture<'_>,
    about: About,
    git: Git,
    taken: SystemTime,
    output: Output,
) -> Result<(PathBuf, Result<suite::Outcome>)> {
    let run = RunFile {
        schema: VERSION,
        id: env::run_id(taken, &git),
        lane: about.lane.word().to_owned(),
        machine: about.machine,
        started: env::timestamp(taken),
        finished: None,
        status: RunStatus::Partial,
        profile: about.profile.word().to_owned(),
        filter: about.filter.clone(),
        samples: about.samples,
        repeats: capture.repeats(),
        boots: 0,
        counts: Counts::default(),
        problems: Vec::new(),
    };
    let (lane, rustc) = (about.lane.word().to_owned(), "unknown: imported".to_owned());
    let environment =
        EnvFile { schema: VERSION, lane, git, rustc, host: env::host(), qemu: None, target: None };
    let plan = Plan {
        filter: about.filter,
        profile: about.profile,
        samples: about.samples,
        lane: about.lane,
        repeats: capture.repeats(),
        trace: String::new(),
        limits: suite::limits(Profile::Full, about.lane),
    };
    let writer = RunWriter::create(disk, out, run, environment)?;
    let dir = writer.dir().to_owned();
    let mut suite = Suite::new(writer, plan, output);
    let outcome = suite.run(capture).and_then(|outcome| suite.close().map(|()| outcome));
    Ok((dir, outcome.map_err(explain)))
}

/// Nobody interrupted: the capture was.
fn explain(error: Error) -> Error {
    if error.class() != Class::Interrupted {
        return error;
    }
    let what =
        "the capture ends before its suite does; every case that is whole is in the run, which is partial";
    Error::new(Class::CorruptFrame, what)
        .next("capture the whole start, or take the partial run for what it is")
}

/// What the capture says of the run as a whole.
#[derive(Debug)]
struct About {
    lane: Lane,
    profile: Profile,
    filter: String,
    samples: Option<u32>,
    machine: String,
}

impl About {
    /// `None` if there is no record that says in which lane anything was measured.
    fn of(bytes: &[u8], machine: Option<String>) -> Option<Self> {
        let (mut about, mut lane, mut found) = (None, None, None);
        let mut demux = Demux::new();
        demux.feed(bytes, &mut |event| {
            let Event::Frame { record, .. } = event else { return };
            match record {
                Record::Hello(hello) if about.is_none() => {
                    about = Params::parse(hello.params).ok().map(Self::asked);
                }
                // What was measured in says more than what was asked for.
                Record::Case(row) => lane = lane.or(Some(row.lane)),
                Record::Machine(machine) if found.is_none() => {
                    found = Some((machine.cpu.to_owned(), machine.cores, machine.nodes));
                }
                _ => {}
            }
        });
        let unasked = || lane.map(|lane| Self::asked(Params { lane, ..Params::default() }));
        let about = about.or_else(unasked)?;
        let about = Self { lane: lane.unwrap_or(about.lane), ..about };
        let named = found.map(|(cpu, cores, nodes)| match about.lane {
            Lane::Tcg | Lane::Icount => env::emulated_machine(cores, nodes),
            Lane::Hw | Lane::Kvm | Lane::Native => env::real_machine(&cpu, cores, nodes),
        });
        Some(Self { machine: machine.or(named).unwrap_or_else(|| "unknown".to_owned()), ..about })
    }

    fn asked(params: Params<'_>) -> Self {
        let Params { lane, profile, samples, .. } = params;
        Self { lane, profile, samples, filter: params.filter.to_owned(), machine: String::new() }
    }
}

/// The starts of a machine that a capture holds.
#[derive(Debug)]
struct Capture<'b> {
    starts: VecDeque<Start<'b>>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Start<'b> {
    bytes: &'b [u8],
    /// Selected cases that were skipped; `None` if the suite did not begin.
    first: Option<u32>,
}

impl<'b> Capture<'b> {
    /// Cuts a capture before every record with which a kernel introduces itself.
    fn new(bytes: &'b [u8]) -> Self {
        let (mut starts, mut begin, mut frame, mut first) = (VecDeque::new(), 0, 0, None);
        let mut heard = false;
        let mut demux = Demux::new();
        for (at, byte) in bytes.iter().enumerate() {
            let mut hello = false;
            demux.feed(std::slice::from_ref(byte), &mut |event| match event {
                Event::Frame { record: Record::Hello(_), .. } => hello = true,
                Event::Frame { record: Record::SuiteStart(suite), .. } => first = Some(suite.first),
                Event::Frame { .. } | Event::Text(_) | Event::Gap { .. } | Event::Corrupt { .. } => {}
            });
            if hello && heard {
                starts.push_back(Start { bytes: &bytes[begin..frame], first: first.take() });
                begin = frame;
            }
            heard |= hello;
            if *byte == 0 {
                // The next frame may begin with the byte that ended this one.
                frame = at;
            }
        }
        starts.push_back(Start { bytes: &bytes[begin..], first });
        Self { starts }
    }

    /// Every start that skips nothing begins a repetition.
    fn repeats(&self) -> u32 {
        let begun = self.starts.iter().filter(|start| start.first == Some(0)).count();
        u32::try_from(begun).unwrap_or(u32::MAX).max(1)
    }
}

impl Target for Capture<'_> {
    fn boot(&mut self, cmdline: &str, _: Limits, listener: &mut dyn FnMut(Event<'_>) -> Flow) -> Result<End> {
        let after = Params::parse(cmdline).map_or(0, |params| params.after);
        let fits = |start: &Start<'_>| start.first.is_none_or(|first| first == after);
        let Some(start) = self.starts.front().copied().filter(fits) else { return Ok(End::Interrupted) };
        self.starts.pop_front();
        let (mut flow, mut done) = (Flow::Continue, false);
        let mut hand_on = |event: Event<'_>| {
            if flow == Flow::Continue {
                done |= matches!(event, Event::Frame { record: Record::Done(_), .. });
                flow = listener(event);
            }
        };
        let mut demux = Demux::new();
        demux.feed(start.bytes, &mut hand_on);
        demux.finish(&mut hand_on);
        Ok(match (flow, done, self.starts.is_empty()) {
            (Flow::Stop, ..) => End::Stopped,
            (Flow::Continue, true, _) => End::Exit(abi::exit::Exit::Success),
            (Flow::Continue, false, true) => End::Interrupted,
            (Flow::Continue, false, false) => End::Qemu("the machine started anew".to_owned()),
        })
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
