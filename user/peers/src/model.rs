//! What messages mean, without threads: a model that says of every operation whose operations end with it, and how.
//!
//! It knows nothing of cores, of who runs on whose time, or of how a message travels; each operation is finished, or waits, before the next
//! begins. So it says for one core and one operation at a time what the kernel has to do, on whichever way.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use abi::error::Error;
use abi::ipc::{Tag, WORDS};

/// Endpoints.
pub(crate) const ENDPOINTS: usize = 2;
/// Threads that wait, the last of them in another process.
pub(crate) const ACTORS: usize = 4;
/// Takes part without ever waiting, so that a program can be brought to its end.
pub(crate) const CLERK: usize = ACTORS;
/// All.
pub(crate) const PARTIES: usize = ACTORS + 1;
/// Processes.
pub(crate) const PROCESSES: usize = 2;

/// The process of a party.
pub(crate) const fn process_of(party: usize) -> usize {
    if party == ACTORS - 1 { 1 } else { 0 }
}

/// The badge of a party's capability for an endpoint.
pub(crate) const fn badge(party: usize, endpoint: usize) -> u64 {
    (party as u64 + 1) << 8 | endpoint as u64
}

/// How long an operation waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Patience {
    /// For ever.
    Endless = 0,
    /// Not at all.
    None = 1,
    /// Until a time that has passed.
    Passed = 2,
    /// Until a time that comes before the next operation.
    Soon = 3,
}

impl Patience {
    const fn ends(self) -> bool {
        matches!(self, Self::Passed | Self::Soon)
    }
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Send {
        to: usize,
        patience: Patience,
        seed: u32,
    },
    Call {
        to: usize,
        patience: Patience,
        seed: u32,
    },
    Receive {
        from: usize,
        patience: Patience,
    },
    Reply {
        seed: u32,
    },
    ReplyReceive {
        from: usize,
        patience: Patience,
        seed: u32,
    },
    Save,
    /// Answers the saved caller with this number, of the party's process.
    Answer {
        which: usize,
        seed: u32,
    },
    /// Deletes it.
    Drop {
        which: usize,
    },
    /// The call with this number, from 0 for `send`, through a handle that names nothing.
    Nameless {
        call: u32,
    },
    /// The same with a tag that means nothing.
    Senseless {
        call: u32,
    },
}

/// Contents of the message of a seed.
pub(crate) fn contents(seed: u32) -> (Tag, [u64; WORDS]) {
    let word = |index: usize| {
        (u64::from(seed) << 8 | (index as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    };
    (Tag::new(seed.rotate_left(16), seed as usize % (WORDS + 1)), core::array::from_fn(word))
}

/// How an operation ends. Of one that brings no message the rest is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    pub(crate) status: u64,
    pub(crate) tag: u64,
    pub(crate) badge: u64,
    pub(crate) words: [u64; WORDS],
}

impl Outcome {
    const DONE: Self = Self { status: 0, tag: 0, badge: 0, words: [0; WORDS] };

    const fn refused(error: Error) -> Self {
        Self { status: error as u64, ..Self::DONE }
    }

    fn message(seed: u32, badge: u64) -> Self {
        let (tag, words) = contents(seed);
        Self { status: 0, tag: tag.delivered(0).0, badge, words }
    }
}

/// What a party waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Nothing,
    /// In the queue of an endpoint, to send; whether it wants an answer.
    Send {
        to: usize,
        seed: u32,
        calls: bool,
    },
    Receive {
        from: usize,
    },
    /// An answer.
    Answer,
}

/// Who waits at an endpoint: never both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Receivers,
    Senders,
}

#[derive(Clone, Copy, Debug)]
struct Party {
    wait: Wait,
    suspended: bool,
    dead: bool,
    slot: Option<usize>,
    /// How its operation has ended, while it is suspended.
    held: Option<Outcome>,
    done: u32,
    last: Outcome,
}

