//! Tests of the collector with whole, cut and damaged record streams.

use super::{Boot, Collector, Step};
use crate::results::schema::{CaseStatus, TraceRow};
use crate::results::testing;
use crate::results::writer::Finished;
use perf::record::{Demux, Event, Record, TraceChunk};
use perf::trace::{self, TraceRecord};
use std::time::{Duration, SystemTime};

const KEYS: [&str; 3] = ["a.b/x=1", "a.b/x=2", "c"];

fn collector() -> Collector {
    Collector::new(Boot { lane: "tcg".to_owned(), repeat: 2, boot: 5 })
}

/// Feeds frames; gives the finished cases, the lost ones, and whether the end was seen.
fn feed(collector: &mut Collector, frames: &[Vec<u8>]) -> (Vec<Finished>, Vec<u32>, bool) {
    let (mut finished, mut lost, mut done) = (Vec::new(), Vec::new(), false);
    let mut demux = Demux::new();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
    demux.feed(&frames.concat(), &mut |event| {
        let steps = match event {
            Event::Frame { record, .. } => collector.take(record, now),
            Event::Gap { .. } => {
                collector.gap();
                return;
            }
            Event::Text(_) | Event::Corrupt { .. } => return,
        };
        for step in steps {
            match step {
                Step::Finished(case) => finished.push(*case),
                Step::Lost(index) => lost.push(index),
                Step::Done => done = true,
                Step::Suite { .. } | Step::Started { .. } | Step::Trace(_) => {}
            }
        }
    });
    (finished, lost, done)
}

#[test]
fn a_whole_stream_gives_every_row() {
    let mut collector = collector();
    let (finished, lost, done) = feed(&mut collector, &testing::suite_frames(&KEYS, 0));
    assert!(done && lost.is_empty());
    assert_eq!(finished.iter().map(|case| case.row.id.as_str()).collect::<Vec<_>>(), KEYS);
    let case = &finished[1];
    assert_eq!((case.row.status, case.row.n, case.row.repeat, case.row.boot), (CaseStatus::Ok, 40, 2, 5));
    assert_eq!(case.row.params["x"], "2");
    assert_eq!((case.row.min, case.row.max), (Some(5_000), Some(8_900)));
    assert_eq!((case.row.p90, case.row.overhead.unwrap().min), (None, 20_000));
    assert!(case.row.p50.is_some());
    assert_eq!(case.hist.as_ref().unwrap().total(), 40);
    assert_eq!(case.matrices[0].cells, [None, Some(7)]);
    assert_eq!(case.row.metrics[0].value, 9);
    assert!(finished[2].row.params.is_empty());
}

/// Cut at every frame: each case whose row arrived is there, the running one can be failed, nothing is invented.
#[test]
fn a_stream_cut_at_every_frame_loses_no_completed_case() {
    let frames = testing::suite_frames(&KEYS, 0);
    let is_row = |frames: &[Vec<u8>]| {
        let mut rows = 0;
        Demux::new().feed(&frames.concat(), &mut |event| {
            rows += usize::from(matches!(event, Event::Frame { record: perf::record::Record::Case(_), .. }));
        });
        rows
    };
    for cut in 0..frames.len() {
        let mut collector = collector();
        let (finished, lost, done) = feed(&mut collector, &frames[..cut]);
        assert_eq!((finished.len(), lost.len(), done), (is_row(&frames[..cut]), 0, false), "{cut}");
        assert!(finished.iter().all(|case| case.row.status == CaseStatus::Ok));
        let failed = collector.fail("why", vec!["tail".to_owned()], SystemTime::now());
        if let Some(failed) = failed {
            assert_eq!(failed.row.id, KEYS[finished.len()]);
            assert_eq!((failed.row.status, failed.row.n), (CaseStatus::Failed, 0));
            assert_eq!(collector.next(), Some(u32::try_from(finished.len()).unwrap() + 1));
        }
    }
}

/// Each single frame of the second case goes missing: its row fails and its neighbours are untouched.
#[test]
fn a_missing_frame_hurts_its_own_case_only() {
    let frames = testing::suite_frames(&KEYS, 0);
    let first = 5 + (frames.len() - 6) / 3;
    for missing in first..first + (frames.len() - 6) / 3 {
        let mut rest = frames.clone();
        rest.remove(missing);
        let (finished, lost, done) = feed(&mut collector(), &rest);
        assert!(done && lost.is_empty(), "{missing}");
        assert_eq!(finished.len(), 3, "{missing}");
        let status: Vec<CaseStatus> = finished.iter().map(|case| case.row.status).collect();
        assert_eq!((status[0], status[2]), (CaseStatus::Ok, CaseStatus::Ok), "{missing}");
        assert_eq!(status[1], CaseStatus::Failed, "frame {missing}");
        assert!(finished[1].row.reason.is_some());
        assert!(finished[1].hist.is_none() && finished[1].row.p50.is_none());
    }
}

#[test]
fn a_case_of_which_nothing_arrived_is_named_lost() {
    let frames = testing::suite_frames(&KEYS, 0);
    let each = (frames.len() - 6) / 3;
    let mut rest = frames.clone();
    rest.drain(5 + each..5 + 2 * each);
    let (finished, lost, done) = feed(&mut collector(), &rest);
    assert_eq!((finished.len(), lost, done), (2, vec![1], true));
    let mut rest = frames.clone();
    rest.drain(5 + 2 * each..5 + 3 * each);
    let (finished, lost, done) = feed(&mut collector(), &rest);
    assert_eq!((finished.len(), lost, done), (2, vec![2], true));
}

#[test]
fn a_resumed_suite_starts_where_it_should() {
    let mut collector = collector();
    let (finished, lost, done) = feed(&mut collector, &testing::suite_frames(&KEYS, 2));
    assert_eq!((finished.len(), lost.len(), done), (1, 0, true));
    assert_eq!(finished[0].row.id, "c");
}

/// Planted: numbers of all rows are those of the chunk's first; bytes of a record are taken backwards.
#[test]
fn a_trace_becomes_rows_with_names() {
    let record = |a, event| TraceRecord { ticks: 77, a, b: 3, c: 1, core: 9, event };
    let bytes = [record(5, trace::Event::Ready as u16).to_bytes(), record(6, 999).to_bytes()].concat();
    let chunk = TraceChunk { core: 9, first: 40, records: &bytes };
    let steps = collector().take(&Record::Trace(chunk), SystemTime::UNIX_EPOCH);
    let [Step::Trace(rows)] = steps.as_slice() else { panic!("{steps:?}") };
    let named = testing::trace_row(5, 9, 77, "ready", &[("thread", 5), ("waker", 3), ("core", 1)]);
    let unnamed = testing::trace_row(5, 9, 77, "unknown-999", &[]);
    assert_eq!(rows.as_slice(), [TraceRow { number: 40, ..named }, TraceRow { number: 41, ..unnamed }]);
}
