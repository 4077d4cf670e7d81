//! Unmapping: entries are emptied, tables that become empty are taken out, frames become stale.

use super::entry::{ENTRIES, Entry, Level, size, span};
use super::memory::{Memory, Pool};
use super::pending::Halt;
use super::walk::{Act, Leaves, Stop, Visit, in_block};
use super::{Cx, Progress, Space, SpaceError};
use crate::id::{FrameId, Order};
use crate::virt::{PageId, PageRange, PageSize};
use percpu::sync::atomic::{AtomicU64, Ordering};

/// Empties entries.
pub(super) struct Unmap<'s, M> {
    space: &'s Space<M>,
}

impl<'s, M: Memory> Unmap<'s, M> {
    pub(super) const fn new(space: &'s Space<M>) -> Self {
        Self { space }
    }
}

/// What a leaf counts in a step that is of no run of equals: some 25 instructions.
const LEAF: usize = 8;
/// What a page counts whose frame goes back by itself: up to 180 instructions, so a step has about a hundred.
const OWNED: usize = 40;

/// What is taken out of one table of level 1.
struct Taken {
    /// The record of the entries that are counted at present.
    record: usize,
    /// Entries that were not empty, and how many of them are noted with their records.
    count: usize,
    noted: usize,
    /// What the step has left.
    steps: usize,
    /// Whether one of them was present.
    present: bool,
    /// Frames of the table's reservation.
    freed: [u64; ENTRIES / 64],
}

/// Empties the leaves of a record at the start that are somebody else's; returns how many. Only their number has to be kept.
#[inline(always)]
fn take_lent(entries: &[AtomicU64], record: usize) -> usize {
    for (run, place) in entries.iter().enumerate() {
        // ORDER: Relaxed, both: as in `take_leaves`.
        if !Entry::from_raw(place.load(Ordering::Relaxed)).is_lent_by(record) {
            return run;
        }
        // ORDER: Relaxed; as above.
        place.store(0, Ordering::Relaxed);
    }
    entries.len()
}

/// Empties the leaves at the start that are this claim; returns how many.
fn take_claims(entries: &[AtomicU64], claim: Entry) -> usize {
    for (run, place) in entries.iter().enumerate() {
        // ORDER: Relaxed, both: as in `take_leaves`.
        if place.load(Ordering::Relaxed) != claim.raw() {
            return run;
        }
        // ORDER: Relaxed; as above.
        place.store(0, Ordering::Relaxed);
    }
    entries.len()
}

