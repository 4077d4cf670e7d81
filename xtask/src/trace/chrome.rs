//! The JSON trace event format of Chrome, which Perfetto reads too.
//!
//! Source: "Trace Event Format", <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>: complete events (`X`),
//! instants (`i`), flows (`s`, `f`) and metadata (`M`); times are in microseconds.
//!
//! A process of the file is a node, a thread of it a core: its slices are the threads that ran, with an arrow from where a thread was
//! woken to where it ran. System calls may block and come back on another core, so they are slices of tracks of their own, one for
//! each thread.

use crate::error::{Class, Error, Result};
use crate::results::schema::TraceRow;
use abi::syscall::Syscall;
use perf::trace::{Event, Kind};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The node of every core.
pub(super) type Nodes = BTreeMap<u32, u32>;

/// The process of the tracks of threads; nodes come before it. 0 is avoided: viewers take it for the idle process.
const THREADS: u64 = 1000;

/// A track of the file: process and thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Track {
    pid: u64,
    tid: u64,
}

impl Track {
    const fn of_thread(thread: u64) -> Self {
        Self { pid: THREADS, tid: thread }
    }
}

/// One event of the file. Names of fields are the format's.
#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(flatten)]
    track: TrackFields,
    /// Which flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// What a flow's end binds to: `e` is the slice around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'static str>,
    /// Scope of an instant: `t` is its track.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    args: Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct TrackFields {
    pid: u64,
    tid: u64,
}

/// What a core does at the moment that was reached.
#[derive(Clone, Copy, Debug)]
struct Running {
    /// `None` before the first switch, which tells it afterwards.
    thread: Option<u64>,
    since: u64,
}

/// Goes through the rows in order of time.
struct Builder<'a> {
    hz: u64,
    nodes: &'a Nodes,
    /// Ticks of the first row: time 0 of the file.
    base: u64,
    entries: Vec<(u64, Entry)>,
    running: BTreeMap<u32, Running>,
    /// Threads that were woken and have not run yet: where and when.
    woken: BTreeMap<u64, (u32, u64)>,
    /// System calls that have not returned, by thread: number and entry.
    calls: BTreeMap<u64, (u64, u64)>,
    flows: u64,
}

/// The file, from the rows of one machine start.
///
/// # Errors
/// It cannot be encoded.
pub(super) fn render(rows: &[TraceRow], hz: u64, nodes: &Nodes) -> Result<Vec<u8>> {
    let mut rows: Vec<&TraceRow> = rows.iter().collect();
    rows.sort_by_key(|row| (row.ticks, row.core, row.number));
    let (base, end) = (rows.first().map_or(0, |row| row.ticks), rows.last().map_or(0, |row| row.ticks));
    let mut builder = Builder {
        hz,
        nodes,
        base,
        entries: Vec::new(),
        running: BTreeMap::new(),
        woken: BTreeMap::new(),
        calls: BTreeMap::new(),
        flows: 0,
    };
    rows.iter().for_each(|row| builder.row(row));
    builder.finish(end);
    let names = builder.names();
    let Builder { mut entries, .. } = builder;
    // A slice comes before what happens in it.
    entries.sort_by_key(|(ticks, entry)| (*ticks, u8::from(entry.ph != "X")));
    let events: Vec<Value> = names.into_iter().chain(entries.iter().map(|(_, entry)| json!(entry))).collect();
    let file = json!({ "displayTimeUnit": "ns", "otherData": { "clock-hz": hz }, "traceEvents": events });
    serde_json::to_vec(&file)
        .map_err(|error| Error::new(Class::Io, format!("cannot encode the trace: {error}")))
}

