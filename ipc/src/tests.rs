//! Queues against a naive model, and slots word by word.

use std::collections::VecDeque;
use std::vec::Vec;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::{collection, proptest};

use crate::link::{At, Party};
use crate::queue::{Kind, Queue};
use crate::reply::{Aborted, ReplySlot};
use crate::scene::{Ref, parties};
use crate::withdraw::Withdrawn;

const PARTIES: usize = 6;
const HERE: At = At(3);
const THERE: At = At(4);

#[derive(Clone, Copy, Debug)]
enum Step {
    Park(usize),
    Take(usize),
    Receive(usize),
    Send(usize),
    Pop,
    Withdraw(usize),
    Close,
    Open,
}

fn step() -> impl Strategy<Value = Step> {
    let party = || any::<usize>().prop_map(|party| party % PARTIES);
    prop_oneof![
        3 => party().prop_map(Step::Park),
        3 => party().prop_map(Step::Take),
        4 => party().prop_map(Step::Receive),
        4 => party().prop_map(Step::Send),
        3 => Just(Step::Pop),
        3 => party().prop_map(Step::Withdraw),
        1 => Just(Step::Close),
        1 => Just(Step::Open),
    ]
}

/// A queue, and what it should be.
struct Pair {
    queue: Queue<Ref>,
    parties: [Ref; PARTIES],
    kind: Kind,
    waiting: VecDeque<usize>,
}

impl Pair {
    fn new() -> Self {
        Self { queue: Queue::new(), parties: parties(), kind: Kind::Nobody, waiting: VecDeque::new() }
    }

    fn waits(&self, it: usize) -> bool {
        self.waiting.contains(&it)
    }

    /// The only receiver.
    fn alone(&self) -> Option<usize> {
        let alone = self.kind == Kind::Receivers && self.waiting.len() == 1;
        alone.then(|| self.waiting[0])
    }

    fn enter(&mut self, it: usize, kind: Kind) {
        self.kind = kind;
        self.waiting.push_back(it);
    }

    fn gone(&mut self, it: usize) {
        self.waiting.retain(|&other| other != it);
        if self.waiting.is_empty() && self.kind != Kind::Closed {
            self.kind = Kind::Nobody;
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Park(it) if !self.waits(it) => {
                self.parties[it].set_at(HERE);
                let free = self.kind == Kind::Nobody;
                assert_eq!(self.queue.park(self.parties[it]), free);
                if free {
                    self.enter(it, Kind::Receivers);
                }
            }
            Step::Take(it) => {
                let alone = self.alone() == Some(it);
                assert_eq!(self.queue.take(self.parties[it]), alone);
                if alone {
                    self.gone(it);
                }
            }
            Step::Receive(it) if !self.waits(it) && matches!(self.kind, Kind::Nobody | Kind::Receivers) => {
                self.parties[it].set_at(HERE);
                self.queue.lock().push_receiver(self.parties[it]);
                self.enter(it, Kind::Receivers);
            }
            Step::Send(it) if !self.waits(it) && matches!(self.kind, Kind::Nobody | Kind::Senders) => {
                self.parties[it].set_at(HERE);
                self.queue.lock().push_sender(self.parties[it]);
                self.enter(it, Kind::Senders);
            }
            Step::Pop => self.pop(),
            Step::Withdraw(it) => self.withdraw(it),
            Step::Close => {
                self.queue.lock().close();
                self.kind = Kind::Closed;
            }
            Step::Open if self.kind == Kind::Closed && self.waiting.is_empty() => {
                self.queue.lock().open();
                self.kind = Kind::Nobody;
            }
            Step::Park(_) | Step::Receive(_) | Step::Send(_) | Step::Open => {}
        }
    }

    fn pop(&mut self) {
        let popped = self.queue.lock().pop();
        assert_eq!(popped.map(Ref::index), self.waiting.front().copied());
        if let Some(popped) = popped {
            assert_eq!(popped.at(), At::MOVING);
            self.gone(popped.index());
        }
    }

