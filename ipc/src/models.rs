//! Loom models: every way that a wait can end, against every other. Preemption bound: 3.
//!
//! A party's home looks for it as `wait::delist` does ([`leave`]); whoever takes a party out ends its wait. In each model each wait is ended
//! exactly once, and who ends it sees what was written to the frame before.
//!
//! Planted bugs that made them fail once are named at each.

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::link::At;
use crate::queue::{Kind, Queue};
use crate::reply::ReplySlot;
use crate::scene::{Ref, parties};
use crate::withdraw::Withdrawn;

/// Places, as a kernel would encode them.
const QUEUE: At = At(3);
const FIRST: At = At(4);
const SECOND: At = At(5);

/// What a party writes into its frame before it waits, and what whoever answers it writes.
const ASKED: u64 = 7;
const ANSWERED: u64 = 8;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// An endpoint, and two slots of those who answer.
struct World {
    queue: Queue<Ref>,
    first: ReplySlot<Ref>,
    second: ReplySlot<Ref>,
    /// Whether the second slot has been made, as memory that a place names has to be.
    made: AtomicBool,
}

impl World {
    fn new() -> Arc<Self> {
        let made = AtomicBool::new(false);
        Arc::new(Self { queue: Queue::new(), first: ReplySlot::new(), second: ReplySlot::new(), made })
    }

    /// Moves the caller of the first slot to the second.
    fn save(&self) {
        // ORDER: Relaxed: published by `set_at`.
        self.made.store(true, Ordering::Relaxed);
        if let Some(moved) = self.first.begin_move() {
            self.second.await_arrival(moved);
            moved.set_at(SECOND);
            self.first.clear();
            self.second.arrive(moved);
        }
    }

    /// A party receives: waits alone if it can, else behind others; or takes a sender, or is refused.
    fn receive(&self, party: Ref) {
        party.write(ASKED);
        party.set_at(QUEUE);
        if self.queue.park(party) {
            return;
        }
        let mut queue = self.queue.lock();
        match queue.kind() {
            Kind::Nobody | Kind::Receivers => queue.push_receiver(party),
            Kind::Senders => {
                let sender = queue.pop().expect("IQ3");
                drop(queue);
                end(sender);
                party.end();
            }
            Kind::Closed => party.end(),
        }
    }

    /// Takes the receiver that waits alone, as the shortest way does.
    fn take(&self) -> bool {
        let Some(receiver) = self.queue.alone() else { return false };
        assert_ne!(receiver.read(), 0, "what it wrote before it waited");
        let taken = self.queue.take(receiver);
        if taken {
            end(receiver);
        }
        taken
    }

    /// Takes a receiver, or joins the queue as a sender.
    fn send(&self, sender: Ref) -> bool {
        let mut queue = self.queue.lock();
        match queue.kind() {
            Kind::Closed => false,
            Kind::Receivers => {
                let receiver = queue.pop().expect("IQ3");
                drop(queue);
                end(receiver);
                false
            }
            Kind::Nobody | Kind::Senders => {
                sender.write(ASKED);
                sender.set_at(QUEUE);
                queue.push_sender(sender);
                true
            }
        }
    }

    /// Takes a sender's message; the sender then waits in the first slot.
    fn fetch(&self) -> bool {
        let mut queue = self.queue.lock();
        if queue.kind() != Kind::Senders {
            return false;
        }
        let sender = queue.pop().expect("IQ3");
        drop(queue);
        assert_eq!(sender.read(), ASKED);
        self.first.set(sender);
        sender.set_at(FIRST);
        true
    }

    /// The party's home wants it back; whether it got it.
    fn leave(&self, party: Ref) -> bool {
        loop {
            let at = party.at();
            let withdrawn = match at {
                At::NOWHERE => return false,
                At::MOVING => Withdrawn::LookAgain,
                QUEUE => self.queue.lock().withdraw(party, at),
                FIRST => self.first.withdraw(party, at),
                SECOND => {
                    // ORDER: Relaxed: published by `set_at`.
                    assert!(self.made.load(Ordering::Relaxed), "IQ2: what `at` names is there");
                    self.second.withdraw(party, at)
                }
                other => panic!("{other:?}"),
            };
            match withdrawn {
                Withdrawn::Yes => {
                    party.end();
                    return true;
                }
                Withdrawn::No => return false,
                Withdrawn::LookAgain => thread::yield_now(),
            }
        }
    }
}

