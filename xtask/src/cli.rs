//! The command line: one struct for each subcommand, and the examples of `--help`.

use crate::error;
use crate::export::Format;
use crate::image::Flavour;
use crate::topology::{Mebibytes, Topology};
use abi::boot::{ApicMode, Lane, Profile};
use abi::debug::TraceEvents;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Build, run, test and measure Nearfield.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_long_help = after_help(), max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install what is missing: the Rust target and QEMU
    Setup(SetupArgs),
    /// Boot the kernel with its serial port on this terminal
    Run(RunArgs),
    /// Run the host tests, then the tests in QEMU
    Test(TestArgs),
    /// Measure, and write a run to results/runs
    Bench(BenchArgs),
    /// Write the report of runs as one offline HTML file
    Report(ReportArgs),
    /// Turn the trace of a run into a file for Perfetto or chrome://tracing
    Trace(TraceArgs),
    /// Check formatting, lints, crate layers, licences, house rules and the manual
    Check(CheckArgs),
    /// Write a run in the format of another tool
    Export(ExportArgs),
    /// Measure for how many instructions each system call keeps interrupts off, and where
    Irqoff(IrqoffArgs),
    /// Measure another system, for the comparison in reports
    Peers(PeersArgs),
    /// Judge one build by another, boot by boot
    Compare(CompareArgs),
    /// Measure how much boots of one build differ on this host
    Calibrate(CalibrateArgs),
    /// Turn a capture of a serial port into a run
    Import(ImportArgs),
    /// Say what here makes figures lie, and what to do about it
    Doctor(DoctorArgs),
    /// Make a disk image that boots on hardware, through the official Limine
    Image(ImageArgs),
    /// Build two revisions, measure them in turn, and compare them
    Ab(AbArgs),
    /// Find where figures changed over many runs
    History(HistoryArgs),
}

/// Flags of `setup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask setup\n  cargo xtask setup --check\n  cargo xtask setup --newest --readers"
)]
pub struct SetupArgs {
    /// Only say what is missing; fail if anything is
    #[arg(long)]
    pub check: bool,
    /// Take QEMU from the backports of the distribution if it is newer there (what CI does)
    #[arg(long, conflicts_with = "check")]
    pub newest: bool,
    /// Install as well what tests have read our exports and workflow: Python packages of fixed versions and hashes, in a virtual environment in the build output; where there is Java, HdrHistogram's
    #[arg(long, conflicts_with = "check")]
    pub readers: bool,
}

/// Flags that describe the machine.
#[derive(Clone, Debug, Args)]
pub struct MachineArgs {
    /// Cores, spread evenly over the nodes
    #[arg(long, value_name = "CORES", default_value_t = 8, conflicts_with = "topology")]
    pub smp: u32,
    /// NUMA nodes
    #[arg(long, value_name = "NODES", default_value_t = 2, conflicts_with = "topology")]
    pub nodes: u32,
    /// Memory of all nodes together
    #[arg(long, value_name = "SIZE", default_value = "4G", conflicts_with = "topology")]
    pub mem: Mebibytes,
    /// TOML file with nodes, distances and sparse ids
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
}

impl MachineArgs {
    /// The machine asked for.
    ///
    /// # Errors
    /// [`error::Class::BadTopology`].
    pub fn topology(&self) -> error::Result<Topology> {
        match &self.topology {
            Some(path) => Topology::read(path),
            None => Topology::even(self.smp, self.nodes, self.mem),
        }
    }
}

/// Flags of `run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunArgs {
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// auto, tcg, kvm or icount
    #[arg(long, value_parser = lanes(&["auto", "tcg", "kvm", "icount"]), default_value = "auto")]
    pub lane: LaneChoice,
    /// Stop before the first instruction until gdb attaches to port 1234
    #[arg(long)]
    pub gdb: bool,
    /// plain, racing (seeded delays in the windows of races), early-ack, late-derive or hasty-revoke (racing, with a planted bug in TLB shootdown, derivation or revocation)
    #[arg(long, value_parser = words(&["plain", "racing", "early-ack", "late-derive", "hasty-revoke"], Flavour::parse), default_value = "plain", conflicts_with = "gdb")]
    pub flavour: Flavour,
    /// auto uses x2APIC where the CPU has it, xapic never does
    #[arg(long, value_parser = words(&["auto", "xapic"], ApicMode::parse), default_value = "auto")]
    pub apic: ApicMode,
    /// More words for the kernel command line
    #[arg(last = true, value_name = "KEY=VALUE")]
    pub words: Vec<String>,
}

