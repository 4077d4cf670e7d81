//! The files of a run as types: the one source of the JSON schemas in `results/schema/`.
//!
//! Reading refuses unknown fields, so that a file of another version is an error and not a silent loss. A field that
//! has no value is absent; nothing is invented. Bump [`VERSION`] when a field changes its meaning or goes away.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the run format. A reader refuses other versions.
pub const VERSION: u32 = 1;

/// How far a run got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Not everything selected was measured: still running, interrupted, or ended by an error.
    Partial,
    /// Every selected case has a row for every repetition (which may say that it failed).
    Complete,
}

/// How one case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CaseStatus {
    /// Measured; the figures count.
    Ok,
    /// The measurement began and did not end: panic, timeout, lost records.
    Failed,
    /// Measured, but the harness does not trust the figures (unstable clock, say).
    Refused,
    /// Not measured, because it makes no sense on this machine or in this lane.
    Skipped,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Less is better.
    Smaller,
    /// More is better.
    Greater,
    /// Neither: the figure describes the machine or the method.
    Neutral,
}

/// `run.json`: what was asked for and how far it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// Version of the run format.
    pub schema: u32,
    /// Name of the run directory.
    pub id: String,
    /// Lane of every row of the run. Rows of different lanes are never compared.
    pub lane: String,
    /// Slug of the machine: the directory above the run.
    pub machine: String,
    /// Start, RFC 3339, UTC.
    pub started: String,
    /// End, RFC 3339, UTC; absent while the run is partial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// How far the run got. Trust `complete` only together with the file `COMPLETE`.
    pub status: RunStatus,
    /// Effort: `quick`, `ci` or `full`.
    pub profile: String,
    /// Words of the filter joined by `,`; empty when everything was selected.
    pub filter: String,
    /// Number of samples asked for, where it overrides the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u32>,
    /// Repetitions asked for (`--boots`).
    pub repeats: u32,
    /// Number of machine starts so far, restarts after a failed case included.
    pub boots: u32,
    /// Rows by status.
    pub counts: Counts,
    /// What went wrong beside failed rows: damaged records, a guest that ended too early.
    pub problems: Vec<String>,
}

/// Number of rows by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Rows expected by all repetitions, as far as known.
    pub expected: u32,
    /// Rows with status `ok`.
    pub ok: u32,
    /// Rows with status `failed`.
    pub failed: u32,
    /// Rows with status `refused`.
    pub refused: u32,
    /// Rows with status `skipped`.
    pub skipped: u32,
}

/// `env.json`: everything about the surroundings that a figure may depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EnvFile {
    /// Version of the run format.
    pub schema: u32,
    /// Lane of the run, as in `run.json`: what every figure about the surroundings is to be read with.
    pub lane: String,
    /// Source state.
    pub git: Git,
    /// Output of `rustc --version`.
    pub rustc: String,
    /// The machine that ran `xtask`.
    pub host: Host,
    /// Emulator or hypervisor; absent in lanes without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<Qemu>,
    /// What was measured on; absent until it has introduced itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// Source state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Git {
    /// Full commit hash; absent outside a git work tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether tracked files differed from the commit, or untracked ones were present; absent outside a work tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
    /// Output of `git describe --always --tags --dirty`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub describe: Option<String>,
}

/// The machine that ran `xtask`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// CPU model as the operating system names it.
    pub cpu: String,
    /// Threads the operating system lets this process use.
    pub threads: u32,
    /// NUMA nodes of the host, where readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// Operating system and kernel release.
    pub kernel: String,
    /// Frequency governor of CPU 0, where readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<String>,
}

/// Emulator or hypervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Qemu {
    /// First line of `qemu-system-x86_64 --version`.
    pub version: String,
    /// Program and arguments of the first boot, one per element.
    pub command: Vec<String>,
}

/// What was measured on, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Version of the kernel, or of the program in the native lane.
    pub version: String,
    /// The kernel command line of the first boot; empty in the native lane.
    pub command_line: String,
    /// Seed of every pseudo-random sequence.
    pub seed: u64,
    /// Version of the record protocol.
    pub protocol: u32,
    /// CPU brand string.
    pub cpu: String,
    /// CPU vendor string.
    pub vendor: String,
    /// CPU features the kernel found and uses or reports.
    pub features: Vec<String>,
    /// Hypervisor signature; absent on bare metal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// What is done about the CPU's weaknesses, as `measure=state`: `not-needed`, `on`, `off` (needed, but the command line says no) or
    /// `missing` (needed, but not available). Absent in the native lane, and in runs from before it was recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mitigations: Vec<String>,
    /// Interrupt controller mode; absent in the native lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apic: Option<String>,
    /// The clock that samples were taken with.
    pub clock: Clock,
    /// Bytes of usable memory the target found.
    pub memory_bytes: u64,
    /// Bytes of memory the kernel itself occupies, metadata included; 0 in the native lane.
    pub kernel_memory_bytes: u64,
    /// Clock ticks from reset until every core was online and the topology known; 0 in the native lane.
    pub boot_ticks: u64,
    /// NUMA nodes, ascending by id.
    pub nodes: Vec<Node>,
    /// Cores, ascending by id.
    pub cores: Vec<Core>,
}

/// The clock that samples were taken with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Ticks per second as calibrated; under `icount` a tick is one guest instruction.
    pub hz: u64,
    /// How the rate was found, for example `cpuid` or `hpet`.
    pub source: String,
}

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Dense id.
    pub id: u32,
    /// Number of memory ranges of the node.
    pub ranges: u32,
    /// Bytes of usable memory on the node; 0 for a node of cores only.
    pub memory_bytes: u64,
    /// SLIT distance to every node, by id (10 is local).
    pub distances: Vec<u32>,
}

