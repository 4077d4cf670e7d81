//! Page tables and their locks.
//!
//! * A1: the entries of a table of level 2 and of every table below it are changed under its lock; those of a table of level 3 or 4 under
//!   their own. A core takes such locks upwards, 2 before 3 before 4, and waits for no other core while it has one.
//! * A2: tables of level 2 and above are reached without a lock. One that is taken out is no table any more by its word before its lock is
//!   left, and its frame is not used again before every core has left the kernel.
//!
//! So a change of a page takes one lock, that of the *unit* of 1 GiB it lies in, whose line nobody else needs.

use super::entry::{ENTRIES, Entry};
use super::info::{FrameInfo, Word};
use super::memory::Memory;
use crate::id::FrameId;
use percpu::sync::atomic::{AtomicU64, Ordering};

/// A page table. Levels are the caller's knowledge.
#[derive(Clone, Copy)]
pub(crate) struct Table<M> {
    pub(crate) frame: FrameId,
    memory: M,
}

impl<M: Memory> Table<M> {
    /// The table in a frame.
    ///
    /// # Safety
    /// 1. The frame holds a page table, and does so as long as the value is used (A1, A2).
    #[inline(always)]
    pub(crate) const unsafe fn new(frame: FrameId, memory: M) -> Self {
        Self { frame, memory }
    }

    #[inline(always)]
    pub(crate) fn entries(&self) -> &[AtomicU64; ENTRIES] {
        // SAFETY: the frame is a table (obligation 1 of `new`), which is nothing but 512 aligned words that are accessed atomically.
        unsafe { self.memory.at(self.frame).cast().as_ref() }
    }

    #[inline(always)]
    pub(crate) fn info(&self) -> &'static FrameInfo {
        self.memory.info(self.frame)
    }

    /// The entry at an index, which is cut to the table.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> Entry {
        // ORDER: Acquire pairs with Release in `set`: what an entry leads to is complete.
        Entry::from_raw(self.entries()[index % ENTRIES].load(Ordering::Acquire))
    }

    /// Changes an entry.
    #[inline(always)]
    pub(crate) fn set(&self, index: usize, entry: Entry) {
        // ORDER: Release pairs with Acquire in `get`, and with the walks of other cores' CPUs: a table or a page is complete before it is
        // led to.
        self.entries()[index % ENTRIES].store(entry.raw(), Ordering::Release);
    }

    /// Fills the table with what `old`, an entry of the level above, says; returns how many entries are in use.
    pub(crate) fn fill(&self, old: Entry, level: u32) -> usize {
        if !old.is_present() {
            // All the same. Plain stores: nobody is led to the table yet; `set` of the entry that leads to it publishes.
            self.memory.fill(self.frame, old.raw());
            return if old.is_empty() { 0 } else { ENTRIES };
        }
        for (index, place) in self.entries().iter().enumerate() {
            // ORDER: Relaxed: nobody is led to the table yet; `set` of the entry that leads to it publishes.
            place.store(old.child(level, index).raw(), Ordering::Relaxed);
        }
        ENTRIES
    }

    /// Takes the table's lock; nothing if it has been taken out.
    #[inline(always)]
    pub(crate) fn lock(self) -> Option<Locked<M>> {
        let word = self.info().lock()?;
        Some(Locked { table: self, word })
    }
}

/// A locked table; dropping it leaves the lock.
pub(crate) struct Locked<M: Memory> {
    pub(crate) table: Table<M>,
    /// The table's word, written back when the lock is left.
    pub(crate) word: Word,
}

impl<M: Memory> Locked<M> {
    /// A table that has just been made, and is locked before anybody is led to it.
    pub(crate) fn fresh(table: Table<M>, count: usize) -> Self {
        let word = Word::locked(count);
        table.info().set_table(word);
        Self { table, word }
    }

    /// Changes an entry and keeps count.
    #[inline(always)]
    pub(crate) fn set(&mut self, index: usize, old: Entry, new: Entry) {
        self.word = self.word.add(isize::from(old.is_empty()) - isize::from(new.is_empty()));
        self.table.set(index, new);
    }

    /// Leaves the lock of a table that has been taken out: `bury` has changed its word for good (A2).
    pub(crate) fn bury(self, bury: impl FnOnce(FrameId)) {
        bury(self.table.frame);
        core::mem::forget(self);
    }
}

impl<M: Memory> Drop for Locked<M> {
    #[inline(always)]
    fn drop(&mut self) {
        self.table.info().unlock(self.word);
    }
}
