//! The state of an inbox as one word, and every way it may change.
//!
//! The word is the newest message's address with three tag bits below: two say how the owner rests, one that somebody has
//! promised to interrupt it. Because a push changes list and tags in one step, whether to interrupt is decided by the same
//! compare-exchange that delivers, and no wake-up can fall between the two.

/// How the owner of an inbox rests, which decides what it takes to make it look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It runs, in the kernel or in user mode, and looks before it next leaves the kernel.
    Running,
    /// It watches the inbox itself: polling, or in MWAIT on the inbox line. The push alone wakes it.
    Watching,
    /// It has stopped until an interrupt comes.
    Halted,
}

/// Whether a message may wait until a running owner enters the kernel by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Interrupt a running owner.
    Eager,
    /// Interrupt only an owner that would otherwise sleep through it.
    Lazy,
}

/// What the sender still has to do after a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an owner that is not kicked may sleep through the message"]
pub enum Kick {
    /// Nothing: the owner looks by itself, or another sender interrupts it.
    None,
    /// Send the owner an interrupt.
    Interrupt,
}

/// An inbox's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(pub(super) usize);

const RUNNING: usize = 0;
const WATCHING: usize = 1;
const HALTED: usize = 2;
const REST: usize = 0b011;
const KICKED: usize = 0b100;

/// The bits below a message's address.
pub(super) const TAGS: usize = REST | KICKED;

impl Word {
    /// No message, the owner running.
    pub(super) const EMPTY: Self = Self(RUNNING);

    /// The address of the newest message, 0 if there is none.
    pub(super) const fn newest(self) -> usize {
        self.0 & !TAGS
    }

    /// Whether the owner rests or, after a message, still has to wake up.
    pub(super) const fn is_armed(self) -> bool {
        self.0 & REST != RUNNING
    }

    /// With `node` as the newest message. KICKED stays until the owner drains: one interrupt serves a whole batch.
    pub(super) const fn push(self, node: usize, urgency: Urgency) -> (Self, Kick) {
        let deaf = match self.0 & REST {
            HALTED => true,
            RUNNING => matches!(urgency, Urgency::Eager),
            _ => false,
        };
        let tags = self.0 & TAGS;
        if deaf && tags & KICKED == 0 {
            (Self(node | tags | KICKED), Kick::Interrupt)
        } else {
            (Self(node | tags), Kick::None)
        }
    }

    /// With the owner resting; `None` if there are messages, which it has to serve first.
    pub(super) const fn arm(self, rest: Rest) -> Option<Self> {
        if self.newest() != 0 {
            return None;
        }
        Some(Self(match rest {
            Rest::Running => RUNNING,
            Rest::Watching => WATCHING,
            Rest::Halted => HALTED,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::{HALTED, KICKED, Kick, RUNNING, Rest, TAGS, Urgency, WATCHING, Word};
    use std::collections::BTreeSet;
    use std::vec;

    const NODES: [usize; 2] = [0x1000, 0x2000];
    const URGENCIES: [Urgency; 2] = [Urgency::Eager, Urgency::Lazy];

    /// Every state that some sequence of transitions can reach, over two node addresses.
    fn reachable() -> BTreeSet<usize> {
        let mut seen = BTreeSet::from([Word::EMPTY.0]);
        let mut todo = vec![Word::EMPTY];
        while let Some(word) = todo.pop() {
            let pushed = NODES.iter().flat_map(|&node| URGENCIES.map(|urgency| word.push(node, urgency).0));
            let armed = [Rest::Running, Rest::Watching, Rest::Halted].map(|rest| word.arm(rest));
            for next in pushed.chain(armed.into_iter().flatten()).chain([Word::EMPTY]) {
                if seen.insert(next.0) {
                    todo.push(next);
                }
            }
        }
        seen
    }

    #[test]
    fn every_reachable_state_is_meaningful() {
        for state in reachable() {
            let word = Word(state);
            assert!([RUNNING, WATCHING, HALTED].contains(&(state & super::REST)), "{state:#x}");
            assert!(word.newest() == 0 || NODES.contains(&word.newest()), "{state:#x}");
            // A promise to interrupt is only made with a message, and never to one who watches.
            assert!(state & KICKED == 0 || word.newest() != 0, "{state:#x}");
            assert!(state & KICKED == 0 || state & super::REST != WATCHING, "{state:#x}");
            // Who has halted and has a message is being interrupted: no message is slept through.
            assert!(state & super::REST != HALTED || word.newest() == 0 || state & KICKED != 0, "{state:#x}");
        }
    }

    #[test]
    fn every_push_delivers_and_promises_once() {
        for state in reachable() {
            for urgency in URGENCIES {
                let (next, kick) = Word(state).push(NODES[0], urgency);
                assert_eq!(next.newest(), NODES[0]);
                assert_eq!(next.0 & super::REST, state & super::REST);
                let promised = next.0 & KICKED != state & KICKED;
                assert_eq!(kick == Kick::Interrupt, promised, "{state:#x} {urgency:?}");
            }
        }
    }

    #[test]
    fn an_eager_push_after_a_lazy_one_still_kicks() {
        let (word, first) = Word::EMPTY.push(NODES[0], Urgency::Lazy);
        let (_, second) = word.push(NODES[1], Urgency::Eager);
        assert_eq!((first, second), (Kick::None, Kick::Interrupt));
    }

    #[test]
    fn a_push_does_not_disarm() {
        for (rest, armed) in [(Rest::Running, false), (Rest::Watching, true), (Rest::Halted, true)] {
            let word = Word::EMPTY.arm(rest).expect("nothing to serve");
            assert_eq!((word.is_armed(), word.push(NODES[0], Urgency::Eager).0.is_armed()), (armed, armed));
        }
    }

    #[test]
    fn nobody_rests_on_unserved_messages() {
        for state in reachable() {
            for rest in [Rest::Running, Rest::Watching, Rest::Halted] {
                assert_eq!(Word(state).arm(rest).is_none(), state & !TAGS != 0);
            }
        }
    }
}
