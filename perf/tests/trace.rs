//! Trace records and rings, against a queue that forgets its oldest.

use core::cell::Cell;
use std::collections::VecDeque;

use perf::prng::Prng;
use perf::trace::{Event, Ring, Taken, TraceRecord};

fn numbered(number: u64) -> TraceRecord {
    TraceRecord {
        ticks: number * 10,
        a: number,
        b: !number,
        c: number as u32,
        core: 7,
        event: Event::Mark as u16,
    }
}

fn memory(records: usize) -> Vec<Cell<TraceRecord>> {
    vec![Cell::default(); records]
}

/// Planted: the fields `core` and `event` change places in `from_bytes`.
#[test]
fn records_come_back_from_their_bytes() {
    let record = TraceRecord {
        ticks: 1 << 60,
        a: 0x0102_0304_0506_0708,
        b: u64::MAX,
        c: 0xdead_beef,
        core: 287,
        event: 2,
    };
    let bytes = record.to_bytes();
    assert_eq!(bytes[..8], (1_u64 << 60).to_le_bytes());
    assert_eq!(bytes[24..], [0xef, 0xbe, 0xad, 0xde, 0x1f, 0x01, 2, 0]);
    assert_eq!(TraceRecord::from_bytes(&bytes), record);
}

#[test]
fn the_table_names_every_event_once() {
    for (index, &event) in Event::ALL.iter().enumerate() {
        assert_eq!(Event::decode(event as u16), Some(event));
        assert_eq!(Event::parse(event.word()), Some(event));
        assert!(Event::ALL[..index].iter().all(|other| other.word() != event.word()));
        assert!(event.events().is_known() && event.events().0.count_ones() == 1);
    }
    assert_eq!((Event::decode(0), Event::decode(Event::ALL.len() as u16 + 1)), (None, None));
}

#[test]
fn numbers_have_the_names_of_the_table() {
    let record = TraceRecord { a: 3, b: 0, c: 5, event: Event::Steal as u16, ..TraceRecord::default() };
    let named: Vec<_> = record.arguments().map(|(argument, value)| (argument.name, value)).collect();
    assert_eq!(named, [("thread", 3), ("from", 0), ("to", 5)]);
    let ipi = TraceRecord { event: Event::Ipi as u16, ..record };
    assert_eq!(ipi.arguments().count(), 0);
    let unknown = TraceRecord { event: 999, ..record };
    assert_eq!(unknown.arguments().count(), 0);
}

#[test]
fn a_ring_without_memory_keeps_nothing() {
    let ring = Ring::new();
    ring.record(numbered(0));
    assert_eq!(ring.take(&mut [TraceRecord::default(); 2]), Taken { first: 0, count: 0, lost: 0 });
}

/// Planted: `record` does not advance `next` when it wraps; `take` starts at the oldest though it was taken; `lost` is not counted.
#[test]
fn a_ring_keeps_the_newest_in_order() {
    let mut random = Prng::new(5);
    for records in [1, 2, 3, 8, 13, 64] {
        let memory = memory(records);
        let ring = Ring::new();
        ring.lend(&memory);
        let capacity = ring.capacity();
        assert!(capacity.is_power_of_two() && capacity <= records && 2 * capacity > records);
        let (mut model, mut number, mut lost) = (VecDeque::new(), 0, 0);
        for _ in 0..400 {
            for _ in 0..random.below(2 * records as u64 + 2) {
                ring.record(numbered(number));
                model.push_back(number);
                number += 1;
                lost += u64::from(model.len() > capacity && model.pop_front().is_some());
            }
            let mut out = vec![TraceRecord::default(); random.below(records as u64 + 3) as usize];
            let taken = ring.take(&mut out);
            let expected: Vec<u64> = model.drain(..taken.count).collect();
            assert_eq!(taken.count, out.len().min(expected.len() + model.len()));
            assert!(out.iter().zip(&expected).all(|(record, &number)| *record == numbered(number)));
            assert!(expected.first().is_none_or(|&first| first == taken.first));
            assert_eq!(taken.lost, lost);
            lost = 0;
        }
    }
}

#[test]
fn new_memory_forgets_what_was_there() {
    let (small, large) = (memory(2), memory(8));
    let ring = Ring::new();
    ring.lend(&small);
    (0..5).for_each(|number| ring.record(numbered(number)));
    ring.lend(&large);
    assert_eq!(ring.take(&mut [TraceRecord::default()]), Taken { first: 5, count: 0, lost: 0 });
    ring.record(numbered(9));
    let mut out = [TraceRecord::default(); 4];
    assert_eq!(ring.take(&mut out), Taken { first: 5, count: 1, lost: 0 });
    assert_eq!(out[0], numbered(9));
}