/// The whole.
pub(crate) struct Model {
    parties: [Party; PARTIES],
    queues: [VecDeque<usize>; ENDPOINTS],
    saved: [Vec<Option<usize>>; PROCESSES],
}

impl Model {
    pub(crate) fn new() -> Self {
        let idle = Party {
            wait: Wait::Nothing,
            suspended: false,
            dead: false,
            slot: None,
            held: None,
            done: 0,
            last: Outcome::DONE,
        };
        Self {
            parties: [idle; PARTIES],
            queues: core::array::from_fn(|_| VecDeque::new()),
            saved: core::array::from_fn(|_| Vec::new()),
        }
    }

    /// Operations of a party that have ended and can be seen to have, and how the last of them did.
    pub(crate) fn seen(&self, party: usize) -> (u32, Outcome) {
        (self.parties[party].done, self.parties[party].last)
    }

    /// Whether a party can be told to do something.
    pub(crate) fn is_idle(&self, party: usize) -> bool {
        let party = &self.parties[party];
        party.wait == Wait::Nothing && party.held.is_none() && !party.dead
    }

    pub(crate) fn is_dead(&self, party: usize) -> bool {
        self.parties[party].dead
    }

    pub(crate) fn is_suspended(&self, party: usize) -> bool {
        self.parties[party].suspended
    }

    /// Whether somebody waits for the party's answer.
    pub(crate) fn owes(&self, party: usize) -> bool {
        self.parties[party].slot.is_some()
    }

    /// Callers that a process has saved.
    pub(crate) fn saved(&self, process: usize) -> usize {
        self.saved[process].len()
    }

    /// Who waits at an endpoint.
    pub(crate) fn waits_at(&self, at: usize) -> Option<Waiting> {
        let first = *self.queues[at].front()?;
        Some(if self.receiver(at) == Some(first) { Waiting::Receivers } else { Waiting::Senders })
    }

    /// Whether nothing is left of what was done.
    pub(crate) fn is_clean(&self) -> bool {
        let at_rest = |party: &Party| party.wait == Wait::Nothing && party.slot.is_none() && !party.suspended;
        self.parties.iter().all(at_rest)
            && self.queues.iter().all(VecDeque::is_empty)
            && self.saved.iter().all(Vec::is_empty)
    }

    /// A party that is idle does something.
    pub(crate) fn perform(&mut self, party: usize, operation: Operation) {
        match operation {
            Operation::Send { to, patience, seed } => self.send(party, to, patience, (seed, false)),
            Operation::Call { to, patience, seed } => self.send(party, to, patience, (seed, true)),
            Operation::Receive { from, patience } => {
                if let Some(caller) = self.parties[party].slot.take() {
                    self.end(caller, Outcome::refused(Error::PeerGone));
                }
                self.receive(party, from, patience);
            }
            Operation::Reply { seed } => {
                let caller = self.parties[party].slot.take();
                self.answer(party, caller, seed, Error::WrongState);
            }
            Operation::ReplyReceive { from, patience, seed } => {
                if let Some(caller) = self.parties[party].slot.take() {
                    self.end(caller, Outcome::message(seed, 0));
                }
                self.receive(party, from, patience);
            }
            Operation::Save => {
                let caller = self.parties[party].slot.take();
                if caller.is_some() {
                    self.saved[process_of(party)].push(caller);
                }
                let outcome = caller.map_or(Outcome::refused(Error::WrongState), |_| Outcome::DONE);
                self.end(party, outcome);
            }
            Operation::Answer { which, seed } => {
                let caller = self.saved[process_of(party)].remove(which);
                self.answer(party, caller, seed, Error::PeerGone);
            }
            Operation::Drop { which } => {
                if let Some(caller) = self.saved[process_of(party)].remove(which) {
                    self.end(caller, Outcome::refused(Error::PeerGone));
                }
                self.end(party, Outcome::DONE);
            }
            Operation::Nameless { .. } => self.end(party, Outcome::refused(Error::BadHandle)),
            Operation::Senseless { .. } => self.end(party, Outcome::refused(Error::BadArgument)),
        }
    }

