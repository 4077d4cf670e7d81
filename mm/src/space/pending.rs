//! What an operation on a space leaves to be done once its locks are left: invalidations, and what may be given back after them.
//!
//! * A3: a frame that was unmapped is in a list of stale frames, or counts the reference, until every core has invalidated its translation.
//! * A4: a frame that is shared until written is given back with its last reference.

use super::entry::ENTRIES;
use super::info::{FrameInfo, Way};
use super::memory::{Memory, Pool};
use super::{Progress, Space};
use crate::id::{FrameId, Order};
use crate::tlb::Batch;
use crate::virt::{PageId, PageSize};
use core::mem::MaybeUninit;

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
    /// One more, of 4 KiB, which spares the common single one its word.
    spare: Option<FrameId>,
    /// Frames that are the space's own no longer, for which its purse has not been told (A8).
    disowned: usize,
    counted: Few<FrameId, COUNTED>,
    records: Few<(usize, u64), RECORDS>,
}

/// Up to `N` values. Making it touches one word: most operations leave it empty.
struct Few<T, const N: usize> {
    len: usize,
    items: [MaybeUninit<T>; N],
}

impl<T: Copy, const N: usize> Few<T, N> {
    const fn new() -> Self {
        Self { len: 0, items: [const { MaybeUninit::uninit() }; N] }
    }

    /// Adds a value; `false` if there is no room.
    #[inline]
    fn push(&mut self, item: T) -> bool {
        let Some(place) = self.items.get_mut(self.len) else { return false };
        place.write(item);
        self.len += 1;
        true
    }

    /// The values, taken out.
    #[inline(always)]
    fn drain(&mut self) -> &mut [T] {
        let used = core::mem::take(&mut self.len);
        let used = self.items.get_mut(..used).unwrap_or_default();
        // SAFETY: `push` has written the first items, as many as there were.
        unsafe { used.assume_init_mut() }
    }

    #[inline(always)]
    fn all(&mut self) -> &mut [T] {
        let used = self.items.get_mut(..self.len).unwrap_or_default();
        // SAFETY: `push` has written the first `len` items.
        unsafe { used.assume_init_mut() }
    }
}

impl<T, const N: usize> core::fmt::Debug for Few<T, N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} of {N}", self.len)
    }
}

impl Pending {
    /// Nothing to be done.
    #[inline(always)]
    pub const fn new() -> Self {
        Self {
            batch: Batch::new(),
            stale: None,
            spare: None,
            disowned: 0,
            counted: Few::new(),
            records: Few::new(),
        }
    }

    /// What other cores must invalidate before [`Space::settle`].
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Whether there is nothing to be done.
    #[must_use]
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.has_nothing()
    }

    /// Whether there is nothing to give back.
    #[inline(always)]
    fn has_nothing(&self) -> bool {
        self.stale.is_none() && self.spare.is_none() && self.counted.len + self.records.len == 0
    }

    /// An unmapped page, whose translation is among those to be invalidated.
    #[inline(always)]
    pub(super) fn stale_page(&mut self, info: &FrameInfo, frame: FrameId) {
        match self.spare {
            None => {
                self.spare = Some(frame);
                self.disowned += 1;
            }
            Some(_) => self.stale(info, frame, Order::FRAME),
        }
    }

    /// Translations of these pages may be cached.
    #[inline]
    pub(super) fn invalidate(&mut self, first: PageId, pages: usize, size: PageSize) {
        self.batch.add_pages(first, pages, size);
    }

    /// An unmapped block, whose translations are among those to be invalidated.
    #[inline]
    pub(super) fn stale(&mut self, info: &FrameInfo, frame: FrameId, order: Order) {
        info.set_stale(self.stale, order, Way::Now);
        self.stale = Some(frame);
        self.disowned += order.frames();
    }

    /// A table of level 1 that has been taken out; `page` is one of those it mapped.
    pub(super) fn table(&mut self, info: &FrameInfo, frame: FrameId, page: PageId) {
        self.stale(info, frame, Order::FRAME);
        self.invalidate(page, 1, PageSize::Small);
        self.batch.tables_freed();
    }

    /// A full table of level 1 that goes to another space; `page` is the first that it mapped.
    pub(super) fn table_leaves(&mut self, page: PageId) {
        self.invalidate(page, ENTRIES, PageSize::Small);
        self.batch.tables_freed();
    }

    /// A table of a higher level, which other cores may be looking at (A2).
    pub(super) fn directory(&mut self, info: &FrameInfo, frame: FrameId, page: PageId) {
        info.set_stale(self.stale, Order::FRAME, Way::Later);
        self.stale = Some(frame);
        self.disowned += 1;
        self.invalidate(page, 1, PageSize::Small);
        self.batch.tables_freed();
    }

    /// A reference to a frame that is shared until written; `false` if there is no room, and the step must end.
    #[must_use]
    #[inline]
    pub(super) fn unshare(&mut self, frame: FrameId) -> bool {
        let noted = self.counted.push(frame);
        // Others that own it have paid for it themselves.
        self.disowned += usize::from(noted);
        noted
    }

    /// Pages that a record no longer has.
    #[must_use]
    #[inline]
    pub(super) fn subtract(&mut self, record: usize, pages: usize) -> bool {
        if let Some((_, count)) = self.records.all().iter_mut().find(|(number, _)| *number == record) {
            *count += pages as u64;
            return true;
        }
        self.records.push((record, pages as u64))
    }

    /// Whether another reference and another record find room.
    #[inline]
    pub(super) fn has_room(&mut self, record: usize) -> bool {
        let known = record == 0
            || self.records.len < RECORDS
            || self.records.all().iter().any(|&(number, _)| number == record);
        known && self.counted.len < COUNTED
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Memory> Space<M> {
    /// Gives back what operations have unmapped; afterwards nothing is pending.
    ///
    /// Every core that may have cached a translation of [`Pending::batch`] has invalidated it (A3).
    #[inline(always)]
    pub fn settle<P: Pool>(&self, pool: &mut P, pending: &mut Pending) {
        if let Some(frame) = pending.spare.take() {
            pool.give(frame, Order::FRAME);
        }
        if !pending.has_nothing() {
            self.give_back(pool, pending);
        }
        match core::mem::take(&mut pending.disowned) {
            0 => {}
            frames => self.refund(pool, frames),
        }
        pending.batch.clear();
    }

    fn give_back<P: Pool>(&self, pool: &mut P, pending: &mut Pending) {
        let mut at = pending.stale.take();
        while let Some(frame) = at {
            let (next, order, way) = self.memory.info(frame).stale();
            match way {
                Way::Now => pool.give(frame, order),
                Way::Later => pool.retire(frame),
            }
            at = next;
        }
        for &mut frame in pending.counted.drain() {
            if self.memory.info(frame).unshare() {
                pool.give(frame, Order::FRAME);
            }
        }
        for &mut (record, pages) in pending.records.drain() {
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
    /// What a walk up to `end` came to: a step that ends there has left nothing.
    pub(super) fn progress(result: Result<(), Self>, end: PageId) -> Result<Progress<PageId>, E> {
        match result {
            Ok(()) => Ok(Progress::Done(())),
            Err(Self::Pause(at)) if at >= end => Ok(Progress::Done(())),
            Err(Self::Pause(at)) => Ok(Progress::More(at)),
            Err(Self::Error(error)) => Err(error),
        }
    }
}
