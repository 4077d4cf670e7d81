//! What is shared belongs to an object: pages of a space alone are taken over by one before another space shows them.
//!
//! The object has a page for each of the range that is shared, and no handle: it lives as long as one of the spaces shows it. For the space
//! that had the pages nothing changes but who gives the frames back.

use super::entry::{ENTRIES, Entry, Hold};
use super::load::{COPY, LEAVES, Load, Short};
use super::memory::{Frames, Memory, Pool, Shortage};
use super::object::Object;
use super::record::{Record, Records, Terms};
use super::walk::{Leaves, in_block, index};
use super::{Cx, Kind, Space, SpaceError};
use crate::frames::Policy;
use crate::id::{FrameId, Order};
use crate::virt::{PageId, PageSize};

/// An object that takes pages over, and the record by which the space that had them shows it. One page of that is held.
#[derive(Debug)]
pub(super) struct Lent<M> {
    object: Object<M>,
    record: usize,
    /// The page that the object's first stands for.
    base: PageId,
}

impl<M: Memory> Lent<M> {
    /// Lets go of both.
    pub(super) fn release<P: Pool>(self, records: &Records<M>, pool: &mut P) {
        records.subtract(pool, self.record, 1);
        self.object.let_go(pool);
    }

    pub(super) const fn record(&self) -> usize {
        self.record
    }

    fn offset(&self, page: PageId) -> usize {
        page.number() - self.base.number()
    }
}

impl<M: Memory> Space<M> {
    /// The record of a page's entry, if a table of leaves has one; a guess, for it may change at once.
    pub(super) fn record_at(&self, page: PageId) -> usize {
        let Some(unit) = self.find_table(page) else { return 0 };
        let entry = unit.table.get(index(page, 2));
        let entry = if entry.is_table() { self.below(entry).get(index(page, 1)) } else { entry };
        entry.record()
    }

