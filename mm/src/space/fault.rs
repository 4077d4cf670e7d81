//! Faults: what an access to a page that the CPU refuses means, and making it possible where it should be.

use super::entry::{ENTRIES, Entry, Hold, Level, span};
use super::info::Word;
use super::memory::{Frames, Memory, Pool, Shortage};
use super::record;
use super::table::Locked;
use super::walk::{Found, Leaves, in_block, index};
use super::{Cx, Kind, Space, SpaceError};
use crate::frames::Policy;
use crate::id::{FrameId, Order};
use crate::virt::{PageId, PageRange, PageSize};

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Access {
    /// A read.
    Read,
    /// A write.
    Write,
    /// An instruction fetch.
    Execute,
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an access that was not made possible faults again"]
pub enum Fault {
    /// The access will succeed; what is pending is settled first.
    Resolved,
    /// A guard was hit.
    Guard,
    /// The pager is to supply the page: what the region told about it, and which of the region's pages it is.
    Pager {
        /// The region's word.
        cookie: u64,
        /// Counted from the start of the region as it was mapped.
        page: usize,
    },
    /// Nothing is mapped there.
    NotMapped,
    /// The region does not allow this access.
    Forbidden,
    /// There is no frame.
    Shortage(Shortage),
}

/// Whether the region allows it.
#[inline(always)]
const fn allows(entry: Entry, access: Access) -> bool {
    match access {
        Access::Read => true,
        Access::Write => entry.may_write(),
        Access::Execute => entry.may_execute(),
    }
}

/// Whether a pager owes the page.
const fn is_owed(entry: Entry) -> bool {
    !entry.is_present() && matches!(entry.lazy_kind(), Some(Kind::Pager))
}

impl<M: Memory> Space<M> {
    /// Answers a fault.
    #[inline]
    pub fn fault<P: Pool>(&self, cx: &mut Cx<'_, P>, page: PageId, access: Access) -> Fault {
        match self.try_fault(cx, page, access) {
            Ok(fault) => fault,
            Err(error) => self.give_up(cx, page, error),
        }
    }

    /// Tables that were made for a page that could not be had go again.
    #[cold]
    fn give_up<P: Pool>(&self, cx: &mut Cx<'_, P>, page: PageId, error: SpaceError) -> Fault {
        self.join(cx, page);
        match error {
            SpaceError::Shortage(shortage) => Fault::Shortage(shortage),
            _ => Fault::NotMapped,
        }
    }

    #[inline(always)]
    fn try_fault<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        page: PageId,
        access: Access,
    ) -> Result<Fault, SpaceError> {
        let mut unit = match self.find(cx, page, false)? {
            Found::Unit(unit) => unit,
            Found::Hole(_) => return Ok(Fault::NotMapped),
            Found::Giant(directory, old) => return self.fault_giant(cx, directory, page, access, old),
        };
        let result = self.fault_unit(cx, &mut unit, page, access);
        self.leave(cx, unit, page);
        result
    }

    #[inline(always)]
    fn fault_unit<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        page: PageId,
        access: Access,
    ) -> Result<Fault, SpaceError> {
        let at = index(page, 2);
        let mut entry = unit.table.get(at);
        if !entry.is_table() {
            match self.fault_block(cx, unit, (page, 2), access, entry)? {
                Ok(table) => entry = table,
                Err(fault) => return Ok(fault),
            }
        }
        let table = self.below(entry);
        let word = table.info().table();
        let from = index(page, 1);
        if table.get(from).is_empty() {
            return Ok(Fault::NotMapped);
        }
        let mut leaves = Leaves { table, page, from, to: from + 1, word };
        let result = self.fault_leaf(cx, &mut leaves, access);
        self.close_leaves(cx, unit, (at, entry), &leaves, word);
        if leaves.word.populated() == ENTRIES {
            self.promote(cx, unit, (at, entry), &leaves);
        }
        result
    }

    /// An entry of level 3 that is no table: makes it one, if the access makes sense at all, and looks again. An object's page of 1 GiB is
    /// brought without the lock, since that takes long; a page of the record is held meanwhile, so that the object stays.
    #[cold]
    fn fault_giant<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        directory: Locked<M>,
        page: PageId,
        access: Access,
        old: Entry,
    ) -> Result<Fault, SpaceError> {
        if old.is_present() {
            return Ok(if allows(old, access) { Fault::Resolved } else { Fault::Forbidden });
        }
        if let Some(fault) = self.refuse(old, page, access) {
            return Ok(fault);
        }
        let first = PageId::new(page.number() & !(span(3) - 1));
        let held = old.lazy_kind() == Some(Kind::Shared) && self.hold(old);
        drop(directory);
        if held {
            let entered = self.enter_block(cx, (first, 3), old);
            self.records.subtract(cx.pool, old.record(), 1);
            if entered? {
                return Ok(Fault::Resolved);
            }
        }
        // A border of blocks inside the unit: that takes a table of level 2 and no more.
        self.cut(cx, PageId::new(first.number() + ENTRIES))?;
        self.try_fault(cx, page, access)
    }

    /// What can be said about a fault without touching anything: nothing, if a page is to be brought.
    #[inline(always)]
    fn refuse(&self, entry: Entry, page: PageId, access: Access) -> Option<Fault> {
        match entry.lazy_kind() {
            None | Some(Kind::Reserved | Kind::Device) => Some(Fault::NotMapped),
            Some(Kind::Guard) => Some(Fault::Guard),
            Some(_) if !allows(entry, access) => Some(Fault::Forbidden),
            Some(Kind::Pager) => {
                let record = self.records.get(entry.record())?;
                let page = page.number().wrapping_sub(record.terms().base.number());
                Some(Fault::Pager { cookie: record.cookie(), page })
            }
            Some(Kind::Anonymous | Kind::Shared | Kind::Copy) => None,
        }
    }

    /// A fault on an entry of level 2 that is no table: the entry of the table that it becomes, or what the fault comes to.
    #[cold]
    fn fault_block<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        (page, level): (PageId, Level),
        access: Access,
        entry: Entry,
    ) -> Result<Result<Entry, Fault>, SpaceError> {
        if entry.is_present() {
            return Ok(Err(if allows(entry, access) { Fault::Resolved } else { Fault::Forbidden }));
        }
        if let Some(fault) = self.refuse(entry, page, access) {
            return Ok(Err(fault));
        }
        let first = PageId::new(page.number() & !(span(level) - 1));
        let at = index(page, level);
        if entry.lazy_kind() == Some(Kind::Shared)
            && let Some(leaf) = self.block_leaf(cx, (first, level), entry)?
        {
            unit.set(at, entry, leaf);
            return Ok(Err(Fault::Resolved));
        }
        let table = self.split(cx, unit, at, entry)?;
        if entry.is_roomy()
            && let Ok(block) = self.reserve(cx, entry)
        {
            let info = self.below(table).info();
            info.set_table(info.table().with_reservation(block));
        }
        Ok(Ok(table))
    }

    /// A block for the pages of a table that become populated, if there are plenty: single frames do as well.
    fn reserve<P: Pool>(&self, cx: &mut Cx<'_, P>, entry: Entry) -> Result<FrameId, Shortage> {
        let frames = Order::HUGE.frames();
        self.purse.take_spare(frames, &mut Frames(cx.pool))?;
        let taken = cx.pool.take(Order::HUGE, self.policy(entry));
        if taken.is_err() {
            self.refund(cx.pool, frames);
        }
        taken
    }

    /// Enters a large page of an object in the place of a lazy entry of level 3.
    fn enter_block<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        (first, level): (PageId, Level),
        old: Entry,
    ) -> Result<bool, SpaceError> {
        let Some(leaf) = self.block_leaf(cx, (first, level), old)? else { return Ok(false) };
        if let Found::Giant(mut directory, now) = self.find(cx, first, false)?
            && now == old
        {
            directory.set(index(first, 3), old, leaf);
        }
        Ok(true)
    }

    /// The leaf for a whole lazy entry of a shared region, if its object is made of such blocks and they lie right. The caller has the
    /// entry's lock, or holds a page of its record.
    fn block_leaf<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        (first, level): (PageId, Level),
        entry: Entry,
    ) -> Result<Option<Entry>, SpaceError> {
        let Some(record) = self.records.get(entry.record()) else { return Ok(None) };
        let offset = record.offset_of(first);
        let found = record::with_object(self.memory, record, |object| {
            let fits = object.granule().pages() >= span(level)
                && offset % span(level) == 0
                && self.format.has(level);
            if fits { object.page(cx.pool, offset) } else { Ok(None) }
        });
        let frame = found.transpose()?.flatten();
        let bits = self.format.bits(entry.protection());
        Ok(frame.map(|frame| Entry::leaf(level, frame, Hold::Borrowed, bits, entry.record())))
    }

    /// Where the frames of an entry's region shall lie.
    #[inline(always)]
    fn policy(&self, entry: Entry) -> Policy {
        match entry.record() {
            0 => Policy::Local,
            number => self.records.get(number).map_or(Policy::Local, record::Record::policy),
        }
    }

    #[inline(always)]
    fn fault_leaf<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        leaves: &mut Leaves<M>,
        access: Access,
    ) -> Result<Fault, SpaceError> {
        let old = leaves.table.get(leaves.from);
        if old.is_present() {
            return self.fault_present(cx, leaves, access, old);
        }
        if let Some(fault) = self.refuse(old, leaves.page, access) {
            return Ok(fault);
        }
        if old.lazy_kind() != Some(Kind::Anonymous) {
            return self.fault_object(cx, leaves, access, old);
        }
        let frame = match leaves.word.reservation() {
            Some(block) => {
                leaves.word = leaves.word.populate();
                in_block(block, leaves.from)
            }
            None => self.take_frame(cx.pool, Order::FRAME, self.policy(old))?,
        };
        self.memory.zero(frame, Order::FRAME);
        self.own(leaves, frame, old);
        Ok(Fault::Resolved)
    }

    /// Enters a frame that is ours alone.
    #[inline(always)]
    fn own(&self, leaves: &Leaves<M>, frame: FrameId, old: Entry) {
        self.memory.info(frame).set_private(self.short_id(), leaves.page);
        let bits = self.format.bits(old.protection());
        leaves.table.set(leaves.from, Entry::leaf(1, frame, Hold::Owned, bits, old.record()));
    }

    /// A page of an object is touched for the first time here.
    #[cold]
    fn fault_object<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        leaves: &Leaves<M>,
        access: Access,
        old: Entry,
    ) -> Result<Fault, SpaceError> {
        let copies = old.lazy_kind() == Some(Kind::Copy);
        let Some(record) = self.records.get(old.record()) else { return Ok(Fault::NotMapped) };
        let offset = record.offset_of(leaves.page);
        let found = record::with_object(self.memory, record, |object| object.page(cx.pool, offset));
        let Some(frame) = found.transpose()?.flatten() else { return Ok(Fault::NotMapped) };
        let bits = self.format.bits(old.protection());
        let hold = if copies { Hold::BorrowedCopy } else { Hold::Borrowed };
        let leaf = Entry::leaf(1, frame, hold, bits, old.record());
        if copies && access == Access::Write {
            // Nothing was present, so there is nothing to invalidate.
            return self.copy(cx, leaves, leaf);
        }
        leaves.table.set(leaves.from, leaf);
        Ok(Fault::Resolved)
    }

    /// The page is there: a copy is due, another core was faster, or it is forbidden.
    #[cold]
    fn fault_present<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        leaves: &Leaves<M>,
        access: Access,
        old: Entry,
    ) -> Result<Fault, SpaceError> {
        if !allows(old, access) {
            return Ok(Fault::Forbidden);
        }
        if access != Access::Write || old.is_writable() {
            // The CPU has dropped the translation that made it fault (SDM volume 3, §5.10.4.1).
            return Ok(Fault::Resolved);
        }
        let info = self.memory.info(old.frame());
        if old.is_owned() && info.is_sole() {
            // The others are gone: it is ours alone, and wider than what anybody caches.
            info.set_private(self.short_id(), leaves.page);
            leaves.table.set(leaves.from, old.unshare());
            return Ok(Fault::Resolved);
        }
        if !cx.pending.has_room(0) {
            return Ok(Fault::Resolved);
        }
        let fault = self.copy(cx, leaves, old)?;
        if old.is_owned() {
            let noted = cx.pending.unshare(old.frame());
            debug_assert!(noted, "room was looked for");
        }
        cx.pending.invalidate(leaves.page, 1, PageSize::Small);
        Ok(fault)
    }

    /// Puts a copy of what `old` shows in its place.
    fn copy<P: Pool>(&self, cx: &mut Cx<'_, P>, leaves: &Leaves<M>, old: Entry) -> Result<Fault, SpaceError> {
        let frame = self.take_frame(cx.pool, Order::FRAME, self.policy(old))?;
        self.memory.copy(old.frame(), frame);
        self.own(leaves, frame, old);
        Ok(Fault::Resolved)
    }

    /// Every frame of a reservation is shown: if all pages are alike, one entry says it all.
    #[cold]
    fn promote<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        (at, entry): (usize, Entry),
        leaves: &Leaves<M>,
    ) {
        let table = leaves.table;
        let first = table.get(0);
        let Some(block) = leaves.word.reservation() else { return };
        let alike =
            first.frame() == block && (0..ENTRIES).all(|index| first.continues(table.get(index), index));
        // The block is the pages' own now; if they are not alike, frame by frame.
        if !alike {
            cx.pool.split(block);
            return table.info().set_table(leaves.word.without_reservation());
        }
        unit.set(at, entry, first.enlarge());
        let start = PageId::new(leaves.page.number() & !(ENTRIES - 1));
        cx.pending.invalidate(start, ENTRIES, PageSize::Small);
        cx.pending.table(table.info(), table.frame, start);
    }

    /// Puts a frame where a pager is to supply a page: the pager's answer to [`Fault::Pager`]. The frame is filled and the caller's alone; it
    /// belongs to the space from now on.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`]: no page is missing there; [`SpaceError::Shortage`]. The frame is still the caller's.
    pub fn supply<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        page: PageId,
        frame: FrameId,
    ) -> Result<(), SpaceError> {
        self.purse.take(1, &mut Frames(cx.pool)).map_err(Shortage::from)?;
        let result = self.try_supply(cx, page, frame);
        if result.is_err() {
            self.refund(cx.pool, 1);
        }
        self.checked(cx, PageRange::new(page, 1).ok_or(SpaceError::NotMapped)?, result)
    }

    fn try_supply<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        page: PageId,
        frame: FrameId,
    ) -> Result<(), SpaceError> {
        match self.find(cx, page, false)? {
            Found::Hole(_) => Err(SpaceError::NotMapped),
            Found::Giant(_, old) if !is_owed(old) => Err(SpaceError::NotMapped),
            Found::Giant(directory, old) => {
                let unit = self.split_giant(cx, directory, page, old)?;
                self.supply_unit(cx, unit, page, frame)
            }
            Found::Unit(unit) => self.supply_unit(cx, unit, page, frame),
        }
    }

    fn supply_unit<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        mut unit: Locked<M>,
        page: PageId,
        frame: FrameId,
    ) -> Result<(), SpaceError> {
        let at = index(page, 2);
        let mut entry = unit.table.get(at);
        if !entry.is_table() {
            if !is_owed(entry) {
                return Err(SpaceError::NotMapped);
            }
            entry = self.split(cx, &mut unit, at, entry)?;
        }
        let table = self.below(entry);
        let from = index(page, 1);
        let old = table.get(from);
        if !is_owed(old) {
            return Err(SpaceError::NotMapped);
        }
        let word: Word = table.info().table();
        self.own(&Leaves { table, page, from, to: from + 1, word }, frame, old);
        Ok(())
    }
}