    pub(crate) fn suspend(&mut self, party: usize) {
        self.parties[party].suspended = true;
    }

    pub(crate) fn resume(&mut self, party: usize) {
        self.parties[party].suspended = false;
        if let Some(outcome) = self.parties[party].held.take() {
            self.show(party, outcome);
        }
    }

    /// Ends a party, whatever it does.
    pub(crate) fn kill(&mut self, party: usize) {
        self.withdraw(party);
        let gone = &mut self.parties[party];
        (gone.dead, gone.suspended, gone.held) = (true, false, None);
        if let Some(caller) = gone.slot.take() {
            self.end(caller, Outcome::refused(Error::PeerGone));
        }
    }

    /// Another takes its place.
    pub(crate) fn replace(&mut self, party: usize) {
        self.parties[party].dead = false;
    }

    /// Takes a party out of where it waits.
    fn withdraw(&mut self, party: usize) {
        self.parties[party].wait = Wait::Nothing;
        self.queues.iter_mut().for_each(|queue| queue.retain(|&other| other != party));
        let slots = self.parties.iter_mut().map(|other| &mut other.slot);
        let saved = self.saved.iter_mut().flatten();
        slots.chain(saved).filter(|slot| **slot == Some(party)).for_each(|slot| *slot = None);
    }

    fn end(&mut self, party: usize, outcome: Outcome) {
        self.parties[party].wait = Wait::Nothing;
        if self.parties[party].suspended {
            self.parties[party].held = Some(outcome);
        } else {
            self.show(party, outcome);
        }
    }

    fn show(&mut self, party: usize, outcome: Outcome) {
        self.parties[party].done += 1;
        self.parties[party].last = outcome;
    }

    fn answer(&mut self, party: usize, caller: Option<usize>, seed: u32, otherwise: Error) {
        let outcome = caller.map_or(Outcome::refused(otherwise), |_| Outcome::DONE);
        if let Some(caller) = caller {
            self.end(caller, Outcome::message(seed, 0));
        }
        self.end(party, outcome);
    }

    /// Who waits longest at an endpoint, if those who wait there do so to receive.
    fn receiver(&self, at: usize) -> Option<usize> {
        let first = *self.queues[at].front()?;
        matches!(self.parties[first].wait, Wait::Receive { .. }).then_some(first)
    }

    fn send(&mut self, party: usize, to: usize, patience: Patience, (seed, calls): (u32, bool)) {
        let Some(receiver) = self.receiver(to) else {
            return self.wait(party, to, patience, Wait::Send { to, seed, calls });
        };
        self.queues[to].pop_front();
        self.end(receiver, Outcome::message(seed, badge(party, to)));
        if !calls {
            return self.end(party, Outcome::DONE);
        }
        if patience.ends() {
            return self.end(party, Outcome::refused(Error::TimedOut));
        }
        self.parties[receiver].slot = Some(party);
        self.parties[party].wait = Wait::Answer;
    }

    fn receive(&mut self, party: usize, from: usize, patience: Patience) {
        let first = self.queues[from].front().copied();
        let Some((sender, Wait::Send { seed, calls, .. })) =
            first.map(|sender| (sender, self.parties[sender].wait))
        else {
            return self.wait(party, from, patience, Wait::Receive { from });
        };
        self.queues[from].pop_front();
        self.end(party, Outcome::message(seed, badge(sender, from)));
        if calls {
            self.parties[party].slot = Some(sender);
            self.parties[sender].wait = Wait::Answer;
        } else {
            self.end(sender, Outcome::DONE);
        }
    }

    fn wait(&mut self, party: usize, at: usize, patience: Patience, wait: Wait) {
        match patience {
            Patience::Endless => {
                self.parties[party].wait = wait;
                self.queues[at].push_back(party);
            }
            Patience::None => self.end(party, Outcome::refused(Error::WouldBlock)),
            Patience::Passed | Patience::Soon => self.end(party, Outcome::refused(Error::TimedOut)),
        }
    }
}