impl<M: Memory> Space<M> {
    /// Takes everything out of a range; where nothing is mapped, nothing happens. One step: what is left begins at [`Progress::More`].
    ///
    /// # Errors
    /// [`SpaceError::Shortage`], when a region has to be cut and there is no frame for a table.
    #[inline(always)]
    pub fn unmap<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
    ) -> Result<Progress<PageId>, SpaceError> {
        if range.len() == 1 && self.unmap_one(cx, range.start()) {
            return Ok(Progress::Done(()));
        }
        self.unmap_many(cx, range)
    }

    #[inline(never)]
    fn unmap_many<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
    ) -> Result<Progress<PageId>, SpaceError> {
        self.prepare(cx, range)?;
        let result = self.walk(cx, range, &mut Unmap::new(self));
        self.checked(cx, range, result)
    }

    /// A range inside one block may fail between two levels of tables: then the upper one goes again.
    #[inline(always)]
    pub(super) fn checked<P: Pool, T>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
        result: Result<T, SpaceError>,
    ) -> Result<T, SpaceError> {
        if result.is_err() {
            self.join(cx, range.start());
        }
        result
    }

    /// Cuts the regions at both ends of a range, so that what follows cannot fail half way. A range inside one 2 MiB block needs no
    /// preparation: there is one path of tables, and it is complete before anything is changed.
    #[inline(always)]
    pub(super) fn prepare<P: Pool>(&self, cx: &mut Cx<'_, P>, range: PageRange) -> Result<(), SpaceError> {
        let (first, last) = (range.start().number(), range.end().number() - 1);
        if first / ENTRIES == last / ENTRIES { Ok(()) } else { self.prepare_ends(cx, range) }
    }

    fn prepare_ends<P: Pool>(&self, cx: &mut Cx<'_, P>, range: PageRange) -> Result<(), SpaceError> {
        self.cut(cx, range.start())?;
        let result = self.cut(cx, range.end());
        if result.is_err() {
            self.join(cx, range.start());
        }
        result
    }

    /// Gives back the frames of a table's reservation that it does not show and has not just stopped to show, and makes those that it
    /// does the pages' own.
    #[cold]
    pub(super) fn break_reservation<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        leaves: &mut Leaves<M>,
        block: FrameId,
        freed: &[u64; ENTRIES / 64],
    ) {
        let mut keep = *freed;
        for index in 0..ENTRIES {
            let entry = leaves.table.get(index);
            if entry.is_owned() && entry.frame() == in_block(block, index) {
                keep[index / 64] |= 1 << (index % 64);
            }
        }
        cx.pool.split_keeping(block, &keep);
        for (word, bits) in freed.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let frame = in_block(block, word * 64 + bits.trailing_zeros() as usize);
                cx.pending.stale(self.memory.info(frame), frame, Order::FRAME);
                bits &= bits - 1;
            }
        }
        let kept: usize = keep.iter().map(|word| word.count_ones() as usize).sum();
        self.refund(cx.pool, ENTRIES - kept);
        leaves.word = leaves.word.without_reservation();
    }

    /// As far as the record of an entry goes: notes that it has pages less.
    fn note<P: Pool>(cx: &mut Cx<'_, P>, record: usize, pages: usize) {
        if record != 0 && pages != 0 {
            let noted = cx.pending.subtract(record, pages);
            debug_assert!(noted, "room was looked for before");
        }
    }

    /// Takes out one table's entries. Returns the index where it had to stop.
    #[inline(always)]
    fn take_leaves<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        leaves: &Leaves<M>,
        taken: &mut Taken,
    ) -> Result<(), usize> {
        let reservation = leaves.word.reservation();
        let entries = leaves.entries();
        let mut index = 0;
        while let Some(place) = entries.get(index) {
            // ORDER: Relaxed: entries of this table change under the unit's lock, which we have.
            let old = Entry::from_raw(place.load(Ordering::Relaxed));
            if old.is_lent_by(taken.record) {
                let run = take_lent(entries.get(index..).unwrap_or_default(), taken.record);
                taken.count += run;
                taken.present = true;
                index += run;
                continue;
            }
            if old.is_empty() {
                index += 1;
                continue;
            }
            if old == Entry::claim(taken.record) {
                let run = take_claims(entries.get(index..).unwrap_or_default(), old);
                taken.count += run;
                index += run;
                continue;
            }
            if old.record() != taken.record {
                Self::note(cx, taken.record, taken.count - taken.noted);
                taken.noted = taken.count;
                if !cx.pending.has_room(old.record()) {
                    return Err(index);
                }
                taken.record = old.record();
                continue;
            }
            let cost = if old.is_owned() { OWNED } else { LEAF };
            if reservation.is_none() {
                if taken.steps < cost {
                    return Err(index);
                }
                taken.steps -= cost;
            }
            if old.is_owned() && !self.disown(cx, old, (leaves.from + index, reservation), taken) {
                return Err(index);
            }
            // ORDER: Relaxed: other cores' walks may still see the old entry; the shootdown deals with that.
            place.store(0, Ordering::Relaxed);
            taken.count += 1;
            taken.present |= old.is_present();
            index += 1;
        }
        Ok(())
    }

    /// An owned page goes. `false` if there is no room to note that.
    #[inline(always)]
    fn disown<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        old: Entry,
        (index, reservation): (usize, Option<FrameId>),
        taken: &mut Taken,
    ) -> bool {
        let frame = old.frame();
        if old.is_copy() {
            return cx.pending.unshare(frame);
        }
        if reservation.is_some() {
            taken.freed[index / 64] |= 1 << (index % 64);
            return true;
        }
        cx.pending.stale(self.memory.info(frame), frame, Order::FRAME);
        true
    }
}

impl<M: Memory, P: Pool> Visit<M, P> for Unmap<'_, M> {
    const CREATES: bool = false;
    // Some ten instructions in a run of equals; others count more (`LEAF`, `OWNED`).
    const COST: usize = 2;

    fn block(&mut self, cx: &mut Cx<'_, P>, page: PageId, level: Level, old: Entry) -> Result<Act, Stop> {
        if old.is_empty() {
            return Ok(Act::Keep);
        }
        if !cx.pending.has_room(old.record()) {
            return Err(Halt::Pause(page));
        }
        if old.is_present() {
            if old.is_owned() {
                let frame = old.frame();
                cx.pending.stale(self.space.memory.info(frame), frame, Order::HUGE);
            }
            cx.pending.invalidate(page, span(level), size(level));
        }
        Space::<M>::note(cx, old.record(), span(level));
        Ok(Act::Set(Entry::EMPTY))
    }

    #[inline(always)]
    fn leaves(&mut self, cx: &mut Cx<'_, P>, leaves: &mut Leaves<M>) -> Result<(), Stop> {
        // One with all its pages is most of a step: it is not left in the middle, and goes back as a block.
        if leaves.word.reservation().is_some() && cx.steps < super::STEP / 4 * 3 {
            return Err(Halt::Pause(leaves.page));
        }
        let mut taken = Taken {
            record: 0,
            count: 0,
            noted: 0,
            steps: cx.steps,
            present: false,
            freed: [0; ENTRIES / 64],
        };
        let result = self.space.take_leaves(cx, leaves, &mut taken);
        Space::<M>::note(cx, taken.record, taken.count - taken.noted);
        leaves.word = leaves.word.add(-(taken.count as isize));
        cx.steps = taken.steps;
        if taken.present {
            cx.pending.invalidate(leaves.page, leaves.len(), PageSize::Small);
        }
        if let Some(block) = leaves.word.reservation()
            && taken.count != 0
        {
            cx.steps = 0;
            if leaves.word.count() == 0 {
                cx.pending.stale(self.space.memory.info(block), block, Order::HUGE);
                leaves.word = leaves.word.without_reservation();
            } else {
                self.space.break_reservation(cx, leaves, block, &taken.freed);
            }
        }
        result.map_err(|index| Halt::Pause(PageId::new(leaves.page.number() + index)))
    }
}