/// Flags of `test`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --host histogram\n  \
                        cargo xtask test --qemu topology/uneven\n\nThe last line is `N passed, N failed[, N skipped]`.")]
pub struct TestArgs {
    /// Run only tests whose name has one of these words, joined by commas
    #[arg(default_value = "")]
    pub filter: String,
    /// Only the tests that need no QEMU
    #[arg(long, conflicts_with = "qemu")]
    pub host: bool,
    /// Only the tests in QEMU
    #[arg(long)]
    pub qemu: bool,
    /// Every topology with the whole table, hours instead of minutes for the host tests, ten minutes for each hunt
    #[arg(long)]
    pub soak: bool,
}

/// Flags of `bench`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --list\n  cargo xtask bench frame.alloc,ipi \
                        --smp 16 --nodes 4\n  cargo xtask bench --lane icount frame.alloc"
)]
pub struct BenchArgs {
    /// Run only cases whose name has one of these words, joined by commas
    #[arg(default_value = "")]
    pub filter: String,
    /// Name the cases and stop
    #[arg(long)]
    pub list: bool,
    /// quick takes minutes, full gives far percentiles
    #[arg(long, value_parser = words(&["quick", "ci", "full"], Profile::parse), default_value = "quick")]
    pub profile: Profile,
    /// auto measures with kvm where it really works, else with tcg
    #[arg(long, value_parser = lanes(&["auto", "tcg", "kvm", "icount", "native"]), default_value = "auto")]
    pub lane: LaneChoice,
    /// Boots of the machine; each gives one figure per case
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub boots: Option<u32>,
    /// The machine.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// TOML file of a real machine: the commands that build for it, switch it on and give its serial port (results/README.md)
    #[arg(long = "machine", value_name = "FILE", conflicts_with_all = ["lane", "smp", "nodes", "mem", "topology"])]
    pub machine_file: Option<PathBuf>,
    /// Samples of each case, instead of the profile's number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: Option<u32>,
    /// Record these kinds of events as well, joined by commas: see `cargo xtask trace --help`
    #[arg(long, value_name = "EVENTS", value_parser = trace_events)]
    pub trace: Option<String>,
    /// Where runs are written [default: results/runs]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Flags of `report`.
#[derive(Debug, Args)]
#[command(after_help = REPORT_HELP)]
pub struct ReportArgs {
    /// What to show, in one colour each: a run directory, or several of one build joined by commas [default: the newest run]
    #[arg(value_name = "RUN")]
    pub runs: Vec<String>,
    /// Show the verdicts against BASE, which is as in `cargo xtask compare`, the worst changes first
    #[arg(long, value_name = "BASE", conflicts_with_all = ["markdown", "update_readme"])]
    pub base: Option<String>,
    /// Show the history of the cases and its change points [DIR: results/runs]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with_all = ["markdown", "update_readme"])]
    pub history: Option<Option<PathBuf>>,
    /// Where to write it [default: report.html in the run directory; comparison.html in that of the last run if more is shown]
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["markdown", "update_readme"])]
    pub output: Option<PathBuf>,
    /// Print the result table as markdown instead
    #[arg(long, conflicts_with = "update_readme")]
    pub markdown: bool,
    /// Put the result table between the markers of README.md instead
    #[arg(long)]
    pub update_readme: bool,
}

const REPORT_HELP: &str = "Examples:
  cargo xtask report
  cargo xtask report results/runs/tcg/<machine>/<run>
  cargo xtask report RUN OTHER                        percentile curves of both
  cargo xtask report RUN,RUN,RUN --base RUN,RUN,RUN   with the verdicts of `cargo xtask compare`
  cargo xtask report --base baseline --history
  cargo xtask report --update-readme

Runs of different lanes are never shown together. The file needs no network, and stays below 2 MiB:
where curves of all boots would be larger, it shows those of the boot in the middle.";

