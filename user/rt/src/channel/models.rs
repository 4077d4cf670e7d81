//! Loom models: every interleaving, up to the bound, of an end that falls asleep with one that goes on, closes, or gives up waiting. A bell is
//! a bit under a lock, as the kernel's notification is; a wait with a deadline ends at once, as the kernel's may.

use alloc::vec::Vec;

use abi::error::Error;
use abi::task::NEVER;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::{Bell, Consumer, Item, Producer, Result, WORDS};
use crate::sync::atomic::AtomicU64;

/// Preemptions that a model explores: three take minutes, and find no more of the bugs planted here.
const PREEMPTIONS: usize = 2;

type Bit = (Mutex<bool>, Condvar);

/// The bits of this end and of the other.
struct Fake(Arc<[Bit; 2]>, usize);

impl Bell for Fake {
    fn ring(&self) -> Result {
        let (bit, rung) = &self.0[1 - self.1];
        *bit.lock().unwrap() = true;
        rung.notify_one();
        Ok(())
    }

    fn wait(&self, deadline: u64) -> Result {
        let (bit, rung) = &self.0[self.1];
        let mut bit = bit.lock().unwrap();
        while !*bit {
            if deadline != NEVER {
                return Err(Error::TimedOut);
            }
            bit = rung.wait(bit).unwrap();
        }
        *bit = false;
        Ok(())
    }
}

/// Explores two ends of a channel of so many items.
fn model(
    items: usize,
    sends: impl Fn(Producer<'_, Fake>) + Clone + Sync + Send + 'static,
    receives: impl Fn(Consumer<'_, Fake>) + Sync + Send + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(move || {
        let words = (4 + items) * WORDS;
        let memory: Arc<Vec<AtomicU64>> = Arc::new((0..words).map(|_| AtomicU64::new(0)).collect());
        let bits = Arc::new([(); 2].map(|()| (Mutex::new(false), Condvar::new())));
        let (there, bell, sends) = (Arc::clone(&memory), Fake(Arc::clone(&bits), 0), sends.clone());
        let producer = thread::spawn(move || sends(Producer::new(&there, bell).unwrap()));
        receives(Consumer::new(&memory, Fake(bits, 1)).unwrap());
        producer.join().unwrap();
    });
}

/// Sends; the consumer may have ended when it has taken the last.
fn send(producer: &mut Producer<'_, Fake>, number: u64) {
    let sent = producer.send(&item(number));
    assert!(sent.is_ok() || (number == 2 && sent == Err(Error::PeerGone)), "{sent:?}");
}

fn item(number: u64) -> Item {
    [number, !number]
}

/// Whoever waits goes on, and what comes is what was sent. Planted: `wait` does not look after it has said that it waits; `publish` without
/// its fence; who rings sets `AWAKE` afterwards; Relaxed for the index.
#[test]
fn loom_nothing_is_lost() {
    model(
        1,
        |mut producer| (1..=2).for_each(|number| send(&mut producer, number)),
        |mut consumer| (1..=2).for_each(|number| assert_eq!(consumer.receive(), Ok(item(number)))),
    );
}

/// Who waits until all is taken goes on when it is, and not before.
#[test]
fn loom_completion_is_told() {
    model(
        2,
        |mut producer| {
            (1..=2).for_each(|number| send(&mut producer, number));
            producer.complete().unwrap();
            assert_eq!(producer.complete_until(0), Ok(()));
        },
        |mut consumer| {
            (1..=2).for_each(|number| assert_eq!(consumer.receive(), Ok(item(number))));
        },
    );
}

/// What was sent before the end is received, and then that it has ended. Planted: `look` reads the state after the index.
#[test]
fn loom_the_last_item_comes_before_the_end() {
    model(
        1,
        |mut producer| producer.send(&item(1)).unwrap(),
        |mut consumer| {
            assert_eq!(consumer.receive(), Ok(item(1)));
            assert_eq!(consumer.receive(), Err(Error::PeerGone));
        },
    );
}

/// Who waits for room is told when none will come. Planted: `close` does not ring.
#[test]
fn loom_the_end_wakes_who_waits() {
    model(
        1,
        |mut producer| {
            let sent = (1..=2).map(|number| producer.send(&item(number)));
            assert!(sent.last() == Some(Err(Error::PeerGone)));
        },
        |consumer| drop(consumer),
    );
}

/// Who has given up waiting waits again, and a late ring for the first time does no harm.
#[test]
fn loom_giving_up_loses_nothing() {
    model(
        1,
        |mut producer| (1..=2).for_each(|number| send(&mut producer, number)),
        |mut consumer| {
            let first = consumer.receive_until(0).or_else(|_| consumer.receive());
            assert_eq!(first, Ok(item(1)));
            assert_eq!(consumer.receive(), Ok(item(2)));
        },
    );
}
