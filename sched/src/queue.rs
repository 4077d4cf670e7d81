//! The run queue proper: 256 first-in-first-out queues and a bitmap of those that have members.
//!
//! Each queue keeps its first and its last member, side by side: 4 KiB for a core. A ring with one pointer would take half, but would
//! touch a third thread's line on every push and pop.

use crate::task::{Entity, Links};
use core::cell::Cell;
use core::mem::offset_of;

/// Priorities of a word of the bitmap.
const BITS: u8 = 64;
const WORDS: usize = 4;

#[repr(C)]
pub(crate) struct Fifo<E> {
    pub(crate) first: Cell<Option<E>>,
    pub(crate) last: Cell<Option<E>>,
}

/// All queues of a core. The highest priority is the most urgent.
#[repr(C)]
pub(crate) struct Queue<E> {
    words: [Cell<u64>; WORDS],
    /// Members by word: the first counts the normal threads, the others real time.
    counts: [Cell<u32>; WORDS],
    fifos: [Fifo<E>; 256],
}

impl<E> Queue<E> {
    /// Where `assembly` finds the fields.
    pub(crate) const WORDS: usize = offset_of!(Self, words);
    /// As `WORDS`.
    pub(crate) const COUNTS: usize = offset_of!(Self, counts);
    /// As `WORDS`.
    pub(crate) const FIFOS: usize = offset_of!(Self, fifos);
}

fn links<E: Entity>(e: &E) -> &Links<E> {
    &e.task().links
}

impl<E: Entity> Queue<E> {
    pub(crate) const fn new() -> Self {
        Self {
            words: [const { Cell::new(0) }; WORDS],
            counts: [const { Cell::new(0) }; WORDS],
            fifos: [const { Fifo { first: Cell::new(None), last: Cell::new(None) } }; 256],
        }
    }

    fn fifo(&self, priority: u8) -> &Fifo<E> {
        &self.fifos[usize::from(priority)]
    }

    fn count(&self, priority: u8) -> &Cell<u32> {
        &self.counts[usize::from(priority / BITS)]
    }

    fn mark(&self, priority: u8) {
        let word = &self.words[usize::from(priority / BITS)];
        word.set(word.get() | 1 << (priority % BITS));
    }

    fn unmark(&self, priority: u8) {
        let word = &self.words[usize::from(priority / BITS)];
        word.set(word.get() & !(1 << (priority % BITS)));
    }

    /// The first of a priority.
    #[inline]
    pub(crate) fn first(&self, priority: u8) -> Option<E> {
        self.fifo(priority).first.get()
    }

    /// The one that comes after `e` in its queue.
    pub(crate) fn after(&self, e: E) -> Option<E> {
        links(&e).next.get()
    }

    /// The last of a priority.
    pub(crate) fn last(&self, priority: u8) -> Option<E> {
        self.fifo(priority).last.get()
    }

    /// Whether the bitmap says that a priority has members.
    pub(crate) fn is_marked(&self, priority: u8) -> bool {
        self.words[usize::from(priority / BITS)].get() & 1 << (priority % BITS) != 0
    }

    /// Whether the counters have these values.
    pub(crate) fn counts_are(&self, counts: [u32; WORDS]) -> bool {
        self.counts.iter().map(Cell::get).eq(counts)
    }

    /// Normal threads in the queues.
    #[inline]
    pub(crate) fn normal(&self) -> u32 {
        self.counts[0].get()
    }

    /// All threads in the queues.
    pub(crate) fn len(&self) -> u32 {
        self.counts.iter().map(Cell::get).sum()
    }

    /// The bitmap of the priorities below 64.
    #[inline]
    pub(crate) fn low(&self) -> u64 {
        self.words[0].get()
    }

    /// Not zero if a priority from 64 on has a member.
    #[inline]
    pub(crate) fn high(&self) -> u64 {
        self.words[1].get() | self.words[2].get() | self.words[3].get()
    }