/// Flags of `trace`.
#[derive(Debug, Args)]
#[command(after_help = trace_help())]
pub struct TraceArgs {
    /// A run directory, or its trace.jsonl [default: the newest run]
    pub run: Option<PathBuf>,
    /// chrome: the JSON trace event format, which ui.perfetto.dev and chrome://tracing open
    #[arg(long, value_name = "FORMAT", value_parser = ["chrome"], default_value = "chrome")]
    pub to: String,
    /// The machine start to show, from 0 [default: the first that was traced]
    #[arg(long, value_name = "N")]
    pub boot: Option<u32>,
    /// Where to write it [default: trace.chrome.json in the run directory]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn trace_help() -> String {
    let kinds: Vec<&str> = TraceEvents::WORDS.iter().map(|&(word, _)| word).collect();
    format!(
        "Each core keeps its newest 2048 events in memory and sends them at the end of the run;\na filter that leaves one case \
         shows that case.\nKinds of events: {}; or all.\n\nExamples:\n  cargo xtask bench --trace interrupt,fault mailbox.rtt\n  \
         cargo xtask trace\n  cargo xtask trace results/runs/tcg/<machine>/<run> -o wakes.json",
        kinds.join(", ")
    )
}

/// Flags of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask check\n  cargo xtask check --only rules")]
pub struct CheckArgs {
    /// Run one check only
    #[arg(long, value_name = "CHECK", value_parser = ["format", "lints", "layers", "licences", "rules", "manual"])]
    pub only: Option<String>,
    /// Write docs/syscalls.md anew from the table of system calls, and check nothing
    #[arg(long, conflicts_with = "only")]
    pub write_manual: bool,
}

/// Flags of `export`.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_HELP)]
pub struct ExportArgs {
    /// A run directory [default: the newest run]
    pub run: Option<PathBuf>,
    /// One of the formats below
    #[arg(long, value_name = "FORMAT", value_parser = words(Format::WORDS, Format::parse))]
    pub to: Format,
    /// Where to write it [default: standard output; hgrm: a folder in the run directory]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

const EXPORT_HELP: &str = "Formats:
  csv          every row, for spreadsheets and data frames
  bmf          Bencher (--adapter json)
  jmh          what JMH writes: JMH Visualizer
  gha          github-action-benchmark, tool customSmallerIsBetter: what should be small
  gha-bigger   the same, tool customBiggerIsBetter: what should be great
  openmetrics  Prometheus
  markdown     the table of `cargo xtask report --markdown`
  hgrm         HdrHistogram's plotter: a folder with the percentile distribution of each row

results/README.md says what each holds.

Examples:
  cargo xtask export --to csv
  cargo xtask export results/runs/icount/<machine>/<run> --to bmf -o bench.json";

/// Flags of `irqoff`.
#[derive(Debug, Args)]
#[command(after_help = IRQOFF_HELP)]
pub struct IrqoffArgs {
    /// Show only calls whose name has one of these words, joined by commas
    #[arg(default_value = "")]
    pub filter: String,
    /// What makes the calls, of the list below, joined by commas [default: all but fuzz]
    #[arg(long, value_name = "DRIVERS")]
    pub drive: Option<String>,
    /// Fail (exit code 18) if a stretch is longer than allowed
    #[arg(long)]
    pub gate: bool,
    /// Print JSON (results/schema/irqoff.schema.json) instead of the table
    #[arg(long)]
    pub json: bool,
    /// Write the JSON to a file as well
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

const IRQOFF_HELP: &str = "Examples:
  cargo xtask irqoff
  cargo xtask irqoff process_,unmap --drive matrix
  cargo xtask irqoff --gate -o irqoff.json

One emulated core, whose instructions are counted. A stretch begins where the core stops taking
interrupts (entry of a system call, interrupt or exception; CLI) and ends where it could take the
next (back in a program; STI). Looking for what is pending with interrupts off does not end it. A
repeated string instruction counts once for each repetition. A stretch belongs to the call that
began it, whatever the kernel does before it returns; others to the entry that they began with.
Calls that nobody makes, or not with much to do, are not measured.

Drivers: matrix, programs, rows; fuzz, for which there are no limits: what gives a memory object's
frames back comes behind any call there.

Exit codes:
    0  measured; with --gate: nothing is longer than allowed
   18  with --gate: a stretch is longer than allowed";

/// Flags of `peers`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask peers linux\n  cargo xtask peers linux --kernel /boot/vmlinuz-6.12.0 -o linux.json"
)]
pub struct PeersArgs {
    /// Which system
    #[command(subcommand)]
    pub system: PeerSystem,
}

