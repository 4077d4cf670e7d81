//! What the tests of results, report and driver share: temporary directories, sample rows, a disk that fills up.

use crate::results::disk::{Disk, FileSystem, Sync};
use crate::results::env;
use crate::results::hlog::{Interval, Sparse};
use crate::results::schema::{
    CaseRow, CaseStatus, Clock, Core, Counts, Direction, EnvFile, Git, Metric, Node, Overhead, Placement,
    Qemu, RunFile, RunStatus, Site, Target, TraceRow, VERSION,
};
use crate::results::writer::{Finished, Matrix};
use abi::boot::Lane;
use perf::bench::Unit;
use perf::hist::{DEFAULT_COUNTS, Hist};
use perf::record::{self, Encoder, MatrixPart, Record};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A directory that is removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A fresh directory below the system's temporary one.
    pub fn new(name: &str) -> Self {
        let unique = env::run_id(SystemTime::now(), &Git::default());
        let path = std::env::temp_dir().join(format!("nearfield-test-{name}-{unique}"));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file system that is full after so many bytes. The write that does not fit is cut off, as on a real disk.
#[derive(Debug)]
pub struct SmallDisk {
    left: Cell<usize>,
}

impl SmallDisk {
    /// Room for `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { left: Cell::new(bytes) }
    }

    fn take(&self, wanted: usize) -> usize {
        let granted = wanted.min(self.left.get());
        self.left.set(self.left.get() - granted);
        granted
    }
}

impl Disk for SmallDisk {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        FileSystem.make_dir(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if self.take(content.len()) < content.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        FileSystem.replace(path, content)
    }

