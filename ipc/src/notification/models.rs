//! Loom models of waiting and signalling. Preemption bound: 5. Two cores at most are at the queue: of more that wait for its lock loom lets
//! two take turns for ever.
//!
//! Nobody spins for what it is told: when all parts have ended, each bit has been told to somebody, or is set and nobody waits (IN1, IN2).
//!
//! Planted bugs that made them fail once: PLANTS

use core::num::NonZeroU64;
use std::boxed::Box;
use std::vec::Vec;

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;
use percpu::sync::atomic::{AtomicU64, Ordering};

use super::{Notification, Parked};
use crate::link::{At, Link, Party, Word};
use crate::queue::Kind;

/// What a party that waits is told.
struct Seat {
    link: Link,
    /// The bits.
    told: AtomicU64,
    /// How often.
    times: AtomicU64,
}

impl Seat {
    fn new() -> Self {
        Self { link: Link::new(), told: AtomicU64::new(0), times: AtomicU64::new(0) }
    }
}

loom::lazy_static! {
    static ref SEATS: [Seat; 2] = core::array::from_fn(|_| Seat::new());
}

/// A party by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number(usize);

impl Party for Number {
    fn word(self) -> NonZeroU64 {
        NonZeroU64::new((self.0 as u64 + 1) * (Word::MARKS + 1)).expect("not 0")
    }

    fn of_word(word: Word) -> Self {
        Self((word.get().get() / (Word::MARKS + 1)) as usize - 1)
    }

    fn link(&self) -> &Link {
        &SEATS[self.0].link
    }
}

/// Where the parties of a model wait.
const HERE: At = At(0x100);
/// In what a party is told: nobody may wait any more.
const CLOSED: u64 = 1 << 63;
/// In what a part returns: it waits.
const WAITS: u64 = 1 << 62;
/// In what a part returns: it has been taken out and is to be told more.
const MORE: u64 = 1 << 61;

type Shared = Arc<Notification<Number>>;

/// As whoever takes a party out does.
fn tell(who: Number, bits: u64) {
    who.link().set_at(At::NOWHERE);
    let seat = &SEATS[who.0];
    // ORDER: Relaxed, both: looked at when all is over.
    assert_eq!(seat.told.fetch_or(bits, Ordering::Relaxed) & bits, 0, "IN2: once");
    // ORDER: Relaxed: as above.
    seat.times.fetch_add(1, Ordering::Relaxed);
}

fn signal(of: &Notification<Number>, bits: u64) {
    if let Some((who, bits)) = of.signal(bits) {
        tell(who, bits);
    }
}

/// Waits for bits; gives those that it need not wait for.
fn wait(of: &Notification<Number>, who: Number) -> u64 {
    who.link().set_at(HERE);
    match of.park(who) {
        Parked::Waits => WAITS,
        Parked::Has(bits) => bits,
        Parked::HasMore(bits) => bits | MORE,
        Parked::Closed => CLOSED,
    }
}

/// Waits, and gives up at once if no bit is set.
fn give_up(of: &Notification<Number>, who: Number) -> u64 {
    match wait(of, who) {
        WAITS if of.lock().remove(who) => 0,
        other => other,
    }
}

type Part = Box<dyn FnOnce(&Notification<Number>) -> u64 + Send>;

/// What is left when all parts have ended.
struct End {
    /// What the parts returned.
    results: Vec<u64>,
    /// What parties were told.
    told: [u64; 2],
    /// What is still set.
    left: u64,
}

/// Runs the parts side by side, and checks what must hold in every model.
fn run(parts: Vec<Part>) -> End {
    let shared: Shared = Arc::new(Notification::new());
    let mut parts = parts.into_iter();
    let first = parts.next().expect("a model has a part");
    let threads: Vec<_> = parts
        .map(|part| {
            let shared = shared.clone();
            thread::spawn(move || part(&shared))
        })
        .collect();
    let mut results = Vec::from([first(&shared)]);
    results.extend(threads.into_iter().map(|thread| thread.join().expect("a part ends")));
    let waits = shared.lock().kind() == Kind::Receivers;
    let left = shared.poll();
    assert!(!waits || left == 0, "IN1: a bit is set while somebody waits");
    // ORDER: Relaxed, both: all is over.
    let told = [0, 1].map(|number| SEATS[number].told.load(Ordering::Relaxed));
    // ORDER: Relaxed: as above.
    let times: u64 = SEATS.iter().map(|seat| seat.times.load(Ordering::Relaxed)).sum();
    let waited = results.iter().filter(|&result| result & (WAITS | MORE) != 0).count() as u64;
    assert!(times <= waited, "IQ1: who is told has waited");
    End { results, told, left }
}