/// The systems that can be measured here.
#[derive(Debug, Subcommand)]
pub enum PeerSystem {
    /// The distribution's kernel with our own static programs, one core, counted instructions
    Linux(LinuxArgs),
}

/// Flags of `peers linux`.
#[derive(Debug, Args)]
pub struct LinuxArgs {
    /// A kernel to boot [default: the newest of the package linux-image-cloud-amd64, downloaded with apt and not installed]
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Where the figures are written [default: results/peers/linux-icount.json]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Flags of `compare`.
#[derive(Debug, Args)]
#[command(after_help = COMPARE_HELP)]
pub struct CompareArgs {
    /// What to compare with: run directories joined by commas, a file of committed figures, or `baseline` for the one that fits
    pub base: String,
    /// What to judge: run directories joined by commas [default: the newest run]
    pub new: Option<String>,
    /// Write the committed figures of the instruction lane anew from NEW, and compare nothing
    #[arg(long, conflicts_with_all = ["gate", "json", "markdown", "all"])]
    pub bless: bool,
    /// What to show.
    #[command(flatten)]
    pub output: CompareOutput,
}

/// How a comparison is shown.
#[derive(Debug, Args)]
pub struct CompareOutput {
    /// Fail (exit code 18) if a case regressed, is missing or failed
    #[arg(long)]
    pub gate: bool,
    /// Print JSON (results/schema/compare.schema.json)
    #[arg(long)]
    pub json: bool,
    /// Write the table of a pull request as well
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Show unchanged cases as well
    #[arg(long)]
    pub all: bool,
}

/// Flags of `calibrate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask calibrate --lane tcg --boots 16\n  \
                        cargo xtask calibrate --from results/runs/tcg/<machine>/<run>\n\nThe noise is kept in results/noise, \
                        for each machine, profile and number of samples;\n`compare`, `ab` and `report --base` use it, and say so. \
                        With a filter, what is known of\nother cases stays.")]
pub struct CalibrateArgs {
    /// Runs of one build that are there, joined by commas, instead of measuring
    #[arg(long, value_name = "RUNS")]
    pub from: Option<String>,
    /// What to measure; 16 boots by default.
    #[command(flatten)]
    pub bench: BenchArgs,
}

/// Flags of `ab`.
#[derive(Debug, Args)]
#[command(after_help = AB_HELP)]
pub struct AbArgs {
    /// The revision to compare with
    pub base: String,
    /// The revision to judge
    pub new: String,
    /// Boots of each revision
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub boots: u32,
    /// Keep the checkouts and their builds, for more boots later
    #[arg(long)]
    pub keep: bool,
    /// What to show.
    #[command(flatten)]
    pub output: CompareOutput,
    /// Filter and flags of `cargo xtask bench`, which both revisions must know
    #[arg(last = true, value_name = "BENCH FLAGS")]
    pub bench: Vec<String>,
}

const AB_HELP: &str = "Examples:
  cargo xtask ab main HEAD -- ipc.rt --lane tcg --smp 1 --nodes 1 --mem 1G
  cargo xtask ab HEAD~1 HEAD --boots 12 --gate -- --lane native slab

Boots go A B B A. Each is a run in results/ab; interrupted, the same command goes on from there, and
with a larger --boots it adds to what is there. The same revision twice shows how often the verdicts
are false alarms here. Checkouts are git worktrees in target/nearfield/ab, removed at the end.

Exit codes are those of `cargo xtask compare`; 2 if a revision or a flag is not known, 12 if a
revision does not build.";

/// Flags of `history`.
#[derive(Debug, Args)]
#[command(after_help = HISTORY_HELP)]
pub struct HistoryArgs {
    /// Only cases whose name has one of these words, joined by commas
    #[arg(default_value = "")]
    pub filter: String,
    /// Where runs are
    #[arg(long, value_name = "DIR")]
    pub runs: Option<PathBuf>,
    /// Print JSON (results/schema/history.schema.json)
    #[arg(long)]
    pub json: bool,
    /// Draw every series with a change point
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Show series without a change point as well
    #[arg(long)]
    pub all: bool,
}

const HISTORY_HELP: &str = "Examples:
  cargo xtask history
  cargo xtask history ipc.rt --plot history.svg
  cargo xtask history --runs results/ab/<revisions>/a --json

A series is the medians of the boots of one case (lane, machine, host, profile, version) in the
order of their runs. Change points are those of E-divisive (Matteson and James 2014) that pass a
permutation test of boots and Student's test of runs, both at 1 %. A change shows once two runs
have it; results/README.md says how many more it may need. Changes below 3 % are not shown; in
exact lanes all are.

Exit codes:
    0  done, whatever was found
    3  no complete run has a case that matches";

const COMPARE_HELP: &str = "Examples:
  cargo xtask compare results/runs/tcg/<machine>/<run> results/runs/tcg/<machine>/<other run>
  cargo xtask compare RUN,RUN,RUN RUN,RUN,RUN --markdown comment.md
  cargo xtask bench --lane icount --boots 2 && cargo xtask compare baseline --gate
  cargo xtask compare baseline RUN --bless

A boot gives one figure. A case regressed if the medians (or 99th percentiles, throughputs) of
boots differ significantly (Mann and Whitney, exact; 5 % false discoveries over all tests), by at
least 3 % (p99: 10 %; more where this machine's own noise is larger), and by two ticks of the timed
window. Fewer than four boots on each side can show nothing. In the lane icount figures are exact:
boots must agree, and 0.5 % or 5 instructions are let pass.

Verdicts: REGRESSED, MISSING (also: failed, refused), noisy, inconclusive, improved, unchanged.

Exit codes:
    0  compared; with --gate: nothing regressed or is missing
   17  not comparable (lane, machine, profile, host, partial run); with --gate: too few boots
       for any verdict
   18  with --gate: a case regressed, is missing or failed, or boots differ that must agree";

/// Flags of `import`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cat /dev/ttyUSB0 > capture.bin\n  cargo xtask import capture.bin --commit $(git rev-parse HEAD)\n\n\
                        A capture that is not whole gives a partial run."
)]
pub struct ImportArgs {
    /// What came from the serial port, byte by byte
    pub capture: PathBuf,
    /// Name of the machine in results [default: made of its CPU, cores and nodes]
    #[arg(long, value_name = "NAME")]
    pub machine: Option<String>,
    /// The commit whose kernel was measured [default: not recorded]
    #[arg(long, value_name = "HASH")]
    pub commit: Option<String>,
    /// Where runs are written [default: results/runs]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  cargo xtask doctor\n  cargo xtask doctor --lane native --json\n\n\
                        Exit code 0: nothing makes figures lie. 17: something does. Doubts alone are 0.")]
pub struct DoctorArgs {
    /// The lane to measure in; auto looks for KVM without a probe boot
    #[arg(long, value_parser = lanes(&["auto", "tcg", "kvm", "icount", "native"]), default_value = "auto")]
    pub lane: LaneChoice,
    /// Cores of the machine to measure on
    #[arg(long, value_name = "CORES", default_value_t = 8)]
    pub smp: u32,
    /// Print the findings as JSON instead
    #[arg(long)]
    pub json: bool,
}

/// Flags of `image`.
#[derive(Debug, Args)]
#[command(after_help = IMAGE_HELP)]
pub struct ImageArgs {
    /// Folder with BOOTX64.EFI, limine-bios.sys and the program `limine` or its source
    #[arg(long, value_name = "DIR")]
    pub limine: Option<PathBuf>,
    /// Download nothing: Limine is there, or there is no image
    #[arg(long)]
    pub offline: bool,
    /// Where to write it [default: nearfield.img in the build folder]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Words of the kernel command line
    #[arg(last = true, value_name = "KEY=VALUE")]
    pub words: Vec<String>,
}

const IMAGE_HELP: &str = "Examples:
  cargo xtask image -- mode=bench lane=hw profile=quick
  cargo xtask image -o nearfield.img -- mode=test
  cargo xtask image --limine ~/limine -- mode=bench lane=hw

Limine, the boot loader, is taken from the folder named; else from where distributions put the
package `limine`; else from where it was downloaded to before; else it is downloaded: one pinned
commit of its repository, whose files must have the pinned SHA-256. As --offline does for once,
NEARFIELD_INSTALL=never in the environment forbids that for good.

The kernel speaks on the first serial port (COM1, 115200 baud), and idles if no `mode` is given.
`cargo xtask import` turns what it says into a run.";

/// A lane, or the choice of one by probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneChoice {
    /// The best that works.
    Auto,
    /// This one.
    Fixed(Lane),
}