    /// The highest priority that has a member.
    pub(crate) fn top(&self) -> Option<u8> {
        let [w0, w1, w2, w3] = &self.words;
        let (base, word) = match (w3.get(), w2.get(), w1.get()) {
            (0, 0, 0) => (0, w0.get()),
            (0, 0, word) => (BITS, word),
            (0, word, _) => (2 * BITS, word),
            (word, ..) => (3 * BITS, word),
        };
        Some(base | (word.checked_ilog2()? as u8 & (BITS - 1)))
    }

    /// Puts `e` behind all others of the priority.
    #[inline]
    pub(crate) fn push_last(&self, e: E, priority: u8) {
        let fifo = self.fifo(priority);
        let last = fifo.last.get();
        links(&e).prev.set(last);
        links(&e).next.set(None);
        fifo.last.set(Some(e));
        match last {
            Some(last) => links(&last).next.set(Some(e)),
            None => {
                fifo.first.set(Some(e));
                self.mark(priority);
            }
        }
        let count = self.count(priority);
        count.set(count.get().wrapping_add(1));
    }

    /// Puts `e` before all others of the priority.
    pub(crate) fn push_first(&self, e: E, priority: u8) {
        let fifo = self.fifo(priority);
        let first = fifo.first.get();
        links(&e).prev.set(None);
        links(&e).next.set(first);
        fifo.first.set(Some(e));
        match first {
            Some(first) => links(&first).prev.set(Some(e)),
            None => {
                fifo.last.set(Some(e));
                self.mark(priority);
            }
        }
        let count = self.count(priority);
        count.set(count.get().wrapping_add(1));
    }

    /// Takes the first of a priority out.
    #[inline]
    pub(crate) fn pop(&self, priority: u8) -> Option<E> {
        let e = self.fifo(priority).first.get()?;
        self.take_first(e, priority);
        Some(e)
    }

    /// Takes `e`, which is the first of the priority, out.
    #[inline]
    pub(crate) fn take_first(&self, e: E, priority: u8) {
        let fifo = self.fifo(priority);
        let next = links(&e).next.get();
        fifo.first.set(next);
        match next {
            Some(next) => links(&next).prev.set(None),
            None => {
                fifo.last.set(None);
                self.unmark(priority);
            }
        }
        let count = self.count(priority);
        count.set(count.get().wrapping_sub(1));
    }

    /// Takes `first`, which is the first of the priority, out and puts `e` behind all others.
    #[inline]
    pub(crate) fn rotate(&self, first: E, e: E, priority: u8) {
        let fifo = self.fifo(priority);
        let last = fifo.last.get();
        let next = links(&first).next.get();
        links(&e).next.set(None);
        fifo.last.set(Some(e));
        let Some(next) = next else {
            fifo.first.set(Some(e));
            links(&e).prev.set(None);
            return;
        };
        fifo.first.set(Some(next));
        links(&next).prev.set(None);
        links(&e).prev.set(last);
        if let Some(last) = last {
            links(&last).next.set(Some(e));
        }
    }

    /// Takes `e`, which is in the queue of `priority`, out.
    pub(crate) fn unlink(&self, e: E, priority: u8) {
        let fifo = self.fifo(priority);
        let (prev, next) = (links(&e).prev.get(), links(&e).next.get());
        match prev {
            Some(prev) => links(&prev).next.set(next),
            None => fifo.first.set(next),
        }
        match next {
            Some(next) => links(&next).prev.set(prev),
            None => fifo.last.set(prev),
        }
        if fifo.first.get().is_none() {
            self.unmark(priority);
        }
        let count = self.count(priority);
        count.set(count.get().wrapping_sub(1));
    }

    /// Appends the whole queue of `from` to that of `to`, which lies in the same word of the bitmap.
    pub(crate) fn splice(&self, from: u8, to: u8) {
        let (source, target) = (self.fifo(from), self.fifo(to));
        let (Some(first), last) = (source.first.take(), source.last.take()) else { return };
        match target.last.get() {
            Some(end) => {
                links(&end).next.set(Some(first));
                links(&first).prev.set(Some(end));
            }
            None => target.first.set(Some(first)),
        }
        target.last.set(last);
        self.unmark(from);
        self.mark(to);
    }
}
