//! Turns the records of one boot into rows with their histograms and matrices.
//!
//! Records may have been lost on the way. Every case whose data is incomplete becomes a row with status `failed` that
//! says so; a case of which nothing at all arrived becomes a [`Step::Lost`], because not even its key is known.

use crate::results::hlog::{Interval, Sparse};
use crate::results::schema::{
    CaseRow, CaseStatus, Clock, Core, Direction, Metric, Node, Overhead, Placement, Site, Target, TraceRow,
};
use crate::results::writer::{Finished, Matrix};
use perf::bench::ParsedKey;
use perf::record::{self, Chunking, HistAssembly, MatrixAssembly, Record, SparseHist, Status};
use perf::trace::{Event, TraceRecord};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// What a record meant for the run.
#[derive(Debug)]
pub enum Step {
    /// The target has introduced itself and is about to run cases.
    Suite {
        /// What is measured on.
        target: Box<Target>,
        /// Number of selected cases, those before `first` included.
        cases: u32,
    },
    /// A case began.
    Started {
        /// Index among the selected cases.
        index: u32,
        /// Its key.
        key: String,
    },
    /// A case ended and is to be written.
    Finished(Box<Finished>),
    /// Nothing of the case with this index arrived.
    Lost(u32),
    /// Part of what a core has traced.
    Trace(Vec<TraceRow>),
    /// The target has run every case.
    Done,
}

/// A case that has begun and not ended.
#[derive(Debug)]
struct Open {
    index: u32,
    key: String,
    since: Duration,
    hist: Option<SparseHist>,
    matrices: Vec<Matrix>,
    metrics: Vec<Metric>,
    damage: Option<&'static str>,
}

/// What the rows of one boot have in common.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Lane.
    pub lane: String,
    /// Repetition.
    pub repeat: u32,
    /// Machine start.
    pub boot: u32,
}

/// The records of one boot, gathered.
#[derive(Debug)]
pub struct Collector {
    boot: Boot,
    target: Target,
    open: Option<Open>,
    hists: HistAssembly,
    matrices: MatrixAssembly,
    /// Index of the next case, once the suite has begun.
    next: Option<u32>,
    cases: u32,
}

