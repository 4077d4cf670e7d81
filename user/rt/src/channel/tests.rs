//! One thread plays both ends, or one end and somebody who writes what he likes into the memory.

use core::cell::Cell;

use abi::error::Error;

use super::{Bell, Consumer, Item, Producer, Result, WORDS};
use crate::sync::atomic::{AtomicU64, Ordering};

/// Counts; a wait gives up at once.
#[derive(Default)]
struct Fake {
    rings: Cell<u32>,
    waits: Cell<u32>,
    /// What the next ring answers.
    refuses: Cell<Option<Error>>,
}

impl Bell for &Fake {
    fn ring(&self) -> Result {
        self.rings.set(self.rings.get() + 1);
        self.refuses.take().map_or(Ok(()), Err)
    }

    fn wait(&self, _: u64) -> Result {
        self.waits.set(self.waits.get() + 1);
        Err(Error::TimedOut)
    }
}

/// Memory for so many items, between words that nobody may touch.
struct Memory(Vec<AtomicU64>);

const AROUND: usize = 4 * WORDS;
const CANARY: u64 = 0x0dd_ba11;

impl Memory {
    fn new(items: usize) -> Self {
        let inside = AROUND..AROUND + (4 + items) * WORDS;
        let word = |at| AtomicU64::new(if inside.contains(&at) { 0 } else { CANARY });
        Self((0..inside.end + AROUND).map(word).collect())
    }

    fn words(&self) -> &[AtomicU64] {
        &self.0[AROUND..self.0.len() - AROUND]
    }

    fn line(&self, line: usize) -> &[AtomicU64] {
        &self.words()[line * WORDS..][..WORDS]
    }

    fn put(&self, line: usize, word: usize, value: u64) {
        self.line(line)[word].store(value, Ordering::Relaxed);
    }

    fn get(&self, line: usize, word: usize) -> u64 {
        self.line(line)[word].load(Ordering::Relaxed)
    }

    fn check(&self) {
        let (before, rest) = self.0.split_at(AROUND);
        let mut around = before.iter().chain(&rest[rest.len() - AROUND..]);
        assert!(around.all(|word| word.load(Ordering::Relaxed) == CANARY));
    }
}

/// The lines, and the words of one with a state.
const SENT: usize = 0;
const TAKEN: usize = 1;
const PRODUCER: usize = 2;
const CONSUMER: usize = 3;
const WANT: usize = WORDS - 1;

fn item(number: u64) -> Item {
    core::array::from_fn(|word| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(word as u32 * 7))
}

#[test]
fn items_come_in_order_and_nobody_enters_the_kernel() {
    let (memory, bell) = (Memory::new(3), Fake::default());
    let mut producer = Producer::new(memory.words(), &bell).unwrap();
    let mut consumer = Consumer::new(memory.words(), &bell).unwrap();
    assert_eq!(producer.capacity(), 3);
    let (mut sent, mut taken) = (0, 0);
    for round in 0..100 {
        for _ in 0..=round % 3 {
            producer.send(&item(sent)).unwrap();
            sent += 1;
        }
        assert_eq!(producer.try_send(&item(sent)).err(), (round % 3 == 2).then_some(Error::WouldBlock));
        sent += u64::from(round % 3 != 2);
        while let Ok(came) = consumer.try_receive() {
            assert_eq!(came, item(taken));
            taken += 1;
        }
        assert_eq!(sent, taken);
        producer.complete().unwrap();
    }
    assert_eq!((bell.rings.get(), bell.waits.get()), (0, 0));
    memory.check();
}