impl Builder<'_> {
    fn row(&mut self, row: &TraceRow) {
        let number = |name: &str| row.args.get(name).copied().unwrap_or(0);
        self.running.entry(row.core).or_insert(Running { thread: None, since: row.ticks });
        match Event::parse(&row.event) {
            Some(Event::Switch) => self.switch(row, number("from"), number("to")),
            Some(Event::Ready) => {
                self.woken.insert(number("thread"), (row.core, row.ticks));
                self.instant(row);
            }
            Some(Event::SyscallEnter) => match self.thread_on(row.core) {
                Some(thread) => {
                    self.calls.insert(thread, (number("number"), row.ticks));
                }
                None => self.instant(row),
            },
            Some(Event::SyscallExit) => {
                let begun =
                    self.thread_on(row.core).and_then(|thread| Some((thread, self.calls.remove(&thread)?)));
                match begun {
                    Some((thread, call)) => self.call(thread, call, row.ticks, arguments(row)),
                    None => self.instant(row),
                }
            }
            _ => self.instant(row),
        }
    }

    /// The thread that a core runs, where a switch has told it.
    fn thread_on(&self, core: u32) -> Option<u64> {
        self.running.get(&core).and_then(|running| running.thread)
    }

    fn switch(&mut self, row: &TraceRow, from: u64, to: u64) {
        let next = Running { thread: Some(to), since: row.ticks };
        if let Some(before) = self.running.insert(row.core, next) {
            self.ran(row.core, before.thread.unwrap_or(from), before.since, row.ticks, arguments(row));
        }
        let Some((waker, when)) = self.woken.remove(&to) else { return };
        self.flows += 1;
        for (core, ticks, ph, bp) in [(waker, when, "s", None), (row.core, row.ticks, "f", Some("e"))] {
            let id = Some(self.flows);
            let entry = self.entry("wake".to_owned(), "wake", ph, self.track(core), ticks, Map::new());
            self.entries.push((ticks, Entry { id, bp, ..entry }));
        }
    }

    /// The slice of a thread that has run on a core.
    fn ran(&mut self, core: u32, thread: u64, since: u64, until: u64, args: Map<String, Value>) {
        let name = if thread == 0 { "idle".to_owned() } else { format!("thread {thread}") };
        self.slice(name, "switch", self.track(core), since, until, args);
    }

    /// The slice of a system call.
    fn call(&mut self, thread: u64, (number, since): (u64, u64), until: u64, args: Map<String, Value>) {
        self.slice(call_name(number), "syscall", Track::of_thread(thread), since, until, args);
    }

    fn slice(
        &mut self,
        name: String,
        cat: &'static str,
        track: Track,
        since: u64,
        until: u64,
        args: Map<String, Value>,
    ) {
        let dur = Some(self.microseconds(until) - self.microseconds(since));
        let entry = self.entry(name, cat, "X", track, since, args);
        self.entries.push((since, Entry { dur, ..entry }));
    }

    fn instant(&mut self, row: &TraceRow) {
        let entry =
            self.entry(row.event.clone(), "event", "i", self.track(row.core), row.ticks, arguments(row));
        self.entries.push((row.ticks, Entry { s: Some("t"), ..entry }));
    }

    /// Ends what has not ended when the trace does.
    fn finish(&mut self, end: u64) {
        let unfinished = || Map::from_iter([("unfinished".to_owned(), json!(true))]);
        for (core, running) in std::mem::take(&mut self.running) {
            if let Some(thread) = running.thread {
                self.ran(core, thread, running.since, end, unfinished());
            }
        }
        for (thread, call) in std::mem::take(&mut self.calls) {
            self.call(thread, call, end, unfinished());
        }
    }

    /// What the tracks are called.
    fn names(&self) -> Vec<Value> {
        let tracks: BTreeSet<Track> = self
            .entries
            .iter()
            .map(|(_, entry)| Track { pid: entry.track.pid, tid: entry.track.tid })
            .collect();
        let processes: BTreeSet<u64> = tracks.iter().map(|track| track.pid).collect();
        let named = |name: &str, track: Track, label: String| json!({ "name": name, "ph": "M", "ts": 0, "pid": track.pid, "tid": track.tid, "args": { "name": label } });
        let process = |&pid: &u64| {
            let label = if pid == THREADS { "system calls".to_owned() } else { format!("node {}", pid - 1) };
            named("process_name", Track { pid, tid: 0 }, label)
        };
        let thread = |&track: &Track| {
            let what = if track.pid == THREADS { "thread" } else { "core" };
            let number = if track.pid == THREADS { track.tid } else { track.tid - 1 };
            named("thread_name", track, format!("{what} {number}"))
        };
        processes.iter().map(process).chain(tracks.iter().map(thread)).collect()
    }

    fn track(&self, core: u32) -> Track {
        let node = self.nodes.get(&core).copied().unwrap_or(0);
        Track { pid: u64::from(node) + 1, tid: u64::from(core) + 1 }
    }

    fn entry(
        &self,
        name: String,
        cat: &'static str,
        ph: &'static str,
        Track { pid, tid }: Track,
        ticks: u64,
        args: Map<String, Value>,
    ) -> Entry {
        let (track, ts) = (TrackFields { pid, tid }, self.microseconds(ticks));
        Entry { name, cat, ph, ts, dur: None, track, id: None, bp: None, s: None, args }
    }

    /// Since the first row, to the nanosecond.
    fn microseconds(&self, ticks: u64) -> f64 {
        let nanoseconds = u128::from(ticks.saturating_sub(self.base)) * 1_000_000_000 / u128::from(self.hz);
        nanoseconds as f64 / 1000.0
    }
}

fn call_name(number: u64) -> String {
    let known = Syscall::decode(number).and_then(|_| abi::syscall::TABLE.get(usize::try_from(number).ok()?));
    known.map_or_else(|| format!("call {number}"), |row| row.name.to_owned())
}

/// The numbers of a row as people read them.
fn arguments(row: &TraceRow) -> Map<String, Value> {
    let known = Event::parse(&row.event).map(Event::arguments).unwrap_or_default();
    let kind = |name: &str| known.iter().find(|argument| argument.name == name).map(|argument| argument.kind);
    let shown = |(name, &value): (&String, &u64)| (name.clone(), show(kind(name), value));
    row.args.iter().map(shown).collect()
}

fn show(kind: Option<Kind>, value: u64) -> Value {
    match kind {
        Some(Kind::Address) => json!(format!("{value:#x}")),
        Some(Kind::Call) => json!(call_name(value)),
        Some(Kind::Status) if value != 0 => {
            let error = abi::error::Error::decode(value);
            json!(error.map_or_else(|| value.to_string(), |error| error.name().to_owned()))
        }
        // What JSON readers take for a float would lose its last digits.
        _ if value > 1 << 53 => json!(value.to_string()),
        _ => json!(value),
    }
}

#[cfg(test)]
#[path = "chrome_tests.rs"]
mod tests;