/// One core (hardware thread).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// Dense id.
    pub id: u32,
    /// Local APIC id, or the operating system's CPU number in the native lane.
    pub apic_id: u32,
    /// Node it belongs to.
    pub node: u32,
    /// Package (socket).
    pub package: u32,
    /// Group that shares a last-level cache.
    pub llc: u32,
    /// Group of hardware threads that share a core.
    pub smt: u32,
}

/// One line of `cases.jsonl`: one case in one repetition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CaseRow {
    /// Key of the case: `name/parameter=value,…`. Together with `version` and `lane` it names one time series.
    pub id: String,
    /// Name of the benchmark, the part of `id` before `/`.
    pub name: String,
    /// Version of the benchmark body; figures of different versions are not comparable. 0 when the case never ended.
    pub version: u32,
    /// Parameters from the key.
    pub params: BTreeMap<String, String>,
    /// Where it ran; absent when that is not known, because the case never ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Lane.
    pub lane: String,
    /// Unit of every figure of the row and of its histogram: `milliticks`, `milliinstructions`, `ps`, `bytes`,
    /// `millionths` or `count`; absent when the case never ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Which way is better; absent when the case never ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// What one operation spans: `op` (on one core), `one-way` or `rt` (round trip); absent when the case never ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Operations in one sample (one timed window); the figures are per operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// How the case ended.
    pub status: CaseStatus,
    /// Why it is not `ok`; beside `ok` it is a remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Number of samples; 0 when there is none.
    pub n: u64,
    /// Samples beyond the range of the histogram, part of `n`, `max` and `mean`; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<u64>,
    /// Windows run and thrown away before the first sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<u32>,
    /// What an empty window cost; absent where nothing was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overhead: Option<Overhead>,
    /// Windows that took less than the overhead and count as 0; absent when the case never ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamped: Option<u64>,
    /// Smallest sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u64>,
    /// Median; absent below 20 samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<u64>,
    /// 90th percentile; absent below 100 samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p90: Option<u64>,
    /// 99th percentile; absent below 1,000 samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<u64>,
    /// 99.9th percentile; absent below 10,000 samples.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "p99.9")]
    pub p999: Option<u64>,
    /// 99.99th percentile; absent below 100,000 samples.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "p99.99")]
    pub p9999: Option<u64>,
    /// Largest sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// Arithmetic mean without its fraction. Kept for cross-checks; compare percentiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<u64>,
    /// Repetition (`--boots`), from 0.
    pub repeat: u32,
    /// Machine start the row was measured in, from 0: the unit of statistics.
    pub boot: u32,
    /// Where the histogram is; absent when no sample was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hist: Option<HistRef>,
    /// Further figures of the case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// Matrix files of the case, relative to the run directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrices: Vec<MatrixRef>,
    /// Last lines of the serial log, where the case failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

impl CaseRow {
    /// The figure that stands for the row: the median, or the sample where there is only one.
    #[must_use]
    pub fn typical(&self) -> Option<u64> {
        if self.n == 1 { self.max } else { self.p50 }
    }
}

/// What an empty window cost, in thousandths of a clock tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Overhead {
    /// The smallest: this is what was subtracted from each window.
    pub min: u64,
    /// The median.
    pub median: u64,
    /// The distance between the first and the third quartile.
    pub spread: u64,
}

/// Where a case ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// How the cores lie relative to each other: `self`, `smt`, `llc`, `node`, `remote`, `matrix` or `scaling`.
    pub class: String,
    /// Number of cores at work.
    pub cores: u32,
    /// The core that measures; absent when all pairs do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Site>,
    /// The core (or the node of the memory) that is measured against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Site>,
}

/// A core and its node, by the ids of `env.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Core.
    pub core: u32,
    /// Node.
    pub node: u32,
}

/// Where the histogram of a row is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HistRef {
    /// Interval log, relative to the run directory.
    pub file: String,
    /// Which interval of the log, from 0.
    pub interval: u32,
}

/// A figure beside the histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// What it is.
    pub name: String,
    /// The figure.
    pub value: u64,
    /// Its unit, one of those of the rows.
    pub unit: String,
}

/// A matrix beside the histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MatrixRef {
    /// What it shows.
    pub name: String,
    /// Unit of the cells, one of those of the rows.
    pub unit: String,
    /// What the rows are.
    pub row_axis: String,
    /// What the columns are.
    pub col_axis: String,
    /// CSV file, relative to the run directory: first row and first column are labels, an empty cell was not measured.
    pub file: String,
}

/// One line of `trace.jsonl`: something that happened on a core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TraceRow {
    /// Machine start, from 0; the clock starts anew with each.
    pub boot: u32,
    /// The core, by its id in `env.json`.
    pub core: u32,
    /// Number among the records of this core, from 0. Those that are missing were overwritten before the end of the run.
    pub number: u64,
    /// When, in ticks of the clock.
    pub ticks: u64,
    /// What: a word of the table in `perf/src/trace.rs`.
    pub event: String,
    /// Its numbers by their names in that table.
    pub args: BTreeMap<String, u64>,
}

/// The file `COMPLETE`, written last: sizes of everything else, so that a truncated copy is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CompleteFile {
    /// Version of the run format.
    pub schema: u32,
    /// Rows in `cases.jsonl`.
    pub rows: u32,
    /// Bytes of every other file of the run, by path relative to the run directory.
    pub files: BTreeMap<String, u64>,
}