    fn append(&self, path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
        let fits = self.take(bytes.len());
        FileSystem.append(path, &bytes[..fits], sync)?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

/// A row with status `ok` and no figures yet.
pub fn row(id: &str) -> CaseRow {
    let (name, rest) = id.split_once('/').unwrap_or((id, ""));
    let params: BTreeMap<String, String> = rest
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    CaseRow {
        id: id.to_owned(),
        name: name.to_owned(),
        version: 1,
        params,
        placement: Some(Placement {
            class: "self".to_owned(),
            cores: 1,
            source: Some(Site { core: 0, node: 0 }),
            target: None,
        }),
        lane: "tcg".to_owned(),
        unit: Some("milliticks".to_owned()),
        direction: Some(Direction::Smaller),
        scope: Some("op".to_owned()),
        batch: Some(1),
        status: CaseStatus::Ok,
        reason: None,
        n: 0,
        overflow: None,
        warmup: Some(100),
        overhead: Some(Overhead { min: 20_000, median: 21_000, spread: 900 }),
        clamped: Some(0),
        min: None,
        p50: None,
        p90: None,
        p99: None,
        p999: None,
        p9999: None,
        max: None,
        mean: None,
        repeat: 0,
        boot: 0,
        hist: None,
        metrics: Vec::new(),
        matrices: Vec::new(),
        log_tail: Vec::new(),
    }
}

/// A `run.json` with nothing done yet.
pub fn run_file(id: &str) -> RunFile {
    RunFile {
        schema: VERSION,
        id: id.to_owned(),
        lane: "tcg".to_owned(),
        machine: "qemu-q35-8c2n".to_owned(),
        started: "2026-01-02T03:04:05Z".to_owned(),
        finished: None,
        status: RunStatus::Partial,
        profile: "quick".to_owned(),
        filter: String::new(),
        samples: None,
        repeats: 1,
        boots: 0,
        counts: Counts { expected: 2, ..Counts::default() },
        problems: Vec::new(),
    }
}

/// An `env.json` with every optional part present.
pub fn env_file() -> EnvFile {
    let core = |id: u32| Core { id, apic_id: id, node: id / 4, package: id / 4, llc: id / 4, smt: id };
    let node = |id: u32| Node {
        id,
        ranges: 1,
        memory_bytes: 2 << 30,
        distances: if id == 0 { vec![10, 20] } else { vec![20, 10] },
    };
    EnvFile {
        schema: VERSION,
        lane: "tcg".to_owned(),
        git: Git { commit: Some("0".repeat(40)), dirty: Some(false), describe: Some("v0".to_owned()) },
        rustc: "rustc 1.95.0".to_owned(),
        host: env::host(),
        qemu: Some(Qemu { version: "QEMU 10".to_owned(), command: vec!["qemu-system-x86_64".to_owned()] }),
        target: Some(Target {
            version: "0.1.0".to_owned(),
            command_line: "mode=bench".to_owned(),
            seed: 1,
            protocol: 1,
            cpu: "QEMU TCG CPU </script><b>".to_owned(),
            vendor: "AuthenticAMD".to_owned(),
            features: vec!["x2apic".to_owned()],
            hypervisor: Some("TCGTCGTCGTCG".to_owned()),
            mitigations: vec!["kpti=not-needed".to_owned(), "verw=on".to_owned()],
            apic: Some("x2apic".to_owned()),
            clock: Clock { hz: 2_000_000_000, source: "hpet".to_owned() },
            memory_bytes: 4 << 30,
            kernel_memory_bytes: 8 << 20,
            boot_ticks: 1_000_000,
            nodes: (0..2).map(node).collect(),
            cores: (0..8).map(core).collect(),
        }),
    }
}

/// A line of `trace.jsonl`; its number is its time.
pub fn trace_row(boot: u32, core: u32, ticks: u64, event: &str, args: &[(&str, u64)]) -> TraceRow {
    let args = args.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    TraceRow { boot, core, number: ticks, ticks, event: event.to_owned(), args }
}

/// A finished case with a histogram, a metric and a matrix.
pub fn finished(id: &str) -> Finished {
    let hist = Sparse { digits: 3, counts: (1..=500).map(|value| (value, 3)).collect() };
    let mut row = row(id);
    (row.n, row.min, row.p50, row.p90, row.p99) = (1500, Some(1), Some(250), Some(450), Some(495));
    (row.max, row.mean) = (Some(500), Some(250));
    row.metrics.push(Metric {
        name: "free chunks".to_owned(),
        value: 935_000,
        unit: "millionths".to_owned(),
    });
    let matrix = Matrix {
        name: "source × target".to_owned(),
        unit: "milliticks".to_owned(),
        row_axis: "source core".to_owned(),
        col_axis: "target core".to_owned(),
        rows: vec![0, 1],
        cols: vec![0, 1],
        cells: vec![None, Some(12), Some(13), None],
    };
    Finished { row, hist: Some(hist), interval: Interval::default(), matrices: vec![matrix] }
}

/// The frames of a suite that measures `keys`, in the form and order of a guest.
pub fn suite_frames(keys: &[&str], first: u32) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let mut frames = Vec::new();
    let mut send = |record: &Record<'_>| frames.push(encoder.encode(record).unwrap().to_vec());
    introduce(&mut send);
    let cases = u32::try_from(keys.len()).unwrap();
    send(&Record::SuiteStart(record::SuiteStart { cases, first }));
    for (index, key) in (0..cases).zip(keys).skip(usize::try_from(first).unwrap()) {
        case_records(index, key, &mut send);
    }
    send(&Record::Done(record::Done { run: cases - first, failed: 0, skipped: 0 }));
    frames
}

fn introduce(send: &mut impl FnMut(&Record<'_>)) {
    send(&Record::Hello(record::Hello {
        protocol: record::PROTOCOL,
        version: "0.1.0",
        params: "mode=bench",
        seed: 7,
    }));
    send(&Record::Machine(record::Machine {
        cpu: "QEMU TCG CPU",
        vendor: "AuthenticAMD",
        features: "x2apic tsc-deadline",
        hypervisor: "TCGTCGTCGTCG",
        mitigations: "kpti=not-needed verw=on",
        apic: "x2apic",
        tsc_hz: 2_000_000_000,
        tsc_source: "hpet",
        cores: 1,
        nodes: 1,
        memory: 1 << 30,
        kernel_memory: 1 << 20,
        boot_ticks: 5,
    }));
    send(&Record::Node(record::Node { id: 0, ranges: 1, memory: 1 << 30, distances: &[10] }));
    send(&Record::Core(record::Core { id: 0, apic_id: 0, node: 0, package: 0, llc: 0, smt: 0 }));
}

/// The records of one case of 40 samples: a metric, a matrix, a histogram in one chunk, the row.
fn case_records(index: u32, key: &str, send: &mut impl FnMut(&Record<'_>)) {
    send(&Record::CaseStart(record::CaseStart { index, key }));
    send(&Record::Metric(record::Metric { case: index, name: "free", value: 9, unit: Unit::Count }));
    let parts: [(MatrixPart, &[u8]); 3] =
        [(MatrixPart::Rows, &[0, 1]), (MatrixPart::Cols, &[0]), (MatrixPart::Cells, &[0, 8])];
    for (chunk, (part, data)) in (0..).zip(parts) {
        send(&Record::Matrix(record::MatrixChunk {
            case: index,
            name: "pairs",
            unit: Unit::MilliTicks,
            row_axis: "source core",
            col_axis: "target core",
            rows: 2,
            cols: 1,
            part,
            chunk,
            last: chunk == 2,
            data,
        }));
    }
    let mut counts = vec![0; DEFAULT_COUNTS];
    let mut hist: Hist<'_> = Hist::new(&mut counts);
    (0..40).for_each(|value| hist.record(5_000 + 100 * value));
    let mut pairs = [0; 1024];
    let (used, None) = hist.encode_sparse(0, &mut pairs) else { panic!("one chunk is enough") };
    let pairs = &pairs[..used];
    send(&Record::Hist(record::HistChunk { case: index, chunk: 0, last: true, digits: 3, total: 40, pairs }));
    let (id, params) = key.split_once('/').unwrap_or((key, ""));
    let summary = hist.summary();
    send(&Record::Case(record::CaseRow {
        index,
        id,
        version: 1,
        params,
        placement: perf::bench::Placement::alone(perf::bench::Site { core: 0, node: 0 }),
        lane: Lane::Tcg,
        unit: Unit::MilliTicks,
        direction: perf::bench::Direction::Smaller,
        scope: perf::bench::Scope::Operation,
        status: record::Status::Ok,
        reason: "",
        n: summary.n,
        batch: 1,
        warm_up: 8,
        overhead: Some(record::Overhead { min: 20_000, median: 21_000, spread: 900 }),
        clamped: 0,
        overflow: 0,
        min: summary.min,
        p50: summary.p50,
        p90: summary.p90,
        p99: summary.p99,
        p999: summary.p999,
        p9999: summary.p9999,
        max: summary.max,
        mean: summary.mean,
    }));
}
