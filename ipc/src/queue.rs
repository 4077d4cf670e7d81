//! Who waits at an endpoint: one word, and a list behind it.

use core::marker::PhantomData;

use percpu::const_fn;
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::sync::hint;

use crate::link::{At, Party, Word, party};

/// Bits of a queue's word. All but [`ONE`] stand alone.
const NOBODY: u64 = 0;
/// One receiver waits, which the rest of the word names; the list is empty.
const ONE: u64 = 1;
/// Somebody changes the queue.
const LOCKED: u64 = 2;
/// Receivers wait, in the list.
const RECEIVERS: u64 = 3;
/// Senders wait, in the list.
const SENDERS: u64 = 4;
/// Nobody comes in any more; who waits is being told.
const CLOSED: u64 = 5;

/// Who waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody.
    Nobody,
    /// One or more that want to receive.
    Receivers,
    /// One or more that want to send.
    Senders,
    /// Nobody may come in.
    Closed,
}

/// Who waits at an endpoint, first come first served.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `word` | any core | any core | Acquire to take or lock, Release to park or unlock |
/// | `first`, `last` | who has locked the word | the same | Relaxed: by the word |
#[derive(Debug)]
#[repr(C)]
pub struct Queue<P> {
    word: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    parties: PhantomData<fn(P) -> P>,
}

/// What assembly knows of a queue.
#[cfg(not(loom))]
impl<P> Queue<P> {
    /// Where the word lies.
    pub const WORD: usize = core::mem::offset_of!(Self, word);
    /// The word while nobody waits.
    pub const NOBODY: u64 = NOBODY;
    /// What is added to the receiver that waits alone.
    pub const ONE: u64 = ONE;
}

impl<P: Party> Queue<P> {
    const_fn! {
        /// An empty queue.
        #[must_use]
        pub const fn new() -> Self {
            Self {
                word: AtomicU64::new(NOBODY),
                first: AtomicU64::new(0),
                last: AtomicU64::new(0),
                parties: PhantomData,
            }
        }
    }

    /// The receiver that waits alone, if it does. It may be taken at any moment.
    #[inline(always)]
    pub fn alone(&self) -> Option<P> {
        // ORDER: Acquire pairs with Release in `park` and `unlock`: what the receiver wrote before it waited is seen.
        let word = self.word.load(Ordering::Acquire);
        if word & Word::MARKS == ONE { party(word) } else { None }
    }

    /// Takes the receiver that waits alone; `false` if it does no more.
    #[inline(always)]
    pub fn take(&self, receiver: P) -> bool {
        // ORDER: Acquire pairs with Release in `park` and `unlock`: the receiver's registers are there. Relaxed on failure: nothing is done.
        let taken = self.word.compare_exchange(
            receiver.word().get() | ONE,
            NOBODY,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        taken.is_ok()
    }

    /// Whether nobody waits at the moment.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        // ORDER: Relaxed: a guess; `park` decides.
        self.word.load(Ordering::Relaxed) == NOBODY
    }

    /// Has a receiver wait alone; `false` if that is not all there is to it: then [`lock`](Self::lock). Its `at` names this queue already (IQ2).
    #[inline(always)]
    pub fn park(&self, receiver: P) -> bool {
        // ORDER: Release pairs with Acquire in `take`, `alone` and `lock`. Relaxed on failure: nothing is done.
        let parked = self.word.compare_exchange(
            NOBODY,
            receiver.word().get() | ONE,
            Ordering::Release,
            Ordering::Relaxed,
        );
        parked.is_ok()
    }

    /// Locks the queue. Interrupts are off, and nothing is waited for under the lock.
    pub fn lock(&self) -> Guard<'_, P> {
        // ORDER: Relaxed: a guess, which the exchange verifies.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word == LOCKED {
                hint::spin_loop();
                // ORDER: Relaxed: as above.
                word = self.word.load(Ordering::Relaxed);
                continue;
            }
            // ORDER: Acquire pairs with Release in `park` and in `Guard::drop`. Relaxed on failure: another guess.
            match self.word.compare_exchange_weak(word, LOCKED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Guard::new(self, word),
                Err(now) => word = now,
            }
        }
    }
}

