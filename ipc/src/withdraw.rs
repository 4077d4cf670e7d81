//! Taking a party out of where its `at` says that it waits, by its own core: the other side of whoever ends its wait.

use crate::link::{At, Party};
use crate::queue::Guard;
use crate::reply::{Aborted, ReplySlot};

/// What came of an attempt to take a party out of where it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Withdrawn {
    /// It waits no longer, and is nowhere: the caller decides how its wait ends (IQ1).
    Yes,
    /// Somebody else has taken it, and sends it home.
    No,
    /// It is elsewhere by now.
    LookAgain,
}

impl<P: Party> Guard<'_, P> {
    /// Takes a party out whose `at`, which named this queue, was `at` before the queue was locked.
    pub fn withdraw(&mut self, party: P, at: At) -> Withdrawn {
        if party.link().at() != at {
            return Withdrawn::LookAgain;
        }
        if !self.remove(party) {
            return Withdrawn::No;
        }
        party.link().set_at(At::NOWHERE);
        Withdrawn::Yes
    }
}

impl<P: Party> ReplySlot<P> {
    /// Takes a caller out whose `at`, which named this slot, was `at` a moment ago.
    pub fn withdraw(&self, caller: P, at: At) -> Withdrawn {
        match self.abort(caller) {
            Aborted::Yes => {
                caller.link().set_at(At::NOWHERE);
                Withdrawn::Yes
            }
            // Answered, unless it was moved to another slot, which is written before it leaves the first.
            Aborted::No if caller.link().at() == at => Withdrawn::No,
            Aborted::No | Aborted::Busy => Withdrawn::LookAgain,
        }
    }
}
