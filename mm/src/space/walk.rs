//! One walk for every operation: finds the tables of a range, splits and takes out what must be, and leaves the entries to a visitor.
//!
//! A range operation descends once into each table it concerns, not once per page.

use super::entry::{ENTRIES, Entry, Level, size, span};
use super::info::{Use, Word};
use super::memory::{Memory, Pool};
use super::pending::Halt;
use super::table::{Locked, Table};
use super::{Cx, Progress, Space, SpaceError};
use crate::frames::Policy;
use crate::id::{FrameId, Order};
use crate::virt::{PageId, PageRange};
use percpu::sync::atomic::{AtomicU64, Ordering};

/// What a visitor wants done with an entry above level 1.
pub(super) enum Act {
    /// Nothing.
    Keep,
    /// Put this there.
    Set(Entry),
    /// Make a table of it and go on inside.
    Split,
}

/// What an operation does with the entries of its range.
pub(super) trait Visit<M: Memory, P: Pool> {
    /// Whether tables are made where there is nothing.
    const CREATES: bool;
    /// What a leaf in use counts in a step, beside being looked at. The last table of a step is not left in the middle for that.
    const COST: usize = 0;

    /// An entry of level 2 or 3 that is no table, the range covering all of it.
    fn block(&mut self, cx: &mut Cx<'_, P>, page: PageId, level: Level, old: Entry) -> Result<Act, Stop>;

    /// As `block`, but the range covers only a part: so many pages from this one on.
    fn part(&mut self, _page: PageId, _pages: usize, old: Entry) -> Result<Act, Stop> {
        Ok(if old.is_empty() && !Self::CREATES { Act::Keep } else { Act::Split })
    }

    /// Entries of one table of level 1.
    fn leaves(&mut self, cx: &mut Cx<'_, P>, leaves: &mut Leaves<M>) -> Result<(), Stop>;
}

/// What an entry of level 2 counts in a step that leads to no table: some nine instructions.
const KEPT: usize = 2;
/// What a block that is changed counts in a step beside that: some 130 instructions.
const BLOCK: usize = 32;

/// Why a visitor goes no further.
pub(super) type Stop = Halt<SpaceError>;

/// A part of a table of level 1, under its unit's lock.
pub(super) struct Leaves<M> {
    pub(super) table: Table<M>,
    /// The page of the first entry.
    pub(super) page: PageId,
    pub(super) from: usize,
    pub(super) to: usize,
    /// The table's word; written back afterwards.
    pub(super) word: Word,
}

impl<M: Memory> Leaves<M> {
    /// The entries.
    #[inline(always)]
    pub(super) fn entries(&self) -> &[AtomicU64] {
        debug_assert!(self.from <= self.to && self.to <= ENTRIES, "a part of one table");
        // SAFETY: `from` is an index cut to the table, and `to` lies behind it inside the same block, both by how `Leaves` are made.
        unsafe { self.table.entries().get_unchecked(self.from..self.to) }
    }

    /// How many.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.to - self.from
    }
}

/// What stands at level 3 or 2.
pub(super) enum Found<M: Memory> {
    /// Nothing up to this page.
    Hole(PageId),
    /// An entry of a locked table of level 3 that leads to no table.
    Giant(Locked<M>, Entry),
    /// The locked table of a unit.
    Unit(Locked<M>),
}

/// The index of a page's entry in a table of this level.
#[inline(always)]
pub(super) const fn index(page: PageId, level: Level) -> usize {
    (page.number() >> (9 * (level - 1))) % ENTRIES
}

/// The first page that an entry of this level for `page` does not cover.
#[inline(always)]
const fn after(page: PageId, level: Level) -> usize {
    (page.number() | (span(level) - 1)) + 1
}

/// What a hole counts in a step: one for each empty entry of level 3, which costs some four instructions.
pub(super) fn hole_cost(page: PageId, next: PageId) -> usize {
    ((next.number() - page.number()) / span(3)).clamp(1, ENTRIES)
}

/// The first page after `page` with something in the directory that it belongs to, or the one after the directory. In it `page`'s entry is
/// empty; most are, and each costs a lock if it is asked for by itself.
fn past_hole<M: Memory>(directory: &Table<M>, page: PageId) -> PageId {
    let first = index(page, 3);
    // ORDER: Relaxed: the directory is locked.
    let is_empty = |word: &&AtomicU64| Entry::from_raw(word.load(Ordering::Relaxed)).is_empty();
    let empty = directory.entries().iter().skip(first + 1).take_while(is_empty).count();
    PageId::new(after(page, 3) + empty * span(3))
}

impl<M: Memory> Space<M> {
    /// The table that an entry leads to.
    #[inline(always)]
    pub(super) fn below(&self, entry: Entry) -> Table<M> {
        // SAFETY: A1, A2: an entry that says so leads to a table, which stays one while the entry's table is locked, or the core is in the
        // kernel.
        unsafe { Table::new(entry.frame(), self.memory) }
    }

