//! Channels: between threads on one core and on two, and between processes. What could enter the kernel is a bell; every use is counted.

use abi::cap::ObjectKind;
use abi::error::Error;
use abi::task::{Grant, NEVER};
use perf::clock::Nanos;
use rt::channel::{Bell, Bells, Consumer, Item, Producer};
use rt::handle::{Notification, Owned, Region, Result, Typed};
use rt::memory::{self, PAGE};
use rt::start::Start;
use rt::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use rt::thread::Builder;
use rt::time::{self, Deadline};

use crate::basics::{on, spawn};
use crate::{Outcome, Test, ensure, unexpected};

pub(crate) const TESTS: &[Test] = &[
    ("channel-quiet", |_| quiet()),
    ("channel-same-core", |start| between_threads(start, 0)),
    ("channel-other-core", |start| between_threads(start, 1)),
    ("channel-process", |start| between_processes(start, 0)),
    ("channel-process-other-core", |start| between_processes(start, 1)),
    ("channel-deadlines", |_| deadlines()),
    ("channel-gone", gone),
];

/// What a process of these tests does: it receives.
pub(crate) const WORK: &str = "channel";

/// Items of a stream, and how many of them go by between two sleeps of an end.
const STREAM: u64 = 20_000;
const SLEEPS: u64 = 4_000;
/// What a ring of one page holds.
const CAPACITY: u64 = PAGE as u64 / 64 - 4;

/// An item of which every word says which it is.
fn item(number: u64) -> Item {
    core::array::from_fn(|word| {
        (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(word as u32 * 8) ^ number
    })
}

/// Bells that count how often they were used.
#[derive(Clone, Copy)]
struct Counted<'c> {
    bells: Bells,
    rings: &'c AtomicU32,
    waits: &'c AtomicU32,
}

impl Bell for Counted<'_> {
    fn ring(&self) -> Result<()> {
        // ORDER: Relaxed; read when its thread has ended.
        self.rings.fetch_add(1, Ordering::Relaxed);
        self.bells.ring()
    }

    fn wait(&self, deadline: u64) -> Result<()> {
        // ORDER: Relaxed; as above.
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.bells.wait(deadline)
    }
}

/// What the two ends of a channel have used.
#[derive(Default)]
struct Counts {
    rings: [AtomicU32; 2],
    waits: [AtomicU32; 2],
}

impl Counts {
    fn of(words: &[AtomicU32; 2]) -> [u32; 2] {
        // ORDER: Relaxed; their threads have ended, or are this one.
        words.each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    /// No bell is rung but for one who waits, or was about to: who finds something when it looks again does not wait, and may have been rung for.
    /// Planted: each item rings while the other is about to run.
    fn check(&self) -> Outcome {
        let (rings, waits) = (Self::of(&self.rings), Self::of(&self.waits));
        ensure!(waits.iter().all(|&waits| waits > 0), "an end never slept: {waits:?}");
        let few = |rings: u32, waits: u32| rings <= waits + waits / 4 + 16;
        ensure!(
            few(rings[0], waits[1]) && few(rings[1], waits[0]),
            "{rings:?} rings for {waits:?} waits, crosswise"
        );
        Ok(())
    }
}

/// A channel of this process.
struct Made {
    region: Owned<Region>,
    words: &'static [AtomicU64],
    /// Where the producer waits, and where the consumer does.
    bells: [Owned<Notification>; 2],
    counts: Counts,
}

impl Made {
    fn new() -> core::result::Result<Self, alloc::string::String> {
        let region = Region::create(1).map_err(unexpected)?;
        let words = memory::shared(*region, 1).map_err(unexpected)?;
        let bell = || Notification::create().map_err(unexpected);
        Ok(Self { region, words, bells: [bell()?, bell()?], counts: Counts::default() })
    }

    fn bell(&self, end: usize) -> Counted<'_> {
        let bells = Bells { own: *self.bells[end], peer: *self.bells[1 - end] };
        Counted { bells, rings: &self.counts.rings[end], waits: &self.counts.waits[end] }
    }

    fn producer(&self) -> Result<Producer<'static, Counted<'_>>> {
        Producer::new(self.words, self.bell(0))
    }

    fn consumer(&self) -> Result<Consumer<'static, Counted<'_>>> {
        Consumer::new(self.words, self.bell(1))
    }
}

/// An end does nothing for a while, so that the other fills or empties the ring and sleeps.
fn nap(number: u64, at: u64) {
    if number % SLEEPS == at {
        time::sleep(Deadline::after(Nanos::from_millis(2)));
    }
}

fn send_all<B: Bell>(mut producer: Producer<'_, B>) -> Outcome {
    for number in 0..STREAM {
        nap(number, SLEEPS / 2);
        producer.send(&item(number)).map_err(unexpected)?;
    }
    producer.complete().map_err(unexpected)
}

fn receive_all<B: Bell>(mut consumer: Consumer<'_, B>) -> Outcome {
    for number in 0..STREAM {
        nap(number, SLEEPS - 1);
        let came = consumer.receive().map_err(unexpected)?;
        ensure!(came == item(number), "item {number}: {came:x?}");
    }
    let rest = consumer.receive();
    ensure!(rest == Err(Error::PeerGone), "behind the last: {rest:x?}");
    Ok(())
}

