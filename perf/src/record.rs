//! What a run reports, and how it travels: [`Record`]s, encoded with postcard into framed, checked packets.
//!
//! The producer (the kernel, or the native lane) owns an [`Encoder`] and writes its frames to the serial port between lines
//! of text. The consumer feeds all bytes to a `Demux` (feature `std`), which gives back text lines, records, and reports of
//! damage. A frame is `0x00 | COBS(header | payload | CRC) | 0x00`; `frame` has the details. Text never contains 0x00.
//!
//! Histograms and matrices are larger than a frame: they come in chunks (`first` says where a chunk goes on, `last` ends
//! it) that `HistAssembly` and `MatrixAssembly` (feature `std`) put together again.
//!
//! Order of a benchmark run: `Hello`, `Machine`, `Node`…, `Core`…, `SuiteStart`, then for each case `CaseStart`, any number
//! of `Metric`, `Matrix` and `Hist`, and `Case`; `Done` at the end. A test run has `TestStart`, `TestEnd` instead of cases. Where
//! trace events were switched on, the `Trace` records of every core come before `Done`.

mod frame;
mod rows;
pub mod varint;

#[cfg(feature = "std")]
mod assemble;
#[cfg(feature = "std")]
mod demux;
#[cfg(feature = "std")]
mod owned;

#[cfg(feature = "std")]
pub use assemble::{Chunking, HistAssembly, Matrix, MatrixAssembly, SparseHist};
#[cfg(feature = "std")]
pub use demux::{Demux, Event};
pub use frame::{Corrupt, EncodeError, Encoder, MAX_FRAME, MAX_PAYLOAD};
#[cfg(feature = "std")]
pub use owned::Owned;
pub use rows::{CaseRow, HistChunk, MatrixChunk, MatrixPart, Overhead, Status, TraceChunk};

use serde::{Deserialize, Serialize};

use crate::bench::Unit;
use crate::words::words;

/// Version of the records and their framing. A consumer refuses another one.
pub const PROTOCOL: u32 = 2;