/// Whoever has taken a party out ends its wait.
fn end(party: Ref) {
    assert_eq!(party.read(), ASKED, "what it wrote before it waited");
    party.write(ANSWERED);
    party.end();
    party.set_at(At::NOWHERE);
}

fn pop(world: &World) -> Option<Ref> {
    world.queue.lock().pop()
}

/// Answers a caller, if it still waits.
fn answer(slot: &ReplySlot<Ref>) -> bool {
    let caller = slot.take();
    if let Some(caller) = caller {
        end(caller);
    }
    caller.is_some()
}

fn spawn(world: &Arc<World>, f: impl FnOnce(&World) + 'static) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || f(&world))
}

/// A receiver waits alone; another core takes it, and its home gives up.
///
/// Planted: `remove` that believes `at`; Relaxed in `park`, `alone`.
#[test]
fn loom_take_meets_withdraw() {
    check(|| {
        let [receiver] = parties();
        let world = World::new();
        let home = spawn(&world, move |world| {
            world.receive(receiver);
            world.leave(receiver);
        });
        let taken = world.take();
        home.join().unwrap();
        assert_eq!(receiver.ends(), 1);
        assert!(taken || receiver.read() == ASKED);
        assert_eq!(world.queue.lock().kind(), Kind::Nobody);
    });
}

/// A receiver is withdrawn and waits again, with another frame, while another core is between looking and taking.
///
/// Planted: Relaxed in `take`.
#[test]
fn loom_take_meets_a_second_wait() {
    check(|| {
        let [receiver] = parties();
        let world = World::new();
        let home = spawn(&world, move |world| {
            receiver.write(1);
            receiver.set_at(QUEUE);
            assert!(world.queue.park(receiver));
            if world.queue.lock().withdraw(receiver, QUEUE) == Withdrawn::Yes {
                receiver.write(2);
                receiver.set_at(QUEUE);
                assert!(world.queue.park(receiver));
            }
        });
        if let Some(seen) = world.queue.alone()
            && world.queue.take(seen)
        {
            let first = seen.read();
            home.join().unwrap();
            assert_eq!(first, seen.read(), "the frame of the wait that was ended");
            return;
        }
        home.join().unwrap();
    });
}

/// Two cores want to take one receiver, one of them by the list.
///
/// Planted: `take` that loads and stores.
#[test]
fn loom_two_take_one() {
    check(|| {
        let [receiver, sender] = parties();
        let world = World::new();
        world.receive(receiver);
        let other = spawn(&world, move |world| {
            if world.send(sender) {
                assert!(world.leave(sender));
            }
        });
        world.take();
        other.join().unwrap();
        assert_eq!(receiver.ends(), 1);
        assert!(sender.ends() <= 1);
    });
}

/// Two receivers come at the same time, and are taken one by one: what each wrote is seen, however it came into the queue and out of it.
///
/// Planted: a lone receiver that stays in the list; Relaxed in `lock`, `Guard::drop`.
#[test]
fn loom_receivers_come_and_are_taken() {
    check(|| {
        let [one, two, sender] = parties();
        let world = World::new();
        let other = spawn(&world, move |world| world.receive(one));
        world.receive(two);
        if !world.send(sender) {
            sender.end();
        }
        world.take();
        other.join().unwrap();
        // Who has not been taken waits still.
        while let Some(left) = pop(&world) {
            end(left);
        }
        assert_eq!([one, two, sender].map(Ref::ends), [1; 3]);
    });
}

/// A caller waits in a queue, then for the answer, and gives up at any moment; the server takes its message and answers.
///
/// Planted: an answer that does not take the caller out.
#[test]
fn loom_call_meets_withdraw() {
    check(|| {
        let [caller] = parties();
        let world = World::new();
        let home = spawn(&world, move |world| {
            assert!(world.send(caller));
            world.leave(caller);
        });
        let answered = world.fetch() && answer(&world.first);
        home.join().unwrap();
        assert_eq!(caller.ends(), 1);
        assert!(!answered || caller.read() == ANSWERED);
        assert!(world.first.look().is_none());
    });
}

