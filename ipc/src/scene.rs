//! Parties for tests and models: named by number, with a word for what is in their frame.

use core::num::NonZeroU64;
use std::boxed::Box;
use std::cell::RefCell;
use std::vec::Vec;

#[cfg(loom)]
use percpu::sync::atomic::{AtomicU64, Ordering};

use crate::link::{At, Link, Party, Word};

/// A thread that can wait.
#[derive(Debug)]
pub(crate) struct Waiter {
    number: u64,
    link: Link,
    /// What its registers would hold. Relaxed, so that who reads it without an order may see what was there before.
    #[cfg(loom)]
    frame: AtomicU64,
    /// How often its wait was ended.
    #[cfg(loom)]
    ended: AtomicU64,
}

std::thread_local! {
    /// All parties of the test that this thread runs; loom runs a model's threads on one.
    static ALL: RefCell<Vec<&'static Waiter>> = const { RefCell::new(Vec::new()) };
}

/// A reference to a party.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ref(&'static Waiter);

impl PartialEq for Ref {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for Ref {}

/// Forgets the parties of the history before, and makes some.
pub(crate) fn parties<const N: usize>() -> [Ref; N] {
    ALL.with_borrow_mut(Vec::clear);
    core::array::from_fn(|index| {
        // Leaked: a party is a word in a queue, which keeps nothing.
        let waiter: &'static Waiter = Box::leak(Box::new(Waiter {
            number: index as u64 + 1,
            link: Link::new(),
            #[cfg(loom)]
            frame: AtomicU64::new(0),
            #[cfg(loom)]
            ended: AtomicU64::new(0),
        }));
        ALL.with_borrow_mut(|all| all.push(waiter));
        Ref(waiter)
    })
}

impl Ref {
    /// Its number, from 0.
    #[cfg(not(loom))]
    pub(crate) fn index(self) -> usize {
        self.0.number as usize - 1
    }

    /// Where it waits.
    pub(crate) fn at(self) -> At {
        self.0.link.at()
    }

    /// Says where it waits.
    pub(crate) fn set_at(self, at: At) {
        self.0.link.set_at(at);
    }
}

/// What only models look at.
#[cfg(loom)]
impl Ref {
    /// Writes its frame.
    pub(crate) fn write(self, value: u64) {
        // ORDER: Relaxed: what is tested is that others order it.
        self.0.frame.store(value, Ordering::Relaxed);
    }

    /// Reads its frame.
    pub(crate) fn read(self) -> u64 {
        // ORDER: Relaxed: as above.
        self.0.frame.load(Ordering::Relaxed)
    }

    /// Ends its wait. Whoever has taken it out.
    pub(crate) fn end(self) {
        // ORDER: Relaxed: counted when all is over.
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How often its wait was ended.
    pub(crate) fn ends(self) -> u64 {
        // ORDER: Relaxed: as above.
        self.0.ended.load(Ordering::Relaxed)
    }
}

impl Party for Ref {
    fn word(self) -> NonZeroU64 {
        NonZeroU64::new(self.0.number * (Word::MARKS + 1)).expect("numbers begin at 1")
    }

    fn of_word(word: Word) -> Self {
        let number = word.get().get() / (Word::MARKS + 1);
        Self(ALL.with_borrow(|all| all[number as usize - 1]))
    }

    fn link(&self) -> &Link {
        &self.0.link
    }
}
