//! Files that viewers accept: required fields, order, slices that do not overlap, arrows with two ends.

use super::{Nodes, THREADS, render};
use crate::results::schema::TraceRow;
use crate::results::testing::trace_row;
use perf::prng::Prng;
use perf::trace::Event;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const HZ: u64 = 2_000_000_000;

fn nodes() -> Nodes {
    Nodes::from([(0, 0), (1, 0), (2, 1)])
}

fn events(rows: &[TraceRow]) -> Vec<Value> {
    let file: Value = serde_json::from_slice(&render(rows, HZ, &nodes()).unwrap()).unwrap();
    file["traceEvents"].as_array().unwrap().clone()
}

fn nanoseconds(value: &Value) -> u64 {
    (value.as_f64().unwrap() * 1000.0).round() as u64
}

/// What the format requires of every event of its phase. Gives the phases that were seen.
fn check(events: &[Value]) -> BTreeSet<String> {
    let (mut phases, mut last, mut named) = (BTreeSet::new(), 0, BTreeSet::new());
    let mut ends: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut flows: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for event in events {
        let phase = event["ph"].as_str().unwrap();
        let track = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        assert!(event["name"].is_string() && event["ts"].is_number(), "{event}");
        phases.insert(phase.to_owned());
        if phase == "M" {
            assert!(event["args"]["name"].is_string(), "{event}");
            named.insert((event["name"].as_str().unwrap(), track));
            continue;
        }
        let ts = nanoseconds(&event["ts"]);
        assert!(ts >= last, "{event} comes after {last}");
        last = ts;
        assert!(
            named.contains(&("thread_name", track)) && named.contains(&("process_name", (track.0, 0))),
            "{event}"
        );
        match phase {
            "X" => {
                let end = ends.entry(track).or_default();
                assert!(*end <= ts, "{event} begins before {end}, the end of the slice before it");
                *end = ts + nanoseconds(&event["dur"]);
            }
            "i" => assert_eq!(event["s"], "t"),
            "s" => flows.entry(event["id"].as_u64().unwrap()).or_default().push("s"),
            "f" => {
                assert_eq!(event["bp"], "e");
                flows.entry(event["id"].as_u64().unwrap()).or_default().push("f");
            }
            other => panic!("phase {other}"),
        }
    }
    assert!(flows.values().all(|ends| ends == &["s", "f"]), "{flows:?}");
    phases
}

fn of_phase<'e>(events: &'e [Value], phase: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["ph"] == phase).collect()
}

/// Two cores; thread 7 calls on core 0, blocks, is woken by thread 8 on core 2 and returns there.
///
/// Planted: the time is not taken from the first row; the arrow begins on another core than the waker's; slices begin late.
#[test]
fn a_call_that_blocks_is_one_slice_and_a_wake_an_arrow() {
    let rows = [
        trace_row(0, 0, 1000, "switch", &[("from", 0), ("to", 7), ("state", 0)]),
        trace_row(0, 0, 1200, "syscall-enter", &[("number", 31), ("argument", 0x7fff_0000_1000)]),
        trace_row(0, 0, 1400, "switch", &[("from", 7), ("to", 0), ("state", 2)]),
        trace_row(0, 2, 1100, "switch", &[("from", 0), ("to", 8), ("state", 0)]),
        trace_row(0, 2, 1600, "ready", &[("thread", 7), ("waker", 8), ("core", 2)]),
        trace_row(0, 2, 1800, "switch", &[("from", 8), ("to", 7), ("state", 1)]),
        trace_row(0, 2, 2000, "syscall-exit", &[("number", 31), ("status", 12)]),
        trace_row(0, 2, 3000, "mark", &[("value", u64::MAX), ("more", 5), ("tag", 0)]),
    ];
    let events = events(&rows);
    assert_eq!(check(&events), ["M", "X", "f", "i", "s"].map(str::to_owned).into());
    let slices: Vec<_> = of_phase(&events, "X")
        .iter()
        .map(|slice| {
            let (start, long) = (nanoseconds(&slice["ts"]), nanoseconds(&slice["dur"]));
            (slice["name"].as_str().unwrap().to_owned(), slice["pid"].as_u64().unwrap(), start, start + long)
        })
        .collect();
    let expected = [
        ("idle", 1, 0, 0),
        ("thread 7", 1, 0, 200),
        ("idle", 2, 50, 50),
        ("thread 8", 2, 50, 400),
        ("futex_wait", THREADS, 100, 500),
        ("idle", 1, 200, 1000),
        ("thread 7", 2, 400, 1000),
    ];
    assert_eq!(slices, expected.map(|(name, pid, start, end)| (name.to_owned(), pid, start, end)));
    let (start, end) = (of_phase(&events, "s")[0], of_phase(&events, "f")[0]);
    assert_eq!((&start["tid"], nanoseconds(&start["ts"])), (&json!(3), 300));
    assert_eq!((&end["tid"], nanoseconds(&end["ts"])), (&json!(3), 400));
    let call = events.iter().find(|event| event["name"] == "futex_wait").unwrap();
    assert_eq!(call["args"]["status"], "TimedOut");
    let mark = events.iter().find(|event| event["name"] == "mark").unwrap();
    assert_eq!(mark["args"], json!({ "value": u64::MAX.to_string(), "more": 5, "tag": 0 }));
}

#[test]
fn what_began_before_the_trace_or_ends_after_it_is_shown() {
    let rows = [
        trace_row(0, 1, 10, "syscall-exit", &[("number", 0), ("status", 0)]),
        trace_row(0, 1, 2010, "switch", &[("from", 3), ("to", 4), ("state", 0)]),
        trace_row(0, 1, 4010, "syscall-enter", &[("number", 999), ("argument", 0)]),
        trace_row(0, 1, 6010, "unknown-77", &[]),
    ];
    let events = events(&rows);
    check(&events);
    let named =
        |name: &str| events.iter().find(|event| event["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(
        (named("syscall-exit")["ph"].as_str(), named("unknown-77")["ph"].as_str()),
        (Some("i"), Some("i"))
    );
    assert_eq!((nanoseconds(&named("thread 3")["ts"]), nanoseconds(&named("thread 3")["dur"])), (0, 1000));
    assert_eq!(nanoseconds(&named("thread 4")["dur"]), 2000);
    assert_eq!(named("call 999")["args"]["unfinished"], true);
}

#[test]
fn no_rows_make_an_empty_file() {
    assert!(events(&[]).is_empty());
}

/// Whatever was traced, lost or made up, the file is one that viewers accept.
///
/// Planted: rows are not sorted; slices are sorted by their ends; a wake has an arrow to every later slice of its thread.
#[test]
fn every_trace_makes_an_acceptable_file() {
    let mut random = Prng::new(38);
    for length in 0..300 {
        let rows: Vec<TraceRow> = (0..length).map(|_| random_row(&mut random)).collect();
        let events = events(&rows);
        check(&events);
        let wakes = rows.iter().filter(|row| row.event == "ready").count();
        assert!(of_phase(&events, "s").len() <= wakes);
    }
}

fn random_row(random: &mut Prng) -> TraceRow {
    let event = Event::ALL[random.below(Event::ALL.len() as u64) as usize];
    let args: Vec<_> = event.arguments().iter().map(|argument| (argument.name, random.below(4))).collect();
    let core = random.below(4) as u32;
    trace_row(0, core, random.below(4000), event.word(), &args)
}