impl Collector {
    /// Nothing gathered yet.
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        Self {
            boot,
            target: Target::default(),
            open: None,
            hists: HistAssembly::default(),
            matrices: MatrixAssembly::default(),
            next: None,
            cases: 0,
        }
    }

    /// Index of the first case that has not ended yet; `None` before the suite has begun.
    #[must_use]
    pub fn next(&self) -> Option<u32> {
        self.next
    }

    /// Number of selected cases.
    #[must_use]
    pub fn cases(&self) -> u32 {
        self.cases
    }

    /// Takes a record that arrived at `now`; the steps come in order.
    pub fn take(&mut self, record: &Record<'_>, now: SystemTime) -> Vec<Step> {
        let mut steps = Vec::new();
        match record {
            Record::Hello(hello) => self.hello(hello),
            Record::Machine(machine) => self.machine(machine),
            Record::Node(node) => self.target.nodes.push(Node {
                id: node.id,
                ranges: node.ranges,
                memory_bytes: node.memory,
                distances: node.distances.iter().map(|&distance| u32::from(distance)).collect(),
            }),
            Record::Core(core) => self.target.cores.push(self::core(core)),
            Record::SuiteStart(suite) => {
                (self.next, self.cases) = (Some(suite.first), suite.cases);
                steps.push(Step::Suite { target: Box::new(self.target.clone()), cases: suite.cases });
            }
            Record::CaseStart(start) => self.start(start, now, &mut steps),
            Record::Hist(_) | Record::Matrix(_) | Record::Metric(_) => self.part(record),
            Record::Case(row) => self.end(row, now, &mut steps),
            Record::Done(_) => {
                self.catch_up(self.cases, now, &mut steps);
                steps.push(Step::Done);
            }
            Record::Trace(chunk) => steps.push(Step::Trace(trace(chunk, self.boot.boot))),
            Record::TestStart(_) | Record::TestEnd(_) => {}
        }
        steps
    }

    /// Notes that records are missing before the next one: the case that is running has lost data.
    pub fn gap(&mut self) {
        if let Some(open) = &mut self.open {
            open.damage.get_or_insert("some of its records were lost or damaged on the way");
        }
    }

    /// Ends the case that is running, as failed; `None` when none is.
    pub fn fail(&mut self, reason: &str, log_tail: Vec<String>, now: SystemTime) -> Option<Finished> {
        let open = self.open.take()?;
        self.next = Some(open.index + 1);
        let mut row = self.row(&open.key);
        row.reason = Some(reason.to_owned());
        row.log_tail = log_tail;
        Some(Finished { row, hist: None, interval: interval(open.since, now), matrices: Vec::new() })
    }

    fn hello(&mut self, hello: &record::Hello<'_>) {
        self.target.version = hello.version.to_owned();
        self.target.command_line = hello.params.to_owned();
        (self.target.seed, self.target.protocol) = (hello.seed, hello.protocol);
    }

    fn machine(&mut self, machine: &record::Machine<'_>) {
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let target = &mut self.target;
        (target.cpu, target.vendor) = (machine.cpu.to_owned(), machine.vendor.to_owned());
        target.features = machine.features.split_ascii_whitespace().map(ToOwned::to_owned).collect();
        target.mitigations = machine.mitigations.split_ascii_whitespace().map(ToOwned::to_owned).collect();
        (target.hypervisor, target.apic) = (filled(machine.hypervisor), filled(machine.apic));
        target.clock = Clock { hz: machine.tsc_hz, source: machine.tsc_source.to_owned() };
        (target.memory_bytes, target.kernel_memory_bytes) = (machine.memory, machine.kernel_memory);
        target.boot_ticks = machine.boot_ticks;
    }

    fn start(&mut self, start: &record::CaseStart<'_>, now: SystemTime, steps: &mut Vec<Step>) {
        self.catch_up(start.index, now, steps);
        self.next = Some(start.index);
        self.open = Some(Open::new(start.index, start.key, since_epoch(now)));
        steps.push(Step::Started { index: start.index, key: start.key.to_owned() });
    }

    /// Settles every case before `index`: its records are not coming any more.
    fn catch_up(&mut self, index: u32, now: SystemTime, steps: &mut Vec<Step>) {
        let lost = "its row was lost or damaged on the way from the guest";
        steps.extend(self.fail(lost, Vec::new(), now).map(|finished| Step::Finished(Box::new(finished))));
        while self.next.is_some_and(|next| next < index) {
            steps.extend(self.next.map(Step::Lost));
            self.next = self.next.map(|next| next + 1);
        }
    }

    fn part(&mut self, record: &Record<'_>) {
        let Some(open) = &mut self.open else { return };
        match record {
            Record::Hist(chunk) if chunk.case == open.index => match self.hists.add(chunk) {
                Chunking::Partial => {}
                Chunking::Complete(hist) => open.hist = Some(hist),
                Chunking::Broken => {
                    open.damage = Some("part of its histogram was lost or damaged on the way");
                }
            },
            Record::Matrix(chunk) if chunk.case == open.index => match self.matrices.add(chunk) {
                Chunking::Partial => {}
                Chunking::Complete(matrix) => open.matrices.push(self::matrix(matrix)),
                Chunking::Broken => open.damage = Some("part of a matrix was lost or damaged on the way"),
            },
            Record::Metric(metric) if metric.case == open.index => open.metrics.push(Metric {
                name: metric.name.to_owned(),
                value: metric.value,
                unit: metric.unit.word().to_owned(),
            }),
            _ => {}
        }
    }

    fn end(&mut self, end: &record::CaseRow<'_>, now: SystemTime, steps: &mut Vec<Step>) {
        let key = key(end);
        // The case may be another one than the one that began, if records were lost between them.
        if self.open.as_ref().is_none_or(|open| open.index != end.index) {
            self.catch_up(end.index, now, steps);
            self.open = Some(Open::new(end.index, &key, since_epoch(now)));
        }
        let Some(mut open) = self.open.take() else { return };
        self.next = Some(end.index + 1);
        let gathered = open.hist.as_ref().map(|hist| hist.buckets.iter().map(|&(_, n)| u64::from(n)).sum());
        // The assembly has checked the sum of a histogram. It may be below `n`: overflow and saturation.
        if end.status == Status::Ok && end.n > 0 && gathered.is_none_or(|gathered: u64| gathered > end.n) {
            open.damage.get_or_insert("its histogram was lost or damaged on the way");
        }
        let mut row = self.row(&key);
        describe(&mut row, end);
        if let Some(damage) = open.damage {
            (row.status, row.reason) = (CaseStatus::Failed, Some(damage.to_owned()));
            steps.push(finished(row, None, Vec::new(), interval(open.since, now)));
            return;
        }
        figures(&mut row, end);
        row.metrics = open.metrics;
        steps.push(finished(row, open.hist.as_ref().map(sparse), open.matrices, interval(open.since, now)));
    }

    /// A row about which nothing but its key is known.
    fn row(&self, key: &str) -> CaseRow {
        let (name, params) = key.split_once('/').unwrap_or((key, ""));
        let params: BTreeMap<String, String> = ParsedKey::parse(key)
            .map(|parsed| parsed.params().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
            .unwrap_or_else(|| BTreeMap::from([("unparsed".to_owned(), params.to_owned())]));
        CaseRow::failed(key, name, params, &self.boot)
    }
}