impl End {
    /// Checks that each of these bits went to one place.
    fn once(&self, bits: u64) {
        let mut seen = self.left;
        let marks = WAITS | MORE | CLOSED;
        for had in self.results.iter().chain(&self.told).map(|had| had & !marks) {
            assert_eq!(seen & had, 0, "IN2: twice");
            seen |= had;
        }
        assert_eq!(seen, bits, "IN2: lost");
    }
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(5);
    builder.check(model);
}

fn waits(number: usize) -> Part {
    Box::new(move |of| wait(of, Number(number)))
}

fn signals(bits: &'static [u64]) -> Part {
    Box::new(move |of| {
        bits.iter().for_each(|&bit| signal(of, bit));
        0
    })
}

/// Does one after the other.
fn then(first: Part, second: Part) -> Part {
    Box::new(move |of| first(of) | second(of))
}

/// One waits, another signals twice: the first bit is told, the second stays or comes with it.
#[test]
fn loom_one_waits_one_signals() {
    check(|| run(Vec::from([signals(&[1, 2]), waits(0)])).once(0b11));
}

/// Both signal, one of them after somebody has begun to wait there: whoever looks last finds all.
#[test]
fn loom_both_signal() {
    check(|| {
        let end = run(Vec::from([signals(&[1]), then(waits(0), signals(&[2]))]));
        end.once(0b11);
        assert!(end.results[1] != WAITS || end.told[0] != 0, "IN1: it still waits");
    });
}

/// One waits at each of two cores, and one of these signals.
#[test]
fn loom_two_wait_one_signals() {
    check(|| run(Vec::from([then(waits(0), signals(&[1])), waits(1)])).once(1));
}

/// One gives up while another signals: the bit is told or stays set.
#[test]
fn loom_giving_up_loses_nothing() {
    check(|| {
        let gives_up: Part = Box::new(|of| give_up(of, Number(0)));
        run(Vec::from([signals(&[1]), gives_up])).once(1);
    });
}

/// One polls while another waits, and a bit is signalled: one of the two has it, or it stays set.
#[test]
fn loom_polling_takes_it_once() {
    check(|| {
        let polls: Part = Box::new(Notification::poll);
        run(Vec::from([then(signals(&[1]), polls), waits(0)])).once(1);
    });
}

/// A broadcast to one who waits and one who is about to: each that it finds is told, and one if it finds none.
#[test]
fn loom_broadcast() {
    for early in [false, true] {
        check(move || {
            let tells: Part = Box::new(|of| of.broadcast(1, tell) << 32);
            let tells = if early { then(waits(0), tells) } else { tells };
            let end = run(Vec::from([tells, waits(1)]));
            let count = end.results[0] >> 32 & 3;
            assert_eq!(end.told.iter().sum::<u64>(), count, "IN2: those who waited");
            assert!(count >= u64::from(early), "IN2: who waited before");
            let had = (end.results[1] & 1) + end.left;
            assert_eq!(had, u64::from(count == 0), "IN2: one, if none waited");
        });
    }
}

/// It closes while one comes and then signals: nobody waits afterwards.
#[test]
fn loom_close() {
    check(|| {
        let closes: Part = Box::new(|of| {
            of.close(|who| tell(who, CLOSED));
            0
        });
        let end = run(Vec::from([closes, then(waits(0), signals(&[1]))]));
        end.once(1);
        assert!(end.results[1] & WAITS == 0 || end.told[0] != 0, "IN1: it still waits");
    });
}
