//! What waits, and where.

use core::num::NonZeroU64;

use percpu::const_fn;
use percpu::sync::atomic::{AtomicU64, Ordering};

/// A party as a word in a queue or slot. Only this crate makes these from what [`Party::word`] gave, so an implementation of
/// [`Party::of_word`] can rely on what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(NonZeroU64);

impl Word {
    /// The low bits of a word are free for marks.
    pub const MARKS: u64 = 7;

    #[inline(always)]
    pub(crate) const fn new(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw & !Self::MARKS) {
            Some(word) => Some(Self(word)),
            None => None,
        }
    }

    /// What [`Party::word`] gave.
    #[must_use]
    #[inline(always)]
    pub const fn get(self) -> NonZeroU64 {
        self.0
    }
}

/// Who waits: a cheap reference to a thread.
pub trait Party: Copy + Eq {
    /// A word that names it, with [`Word::MARKS`] clear; the same for as long as it lives.
    fn word(self) -> NonZeroU64;

    /// The party that a word names.
    fn of_word(word: Word) -> Self;

    /// Its place in queues.
    fn link(&self) -> &Link;
}

/// The party of a raw word, marks aside.
#[inline(always)]
pub(crate) fn party<P: Party>(raw: u64) -> Option<P> {
    Word::new(raw).map(P::of_word)
}

/// Where a party waits, as its user encodes it; but for two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct At(pub u64);

impl At {
    /// Nowhere: it does not wait, or whoever took it out is sending it home.
    pub const NOWHERE: Self = Self(0);
    /// Between two places, for a few instructions of the core that moves it: look again.
    pub const MOVING: Self = Self(1);
}

/// A party's place.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `at` | the party's core before it waits; who took it out (IQ2) | the party's core | Release / Acquire |
/// | `next`, `previous` | who holds the queue's lock | the same | by the lock |
#[derive(Debug)]
pub struct Link {
    at: AtomicU64,
    pub(crate) next: AtomicU64,
    pub(crate) previous: AtomicU64,
}

#[cfg(not(loom))]
impl Link {
    /// Where assembly finds `at`.
    pub const AT: usize = core::mem::offset_of!(Self, at);
}

impl Link {
    const_fn! {
        /// Of a party that does not wait.
        #[must_use]
        pub const fn new() -> Self {
            Self { at: AtomicU64::new(0), next: AtomicU64::new(0), previous: AtomicU64::new(0) }
        }
    }

    /// Where the party waits.
    #[inline(always)]
    #[must_use]
    pub fn at(&self) -> At {
        // ORDER: Acquire pairs with Release in `set_at`: a queue or slot that is named is ready to be looked at.
        At(self.at.load(Ordering::Acquire))
    }

    /// Says where the party waits; see IQ2.
    #[inline(always)]
    pub fn set_at(&self, at: At) {
        // ORDER: Release pairs with Acquire in `at`; what goes with the place, such as a slot's content, is written before.
        self.at.store(at.0, Ordering::Release);
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}
