//! One page at a time, the way most changes come: the same changes as the walk's, without its loops.
//!
//! Each function does the common case and says so, or leaves everything as it was to the walk.

use super::entry::{Bits, Entry};
use super::info::Word;
use super::memory::{Memory, Pool};
use super::table::{Locked, Table};
use super::walk::index;
use super::{Cx, Space};
use crate::id::FrameId;
use crate::virt::{PageId, PageSize};

/// The place of one page: its unit's lock, its table, the index there.
struct Place<M: Memory> {
    /// Held for its lock.
    _unit: Locked<M>,
    table: Table<M>,
    index: usize,
    word: Word,
}

impl<M: Memory> Space<M> {
    #[inline(always)]
    fn locate(&self, page: PageId) -> Option<Place<M>> {
        let unit = self.find_table(page)?;
        let entry = unit.table.get(index(page, 2));
        if !entry.is_table() {
            return None;
        }
        let table = self.below(entry);
        Some(Place { _unit: unit, table, index: index(page, 1), word: table.info().table() })
    }

    /// The frame that shows a page of 4 KiB which is there. It stays so only if the caller keeps everybody from unmapping or writing the page.
    #[must_use]
    #[inline]
    pub fn frame_of(&self, page: PageId) -> Option<FrameId> {
        let place = self.locate(page)?;
        let entry = place.table.get(place.index);
        entry.is_present().then(|| entry.frame())
    }

    /// Changes the protection of a page that is there and not shared until written.
    #[inline(always)]
    pub(super) fn protect_one<P: Pool>(&self, cx: &mut Cx<'_, P>, page: PageId, bits: Bits) -> bool {
        let Some(place) = self.locate(page) else { return false };
        let old = place.table.get(place.index);
        if !old.is_plain() {
            return false;
        }
        let new = old.protect_plain(bits);
        place.table.set(place.index, new);
        if bits.narrow(old.raw() ^ new.raw()) {
            cx.pending.invalidate(page, 1, PageSize::Small);
        }
        true
    }

    /// Takes out a page that is there, not shared until written and not of a reservation, if others stay in its table.
    #[inline(always)]
    pub(super) fn unmap_one<P: Pool>(&self, cx: &mut Cx<'_, P>, page: PageId) -> bool {
        let Some(place) = self.locate(page) else { return false };
        let old = place.table.get(place.index);
        let usual = old.is_plain() && place.word.count() > 1 && place.word.reservation().is_none();
        if !usual || old.record() != 0 && !cx.pending.subtract(old.record(), 1) {
            return false;
        }
        place.table.set(place.index, Entry::EMPTY);
        place.table.info().set_table(place.word.add(-1));
        cx.pending.invalidate(page, 1, PageSize::Small);
        if old.is_owned() {
            let frame = old.frame();
            cx.pending.stale_page(self.memory.info(frame), frame);
        }
        true
    }

    /// Enters a page where nothing is, in a table that is there.
    #[inline(always)]
    pub(super) fn map_one(&self, page: PageId, entry: Entry) -> bool {
        let Some(place) = self.locate(page) else { return false };
        if !place.table.get(place.index).is_empty() {
            return false;
        }
        place.table.set(place.index, entry);
        place.table.info().set_table(place.word.add(1));
        true
    }
}
