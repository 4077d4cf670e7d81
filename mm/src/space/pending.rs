//! What an operation on a space leaves to be done once its locks are left: invalidations, and what may be given back after them.
//!
//! * A3: a frame that was unmapped is in a list of stale frames, or counts the reference, until every core has invalidated its translation.
//! * A4: a frame that is shared until written is given back with its last reference.

use super::info::{FrameInfo, Way};
use super::memory::{Memory, Pool};
use super::{Progress, Space};
use crate::id::{FrameId, Order};
use crate::tlb::Batch;
use crate::virt::{PageId, PageRange, PageSize};

/// References to shared frames that one step can drop.
pub(super) const COUNTED: usize = 24;
/// Records of which one step can take pages.
const RECORDS: usize = 4;

/// See the module comment. An operation adds to it; [`Space::settle`] does the rest, after the shootdown.
#[derive(Debug)]
#[must_use = "what was unmapped is lost unless it is settled"]
pub struct Pending {
    batch: Batch,
    /// The newest of the stale frames; the rest is in their words.
    stale: Option<FrameId>,
    counted: [FrameId; COUNTED],
    counted_len: usize,
    records: [(usize, u64); RECORDS],
    records_len: usize,
}

impl Pending {
    /// Nothing to be done.
    pub const fn new() -> Self {
        Self {
            batch: Batch::new(),
            stale: None,
            counted: [FrameId::new(0); COUNTED],
            counted_len: 0,
            records: [(0, 0); RECORDS],
            records_len: 0,
        }
    }

    /// What other cores must invalidate before [`Space::settle`].
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Whether there is nothing to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.stale.is_none() && self.counted_len == 0 && self.records_len == 0
    }

    /// Translations of these pages may be cached.
    #[inline]
    pub(super) fn invalidate(&mut self, first: PageId, pages: usize, size: PageSize) {
        if let Some(range) = PageRange::new(first, pages) {
            self.batch.add(range, size);
        }
    }

    /// An unmapped block, whose translations are among those to be invalidated.
    #[inline]
    pub(super) fn stale(&mut self, info: &FrameInfo, frame: FrameId, order: Order) {
        info.set_stale(self.stale, order, Way::Now);
        self.stale = Some(frame);
    }

    /// A table of level 1 that has been taken out; `page` is one of those it mapped.
    pub(super) fn table(&mut self, info: &FrameInfo, frame: FrameId, page: PageId) {
        self.stale(info, frame, Order::FRAME);
        self.invalidate(page, 1, PageSize::Small);
        self.batch.tables_freed();
    }

    /// A table of a higher level, which other cores may be looking at (A2).
    pub(super) fn directory(&mut self, info: &FrameInfo, frame: FrameId, page: PageId) {
        info.set_stale(self.stale, Order::FRAME, Way::Later);
        self.stale = Some(frame);
        self.invalidate(page, 1, PageSize::Small);
        self.batch.tables_freed();
    }

    /// A reference to a frame that is shared until written; `false` if there is no room, and the step must end.
    #[must_use]
    #[inline]
    pub(super) fn unshare(&mut self, frame: FrameId) -> bool {
        let Some(place) = self.counted.get_mut(self.counted_len) else { return false };
        *place = frame;
        self.counted_len += 1;
        true
    }

    /// Pages that a record no longer has.
    #[must_use]
    #[inline]
    pub(super) fn subtract(&mut self, record: usize, pages: usize) -> bool {
        let known = &mut self.records[..self.records_len];
        if let Some((_, count)) = known.iter_mut().find(|(number, _)| *number == record) {
            *count += pages as u64;
            return true;
        }
        let Some(place) = self.records.get_mut(self.records_len) else { return false };
        *place = (record, pages as u64);
        self.records_len += 1;
        true
    }

    /// Whether another reference and another record find room.
    #[inline]
    pub(super) fn has_room(&self, record: usize) -> bool {
        let known = record == 0
            || self.records_len < RECORDS
            || self.records[..self.records_len].iter().any(|&(number, _)| number == record);
        known && self.counted_len < COUNTED
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Memory> Space<M> {
    /// Gives back what operations have unmapped.
    ///
    /// Every core that may have cached a translation of [`Pending::batch`] has invalidated it (A3).
    #[inline]
    pub fn settle<P: Pool>(&self, pool: &mut P, pending: Pending) {
        let mut at = pending.stale;
        while let Some(frame) = at {
            let (next, order, way) = self.memory.info(frame).stale();
            match way {
                Way::Now => pool.give(frame, order),
                Way::Later => pool.retire(frame),
            }
            at = next;
        }
        for &frame in &pending.counted[..pending.counted_len] {
            if self.memory.info(frame).unshare() {
                pool.give(frame, Order::FRAME);
            }
        }
        for &(record, pages) in &pending.records[..pending.records_len] {
            self.records.subtract(pool, record, pages);
        }
    }
}

/// Both ways an operation can end early.
#[derive(Debug)]
pub(super) enum Halt<E> {
    /// It went wrong.
    Error(E),
    /// The step is full; what is left begins here.
    Pause(PageId),
}

impl<E> Halt<E> {
    pub(super) fn progress(result: Result<(), Self>) -> Result<Progress<PageId>, E> {
        match result {
            Ok(()) => Ok(Progress::Done(())),
            Err(Self::Pause(at)) => Ok(Progress::More(at)),
            Err(Self::Error(error)) => Err(error),
        }
    }
}
