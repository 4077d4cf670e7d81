//! Taking a whole space down when nobody can look at it any more.
//!
//! * A6: from the first step of a dismantling on nobody else has the space: no core runs one of its methods, and every core has forgotten
//!   its translations (X5), those of its tables included.
//!
//! So no table is locked, nothing is invalidated, and a table that another core might have been looking at (A2) need not outlive a grace
//! period: it goes back at once. Others come near in two ways, neither through a table. The list of an object leads them to records, which
//! leave it under its lock before they are free (O2). Frames that are shared until written count their mappings (A4).
//!
//! Records are not counted down page by page as in `unmap`: with the space, all of them go. So an entry matters only if it owns a frame, and
//! most lines of a table are dealt with by the union of their entries.

use super::entry::{ENTRIES, Entry, Level};
use super::info::Word;
use super::memory::{Memory, Pool};
use super::table::Table;
use super::{Progress, STEP, Space};
use crate::id::{FrameId, Order};
use core::cell::Cell;
use core::slice::ChunksExact;

/// Entries of a cache line, which are looked at together; also what a block counts in a step.
const LINE: usize = 8;
/// What a frame that goes back counts in a step: some 100 instructions, where an entry that is only looked at has up to five.
const GIVEN: usize = 20;

/// One step at work.
struct Step<'s, M, P> {
    space: &'s Space<M>,
    pool: &'s mut P,
    /// Entries that may still be looked at. What has been begun while there were some is brought to an end.
    left: usize,
    /// Frames that the space does not own any more, for which its purse has not been told.
    refund: usize,
}

impl<M: Memory> Space<M> {
    /// Takes everything out: frames, tables and records go back, objects are detached. A step of about half [`STEP`] entries, or as much as
    /// giving a hundred frames back costs. It needs no memory of those before: it is called until it says [`Progress::Done`]. Then the space is
    /// empty and can be closed; until then it is good for nothing else.
    ///
    /// # Safety
    /// 1. Nobody else uses the space from the first step on (A6); steps and [`Space::close`] follow each other.
    /// 2. Every core has forgotten its translations (X5), and none loads its root again (A6).
    pub unsafe fn dismantle<P: Pool>(&self, pool: &mut P) -> Progress<()> {
        let mut step = Step { space: self, pool, left: STEP / 2, refund: 0 };
        let emptied = step.directory(&self.top(), 4);
        let Step { pool, mut left, refund, .. } = step;
        self.refund(pool, refund);
        if emptied && self.records.detach(pool, &mut left) {
            if let Some(second) = self.second() {
                (0..ENTRIES / 2).for_each(|index| second.set(index, Entry::EMPTY));
            }
            Progress::Done(())
        } else {
            Progress::More(())
        }
    }
}

/// Words of tables: only this core reads and writes them now.
type Words = [Cell<u64>];

/// What all entries of a line say together.
#[inline(always)]
fn union(line: &Words) -> Entry {
    Entry::from_raw(line.iter().fold(0, |all, word| all | word.get()))
}

/// Lines of a table up to the last of its `count` entries in use, those without any left out.
struct Lines<'t> {
    rest: ChunksExact<'t, Cell<u64>>,
    count: usize,
}

impl<'t> Lines<'t> {
    /// The next one, and what its entries say together. Whoever has looked at it says by [`Lines::used`] how many are in use.
    #[inline(always)]
    fn next(&mut self) -> Option<(&'t Words, Entry)> {
        if self.count == 0 {
            return None;
        }
        loop {
            let line = self.rest.next()?;
            let union = union(line);
            if !union.is_empty() {
                return Some((line, union));
            }
        }
    }

    /// So many entries have been dealt with.
    #[inline(always)]
    fn used(&mut self, entries: usize) {
        self.count -= entries;
    }

    /// Entries that were looked at, of so many.
    #[inline(always)]
    fn looked(&self, of: usize) -> usize {
        of - self.rest.len() * LINE
    }
}

