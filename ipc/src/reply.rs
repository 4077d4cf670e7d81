//! Whom somebody has to answer.

use core::marker::PhantomData;

use percpu::const_fn;
use percpu::sync::atomic::{AtomicU64, Ordering};

use crate::link::{Party, Word, party};

/// The caller's message still lies with the caller: who wants to receive it claims it first.
const UNREAD: u64 = 1;
/// The message is being copied, or the caller moved to another slot: whoever wants to take it out looks again.
const BUSY: u64 = 2;

/// What came of an attempt to take a caller out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Aborted {
    /// It is out: nobody answers it any more.
    Yes,
    /// It is not there: somebody has answered it, or it is elsewhere by now.
    No,
    /// Somebody is copying its message or moving it, or was a moment ago: look at `at` again.
    Busy,
}

/// Room for one caller that waits for an answer (IR1). All but `abort` and `offer` are the owner's.
///
/// | word | meaning |
/// |---|---|
/// | 0 | nobody |
/// | caller | waits for an answer |
/// | caller, 1 | waits, and its message has not been copied |
/// | caller, 2 | its message is being copied, or it is moved |
#[derive(Debug)]
#[repr(transparent)]
pub struct ReplySlot<P> {
    word: AtomicU64,
    parties: PhantomData<fn(P) -> P>,
}

impl<P: Party> ReplySlot<P> {
    const_fn! {
        /// Nobody to answer.
        #[must_use]
        pub const fn new() -> Self {
            Self { word: AtomicU64::new(0), parties: PhantomData }
        }
    }

    /// The caller, if there is one whose message has been read. It may give up at any moment, unless it lives on this core.
    #[inline(always)]
    pub fn look(&self) -> Option<P> {
        // ORDER: Relaxed: the owner wrote it, or `claim` has seen it; a caller that gives up is looked for by an exchange.
        let word = self.word.load(Ordering::Relaxed);
        if word & Word::MARKS == 0 { party(word) } else { None }
    }

    /// Puts a caller in, whose message the owner has. The slot was empty; the caller's `at` is written afterwards.
    #[inline(always)]
    pub fn set(&self, caller: P) {
        // ORDER: Relaxed: the caller's core looks here after it has read `at`, which is written with Release afterwards.
        self.word.store(caller.word().get(), Ordering::Relaxed);
    }

    /// Puts a caller in from its own core, whose message the owner has yet to claim. The slot was empty.
    pub fn offer(&self, caller: P) {
        // ORDER: Release pairs with Acquire in `claim`: the message is there.
        self.word.store(caller.word().get() | UNREAD, Ordering::Release);
    }

    /// The owner is about to copy the message that was offered; `None` if the caller has given up. Ends with [`set`](Self::set).
    pub fn claim(&self) -> Option<P> {
        // ORDER: Relaxed: a guess, which the exchange verifies.
        let word = self.word.load(Ordering::Relaxed);
        let caller = party::<P>(word).filter(|_| word & Word::MARKS == UNREAD)?;
        self.exchange(word, caller.word().get() | BUSY).then_some(caller)
    }

    /// The owner is about to move a caller to another slot; `None` if there is none. Ends with [`clear`](Self::clear).
    pub fn begin_move(&self) -> Option<P> {
        let caller = self.look()?;
        let word = caller.word().get();
        self.exchange(word, word | BUSY).then_some(caller)
    }

    /// A caller is about to come in from another slot, which it leaves before [`arrive`](Self::arrive): nobody takes it out meanwhile. The slot
    /// was empty, and others may know it already.
    pub fn await_arrival(&self, caller: P) {
        // ORDER: Relaxed: the caller's core looks here after it has read `at`, which is written with Release afterwards.
        self.word.store(caller.word().get() | BUSY, Ordering::Relaxed);
    }

    /// The caller that was awaited is here, and its `at` says so.
    pub fn arrive(&self, caller: P) {
        // ORDER: Release pairs with Acquire in `exchange`: whoever takes it out writes its `at` later than the owner did.
        self.word.store(caller.word().get(), Ordering::Release);
    }

    /// Takes the caller out, to answer it.
    pub fn take(&self) -> Option<P> {
        let caller = self.look()?;
        self.exchange(caller.word().get(), 0).then_some(caller)
    }

    /// Empties the slot of a caller that lives on the core that calls, or that is being moved: nobody else takes it out meanwhile.
    #[inline(always)]
    pub fn clear(&self) {
        // ORDER: Release: a caller's core that finds the slot empty sees what was done with the caller.
        self.word.store(0, Ordering::Release);
    }

    /// Takes a caller out that does not want to wait any longer. By the caller's core, which has read in `at` that it is here.
    pub fn abort(&self, caller: P) -> Aborted {
        let own = caller.word().get();
        for word in [own, own | UNREAD] {
            if self.exchange(word, 0) {
                return Aborted::Yes;
            }
        }
        // Busy, or just come to rest: then the exchanges were too early.
        // ORDER: Acquire pairs with Release in `clear`.
        let here = party(self.word.load(Ordering::Acquire)) == Some(caller);
        if here { Aborted::Busy } else { Aborted::No }
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        // ORDER: Acquire pairs with Release in `arrive` and `offer`: the caller's frame. Relaxed on failure: `abort`, which wants to know why, looks.
        self.word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

impl<P: Party> Default for ReplySlot<P> {
    fn default() -> Self {
        Self::new()
    }
}
