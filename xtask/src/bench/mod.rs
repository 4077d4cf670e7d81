//! `cargo xtask bench`: measures, and writes a run directory.
//!
//! [`suite`] drives the repetitions, whatever they run on; [`target`] knows what they can run on (a machine in QEMU, or
//! this process), [`remote`] a machine that commands switch on; [`import`] plays a capture of the serial port; [`listing`] is `--list`; [`progress`] and [`table`] are what the user sees.

pub mod import;
mod listing;
mod native;
mod progress;
mod remote;
mod suite;
mod table;
mod target;

use crate::cli::BenchArgs;
use crate::error::{Class, Error, Result};
use crate::image::Flavour;
use crate::results::disk::FileSystem;
use crate::results::env;
use crate::results::reader::Run;
use crate::results::schema::{Counts, EnvFile, Qemu, RunFile, RunStatus, VERSION};
use crate::results::writer::RunWriter;
use crate::{cli, interrupt, lane, report, setup, ui, workspace};
use abi::boot::{Lane, Profile};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use suite::{Outcome, Plan, Suite};
use target::{Guest, Target};

/// The subcommand.
///
/// # Errors
/// Whatever stops the run, and the class of the first failed row when the run went through.
pub fn execute(args: &BenchArgs) -> Result<()> {
    measured(args).map(|_| ())
}

/// Measures, and says where the run is; with `--list` there is none.
///
/// # Errors
/// As [`execute`].
pub fn measured(args: &BenchArgs) -> Result<Option<PathBuf>> {
    flavoured(args, Flavour::Plain)
}

/// As [`measured`], with another build of the kernel: for tests of what judges measurements.
///
/// # Errors
/// As [`execute`].
pub fn flavoured(args: &BenchArgs, flavour: Flavour) -> Result<Option<PathBuf>> {
    check_filter(&args.filter)?;
    if args.lane == cli::LaneChoice::Fixed(Lane::Native) {
        if args.trace.is_some() {
            return Err(Error::new(
                Class::Usage,
                "the lane native has no kernel whose events could be traced",
            )
            .next("leave --trace out, or choose another lane"));
        }
        let host = env::host();
        let machine = env::real_machine(&host.cpu, host.threads, host.nodes.unwrap_or(1));
        return measure(args, Lane::Native, machine, None, &mut native::InProcess);
    }
    if let Some(file) = &args.machine_file {
        let mut machine = remote::Remote::read(file)?;
        let (lane, name) = (machine.lane(), machine.name().to_owned());
        return measure(args, lane, name, None, &mut machine);
    }
    let topology = args.machine.topology()?;
    let cores = topology.cores();
    let nodes = u32::try_from(topology.nodes.len()).unwrap_or(u32::MAX);
    setup::ensure(&[setup::Need::GuestTarget])?;
    let qemu = setup::qemu()?;
    let image = crate::image::build(flavour)?;
    let lane = lane::resolve(args.lane, &qemu, &image)?;
    let mut guest = Guest::new(qemu, topology, lane, image.payload)?;
    let described = guest.describe(&plan(args, lane).command_line(0))?;
    let machine = match lane {
        Lane::Kvm => env::real_machine(&env::host().cpu, cores, nodes),
        _ => env::emulated_machine(cores, nodes),
    };
    measure(args, lane, machine, Some(described), &mut guest)
}

fn measure(
    args: &BenchArgs,
    lane: Lane,
    machine: String,
    qemu: Option<Qemu>,
    target: &mut dyn Target,
) -> Result<Option<PathBuf>> {
    let plan = plan(args, lane);
    if args.list {
        return listing::print(&plan, target).map(|()| None);
    }
    let root = args.out.clone().unwrap_or_else(runs);
    let started = SystemTime::now();
    let git = env::git(workspace::root());
    let run = RunFile {
        schema: VERSION,
        id: env::run_id(started, &git),
        lane: lane.word().to_owned(),
        machine,
        started: env::timestamp(started),
        finished: None,
        status: RunStatus::Partial,
        profile: plan.profile.word().to_owned(),
        filter: plan.filter.clone(),
        samples: plan.samples,
        repeats: plan.repeats,
        boots: 0,
        counts: Counts::default(),
        problems: Vec::new(),
    };
    let environment = EnvFile {
        schema: VERSION,
        lane: lane.word().to_owned(),
        git,
        rustc: env::rustc(),
        host: env::host(),
        qemu,
        target: None,
    };
    let writer = RunWriter::create(FileSystem, &root, run, environment)?;
    let dir = writer.dir().to_owned();
    let mut suite = Suite::new(writer, plan, progress::Output::detect());
    let outcome = suite.run(target).and_then(|outcome| suite.close().map(|()| outcome));
    conclude(&dir, outcome).map(|()| Some(dir))
}

/// Shows what the run gave, complete or not, and turns failed rows into an exit code.
fn conclude(dir: &Path, outcome: Result<Outcome>) -> Result<()> {
    if outcome.as_ref().is_err_and(|error| error.class() == Class::NothingMatched) {
        // Nothing was measured and nothing went wrong that a log would explain.
        std::fs::remove_dir_all(dir).map_err(|error| Error::io(&error, "remove", dir))?;
    }
    let run = match Run::open(dir) {
        Ok(run) if !run.rows.is_empty() => run,
        unreadable => {
            if dir.exists() {
                ui::line(&format!("run:    {}", dir.display()));
            }
            return outcome.map(|_| ()).and(unreadable.map(|_| ()));
        }
    };
    ui::line(&table::render(&run));
    // A complete run got its report before it was called complete; any other gets one of what there is.
    let written = if run.is_complete() { Ok(report::path(&run)) } else { report::write(&run) };
    ui::line(&format!("run:    {}", dir.display()));
    // What ended the run is worth more than what kept its report from being written.
    let outcome = outcome?;
    ui::line(&format!("report: {}", written?.display()));
    let Some(class) = outcome.first_failure else { return Ok(()) };
    let counts = run.run.counts;
    let what = match (counts.failed, run.run.problems.len()) {
        (0, 0) => "no row could be measured".to_owned(),
        (failed, problems) => format!("{failed} of {} rows failed, {problems} problems", run.rows.len()),
    };
    Err(Error::new(class, what).next(format!("read {}", dir.join("serial.log").display())))
}

/// Where runs are written unless told otherwise.
pub fn runs() -> PathBuf {
    workspace::root().join("results").join("runs")
}

fn plan(args: &BenchArgs, lane: Lane) -> Plan {
    let samples = if args.list { Some(0) } else { args.samples };
    Plan {
        filter: args.filter.clone(),
        profile: args.profile,
        samples,
        lane,
        repeats: args.boots.unwrap_or(1),
        trace: args.trace.clone().filter(|_| !args.list).unwrap_or_default(),
        // A count of the caller's own may make a case as long as the longest profile does.
        limits: suite::limits(if samples.is_some() { Profile::Full } else { args.profile }, lane),
    }
}

/// The filter becomes a word of the kernel command line, which has no quoting.
fn check_filter(filter: &str) -> Result<()> {
    if filter.contains(char::is_whitespace) {
        return Err(Error::new(Class::Usage, format!("the filter `{filter}` contains a space"))
            .next("join several words with commas: frame.alloc,ipi"));
    }
    interrupt::check()
}