    /// Also of a party that does not wait: one that was taken without the lock says for a moment that it does.
    fn withdraw(&mut self, it: usize) {
        let (party, waits) = (self.parties[it], self.waits(it));
        party.set_at(HERE);
        assert_eq!(self.queue.lock().withdraw(party, THERE), Withdrawn::LookAgain);
        let expected = if waits { (Withdrawn::Yes, At::NOWHERE) } else { (Withdrawn::No, HERE) };
        assert_eq!((self.queue.lock().withdraw(party, HERE), party.at()), expected);
        if waits {
            self.gone(it);
        }
    }

    fn compare(&self) {
        assert_eq!(self.queue.alone().map(Ref::index), self.alone());
        assert_eq!(self.queue.is_free(), self.kind == Kind::Nobody);
        let queue = self.queue.lock();
        assert_eq!(queue.kind(), self.kind);
        let mut found = Vec::new();
        let mut at = None;
        while let Some(next) = queue.after(at) {
            found.push(next.index());
            at = Some(next);
        }
        assert_eq!(found, Vec::from_iter(self.waiting.iter().copied()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Planted: a neighbour's link that `remove` or `append` leaves as it was, `remove` that takes who is alone in no list for a member, a lone
    /// receiver that `Guard::new` does not put into the list, a kind that stays when the last one has gone.
    #[test]
    fn queue_and_model_agree(steps in collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        for &step in &steps {
            pair.step(step);
            pair.compare();
        }
    }
}

#[test]
fn a_slot_gives_its_caller_out_once() {
    let [caller, other] = parties();
    let slot = ReplySlot::new();
    assert_eq!((slot.look(), slot.take(), slot.claim(), slot.begin_move()), (None, None, None, None));
    assert_eq!(slot.abort(caller), Aborted::No);
    slot.set(caller);
    assert_eq!((slot.look(), slot.claim()), (Some(caller), None));
    assert_eq!(slot.abort(other), Aborted::No);
    assert_eq!((slot.take(), slot.take()), (Some(caller), None));
    slot.set(caller);
    assert_eq!(slot.abort(caller), Aborted::Yes);
    assert_eq!((slot.take(), slot.abort(caller)), (None, Aborted::No));
}

#[test]
fn a_caller_that_moves_is_neither_answered_nor_gives_up() {
    let [caller] = parties();
    let slot = ReplySlot::new();
    slot.set(caller);
    assert_eq!(slot.begin_move(), Some(caller));
    assert_eq!((slot.look(), slot.take(), slot.abort(caller)), (None, None, Aborted::Busy));
    slot.clear();
    assert_eq!((slot.look(), slot.abort(caller)), (None, Aborted::No));
}

#[test]
fn an_offered_caller_is_claimed_first() {
    let [caller] = parties();
    let slot = ReplySlot::new();
    slot.offer(caller);
    assert_eq!((slot.look(), slot.take(), slot.begin_move()), (None, None, None));
    assert_eq!(slot.claim(), Some(caller));
    assert_eq!((slot.claim(), slot.abort(caller)), (None, Aborted::Busy));
    slot.set(caller);
    assert_eq!(slot.take(), Some(caller));
    slot.offer(caller);
    assert_eq!((slot.abort(caller), slot.claim()), (Aborted::Yes, None));
}

/// Answered, or moved: what `at` says by then tells them apart.
#[test]
fn whoever_withdraws_tells_an_answer_from_a_move() {
    let [caller] = parties();
    let slot = ReplySlot::new();
    slot.set(caller);
    caller.set_at(HERE);
    assert_eq!((slot.withdraw(caller, HERE), caller.at()), (Withdrawn::Yes, At::NOWHERE));
    caller.set_at(HERE);
    assert_eq!(slot.withdraw(caller, HERE), Withdrawn::No);
    caller.set_at(THERE);
    assert_eq!(slot.withdraw(caller, HERE), Withdrawn::LookAgain);
}

#[test]
fn a_word_names_a_party_whatever_its_marks() {
    let [_, second] = parties();
    for marks in 0..8 {
        assert_eq!(crate::link::party::<Ref>(second.word().get() | marks), Some(second));
        assert_eq!(crate::link::party::<Ref>(marks), None);
    }
}