impl<P: Party> Default for Queue<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// Those of [`Guard::pop_all`] that are left.
#[derive(Debug)]
pub(crate) struct Rest<P>(u64, PhantomData<fn(P) -> P>);

impl<P: Party> Rest<P> {
    /// The next of them, which is in no list any more.
    pub(crate) fn next(self) -> Option<(P, Self)> {
        let first: P = party(self.0)?;
        let link = first.link();
        // ORDER: Relaxed, all: these links are the caller's alone, who has taken the parties under the lock.
        link.previous.store(0, Ordering::Relaxed);
        // ORDER: Relaxed: as above.
        let next = link.next.swap(0, Ordering::Relaxed);
        Some((first, Self(next, PhantomData)))
    }
}

/// A locked queue; dropping it unlocks it.
#[derive(Debug)]
pub struct Guard<'a, P: Party> {
    queue: &'a Queue<P>,
    kind: Kind,
}

impl<'a, P: Party> Guard<'a, P> {
    fn new(queue: &'a Queue<P>, word: u64) -> Self {
        let kind = match word & Word::MARKS {
            ONE | RECEIVERS => Kind::Receivers,
            SENDERS => Kind::Senders,
            CLOSED => Kind::Closed,
            _ => Kind::Nobody,
        };
        let guard = Self { queue, kind };
        if word & Word::MARKS == ONE
            && let Some(receiver) = party(word)
        {
            guard.append(receiver);
        }
        guard
    }

    /// Who waits.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Adds a receiver, behind the others. Its `at` names this queue already (IQ2).
    pub fn push_receiver(&mut self, receiver: P) {
        debug_assert!(matches!(self.kind, Kind::Nobody | Kind::Receivers), "IQ3: senders wait");
        self.append(receiver);
        self.kind = Kind::Receivers;
    }

    /// Adds a sender, behind the others. Its `at` names this queue already (IQ2).
    pub fn push_sender(&mut self, sender: P) {
        debug_assert!(matches!(self.kind, Kind::Nobody | Kind::Senders), "IQ3: receivers wait");
        self.append(sender);
        self.kind = Kind::Senders;
    }

    /// Takes whoever came first, of whatever kind, whose `at` says [`At::MOVING`] from now on: the caller decides where it goes.
    pub fn pop(&mut self) -> Option<P> {
        // ORDER: Relaxed: by the lock.
        let first: P = party(self.queue.first.load(Ordering::Relaxed))?;
        self.remove(first);
        Some(first)
    }

    /// Takes everybody, oldest first; each `at` says [`At::MOVING`] from now on. The queue is not needed any more to come from one to the next.
    pub(crate) fn pop_all(&mut self) -> Option<(P, Rest<P>)> {
        // ORDER: Relaxed, all: by the lock.
        let first = self.queue.first.load(Ordering::Relaxed);
        let mut at = party::<P>(first);
        while let Some(waiter) = at {
            // ORDER: Relaxed: as above.
            at = party(waiter.link().next.load(Ordering::Relaxed));
            waiter.link().set_at(At::MOVING);
        }
        // ORDER: Relaxed: as above.
        self.queue.first.store(0, Ordering::Relaxed);
        // ORDER: Relaxed: as above.
        self.queue.last.store(0, Ordering::Relaxed);
        if self.kind != Kind::Closed {
            self.kind = Kind::Nobody;
        }
        Rest(first, PhantomData).next()
    }