/// A full ring goes through without a system call.
fn quiet() -> Outcome {
    let made = Made::new()?;
    let (mut producer, mut consumer) =
        (made.producer().map_err(unexpected)?, made.consumer().map_err(unexpected)?);
    ensure!(producer.capacity() as u64 == CAPACITY, "{} items", producer.capacity());
    for round in 0..300 {
        for number in 0..CAPACITY {
            producer.send(&item(round + number)).map_err(unexpected)?;
        }
        ensure!(producer.try_send(&item(0)) == Err(Error::WouldBlock), "round {round}: there is room");
        for number in 0..CAPACITY {
            ensure!(consumer.receive() == Ok(item(round + number)), "round {round}: item {number}");
        }
        ensure!(consumer.try_receive() == Err(Error::WouldBlock), "round {round}: one more");
        producer.complete().map_err(unexpected)?;
    }
    let used = (Counts::of(&made.counts.rings), Counts::of(&made.counts.waits));
    ensure!(used == ([0; 2], [0; 2]), "system calls were made: {used:?}");
    Ok(())
}

fn between_threads(start: &Start, core: usize) -> Outcome {
    let made = Made::new()?;
    let sends = || made.producer().map_err(unexpected).and_then(send_all);
    let receives = || made.consumer().map_err(unexpected).and_then(receive_all);
    let beside = |_| on(start, core).both(receives, |thread| thread.join(Deadline::NEVER));
    let (sent, received) = on(start, 0).both(sends, beside).map_err(unexpected)?;
    sent?;
    received.map_err(unexpected)?.0?;
    made.counts.check()
}

/// What another process does: takes all, at a region and two notifications that it was given.
pub(crate) fn work(start: &Start) -> Option<u64> {
    let mut bells = start.given(ObjectKind::Notification).map(Notification);
    let bells = Bells { own: bells.next()?, peer: bells.next()? };
    let words = memory::shared(start.regions().next()?, 1).ok()?;
    let consumer = Consumer::new(words, bells).ok()?;
    Some(u64::from(receive_all(consumer).is_err()))
}

fn between_processes(start: &Start, core: usize) -> Outcome {
    let made = Made::new()?;
    let peer = made.bells[0].signaller(0).map_err(unexpected)?;
    let grants = [made.region.handle(), made.bells[1].handle(), peer.handle()].map(Grant::whole);
    let other = spawn(start, WORK, core, &grants).map_err(unexpected)?;
    let sends = || made.producer().map_err(unexpected).and_then(send_all);
    let (sent, _) = on(start, 0).both(sends, |thread| thread.join(Deadline::NEVER)).map_err(unexpected)?;
    let status = other.wait(Deadline::NEVER).map_err(unexpected)?;
    sent?;
    ensure!(status.code == 0, "the consumer ended with {status:?}");
    let (rings, waits) = (Counts::of(&made.counts.rings)[0], Counts::of(&made.counts.waits)[0]);
    ensure!(rings > 0 && waits > 0, "{rings} rings, {waits} waits");
    Ok(())
}

fn deadlines() -> Outcome {
    let made = Made::new()?;
    let soon = || Deadline::after(Nanos::new(300_000)).0;
    let (mut producer, mut consumer) =
        (made.producer().map_err(unexpected)?, made.consumer().map_err(unexpected)?);
    ensure!(consumer.receive_until(soon()) == Err(Error::TimedOut), "receive");
    for number in 0..CAPACITY {
        producer.send_until(&item(number), NEVER).map_err(unexpected)?;
    }
    ensure!(producer.send_until(&item(0), soon()) == Err(Error::TimedOut), "send");
    ensure!(producer.complete_until(soon()) == Err(Error::TimedOut), "complete");
    ensure!(consumer.receive_until(soon()) == Ok(item(0)), "an item that is there");
    ensure!(Counts::of(&made.counts.rings) == [0; 2], "who has given up is woken");
    Ok(())
}

/// Who waits is told when the other end closes, and when its own bell is taken away.
fn gone(start: &Start) -> Outcome {
    for core in [0, 1] {
        let made = Made::new()?;
        let producer = made.producer().map_err(unexpected)?;
        let receives = || made.consumer().and_then(|mut consumer| consumer.receive());
        let closes = |_| {
            time::sleep(Deadline::after(Nanos::from_millis(1)));
            drop(producer);
        };
        let (received, ()) = on(start, core).both(receives, closes).map_err(unexpected)?;
        ensure!(received == Err(Error::PeerGone), "closed: {received:x?}");
    }
    let made = Made::new()?;
    let mut consumer = made.consumer().map_err(unexpected)?;
    let mut producer = made.producer().map_err(unexpected)?;
    let bell = *made.bells[1];
    let taken = move |_| {
        time::sleep(Deadline::after(Nanos::from_millis(1)));
        // Its last capability.
        drop(Owned::new(bell));
    };
    let (received, ()) = Builder::default().both(|| consumer.receive(), taken).map_err(unexpected)?;
    ensure!(received == Err(Error::PeerGone), "the bell is gone: {received:x?}");
    ensure!(producer.send(&item(0)) == Ok(()), "nobody waits, so nobody is rung for");
    Ok(())
}
