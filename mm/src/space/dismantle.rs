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
use crate::id::Order;
use percpu::sync::atomic::{AtomicU64, Ordering};

/// Entries of a cache line, which are looked at together.
const LINE: usize = 8;

/// One step at work.
struct Step<'s, M, P> {
    space: &'s Space<M>,
    pool: &'s mut P,
    /// Entries that may still be looked at. What has been begun while there were some is brought to an end.
    left: usize,
}

impl<M: Memory> Space<M> {
    /// Takes everything out: frames, tables and records go back, objects are detached. A step of about [`STEP`] entries, which needs no
    /// memory of those before: it is called until it says [`Progress::Done`]. Then the space is empty and can be closed; until then it is
    /// good for nothing else.
    ///
    /// # Safety
    /// 1. Nobody else uses the space from the first step on (A6); steps and [`Space::close`] follow each other.
    /// 2. Every core has forgotten its translations (X5), and none loads its root again (A6).
    pub unsafe fn dismantle<P: Pool>(&self, pool: &mut P) -> Progress<()> {
        let mut step = Step { space: self, pool, left: STEP };
        if step.directory(&self.top(), 4) && self.records.detach(step.pool, &mut step.left) {
            if let Some(second) = self.second() {
                (0..ENTRIES / 2).for_each(|index| second.set(index, Entry::EMPTY));
            }
            Progress::Done(())
        } else {
            Progress::More(())
        }
    }
}

#[inline(always)]
fn load(place: &AtomicU64) -> u64 {
    // ORDER: Relaxed: whoever wrote it is done with the space (A6), and whatever told us so has ordered that.
    place.load(Ordering::Relaxed)
}

/// What all entries of a line say together.
#[inline(always)]
fn union(line: &[AtomicU64]) -> Entry {
    Entry::from_raw(line.iter().fold(0, |all, place| all | load(place)))
}

impl<M: Memory, P: Pool> Step<'_, M, P> {
    /// Empties a table of a level above 1; `false` if the step ended before. Its frame stays.
    fn directory(&mut self, table: &Table<M>, level: Level) -> bool {
        let mut count = table.info().table().count();
        // The root's upper half is the kernel's.
        let lines = if level == 4 { ENTRIES / LINE / 2 } else { ENTRIES / LINE };
        for line in table.entries().chunks_exact(LINE).take(lines) {
            if count == 0 {
                break;
            }
            self.left = self.left.saturating_sub(LINE);
            if union(line).is_empty() {
                continue;
            }
            for place in line {
                let entry = Entry::from_raw(load(place));
                if entry.is_empty() {
                    continue;
                }
                if !self.entry(entry, level) {
                    table.info().set_table(Word::new(count));
                    return false;
                }
                // ORDER: Relaxed: as in `load`.
                place.store(0, Ordering::Relaxed);
                count -= 1;
            }
        }
        debug_assert!(count == 0, "A1: a table counts its entries");
        table.info().set_table(Word::new(0));
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
                self.pool.give(entry.frame(), Order::HUGE);
            }
            return true;
        }
        let table = self.space.below(entry);
        if level == 2 {
            self.leaves(&table);
        } else if !self.directory(&table, level - 1) {
            return false;
        }
        self.pool.give(table.frame, Order::FRAME);
        true
    }

    /// Gives back what a table of level 1 owns.
    #[inline(always)]
    fn leaves(&mut self, table: &Table<M>) {
        let word = table.info().table();
        if let Some(block) = word.reservation() {
            // Every frame that the table owns is of the block (A1), which is whole again.
            self.left = self.left.saturating_sub(LINE);
            return self.pool.give(block, Order::HUGE);
        }
        let mut count = word.count();
        for line in table.entries().chunks_exact(LINE) {
            if count == 0 {
                break;
            }
            self.left = self.left.saturating_sub(LINE);
            let union = union(line);
            if union.is_empty() {
                continue;
            }
            count -= line.iter().filter(|place| load(place) != 0).count();
            if union.may_own() {
                self.frames(line);
            }
        }
    }

    /// Gives back what a line of leaves owns.
    fn frames(&mut self, line: &[AtomicU64]) {
        for entry in line.iter().map(|place| Entry::from_raw(load(place))) {
            let last = || !entry.is_copy() || self.space.memory.info(entry.frame()).unshare();
            if entry.is_owned() && last() {
                self.pool.give(entry.frame(), Order::FRAME);
            }
        }
    }
}

const _: () = assert!(ENTRIES % LINE == 0);
