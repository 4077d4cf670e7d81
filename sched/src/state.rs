//! The state of a thread as one word, with pure transitions; the kernel loops a compare-exchange around them.
//!
//! The base state says what the thread would do if it were let; `SUSPENDED`, `KILLED` and `WOKEN` come on top. The home core alone makes a
//! thread run; others change the word and then tell the home core, which asks [`Word::next`]. Who sets `WOKEN` decides what a blocked
//! thread waited for: of a reply and a timeout one wins, the other gets `None`.
//!
//! | from | by | to |
//! |---|---|---|
//! | New | `start` | Runnable |
//! | Runnable | `block` (home) | Blocked, unless killed |
//! | Blocked | `claim` (anyone, once) | Blocked + WOKEN |
//! | Blocked + WOKEN | `unblock` (home) | Runnable |
//! | any but Ended | `suspend`, `resume`, `kill` | flag set or cleared |
//! | any but Ended | `end` (home) | Ended |

use abi::task::ThreadState;

const BASE: u32 = 0b11;
const NEW: u32 = 0;
const RUNNABLE: u32 = 1;
const BLOCKED: u32 = 2;
const ENDED: u32 = 3;
const SUSPENDED: u32 = 1 << 2;
const KILLED: u32 = 1 << 3;
const WOKEN: u32 = 1 << 4;

/// A thread's state word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(u32);

/// What the home core has to do with a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Let it run: it is current or in a run queue.
    Run,
    /// Keep it out of the run queue.
    Hold,
    /// It waits no longer: `unblock`, and ask again.
    Unblock,
    /// End it.
    End,
    /// Nothing any more.
    Nothing,
}

impl Word {
    /// A thread that was made.
    pub const NEW: Self = Self(NEW);