    pub(super) fn top(&self) -> Table<M> {
        // SAFETY: the root is a table as long as the space lives.
        unsafe { Table::new(self.root, self.memory) }
    }

    /// The root under which programs run, where that is one of its own (A7).
    pub(super) fn second(&self) -> Option<Table<M>> {
        let frame = FrameId::new(self.root.number() + 1);
        // SAFETY: as `top`: it is the second frame of the block.
        (self.roots == Order::PAIR).then(|| unsafe { Table::new(frame, self.memory) })
    }

    /// Changes an entry of the root, which is locked.
    fn set_top(&self, top: &mut Locked<M>, index: usize, old: Entry, new: Entry) {
        let Some(second) = self.second() else { return top.set(index, old, new) };
        second.set(index, new);
        top.set(index, old, new.barred(self.format));
    }

    /// A fresh table that says what `old`, an entry of `level`, says.
    fn grow<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        old: Entry,
        level: Level,
    ) -> Result<(Table<M>, usize), SpaceError> {
        let frame = self.take_frame(cx.pool, Order::FRAME, Policy::Local)?;
        // SAFETY: the frame is ours alone and becomes a table by `fill`.
        let table = unsafe { Table::new(frame, self.memory) };
        if old.is_owned() {
            debug_assert!(level == 2, "a space owns no block of 1 GiB");
            cx.pool.split(old.frame());
            self.tell_frames(old.frame());
        }
        let count = table.fill(old, level - 1);
        Ok((table, count))
    }

    /// Says of each frame of a block what the block's first says for all: where it is shown. A block that was passed on has told that one only.
    fn tell_frames(&self, block: FrameId) {
        let Use::Private { page, .. } = self.memory.info(block).usage() else { return };
        for index in 1..ENTRIES {
            let page = PageId::new(page.number() + index);
            self.memory.info(in_block(block, index)).set_private(self.short_id(), page);
        }
    }

