//! The channel between a program and the kernel's harness.

use std::thread;

use perf::bench::Unit;
use perf::channel::{Channel, Damaged, Receiver, Sender, TooLong};
use perf::record::{CaseStart, Done, Metric, Record, Sink, SuiteStart};

fn metric(case: u32, name: &str) -> Record<'_> {
    Record::Metric(Metric { case, name, value: u64::from(case) << 20, unit: Unit::Count })
}

#[test]
fn records_of_many_sizes_go_round_the_ring() {
    let channel = Channel::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut sender = Sender::new(&channel, |_, _| thread::yield_now());
            for case in 0..20_000_u32 {
                sender.send(&metric(case, &"x".repeat(case as usize % 3_000)));
            }
            sender.close();
        });
        let mut receiver = Receiver::new(&channel);
        let mut seen = 0;
        loop {
            // Closed has to be read first: what was sent before it is then there.
            let closed = channel.closed();
            match receiver.take().unwrap() {
                Some(record) => {
                    assert_eq!(record, metric(seen, &"x".repeat(seen as usize % 3_000)));
                    seen += 1;
                }
                None if closed => break,
                None => thread::yield_now(),
            }
        }
        assert_eq!(seen, 20_000);
    });
}

#[test]
fn a_writer_without_room_says_so_and_waits() {
    let channel = Channel::new();
    let waits = std::cell::Cell::new(0);
    let mut receiver = Receiver::new(&channel);
    let mut taken = 0;
    let mut sender = Sender::new(&channel, |_, _| {
        assert!(channel.full());
        waits.set(waits.get() + 1);
        while receiver.next_bytes().unwrap().is_some() {
            taken += 1;
        }
    });
    for _ in 0..100 {
        sender.send_bytes(&[7; 1_000]).unwrap();
    }
    assert_eq!(sender.send_bytes(&vec![0; 40_000]), Err(TooLong));
    assert!(waits.get() >= 48, "{waits:?}");
    assert!(!channel.full() && !channel.closed());
    assert!(taken >= 97);
}

/// Bytes as no sender writes them: the reader says so, and reads nothing outside.
#[test]
fn damage_is_noticed() {
    let channel = Channel::new();
    Sender::new(&channel, |_, _| {}).send_bytes(&[0xff; 64]).unwrap();
    assert_eq!(Receiver::new(&channel).take(), Err(Damaged), "no record");
    // Two senders that know nothing of each other: the second one's message ends inside the first one's.
    let channel = Channel::new();
    let mut first = Sender::new(&channel, |_, _| {});
    first.send_bytes(&[0xff; 64]).unwrap();
    Sender::new(&channel, |_, _| {}).send_bytes(&[0xff; 8]).unwrap();
    first.send_bytes(&[0xff; 8]).unwrap();
    let mut receiver = Receiver::new(&channel);
    assert_eq!(receiver.next_bytes(), Ok(Some([0xff; 8].as_slice())));
    assert_eq!(receiver.next_bytes(), Err(Damaged), "a length that cannot be");
}

#[test]
fn indices_of_cases_are_shifted_and_nothing_else_is() {
    let start = |index| Record::CaseStart(CaseStart { index, key: "sys.null" });
    assert_eq!(start(3).shifted(10), start(13));
    assert_eq!(
        metric(1, "a").shifted(1),
        Record::Metric(Metric { case: 2, name: "a", value: 1 << 20, unit: Unit::Count })
    );
    let suite = Record::SuiteStart(SuiteStart { cases: 4, first: 0 });
    let done = Record::Done(Done { run: 1, failed: 0, skipped: 0 });
    assert_eq!((suite.shifted(9), done.shifted(9)), (suite, done));
}

/// What ended before a case that hangs is known, and so is which case that is. Planted: no flush.
#[test]
fn a_case_begins_when_all_before_it_has_been_read() {
    let channel = Channel::new();
    let mut receiver = Receiver::new(&channel);
    let taken = std::cell::Cell::new(0);
    let mut sender = Sender::new(&channel, |_, _| {
        assert!(channel.full());
        // One at a time: the writer has to ask again.
        taken.set(taken.get() + u32::from(receiver.take().unwrap().is_some()));
    });
    sender.send(&metric(0, "a"));
    assert_eq!(taken.get(), 0);
    sender.send(&Record::CaseStart(CaseStart { index: 1, key: "sys.null" }));
    assert_eq!(taken.get(), 2);
    assert!(!channel.full());
}