    /// The word of a number read from memory that only words are written to.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The word as a number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    const fn base(self) -> u32 {
        self.0 & BASE
    }

    const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    const fn with_base(self, base: u32) -> Self {
        Self(self.0 & !BASE | base)
    }

    /// Whether the thread was told to end.
    #[must_use]
    pub const fn is_killed(self) -> bool {
        self.has(KILLED)
    }

    /// What is told of the thread.
    #[must_use]
    pub const fn told(self) -> ThreadState {
        match self.base() {
            ENDED => ThreadState::Ended,
            NEW => ThreadState::New,
            _ if self.has(SUSPENDED) => ThreadState::Suspended,
            RUNNABLE => ThreadState::Runnable,
            _ => ThreadState::Blocked,
        }
    }

    /// What the home core has to do.
    pub const fn next(self) -> Next {
        match self.base() {
            ENDED => Next::Nothing,
            BLOCKED if self.has(WOKEN) => Next::Unblock,
            _ if self.has(KILLED) => Next::End,
            RUNNABLE if !self.has(SUSPENDED) => Next::Run,
            _ => Next::Hold,
        }
    }

    /// Starts it. `None` unless it is new and not told to end.
    #[must_use]
    pub const fn start(self) -> Option<Self> {
        if self.base() == NEW && !self.has(KILLED) { Some(self.with_base(RUNNABLE)) } else { None }
    }

    /// It waits from now on. `None` unless it could run, and if it has to end instead.
    #[must_use]
    pub const fn block(self) -> Option<Self> {
        if self.base() == RUNNABLE && !self.has(KILLED) { Some(self.with_base(BLOCKED)) } else { None }
    }

    /// Claims the right to end its waiting. `None` if it does not wait, or another was first.
    #[must_use]
    pub const fn claim(self) -> Option<Self> {
        if self.base() == BLOCKED && !self.has(WOKEN) { Some(Self(self.0 | WOKEN)) } else { None }
    }

    /// It waits no longer. `None` unless that was claimed.
    #[must_use]
    pub const fn unblock(self) -> Option<Self> {
        if self.base() == BLOCKED && self.has(WOKEN) {
            Some(Self(self.0 & !WOKEN).with_base(RUNNABLE))
        } else {
            None
        }
    }

    /// Stops it, whatever it does. `None` if it is stopped already or has ended.
    #[must_use]
    pub const fn suspend(self) -> Option<Self> {
        if self.base() == ENDED || self.has(SUSPENDED) { None } else { Some(Self(self.0 | SUSPENDED)) }
    }

    /// Lets it go on. `None` if it is not stopped.
    #[must_use]
    pub const fn resume(self) -> Option<Self> {
        if self.base() != ENDED && self.has(SUSPENDED) { Some(Self(self.0 & !SUSPENDED)) } else { None }
    }

    /// Tells it to end. One that waits is claimed by that, unless another was first: then it ends when that one is done. `None` if it was
    /// told before or has ended.
    #[must_use]
    pub const fn kill(self) -> Option<Self> {
        match self.base() {
            ENDED => None,
            _ if self.has(KILLED) => None,
            BLOCKED => Some(Self(self.0 | KILLED | WOKEN)),
            _ => Some(Self(self.0 | KILLED)),
        }
    }

    /// It has ended; nothing of the word is left. `None` if it had, and while a claim on its waiting is open.
    #[must_use]
    pub const fn end(self) -> Option<Self> {
        if self.base() == ENDED || self.has(WOKEN) { None } else { Some(Self(ENDED)) }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCKED, ENDED, KILLED, NEW, Next, RUNNABLE, SUSPENDED, WOKEN, Word};
    use abi::task::ThreadState;

    type Step = (&'static str, fn(Word) -> Option<Word>);

    const STEPS: &[Step] = &[
        ("start", Word::start),
        ("block", Word::block),
        ("claim", Word::claim),
        ("unblock", Word::unblock),
        ("suspend", Word::suspend),
        ("resume", Word::resume),
        ("kill", Word::kill),
        ("end", Word::end),
    ];

    /// All words that can be reached from the first.
    fn reachable() -> Vec<Word> {
        let mut found = vec![Word::NEW];
        let mut at = 0;
        while at < found.len() {
            for (_, step) in STEPS {
                if let Some(word) = step(found[at])
                    && !found.contains(&word)
                {
                    found.push(word);
                }
            }
            at += 1;
        }
        found
    }

    /// Planted: `unblock` that keeps WOKEN, `end` that keeps the other flags, `kill` that does not claim, `block` of a killed thread.
    #[test]
    fn fifteen_words_can_be_reached() {
        let found = reachable();
        // New and Runnable with any of two flags, Blocked stopped or not, Blocked and claimed with any of two flags, Ended.
        assert_eq!(found.len(), 4 + 4 + 2 + 4 + 1, "{found:?}");
        for word in found {
            assert!(!word.has(WOKEN) || word.base() == BLOCKED, "{word:?}");
            assert!(word.base() != ENDED || word.bits() == ENDED, "{word:?}");
            // A killed thread that waits is on its way out.
            assert!(!(word.base() == BLOCKED && word.has(KILLED)) || word.has(WOKEN), "{word:?}");
        }
    }

    #[test]
    fn every_step_does_what_the_table_says() {
        for word in reachable() {
            let (base, suspended, killed, woken) =
                (word.base(), word.has(SUSPENDED), word.has(KILLED), word.has(WOKEN));
            let bits = word.bits();
            let alive = base != ENDED;
            let expect = |ok: bool, to: u32| ok.then_some(to);
            let wanted = [
                expect(base == NEW && !killed, bits | RUNNABLE),
                expect(base == RUNNABLE && !killed, bits ^ RUNNABLE ^ BLOCKED),
                expect(base == BLOCKED && !woken, bits | WOKEN),
                expect(base == BLOCKED && woken, bits ^ WOKEN ^ BLOCKED ^ RUNNABLE),
                expect(alive && !suspended, bits | SUSPENDED),
                expect(alive && suspended, bits ^ SUSPENDED),
                expect(alive && !killed, bits | KILLED | if base == BLOCKED { WOKEN } else { 0 }),
                expect(alive && !woken, ENDED),
            ];
            for ((name, step), wanted) in STEPS.iter().zip(wanted) {
                assert_eq!(step(word).map(Word::bits), wanted, "{name} of {word:?}");
            }
        }
    }

    /// Whatever happened before, a killed thread ends by what its home core does alone.
    #[test]
    fn the_home_core_alone_ends_a_killed_thread() {
        for word in reachable() {
            let Some(mut word) = word.kill() else { continue };
            for _ in 0..3 {
                word = match word.next() {
                    Next::Unblock => word.unblock().unwrap(),
                    Next::End => word.end().unwrap(),
                    Next::Nothing => break,
                    Next::Run | Next::Hold => panic!("{word:?} is not ended"),
                };
            }
            assert_eq!(word.told(), ThreadState::Ended);
        }
    }

    #[test]
    fn only_what_can_run_runs() {
        for word in reachable() {
            let runs = word.next() == Next::Run;
            assert_eq!(runs, word.told() == ThreadState::Runnable && !word.is_killed(), "{word:?}");
        }
    }
}