const RUN_EXAMPLES: &str = "Examples:
  cargo xtask run
  cargo xtask run --smp 4 --nodes 1 --mem 512M --apic xapic
  cargo xtask run --topology uneven.toml -- mode=test filter=frame
  cargo xtask run --flavour racing -- mode=test filter=tlb seed=7

A topology file:
  distances = [[10, 17], [17, 10]]   # optional; 20 between all nodes otherwise
  cores_per_package = 3              # optional; no power of two leaves holes in the APIC ids
  threads_per_core = 1               # optional
  tables = \"auto\"                    # or \"srat\", \"hmat\"
  [[node]]
  cores = 6
  mem = \"3G\"
  [[node]]                           # a node without cores
  mem = \"1G\"

Leave with Ctrl-A X.";

fn after_help() -> String {
    format!(
        "Examples:\n  cargo xtask test\n  cargo xtask bench\n  cargo xtask run --smp 4\n  cargo xtask check\n\n{}",
        error::table()
    )
}

/// Checks the words here, and leaves them as they are for the kernel command line.
fn trace_events(words: &str) -> std::result::Result<String, String> {
    match TraceEvents::parse(words) {
        Some(_) => Ok(words.to_owned()),
        None => Err("kinds are listed by `cargo xtask trace --help`".to_owned()),
    }
}