    /// Takes out a party whose `at` names this queue, if it waits here; it then says [`At::MOVING`]. `false` if it does not: a receiver that
    /// waited alone is taken without the lock, and `at` is written a moment later.
    pub fn remove(&mut self, gone: P) -> bool {
        let link = gone.link();
        // ORDER: Relaxed, all: by the lock.
        let (previous, next) = (link.previous.load(Ordering::Relaxed), link.next.load(Ordering::Relaxed));
        // ORDER: Relaxed: as above. Who is in no list has no neighbours.
        if previous == 0 && self.queue.first.load(Ordering::Relaxed) != gone.word().get() {
            return false;
        }
        match party::<P>(previous) {
            // ORDER: Relaxed: as above.
            Some(previous) => previous.link().next.store(next, Ordering::Relaxed),
            // ORDER: Relaxed: as above.
            None => self.queue.first.store(next, Ordering::Relaxed),
        }
        match party::<P>(next) {
            // ORDER: Relaxed: as above.
            Some(next) => next.link().previous.store(previous, Ordering::Relaxed),
            // ORDER: Relaxed: as above.
            None => self.queue.last.store(previous, Ordering::Relaxed),
        }
        // ORDER: Relaxed, both: as above.
        link.previous.store(0, Ordering::Relaxed);
        // ORDER: Relaxed: as above.
        link.next.store(0, Ordering::Relaxed);
        link.set_at(At::MOVING);
        // ORDER: Relaxed: as above.
        if self.kind != Kind::Closed && self.queue.first.load(Ordering::Relaxed) == 0 {
            self.kind = Kind::Nobody;
        }
        true
    }

    /// Nobody comes in any more: who waits is to be popped.
    pub fn close(&mut self) {
        self.kind = Kind::Closed;
    }

    /// Parties come in again.
    pub fn open(&mut self) {
        // ORDER: Relaxed: by the lock.
        debug_assert!(self.queue.first.load(Ordering::Relaxed) == 0, "IQ3: who waited has been told");
        self.kind = Kind::Nobody;
    }

    /// The party that waits behind another, or first; for one who looks at all that wait.
    #[must_use]
    pub fn after(&self, party_before: Option<P>) -> Option<P> {
        // ORDER: Relaxed, both: by the lock.
        let raw = match party_before {
            Some(before) => before.link().next.load(Ordering::Relaxed),
            // ORDER: Relaxed: as above.
            None => self.queue.first.load(Ordering::Relaxed),
        };
        party(raw)
    }

    fn append(&self, new: P) {
        let (link, word) = (new.link(), new.word().get());
        // ORDER: Relaxed, all: by the lock.
        let last = self.queue.last.load(Ordering::Relaxed);
        // ORDER: Relaxed: as above.
        link.next.store(0, Ordering::Relaxed);
        // ORDER: Relaxed: as above.
        link.previous.store(last, Ordering::Relaxed);
        match party::<P>(last) {
            // ORDER: Relaxed: as above.
            Some(last) => last.link().next.store(word, Ordering::Relaxed),
            // ORDER: Relaxed: as above.
            None => self.queue.first.store(word, Ordering::Relaxed),
        }
        // ORDER: Relaxed: as above.
        self.queue.last.store(word, Ordering::Relaxed);
    }

    /// The word that says what the list holds; a receiver that is alone leaves the list for it.
    fn word(&self) -> u64 {
        match self.kind {
            Kind::Nobody => NOBODY,
            Kind::Senders => SENDERS,
            Kind::Closed => CLOSED,
            Kind::Receivers => {
                // ORDER: Relaxed, both: by the lock.
                let first = self.queue.first.load(Ordering::Relaxed);
                // ORDER: Relaxed: as above.
                if first != self.queue.last.load(Ordering::Relaxed) {
                    return RECEIVERS;
                }
                // ORDER: Relaxed, both: as above.
                self.queue.first.store(0, Ordering::Relaxed);
                // ORDER: Relaxed: as above.
                self.queue.last.store(0, Ordering::Relaxed);
                first | ONE
            }
        }
    }
}

impl<P: Party> Drop for Guard<'_, P> {
    fn drop(&mut self) {
        // ORDER: Release pairs with Acquire in `take`, `alone` and `lock`: the list and the parties' words are seen.
        self.queue.word.store(self.word(), Ordering::Release);
    }
}