/// A sender's message is taken while it gives up: it waits for the answer then, from where its home gets it in any case.
///
/// Planted: `Guard::withdraw` that does not look at `at` again.
#[test]
fn loom_fetch_meets_withdraw() {
    check(|| {
        let [caller] = parties();
        let world = World::new();
        let home = spawn(&world, move |world| {
            assert!(world.send(caller));
            assert!(world.leave(caller), "nobody answers");
        });
        world.fetch();
        home.join().unwrap();
    });
}

/// A caller is moved to another slot, from which a third core answers it, while its home gives up.
///
/// Planted: `begin_move` that does not exchange; `clear` before `at` is written; `arrive` before it; Relaxed in `set_at`, `at`, `clear`, and the last look of `abort`;
/// `withdraw` that takes any empty slot for an answer; `abort` that takes one who has just arrived for one who has gone.
#[test]
fn loom_move_meets_withdraw_and_answer() {
    check(|| {
        let [caller] = parties();
        let world = World::new();
        caller.write(ASKED);
        world.first.set(caller);
        caller.set_at(FIRST);
        let home = spawn(&world, move |world| {
            world.leave(caller);
        });
        let third = spawn(&world, |world| {
            answer(&world.second);
        });
        world.save();
        home.join().unwrap();
        third.join().unwrap();
        assert_eq!(caller.ends(), 1, "its home ends it if nobody else does");
        assert_eq!(caller.at(), At::NOWHERE, "IQ2: who took it has written `at` last");
    });
}

/// What the owner did with the caller's frame before it moved it is seen by who answers.
///
/// Planted: Relaxed in `arrive`.
#[test]
fn loom_answer_sees_what_the_mover_did() {
    check(|| {
        let [caller] = parties();
        let world = World::new();
        caller.write(0);
        world.first.set(caller);
        caller.set_at(FIRST);
        let third = spawn(&world, |world| {
            answer(&world.second);
        });
        let moved = world.first.begin_move().expect("nobody gives up");
        moved.write(ASKED);
        world.second.await_arrival(moved);
        moved.set_at(SECOND);
        world.first.clear();
        world.second.arrive(moved);
        third.join().unwrap();
    });
}

/// An endpoint closes while a sender comes, waits and gives up.
///
/// Planted: `close` that leaves the kind as it is; `remove` that says `Nobody` of a closed queue.
#[test]
fn loom_close_meets_send_and_withdraw() {
    check(|| {
        let [sender] = parties();
        let world = World::new();
        let home = spawn(&world, move |world| {
            if world.send(sender) {
                world.leave(sender);
            } else {
                sender.end();
            }
        });
        world.queue.lock().close();
        while let Some(told) = pop(&world) {
            end(told);
        }
        home.join().unwrap();
        assert_eq!(sender.ends(), 1);
        assert_eq!(world.queue.lock().kind(), Kind::Closed);
    });
}

/// A receiver parks while the endpoint closes: it is refused, or told.
///
/// Planted: `park` that overwrites what it finds.
#[test]
fn loom_close_meets_park() {
    check(|| {
        let [receiver] = parties();
        let world = World::new();
        let other = spawn(&world, move |world| {
            world.receive(receiver);
        });
        world.queue.lock().close();
        if let Some(told) = pop(&world) {
            end(told);
        }
        other.join().unwrap();
        assert_eq!(receiver.ends(), 1);
    });
}

/// A caller leaves its message where it is; the owner of the slot claims and copies it, while the caller's home gives up.
///
/// Planted: `claim` that does not exchange; Relaxed in `offer`; `abort` as above.
#[test]
fn loom_claim_meets_withdraw() {
    check(|| {
        let [caller] = parties();
        let world = World::new();
        let home = spawn(&world, move |world| {
            caller.write(ASKED);
            caller.set_at(FIRST);
            world.first.offer(caller);
            world.leave(caller);
        });
        if let Some(claimed) = world.first.claim() {
            assert_eq!(claimed.read(), ASKED);
            world.first.set(claimed);
        }
        home.join().unwrap();
        assert_eq!(caller.ends(), 1, "nobody answers");
    });
}