/// A parser that accepts `words` and turns them into what `parse` makes of them.
fn words<T: Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
    parse: fn(&str) -> Option<T>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words).try_map(move |word| parse(&word).ok_or("has no meaning"))
}

fn lanes(words_allowed: &'static [&'static str]) -> impl TypedValueParser<Value = LaneChoice> {
    words(words_allowed, |word| match word {
        "auto" => Some(LaneChoice::Auto),
        _ => Lane::parse(word).map(LaneChoice::Fixed),
    })
}

#[cfg(test)]
mod tests {
    use super::{Cli, Command, LaneChoice};
    use abi::boot::Lane;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// What is broken by hand is not broken again.
    #[test]
    fn help_fits_the_width_in_which_it_is_shown() {
        let cli = Cli::command();
        let long: Vec<String> = std::iter::once(&cli)
            .chain(cli.get_subcommands())
            .filter_map(clap::Command::get_after_help)
            .flat_map(|help| help.to_string().lines().map(ToOwned::to_owned).collect::<Vec<String>>())
            .filter(|line| line.chars().count() > 100)
            .collect();
        assert!(long.is_empty(), "{long:#?}");
    }

    #[test]
    fn defaults_are_the_documented_machine() {
        let cli = Cli::try_parse_from(["cargo xtask", "bench", "--lane", "icount", "frame.alloc"]).unwrap();
        let Command::Bench(args) = cli.command else { panic!("another subcommand") };
        assert_eq!((args.lane, args.filter.as_str()), (LaneChoice::Fixed(Lane::Icount), "frame.alloc"));
        assert_eq!(args.machine.topology().unwrap().to_string(), "8 cores, 2 nodes, 4G");
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for line in [
            "bench --lane hw",
            "bench --boots 0",
            "bench --trace switch,walk",
            "trace --to text",
            "test --host --qemu",
            "run --mem much",
            "fly",
            "run --turbo",
        ] {
            let words = std::iter::once("cargo xtask").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