#[test]
fn deadlines_end_a_wait() {
    let (memory, bell) = (Memory::new(1), Fake::default());
    let mut producer = Producer::new(memory.words(), &bell).unwrap();
    let mut consumer = Consumer::new(memory.words(), &bell).unwrap();
    assert_eq!(consumer.receive_until(1), Err(Error::TimedOut));
    producer.send(&item(0)).unwrap();
    assert_eq!(producer.send_until(&item(1), 1), Err(Error::TimedOut));
    assert_eq!(producer.complete_until(1), Err(Error::TimedOut));
    assert_eq!(bell.waits.get(), 3);
    assert_eq!(consumer.receive_until(1), Ok(item(0)));
    assert_eq!(bell.rings.get(), 0, "who has given up is not woken");
}

/// Planted: whoever waits is rung for at every item; and whatever it waits for.
#[test]
fn who_waits_is_woken_once_and_when_it_said() {
    let (memory, bell) = (Memory::new(4), Fake::default());
    let mut producer = Producer::new(memory.words(), &bell).unwrap();
    let mut consumer = Consumer::new(memory.words(), &bell).unwrap();
    memory.put(CONSUMER, WANT, 1);
    memory.put(CONSUMER, 0, 1);
    for (number, rings) in [(0, 1), (1, 1), (2, 1)] {
        producer.send(&item(number)).unwrap();
        assert_eq!(bell.rings.get(), rings);
    }
    memory.put(PRODUCER, WANT, 2);
    memory.put(PRODUCER, 0, 1);
    for (number, rings) in [(0, 1), (1, 2), (2, 2)] {
        assert_eq!(consumer.receive(), Ok(item(number)));
        assert_eq!(bell.rings.get(), rings);
    }
}

/// Planted: `AWAKE` stays.
#[test]
fn a_ring_that_fails_is_made_again() {
    let (memory, bell) = (Memory::new(4), Fake::default());
    let mut producer = Producer::new(memory.words(), &bell).unwrap();
    memory.put(CONSUMER, WANT, 1);
    memory.put(CONSUMER, 0, 1);
    bell.refuses.set(Some(Error::TooMany));
    assert_eq!(producer.send(&item(0)), Err(Error::TooMany));
    assert_eq!(producer.send(&item(1)), Ok(()));
    assert_eq!((bell.rings.get(), memory.get(CONSUMER, 0)), (2, 0));
    memory.put(CONSUMER, 0, 1);
    bell.refuses.set(Some(Error::BadHandle));
    assert_eq!(producer.send(&item(2)), Err(Error::PeerGone));
}

#[test]
fn an_end_that_is_closed_is_told_of() {
    let (memory, bell) = (Memory::new(2), Fake::default());
    let mut producer = Producer::new(memory.words(), &bell).unwrap();
    let mut consumer = Consumer::new(memory.words(), &bell).unwrap();
    producer.send(&item(0)).unwrap();
    drop(producer);
    assert_eq!(consumer.receive(), Ok(item(0)));
    assert_eq!(consumer.receive(), Err(Error::PeerGone));
    assert_eq!(consumer.try_receive(), Err(Error::PeerGone));
    let (memory, bell) = (Memory::new(2), Fake::default());
    let mut producer = Producer::new(memory.words(), &bell).unwrap();
    let consumer = Consumer::new(memory.words(), &bell).unwrap();
    memory.put(PRODUCER, 0, 1);
    drop(consumer);
    assert_eq!(bell.rings.get(), 1, "who waits is told at once");
    assert_eq!(producer.try_send(&item(0)), Err(Error::PeerGone));
    assert_eq!(producer.complete(), Err(Error::PeerGone));
}

#[test]
fn memory_must_have_room() {
    let (memory, bell) = (Memory::new(1), Fake::default());
    let words = memory.words();
    assert!(Producer::new(&words[..words.len() - 1], &bell).is_err());
    assert!(Consumer::new(&words[..words.len() - 1], &bell).is_err());
    assert!(Consumer::new(&[], &bell).is_err());
}

/// Numbers that look random (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Near to a number, or anything.
    fn near(&mut self, number: u64) -> u64 {
        match self.next() % 4 {
            0 => self.next(),
            1 => number.wrapping_sub(self.next() % 12),
            _ => number.wrapping_add(self.next() % 12),
        }
    }
}