impl<M: Memory, P: Pool> Step<'_, M, P> {
    /// The first words of a table, and how many of its entries are in use.
    #[inline(always)]
    fn lines(&self, table: &Table<M>, entries: usize) -> Lines<'static> {
        let at = self.space.memory.at(table.frame).cast::<[Cell<u64>; ENTRIES]>();
        // SAFETY: a frame's memory is there for ever, 512 aligned words, and nobody but this core has the table (A6).
        let words = unsafe { at.as_ref() };
        Lines { rest: words[..entries].chunks_exact(LINE), count: table.info().table().count() }
    }

    /// Empties a table of a level above 1; `false` if the step ended before. Its frame stays.
    fn directory(&mut self, table: &Table<M>, level: Level) -> bool {
        // The root's upper half is the kernel's.
        let entries = if level == 4 { ENTRIES / 2 } else { ENTRIES };
        let mut lines = self.lines(table, entries);
        while let Some((line, _)) = lines.next() {
            for word in line {
                let entry = Entry::from_raw(word.get());
                if entry.is_empty() {
                    continue;
                }
                if !self.entry(entry, level) {
                    table.info().set_table(Word::new(lines.count));
                    return false;
                }
                word.set(0);
                lines.used(1);
            }
        }
        debug_assert!(lines.count == 0, "A1: a table counts its entries");
        table.info().set_table(Word::new(0));
        self.left = self.left.saturating_sub(lines.looked(entries));
        true
    }

    /// Takes what an entry of a table of a level above 1 leads to; `false` if the step ended before.
    #[inline(always)]
    fn entry(&mut self, entry: Entry, level: Level) -> bool {
        if self.left == 0 {
            return false;
        }
        if !entry.is_table() {
            if entry.is_owned() {
                debug_assert!(
                    level == 2 && !entry.is_copy(),
                    "a space owns blocks of 2 MiB, and shares none"
                );
                self.give(entry.frame(), Order::HUGE);
            }
            self.left = self.left.saturating_sub(LINE);
            return true;
        }
        let table = self.space.below(entry);
        let emptied = if level == 2 { self.leaves(&table) } else { self.directory(&table, level - 1) };
        if !emptied {
            return false;
        }
        self.give(table.frame, Order::FRAME);
        true
    }

    #[inline(always)]
    fn give(&mut self, frame: FrameId, order: Order) {
        self.pool.give(frame, order);
        self.refund += order.frames();
    }

    /// Gives back what a table of level 1 owns; `false` if the step ended before.
    #[inline(always)]
    fn leaves(&mut self, table: &Table<M>) -> bool {
        if let Some(block) = table.info().table().reservation() {
            // Every frame that the table owns is of the block (A1), which is whole again.
            self.left = self.left.saturating_sub(LINE);
            self.give(block, Order::HUGE);
            return true;
        }
        let mut lines = self.lines(table, ENTRIES);
        while let Some((line, union)) = lines.next() {
            if union.may_own() {
                if self.left == 0 {
                    self.interrupt(table, &lines);
                    return false;
                }
                self.frames(line);
            }
            lines.used(line.iter().filter(|word| word.get() != 0).count());
        }
        self.left = self.left.saturating_sub(lines.looked(ENTRIES));
        true
    }

    /// A step ends inside a table of level 1, before the line that was shown last: those before it are empty now.
    #[cold]
    fn interrupt(&self, table: &Table<M>, lines: &Lines<'_>) {
        let done = lines.looked(ENTRIES) - LINE;
        let words = self.lines(table, done).rest;
        words.flatten().for_each(|word| word.set(0));
        table.info().set_table(Word::new(lines.count));
    }

    /// Gives back what a line of leaves owns.
    fn frames(&mut self, line: &Words) {
        let before = self.refund;
        for entry in line.iter().map(|word| Entry::from_raw(word.get())) {
            if !entry.is_owned() {
                continue;
            }
            if !entry.is_copy() || self.space.memory.info(entry.frame()).unshare() {
                self.pool.give(entry.frame(), Order::FRAME);
            }
            self.refund += 1;
        }
        self.left = self.left.saturating_sub((self.refund - before) * GIVEN);
    }
}

const _: () = assert!(ENTRIES.is_multiple_of(2 * LINE));