impl Open {
    fn new(index: u32, key: &str, since: Duration) -> Self {
        let (hist, matrices, metrics, damage) = (None, Vec::new(), Vec::new(), None);
        Self { index, key: key.to_owned(), since, hist, matrices, metrics, damage }
    }
}

impl CaseRow {
    fn failed(id: &str, name: &str, params: BTreeMap<String, String>, boot: &Boot) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            version: 0,
            params,
            placement: None,
            lane: boot.lane.clone(),
            unit: None,
            direction: None,
            scope: None,
            batch: None,
            status: CaseStatus::Failed,
            reason: None,
            n: 0,
            overflow: None,
            warmup: None,
            overhead: None,
            clamped: None,
            min: None,
            p50: None,
            p90: None,
            p99: None,
            p999: None,
            p9999: None,
            max: None,
            mean: None,
            repeat: boot.repeat,
            boot: boot.boot,
            hist: None,
            metrics: Vec::new(),
            matrices: Vec::new(),
            log_tail: Vec::new(),
        }
    }
}

fn finished(row: CaseRow, hist: Option<Sparse>, matrices: Vec<Matrix>, interval: Interval) -> Step {
    Step::Finished(Box::new(Finished { row, hist, interval, matrices }))
}

fn key(row: &record::CaseRow<'_>) -> String {
    if row.params.is_empty() { row.id.to_owned() } else { format!("{}/{}", row.id, row.params) }
}

/// What the case is, known however it ended.
fn describe(row: &mut CaseRow, end: &record::CaseRow<'_>) {
    let site = |site: perf::bench::Site| Site { core: site.core, node: site.node };
    row.version = end.version;
    row.placement = Some(Placement {
        class: end.placement.class.word().to_owned(),
        cores: end.placement.cores,
        source: end.placement.source.map(site),
        target: end.placement.target.map(site),
    });
    row.lane = end.lane.word().to_owned();
    row.unit = Some(end.unit.word().to_owned());
    row.direction = Some(match end.direction {
        perf::bench::Direction::Smaller => Direction::Smaller,
        perf::bench::Direction::Greater => Direction::Greater,
        perf::bench::Direction::Neutral => Direction::Neutral,
    });
    row.scope = Some(end.scope.word().to_owned());
    row.status = match end.status {
        Status::Ok => CaseStatus::Ok,
        Status::Failed => CaseStatus::Failed,
        Status::Refused => CaseStatus::Refused,
        Status::Skipped => CaseStatus::Skipped,
    };
    row.reason = (!end.reason.is_empty()).then(|| end.reason.to_owned());
}

/// What was measured.
fn figures(row: &mut CaseRow, end: &record::CaseRow<'_>) {
    row.batch = Some(end.batch);
    (row.n, row.warmup, row.clamped) = (end.n, Some(end.warm_up), Some(end.clamped));
    row.overflow = (end.overflow != 0).then_some(end.overflow);
    row.overhead =
        end.overhead.map(|cost| Overhead { min: cost.min, median: cost.median, spread: cost.spread });
    (row.min, row.p50, row.p90, row.p99) = (end.min, end.p50, end.p90, end.p99);
    (row.p999, row.p9999, row.max, row.mean) = (end.p999, end.p9999, end.max, end.mean);
}

fn core(core: &record::Core) -> Core {
    let record::Core { id, apic_id, node, package, llc, smt } = *core;
    Core { id, apic_id, node, package, llc, smt }
}

fn matrix(matrix: record::Matrix) -> Matrix {
    let record::Matrix { name, unit, row_axis, col_axis, rows, cols, cells, .. } = matrix;
    Matrix { name, unit: unit.word().to_owned(), row_axis, col_axis, rows, cols, cells }
}

fn sparse(hist: &SparseHist) -> Sparse {
    let counts = hist.ranges().map(|(lowest, _, count)| (lowest, u64::from(count))).collect();
    Sparse { digits: hist.digits, counts }
}

fn trace(chunk: &record::TraceChunk<'_>, boot: u32) -> Vec<TraceRow> {
    let (records, _) = chunk.records.as_chunks::<{ TraceRecord::BYTES }>();
    let row = |(bytes, number)| {
        let record = TraceRecord::from_bytes(bytes);
        let unknown = || format!("unknown-{}", record.event);
        let event = Event::decode(record.event).map_or_else(unknown, |event| event.word().to_owned());
        let args = record.arguments().map(|(argument, value)| (argument.name.to_owned(), value)).collect();
        TraceRow { boot, core: chunk.core, number, ticks: record.ticks, event, args }
    };
    records.iter().zip(chunk.first..).map(row).collect()
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn interval(start: Duration, now: SystemTime) -> Interval {
    Interval { start, length: since_epoch(now).saturating_sub(start) }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