const ITEMS: u64 = 5;

/// CH2: after any index of a producer's, as many items come as it says, or an error. Planted: an index more than the ring ahead is believed.
#[test]
fn a_consumer_believes_no_index_that_cannot_be() {
    let (memory, bell, mut random) = (Memory::new(ITEMS as usize), Fake::default(), Random(0x5eed));
    let mut consumer = Consumer::new(memory.words(), &bell).unwrap();
    let (mut taken, mut seen) = (0, 0_u64);
    for _ in 0..20_000 {
        let said = random.near(taken);
        memory.put(SENT, 0, said);
        memory.put(PRODUCER, 0, random.next() % 4);
        memory.put(PRODUCER, WANT, random.near(taken));
        let fine = said.wrapping_sub(taken) <= ITEMS && said >= seen;
        let mut count = seen - taken;
        if random.next().is_multiple_of(2) {
            // What was seen before is taken without a look.
            (0..count).for_each(|_| assert!(consumer.receive_until(1).is_ok()));
            taken += count;
            count = if fine { said.saturating_sub(taken) } else { 0 };
            (0..count).for_each(|_| assert!(consumer.try_receive().is_ok()));
            taken += count;
            seen = taken;
            assert!(consumer.try_receive().is_err());
        } else if count > 0 {
            assert!(consumer.try_receive().is_ok());
            taken += 1;
        }
        assert_eq!((memory.get(SENT, 0), memory.get(TAKEN, 0)), (said, taken));
        memory.check();
    }
    assert!(taken > 1000);
}

/// CH2: after any index of a consumer's, at most a ring full of items is sent. Planted: as for the consumer.
#[test]
fn a_producer_believes_no_index_that_cannot_be() {
    let (memory, bell, mut random) = (Memory::new(ITEMS as usize), Fake::default(), Random(0xfeed));
    let mut producer = Producer::new(memory.words(), &bell).unwrap();
    let (mut sent, mut seen) = (0_u64, 0_u64);
    for _ in 0..20_000 {
        let said = random.near(sent);
        memory.put(TAKEN, 0, said);
        memory.put(CONSUMER, 0, random.next() % 2);
        memory.put(CONSUMER, WANT, random.near(sent));
        let fill = seen + ITEMS;
        while sent < fill {
            assert_eq!(producer.try_send(&item(sent)), Ok(()));
            sent += 1;
        }
        let fine = said >= seen && said <= sent;
        let answer = producer.try_send(&item(sent));
        if !fine {
            assert_eq!(answer, Err(Error::BadArgument), "{said} with {sent} sent and {seen} taken");
        } else if said == seen {
            assert_eq!(answer, Err(Error::WouldBlock));
        } else {
            assert_eq!(answer, Ok(()));
            (sent, seen) = (sent + 1, said);
        }
        assert_eq!((memory.get(SENT, 0), memory.get(TAKEN, 0)), (sent, said));
        memory.check();
    }
    assert!(sent > 1000);
    memory.put(CONSUMER, 0, 7);
    memory.put(TAKEN, 0, sent);
    assert_eq!(producer.try_send(&item(0)), Err(Error::BadArgument), "no state of a consumer's");
}

/// CH2. Planted: an index behind what was seen is believed.
#[test]
fn what_was_taken_stays_taken() {
    let (memory, bell) = (Memory::new(ITEMS as usize), Fake::default());
    let mut producer = Producer::new(memory.words(), &bell).unwrap();
    (0..ITEMS).for_each(|number| producer.send(&item(number)).unwrap());
    memory.put(TAKEN, 0, 3);
    assert_eq!(producer.complete_until(1), Err(Error::TimedOut));
    memory.put(TAKEN, 0, 2);
    assert_eq!(producer.complete_until(1), Err(Error::BadArgument));
}
