//! Notifications against a naive model, one operation at a time.
//!
//! Planted: PLANTS

use std::boxed::Box;
use std::collections::VecDeque;
use std::vec::Vec;

use core::num::NonZeroU64;

use proptest::prelude::*;

use super::{Notification, Parked};
use crate::link::{At, Link, Party, Word};

const PARTIES: usize = 4;

std::thread_local! {
    static LINKS: &'static [Link; PARTIES] = Box::leak(Box::new(core::array::from_fn(|_| Link::new())));
}

/// A party by its number, on the thread of the test.
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
        let links: &'static [Link; PARTIES] = LINKS.with(|links| *links);
        &links[self.0]
    }
}

const HERE: At = At(0x100);

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(usize),
    GiveUp(usize),
    Poll,
    Signal(u64),
    Broadcast(u64),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bits = || 1_u64..=7;
    let step = prop_oneof![
        6 => (0..PARTIES).prop_map(Step::Wait),
        2 => (0..PARTIES).prop_map(Step::GiveUp),
        1 => Just(Step::Poll),
        4 => bits().prop_map(Step::Signal),
        1 => bits().prop_map(Step::Broadcast),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 1..60)
}

/// What a notification is to its users.
#[derive(Default)]
struct Model {
    bits: u64,
    waiters: VecDeque<usize>,
    closed: bool,
}

impl Model {
    fn signal(&mut self, bits: u64) -> Vec<(usize, u64)> {
        match self.waiters.pop_front() {
            Some(first) => Vec::from([(first, bits)]),
            None => {
                self.bits |= bits;
                Vec::new()
            }
        }
    }

    fn broadcast(&mut self, bits: u64) -> Vec<(usize, u64)> {
        if self.waiters.is_empty() {
            return self.signal(bits);
        }
        self.waiters.drain(..).map(|waiter| (waiter, bits)).collect()
    }
}

fn out(told: &mut Vec<(usize, u64)>, who: Number, bits: u64) {
    // One that waited alone is taken without a lock, and still names the queue.
    assert!(matches!(who.link().at(), At::MOVING | HERE), "IQ2: {:?}", who.link().at());
    who.link().set_at(At::NOWHERE);
    told.push((who.0, bits));
}

fn apply(step: Step, real: &Notification<Number>, model: &mut Model) {
    let mut told = Vec::new();
    match step {
        Step::Wait(number) if model.waiters.contains(&number) => {}
        Step::Wait(number) => {
            Number(number).link().set_at(HERE);
            let expected = match (model.closed, core::mem::take(&mut model.bits)) {
                (true, bits) => {
                    model.bits = bits;
                    Parked::Closed
                }
                (false, 0) => {
                    model.waiters.push_back(number);
                    Parked::Waits
                }
                (false, bits) => Parked::Has(bits),
            };
            assert_eq!(real.park(Number(number)), expected);
        }
        Step::GiveUp(number) => {
            let waits = model.waiters.contains(&number);
            if waits {
                assert!(real.lock().remove(Number(number)), "it waits");
            }
            model.waiters.retain(|&waiter| waiter != number);
        }
        Step::Poll => assert_eq!(real.poll(), core::mem::take(&mut model.bits)),
        Step::Signal(bits) => {
            if let Some((who, bits)) = real.signal(bits) {
                out(&mut told, who, bits);
            }
            assert_eq!(told, model.signal(bits));
        }
        Step::Broadcast(bits) => {
            let count = real.broadcast(bits, |who, bits| out(&mut told, who, bits));
            assert_eq!(told, model.broadcast(bits));
            assert_eq!(count, told.len() as u64);
        }
        Step::Close => {
            real.close(|who| out(&mut told, who, 0));
            model.closed = true;
            assert_eq!(told, model.waiters.drain(..).map(|waiter| (waiter, 0)).collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every step does what the model does, in the order of coming.
    #[test]
    fn agrees_with_the_model(steps in steps()) {
        let (real, mut model) = (Notification::new(), Model::default());
        for step in steps {
            apply(step, &real, &mut model);
        }
        // Whoever still waits goes, so that the links are as new.
        real.close(|who| who.link().set_at(At::NOWHERE));
    }
}