    /// Has the load lend `pages` pages from `page` on: by the object of the page before, if that was made for these as well.
    pub(super) fn lend<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        load: &mut Load<M>,
        page: PageId,
        pages: usize,
    ) -> Result<(), SpaceError> {
        let lent = match self.lent_before(cx.pool, page, pages) {
            Some(lent) => lent,
            None => {
                let object = Object::lending(self.purse.payer(), self.memory, cx.pool, pages)?;
                let terms = Terms {
                    kind: Kind::Shared,
                    policy: Policy::Local,
                    base: page,
                    offset: 0,
                    object: Some(object.frame()),
                };
                match self.records.add((&self.purse, cx.pool), &terms, self.tlb.id().raw(), 1) {
                    Ok(record) => Lent { object, record, base: page },
                    Err(error) => {
                        object.release(cx.pool);
                        return Err(error);
                    }
                }
            }
        };
        load.lent = Some(lent);
        Ok(())
    }

    /// What a pass that was interrupted had begun to lend.
    fn lent_before<P: Pool>(&self, pool: &mut P, page: PageId, pages: usize) -> Option<Lent<M>> {
        let number = self.record_at(PageId::new(page.number().checked_sub(1)?));
        let record = self.records.get(number)?;
        if !record.extend(1) {
            return None;
        }
        let goes_on =
            |object: &Object<M>| object.is_lending() && object.pages() == record.offset_of(page) + pages;
        let terms = record.terms();
        if record.kind() == Kind::Shared && terms.offset == 0 {
            let object = super::record::with_object(self.memory, record, |object| {
                goes_on(object).then(|| object.share())
            });
            if let Some(object) = object.flatten() {
                return Some(Lent { object, record: number, base: terms.base });
            }
        }
        self.records.subtract(pool, number, 1);
        None
    }

    /// A block as both show it from now on; nothing if it has to be dealt with page by page.
    pub(super) fn lend_block<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        load: &Load<M>,
        page: PageId,
        old: Entry,
    ) -> Result<Option<Entry>, Short> {
        let kind = old.lazy_kind();
        if !old.is_owned() && (old.is_present() || matches!(kind, Some(Kind::Shared | Kind::Guard))) {
            return Ok(Some(old));
        }
        if !old.is_present() && kind != Some(Kind::Anonymous) {
            return Ok(None);
        }
        if !load.has_lent_room() || !cx.pending.has_room(old.record()) {
            return Err(Short::Full);
        }
        let lent = load.lent.as_ref().ok_or(Short::Lend)?;
        let Some(record) = self.records.get(lent.record) else { return Err(Short::Lend) };
        if !self.exchange(cx, (record, lent.record), old.record(), ENTRIES) {
            return Err(Short::Full);
        }
        if !old.is_present() {
            let bits = self.format.bits(old.protection());
            return Ok(Some(Entry::lazy(Kind::Shared, bits, lent.record)));
        }
        if let Err(shortage) = self.take_over(cx.pool, lent, page, old.frame()) {
            self.records.subtract(cx.pool, lent.record, ENTRIES as u64);
            return Err(SpaceError::from(shortage).into());
        }
        Ok(Some(old.lent(lent.record)))
    }

    /// Counts pages of one record as another's; `false`, with nothing changed, if that of the first cannot be noted.
    fn exchange<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        (record, number): (&Record, usize),
        old: usize,
        pages: usize,
    ) -> bool {
        if !record.extend(pages as u64) {
            return false;
        }
        if old != 0 && !cx.pending.subtract(old, pages) {
            self.records.subtract(cx.pool, number, pages as u64);
            return false;
        }
        true
    }

    /// A block's frames become the object's, one by one.
    fn take_over<P: Pool>(
        &self,
        pool: &mut P,
        lent: &Lent<M>,
        page: PageId,
        block: FrameId,
    ) -> Result<(), Shortage> {
        let first = lent.offset(page);
        // The directory first, so that nothing fails half way.
        lent.object.words(pool, first)?;
        lent.object.words(pool, first + ENTRIES - 1)?;
        lent.object.purse().take_ahead(ENTRIES, ENTRIES, &mut Frames(pool))?;
        pool.split(block);
        let mut done = 0;
        while done < ENTRIES {
            let frames = (done..ENTRIES).map(|index| in_block(block, index));
            done += lent.object.adopt(pool, first + done, frames)?;
        }
        self.refund(pool, ENTRIES);
        Ok(())
    }

    /// Lends the leaves of a table. Says also whether cores may have cached something else.
    pub(super) fn lend_leaves<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        leaves: &Leaves<M>,
        load: &mut Load<M>,
    ) -> (Result<(), Short>, bool) {
        let (mut stale, mut index) = (false, leaves.from);
        while index < leaves.to {
            match self.lend_run(cx, leaves, index, load) {
                Ok(0) => {}
                Ok(run) => {
                    index += run;
                    continue;
                }
                Err(short) => return (Err(short), stale),
            }
            if load.cost >= LEAVES {
                return (Err(Short::Full), stale);
            }
            let page = PageId::new(leaves.page.number() + index - leaves.from);
            let old = leaves.table.get(index);
            let new = match old.hindrance() {
                Some(error) => Err(error.into()),
                None => self.lend_leaf(cx, load, page, old),
            };
            let noted = new.and_then(|new| self.name(load, new).map(|()| new));
            match noted {
                Ok(new) => {
                    leaves.table.set(index, new);
                    let copied = new.is_present() && !(old.is_present() && old.frame() == new.frame());
                    load.push(new, if copied { COPY } else { 2 });
                    stale |= old.is_present() && old.frame() != new.frame();
                }
                Err(short) => return (Err(short), stale),
            }
            index += 1;
        }
        (Ok(()), stale)
    }

    /// Lends the pages from an index on that are the space's alone, with one record or none, as far as one frame of the object's directory goes;
    /// returns how many.
    fn lend_run<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        leaves: &Leaves<M>,
        index: usize,
        load: &mut Load<M>,
    ) -> Result<usize, Short> {
        let record = leaves.table.get(index).record();
        let own = |index: &usize| {
            let entry = leaves.table.get(*index);
            entry.is_own_of(record) && !entry.is_copy()
        };
        let run = (index..leaves.to).take_while(own).count();
        if run == 0 {
            return Ok(0);
        }
        if !load.has_lent_room() || !cx.pending.has_room(record) {
            return Err(Short::Full);
        }
        let lent = load.lent.as_ref().ok_or(Short::Lend)?;
        let (number, object) = (lent.record, &lent.object);
        let first = lent.offset(PageId::new(leaves.page.number() + index - leaves.from));
        let frames = (index..index + run).map(|index| leaves.table.get(index).frame());
        let run = self.adopt_run(cx, object, first, run, frames).map_err(SpaceError::from)?;
        let record_lent = self.records.get(number).ok_or(Short::Lend)?;
        let exchanged = self.exchange(cx, (record_lent, number), record, run);
        debug_assert!(exchanged, "O2: a page of the record is held, and room was looked for");
        for index in index..index + run {
            let new = leaves.table.get(index).lent(number);
            leaves.table.set(index, new);
            load.push(new, 2);
        }
        self.open_run(load, number)?;
        self.count_run(load, number, run);
        Ok(run)
    }

    /// A page as both show it from now on.
    fn lend_leaf<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        load: &Load<M>,
        page: PageId,
        old: Entry,
    ) -> Result<Entry, Short> {
        let kind = old.lazy_kind();
        let shared = if old.is_present() {
            old.is_plain() && !old.is_owned()
        } else {
            matches!(kind, Some(Kind::Shared | Kind::Guard))
        };
        if shared {
            return Ok(old);
        }
        if !old.is_present() && !matches!(kind, Some(Kind::Anonymous | Kind::Copy)) {
            return Err(SpaceError::WrongKind.into());
        }
        if !load.has_lent_room() || !cx.pending.has_room(old.record()) {
            return Err(Short::Full);
        }
        let lent = load.lent.as_ref().ok_or(Short::Lend)?;
        let Some(record) = self.records.get(lent.record) else { return Err(Short::Lend) };
        let new = if !old.is_present() && kind == Some(Kind::Anonymous) {
            Entry::lazy(Kind::Shared, self.format.bits(old.protection()), lent.record)
        } else if old.is_present() && old.is_owned() && self.is_alone(old) {
            self.adopt_one(cx, lent, page, old.frame()).map_err(SpaceError::from)?;
            self.refund(cx.pool, 1);
            old.lent(lent.record)
        } else {
            let frame = self.copy_for(cx, lent, page, old)?;
            Entry::leaf(1, frame, Hold::Borrowed, self.format.bits(old.protection()), lent.record)
        };
        let exchanged = self.exchange(cx, (record, lent.record), old.record(), 1);
        debug_assert!(exchanged, "O2: a page of the record is held, and room was looked for");
        Ok(new)
    }

    /// Up to so many frames that the space owns become the object's, which pays for them from now on; says how many.
    fn adopt_run<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        object: &Object<M>,
        first: usize,
        most: usize,
        frames: impl Iterator<Item = FrameId>,
    ) -> Result<usize, Shortage> {
        object.purse().take_ahead(most, most, &mut Frames(cx.pool))?;
        let adopted = object.adopt(cx.pool, first, frames);
        let run = *adopted.as_ref().unwrap_or(&0);
        object.purse().put(most - run, &mut Frames(cx.pool));
        self.refund(cx.pool, run);
        adopted
    }

    /// A frame becomes the object's, which pays for it from now on.
    fn adopt_one<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        lent: &Lent<M>,
        page: PageId,
        frame: FrameId,
    ) -> Result<(), Shortage> {
        let purse = lent.object.purse();
        purse.take_ahead(1, 1, &mut Frames(cx.pool))?;
        let adopted = lent.object.adopt(cx.pool, lent.offset(page), core::iter::once(frame));
        if adopted.is_err() {
            purse.put(1, &mut Frames(cx.pool));
        }
        adopted.map(drop)
    }

    /// Whether an owned page's frame is shown here only.
    fn is_alone(&self, old: Entry) -> bool {
        !old.is_copy() || self.memory.info(old.frame()).is_sole()
    }

    /// A frame for the object with what a page shows that others show as well, until they write it.
    fn copy_for<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        lent: &Lent<M>,
        page: PageId,
        old: Entry,
    ) -> Result<FrameId, Short> {
        let shown = if old.is_present() {
            old.frame()
        } else {
            let record = self.records.get(old.record()).ok_or(SpaceError::NotMapped)?;
            let offset = record.offset_of(page);
            let found =
                super::record::with_object(self.memory, record, |object| object.page(cx.pool, offset));
            found.transpose().map_err(SpaceError::from)?.flatten().ok_or(SpaceError::NotMapped)?
        };
        let frame = cx.pool.take(Order::FRAME, Policy::Local).map_err(SpaceError::from)?;
        self.memory.copy(shown, frame);
        if let Err(shortage) = self.adopt_one(cx, lent, page, frame) {
            cx.pool.give(frame, Order::FRAME);
            return Err(SpaceError::from(shortage).into());
        }
        if old.is_owned() {
            let noted = cx.pending.unshare(old.frame());
            debug_assert!(noted, "room was looked for");
        }
        Ok(frame)
    }
}

const _: () = assert!(PageSize::Huge.pages() == ENTRIES);