/// Where records go: the serial port in the kernel, memory on the host.
pub trait Sink {
    /// Takes one record. Losing one is the sink's to report, with a gap in the sequence numbers.
    fn send(&mut self, record: &Record<'_>);
}

impl<F: FnMut(&Record<'_>)> Sink for F {
    fn send(&mut self, record: &Record<'_>) {
        self(record);
    }
}

/// One message from what runs to what reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// First record of a run.
    #[serde(borrow)]
    Hello(Hello<'a>),
    /// The machine.
    #[serde(borrow)]
    Machine(Machine<'a>),
    /// A node of the machine.
    #[serde(borrow)]
    Node(Node<'a>),
    /// A core of the machine.
    Core(Core),
    /// The selected cases are about to run.
    SuiteStart(SuiteStart),
    /// A case is about to run.
    #[serde(borrow)]
    CaseStart(CaseStart<'a>),
    /// A case has ended, in whatever way.
    #[serde(borrow)]
    Case(CaseRow<'a>),
    /// Part of the histogram of a case.
    #[serde(borrow)]
    Hist(HistChunk<'a>),
    /// Part of a matrix of a case.
    #[serde(borrow)]
    Matrix(MatrixChunk<'a>),
    /// A further figure of a case.
    #[serde(borrow)]
    Metric(Metric<'a>),
    /// A test is about to run.
    #[serde(borrow)]
    TestStart(TestStart<'a>),
    /// A test has ended.
    #[serde(borrow)]
    TestEnd(TestEnd<'a>),
    /// Last record of a run.
    Done(Done),
    /// Part of the trace ring of a core.
    #[serde(borrow)]
    Trace(TraceChunk<'a>),
}

impl Record<'_> {
    /// The record with the index of its case, if it is about one, raised: for tables that follow another one in the same run.
    #[must_use]
    pub const fn shifted(mut self, by: u32) -> Self {
        match &mut self {
            Self::CaseStart(CaseStart { index, .. }) | Self::Case(CaseRow { index, .. }) => *index += by,
            Self::Hist(HistChunk { case, .. })
            | Self::Matrix(MatrixChunk { case, .. })
            | Self::Metric(Metric { case, .. }) => *case += by,
            _ => {}
        }
        self
    }
}

/// First record of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Version of the kernel (or of the native lane's process).
    pub version: &'a str,
    /// The command line it was started with.
    pub params: &'a str,
    /// Seed of every pseudo-random sequence.
    pub seed: u64,
}

/// The machine as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine<'a> {
    /// Brand string of the CPU.
    pub cpu: &'a str,
    /// Vendor string of the CPU.
    pub vendor: &'a str,
    /// Names of the CPU features found, separated by spaces.
    pub features: &'a str,
    /// Name of the hypervisor; empty on bare metal.
    pub hypervisor: &'a str,
    /// What is done about the CPU's weaknesses, words separated by spaces: `measure=state`, the state being `not-needed`, `on`, `off` (needed,
    /// but the command line says no) or `missing` (needed, but not available).
    pub mitigations: &'a str,
    /// Interrupt controller mode: `xapic` or `x2apic`.
    pub apic: &'a str,
    /// Frequency of the time-stamp counter in hertz.
    pub tsc_hz: u64,
    /// How that frequency was found: `cpuid`, `hpet`, `pm-timer`.
    pub tsc_source: &'a str,
    /// Number of cores online.
    pub cores: u32,
    /// Number of nodes.
    pub nodes: u32,
    /// Bytes of usable memory.
    pub memory: u64,
    /// Bytes of memory the kernel itself occupies, metadata included.
    pub kernel_memory: u64,
    /// Ticks of the time-stamp counter from reset until all cores were online.
    pub boot_ticks: u64,
}

/// A node of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node<'a> {
    /// Number.
    pub id: u32,
    /// Number of memory ranges.
    pub ranges: u32,
    /// Bytes of usable memory; 0 for a node without memory.
    pub memory: u64,
    /// Distances to all nodes in order of their numbers, as in the SLIT (10 is local).
    pub distances: &'a [u8],
}

/// A core of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core {
    /// Number.
    pub id: u32,
    /// APIC id.
    pub apic_id: u32,
    /// Node it belongs to.
    pub node: u32,
    /// Package it is in.
    pub package: u32,
    /// Group of cores that share its last-level cache.
    pub llc: u32,
    /// Group of hardware threads that share its physical core.
    pub smt: u32,
}

/// The selected cases are about to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteStart {
    /// Number of cases selected, those skipped by `after=` included.
    pub cases: u32,
    /// Index of the first case that will run: the `after=` of the command line.
    pub first: u32,
}

/// A case is about to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseStart<'a> {
    /// Index among the selected cases, from 0.
    pub index: u32,
    /// The case's key, see [`CaseKey`](crate::bench::CaseKey).
    pub key: &'a str,
}

/// A further figure of a case, such as the share of whole free 2 MiB chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric<'a> {
    /// Index of the case.
    pub case: u32,
    /// What it is.
    pub name: &'a str,
    /// How much of it.
    pub value: u64,
    /// In which unit.
    pub unit: Unit,
}

/// A test is about to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestStart<'a> {
    /// Name in the test table.
    pub name: &'a str,
}

/// A test has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestEnd<'a> {
    /// Name in the test table.
    pub name: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, when it did not pass; may be empty.
    pub message: &'a str,
}

/// Last record of a run. Counts are of cases or of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Those that ran, failed ones included.
    pub run: u32,
    /// Those that failed.
    pub failed: u32,
    /// Those that were skipped or refused.
    pub skipped: u32,
}

words! {
    /// How a test ended.
    Outcome {
        /// As it should.
        Passed "passed";
        /// A check failed.
        Failed "failed";
        /// It makes no sense on this machine.
        Skipped "skipped";
    }
}