    /// Finds and locks the table of a page's unit, or the entry in its place.
    #[inline]
    pub(super) fn find<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        page: PageId,
        creates: bool,
    ) -> Result<Found<M>, SpaceError> {
        loop {
            let top = self.top().get(index(page, 4));
            if top.is_empty() {
                if !creates {
                    return Ok(Found::Hole(PageId::new(after(page, 4))));
                }
                self.raise(cx, page)?;
                continue;
            }
            let directory = self.below(top);
            let entry = directory.get(index(page, 3));
            if entry.is_table() {
                match self.below(entry).lock() {
                    Some(unit) => return Ok(Found::Unit(unit)),
                    None => continue,
                }
            }
            if let Some(found) = self.find_giant(directory, page, creates) {
                return Ok(found);
            }
        }
    }

    /// The entry of level 3 that is no table, locked; nothing if it has become one.
    fn find_giant(&self, directory: Table<M>, page: PageId, creates: bool) -> Option<Found<M>> {
        let locked = directory.lock()?;
        let entry = locked.table.get(index(page, 3));
        if entry.is_table() {
            return None;
        }
        if entry.is_empty() && !creates {
            return Some(Found::Hole(past_hole(&locked.table, page)));
        }
        Some(Found::Giant(locked, entry))
    }

    /// Puts a table of level 3 into the root.
    #[cold]
    fn raise<P: Pool>(&self, cx: &mut Cx<'_, P>, page: PageId) -> Result<(), SpaceError> {
        let (table, count) = self.grow(cx, Entry::EMPTY, 4)?;
        table.info().set_table(Word::new(count));
        let mut top = self.top().lock().expect("A2: the root is a table as long as the space lives");
        let index = index(page, 4);
        if top.table.get(index).is_empty() {
            self.set_top(&mut top, index, Entry::EMPTY, Entry::table(table.frame));
        } else {
            self.give_frame(cx.pool, table.frame, Order::FRAME);
        }
        Ok(())
    }

    /// Makes a table of an entry of level 3, and gives that, locked.
    pub(super) fn split_giant<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        mut directory: Locked<M>,
        page: PageId,
        old: Entry,
    ) -> Result<Locked<M>, SpaceError> {
        let grown = self.grow(cx, old, 3);
        let (table, count) = match grown {
            Ok(grown) => grown,
            Err(error) => {
                self.leave_directory(cx, directory, page);
                return Err(error);
            }
        };
        let unit = Locked::fresh(table, count);
        directory.set(index(page, 3), old, Entry::table(table.frame));
        Ok(unit)
    }

    /// Leaves the lock of a unit, and takes the table out if nothing is in it.
    #[inline]
    pub(super) fn leave<P: Pool>(&self, cx: &mut Cx<'_, P>, unit: Locked<M>, page: PageId) {
        if unit.word.count() == 0 {
            self.take_out(cx, unit, page);
        }
    }

    #[cold]
    fn take_out<P: Pool>(&self, cx: &mut Cx<'_, P>, unit: Locked<M>, page: PageId) {
        let directory = self.below(self.top().get(index(page, 4)));
        let mut directory = directory.lock().expect("A2: a table with an entry in use stays");
        directory.set(index(page, 3), Entry::table(unit.table.frame), Entry::EMPTY);
        let info = unit.table.info();
        unit.bury(|frame| cx.pending.directory(info, frame, page));
        self.leave_directory(cx, directory, page);
    }

    fn leave_directory<P: Pool>(&self, cx: &mut Cx<'_, P>, directory: Locked<M>, page: PageId) {
        if directory.word.count() == 0 {
            let mut top = self.top().lock().expect("A2: the root is a table as long as the space lives");
            self.set_top(&mut top, index(page, 4), Entry::table(directory.table.frame), Entry::EMPTY);
            let info = directory.table.info();
            directory.bury(|frame| cx.pending.directory(info, frame, page));
        }
    }

    /// Shows a visitor the entries of a range, ascending.
    #[inline]
    pub(super) fn walk<P: Pool, V: Visit<M, P>>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
        visitor: &mut V,
    ) -> Result<Progress<PageId>, SpaceError> {
        let (first, last) = (range.start(), range.end().number() - 1);
        if first.number() / ENTRIES == last / ENTRIES
            && let Some(unit) = self.find_table(first)
        {
            return Halt::progress(self.walk_table(cx, unit, range, visitor), range.end());
        }
        Halt::progress(self.walk_units(cx, range, visitor), range.end())
    }

    /// The locked table of a page's unit, if there is one: the common case of [`Space::find`].
    #[inline(always)]
    pub(super) fn find_table(&self, page: PageId) -> Option<Locked<M>> {
        let top = self.top().get(index(page, 4));
        if top.is_empty() {
            return None;
        }
        let entry = self.below(top).get(index(page, 3));
        if entry.is_table() { self.below(entry).lock() } else { None }
    }

    /// The common case of a walk: a range in one block whose tables are there already.
    #[inline(always)]
    fn walk_table<P: Pool, V: Visit<M, P>>(
        &self,
        cx: &mut Cx<'_, P>,
        mut unit: Locked<M>,
        range: PageRange,
        visitor: &mut V,
    ) -> Result<(), Stop> {
        let page = range.start();
        let at = index(page, 2);
        let entry = unit.table.get(at);
        if !entry.is_table() {
            drop(unit);
            return self.walk_units(cx, range, visitor);
        }
        let from = index(page, 1);
        let table = self.below(entry);
        let word = table.info().table();
        let mut leaves = Leaves { table, page, from, to: from + range.len(), word };
        let result = visitor.leaves(cx, &mut leaves);
        if leaves.word != word {
            self.close_leaves(cx, &mut unit, (at, entry), &leaves, word);
            self.leave(cx, unit, page);
        }
        result
    }

    #[inline(never)]
    fn walk_units<P: Pool, V: Visit<M, P>>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
        visitor: &mut V,
    ) -> Result<(), Stop> {
        let end = range.end();
        let mut page = range.start();
        while page < end {
            let next = PageId::new(after(page, 3)).min(end);
            let mut unit = match self.find(cx, page, V::CREATES).map_err(Halt::Error)? {
                Found::Hole(next) => {
                    self.step(cx, hole_cost(page, next), next)?;
                    page = next;
                    continue;
                }
                Found::Unit(unit) => unit,
                Found::Giant(directory, old) => {
                    match self.visit_giant(cx, directory, old, (page, next), visitor)? {
                        Some(unit) => unit,
                        None => {
                            page = next;
                            continue;
                        }
                    }
                }
            };
            let result = self.walk_unit(cx, &mut unit, (page, next), visitor);
            self.leave(cx, unit, page);
            result?;
            page = next;
        }
        Ok(())
    }

    /// Deals with an entry of level 3 that is no table; gives the table that it has become, if it has.
    #[cold]
    fn visit_giant<P: Pool, V: Visit<M, P>>(
        &self,
        cx: &mut Cx<'_, P>,
        mut directory: Locked<M>,
        old: Entry,
        (page, next): (PageId, PageId),
        visitor: &mut V,
    ) -> Result<Option<Locked<M>>, Stop> {
        let whole = next.number() - page.number() == span(3);
        let act = if whole {
            visitor.block(cx, page, 3, old)
        } else {
            visitor.part(page, next.number() - page.number(), old)
        };
        match act {
            Ok(Act::Split) => {
                return self.split_giant(cx, directory, page, old).map(Some).map_err(Halt::Error);
            }
            Ok(Act::Set(new)) => {
                directory.set(index(page, 3), old, new);
                cx.steps = cx.steps.saturating_sub(BLOCK);
            }
            Ok(Act::Keep) => {}
            Err(stop) => {
                self.leave_directory(cx, directory, page);
                return Err(stop);
            }
        }
        self.leave_directory(cx, directory, page);
        self.step(cx, 1, next).map(|()| None)
    }

    #[inline(always)]
    fn step<P: Pool>(&self, cx: &mut Cx<'_, P>, entries: usize, next: PageId) -> Result<(), Stop> {
        match cx.steps.checked_sub(entries) {
            Some(steps) => {
                cx.steps = steps;
                Ok(())
            }
            None => Err(Halt::Pause(next)),
        }
    }

    /// Deals with an entry of level 2 that is no table; gives the one that leads to the table that it has become, if it has.
    #[inline(always)]
    fn visit_block<P: Pool, V: Visit<M, P>>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        old: Entry,
        (page, next): (PageId, PageId),
        visitor: &mut V,
    ) -> Result<Option<Entry>, Stop> {
        let (at, pages) = (index(page, 2), next.number() - page.number());
        let act = if pages == span(2) {
            visitor.block(cx, page, 2, old)?
        } else {
            visitor.part(page, pages, old)?
        };
        match act {
            Act::Split => return self.split(cx, unit, at, old).map(Some).map_err(Halt::Error),
            Act::Set(new) => {
                unit.set(at, old, new);
                cx.steps = cx.steps.saturating_sub(BLOCK);
            }
            Act::Keep => {}
        }
        Ok(None)
    }

    #[inline(always)]
    fn walk_unit<P: Pool, V: Visit<M, P>>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        (mut page, end): (PageId, PageId),
        visitor: &mut V,
    ) -> Result<(), Stop> {
        // Where nothing is made, a unit with nothing in it has no more to show: a space that is unmapped whole ends here, mostly.
        while page < end && (V::CREATES || unit.word.count() != 0) {
            let next = PageId::new(after(page, 2)).min(end);
            let at = index(page, 2);
            let mut entry = unit.table.get(at);
            if !entry.is_table() {
                let Some(table) = self.visit_block(cx, unit, entry, (page, next), visitor)? else {
                    self.step(cx, KEPT, next)?;
                    page = next;
                    continue;
                };
                entry = table;
            }
            let from = index(page, 1);
            let count = next.number() - page.number();
            let table = self.below(entry);
            let word = table.info().table();
            let mut leaves = Leaves { table, page, from, to: from + count, word };
            let result = visitor.leaves(cx, &mut leaves);
            self.close_leaves(cx, unit, (at, entry), &leaves, word);
            result?;
            self.step(cx, count + count.min(word.count()) * V::COST, next)?;
            page = next;
        }
        Ok(())
    }

    /// Writes a table's word back, or takes the table out if nothing is in it.
    #[inline(always)]
    pub(super) fn close_leaves<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        (at, entry): (usize, Entry),
        leaves: &Leaves<M>,
        before: Word,
    ) {
        if leaves.word.count() == 0 {
            unit.set(at, entry, Entry::EMPTY);
            cx.pending.table(leaves.table.info(), leaves.table.frame, leaves.page);
        } else if leaves.word != before {
            leaves.table.info().set_table(leaves.word);
        }
    }

    /// Makes a table of an entry of level 2 and returns the entry that leads to it.
    pub(super) fn split<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        at: usize,
        old: Entry,
    ) -> Result<Entry, SpaceError> {
        let (table, count) = self.grow(cx, old, 2)?;
        table.info().set_table(Word::new(count));
        let new = Entry::table(table.frame);
        unit.set(at, old, new);
        Ok(new)
    }

    /// Splits entries until one begins at `page`, so that what follows can be changed alone and without memory.
    ///
    /// # Errors
    /// [`SpaceError::Shortage`]; nothing is split that was not before.
    pub(super) fn cut<P: Pool>(&self, cx: &mut Cx<'_, P>, page: PageId) -> Result<(), SpaceError> {
        if page.number().is_multiple_of(span(3)) {
            return Ok(());
        }
        let (mut unit, was_giant) = match self.find(cx, page, false)? {
            Found::Hole(_) => return Ok(()),
            Found::Unit(unit) => (unit, false),
            Found::Giant(directory, old) => (self.split_giant(cx, directory, page, old)?, true),
        };
        let at = index(page, 2);
        let entry = unit.table.get(at);
        let crossed = !page.number().is_multiple_of(ENTRIES) && !entry.is_table() && !entry.is_empty();
        let result = if crossed { self.split(cx, &mut unit, at, entry).map(|_| ()) } else { Ok(()) };
        self.leave(cx, unit, page);
        if result.is_err() && was_giant {
            self.join_giant(cx, page);
        }
        result
    }

    /// Undoes [`Space::cut`] where nothing has changed since.
    #[cold]
    pub(super) fn join<P: Pool>(&self, cx: &mut Cx<'_, P>, page: PageId) {
        if let Ok(Found::Unit(mut unit)) = self.find(cx, page, false) {
            let at = index(page, 2);
            let entry = unit.table.get(at);
            if entry.is_table() {
                self.join_leaves(cx, &mut unit, at, page);
            }
        }
        self.join_giant(cx, page);
    }

    /// Puts one entry in the place of a table of level 1 whose entries say the same.
    fn join_leaves<P: Pool>(&self, cx: &mut Cx<'_, P>, unit: &mut Locked<M>, at: usize, page: PageId) {
        let entry = unit.table.get(at);
        let table = self.below(entry);
        let word = table.info().table();
        if word.reservation().is_some() {
            return;
        }
        let Some(whole) = self.uniform(&table, 2) else { return };
        if whole.is_owned() && !cx.pool.merge(whole.frame()) {
            return;
        }
        unit.table.set(at, whole);
        let start = PageId::new(page.number() & !(ENTRIES - 1));
        if whole.is_present() {
            // Each may be cached for itself, and the invalidation of a large page drops but one of them (SDM volume 3, §5.10.4.1).
            cx.pending.invalidate(start, ENTRIES, size(1));
        }
        cx.pending.table(table.info(), table.frame, start);
    }

    /// The same for a table of level 2.
    fn join_giant<P: Pool>(&self, cx: &mut Cx<'_, P>, page: PageId) {
        let top = self.top().get(index(page, 4));
        if top.is_empty() {
            return;
        }
        let Ok(Found::Unit(unit)) = self.find(cx, page, false) else { return };
        let Some(whole) = self.uniform(&unit.table, 3) else { return };
        if whole.is_owned() {
            return;
        }
        let Some(directory) = self.below(top).lock() else { return };
        directory.table.set(index(page, 3), whole);
        if whole.is_present() {
            // As in `join_leaves`.
            cx.pending.invalidate(PageId::new(page.number() & !(span(3) - 1)), span(3), size(2));
        }
        let info = unit.table.info();
        unit.bury(|frame| cx.pending.directory(info, frame, page));
    }

    /// The entry of `level` that splits into just these entries, if there is one.
    pub(super) fn uniform(&self, table: &Table<M>, level: Level) -> Option<Entry> {
        let first = table.get(0);
        let aligned = !first.is_present() || first.frame().number().is_multiple_of(span(level));
        if first.is_empty() || !aligned || level == 3 && first.is_table() {
            return None;
        }
        if first.is_present() && (first.is_copy() || !self.format.has(level)) {
            return None;
        }
        let whole = if first.is_present() { first.enlarge() } else { first };
        let same = (0..ENTRIES).all(|index| table.get(index) == whole.child(level - 1, index));
        same.then_some(whole)
    }
}

/// A frame's number as an order-9 block's, with its index in it.
pub(super) const fn in_block(block: FrameId, index: usize) -> FrameId {
    FrameId::new(block.number() + index)
}
