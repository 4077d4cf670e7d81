//! Taking pages out of a space to pass them on.
//!
//! Where both places lie alike in blocks of 2 MiB, a load is entries of level 2: blocks, and whole tables. Otherwise it is entries of one table.
//! What moves leaves claims behind that keep its record, so that it can be put back without memory.

use super::entry::{ENTRIES, Entry, span};
use super::load::{BLOCK, LEAVES, Load, Run, Short, TABLE};
use super::memory::{Memory, Pool};
use super::pass::Passing;
use super::table::Locked;
use super::walk::{Found, Leaves, index};
use super::{Cx, Space, SpaceError};
use crate::virt::{PageId, PageSize};
use percpu::sync::atomic::Ordering;

impl<M: Memory> Space<M> {
    /// Takes some of `pages` pages from `page` on that are to appear at `target`. At least one, or nothing has changed; the error is that of
    /// the first page that cannot be taken. `cx` is settled before the load is put anywhere.
    ///
    /// # Errors
    /// [`SpaceError::NotMapped`]: nothing is mapped there, or it is reserved; [`SpaceError::WrongKind`]: a device's pages, or to be shared a
    /// pager's; [`SpaceError::Shortage`], [`SpaceError::TooManyMappings`].
    pub fn take<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        (page, target): (PageId, PageId),
        pages: usize,
        how: Passing,
        load: &mut Load<M>,
    ) -> Result<(), SpaceError> {
        loop {
            match self.try_take(cx, (page, target), pages, how, load) {
                Ok(()) | Err(Short::Full) => return Ok(()),
                Err(_) if load.len != 0 => return Ok(()),
                Err(Short::Error(error)) => return Err(error),
                Err(Short::Lend) => self.lend(cx, load, page, pages)?,
            }
        }
    }

    fn try_take<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        (page, target): (PageId, PageId),
        pages: usize,
        how: Passing,
        load: &mut Load<M>,
    ) -> Result<(), Short> {
        let mut unit = match self.find(cx, page, false)? {
            Found::Hole(_) => return Err(SpaceError::NotMapped.into()),
            Found::Unit(unit) => unit,
            Found::Giant(_, old) if old.hindrance().is_some() => {
                return Err(old.hindrance().unwrap_or(SpaceError::WrongKind).into());
            }
            Found::Giant(directory, old) => self.split_giant(cx, directory, page, old)?,
        };
        let alike = (page.number() | target.number()).is_multiple_of(ENTRIES) && pages >= ENTRIES;
        let mut result = Ok(());
        if alike {
            load.begin(page, span(2));
            result = self.take_blocks(cx, &mut unit, pages / ENTRIES, how, load);
        }
        if !alike || load.len == 0 && matches!(result, Ok(())) {
            load.begin(page, 1);
            let count = pages.min(LEAVES).min(ENTRIES - index(page, 1)).min(ENTRIES - index(target, 1));
            result = self.take_table(cx, &mut unit, count, how, load);
        }
        self.leave(cx, unit, page);
        result
    }

    /// Takes blocks and tables as long as they can be taken whole.
    fn take_blocks<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        blocks: usize,
        how: Passing,
        load: &mut Load<M>,
    ) -> Result<(), Short> {
        let first = index(load.first, 2);
        for at in first..(first + blocks).min(ENTRIES) {
            if load.cost >= LEAVES {
                return Ok(());
            }
            let page = PageId::new(load.first.number() + (at - first) * ENTRIES);
            let old = unit.table.get(at);
            if old.is_table() {
                if how != Passing::Move || !self.is_whole(old) {
                    return Ok(());
                }
                cx.pending.table_leaves(page);
                unit.table.set(at, Entry::claim(0));
                load.push(old, TABLE);
                continue;
            }
            if let Some(error) = old.hindrance() {
                return Err(error.into());
            }
            if how == Passing::Copy && old.is_owned() {
                return Ok(());
            }
            let (own, theirs) = match how {
                Passing::Move => (Entry::claim(old.record()), old),
                Passing::Copy => (old, old),
                Passing::Share => match self.lend_block(cx, load, page, old)? {
                    Some(lent) => (lent, lent),
                    None => return Ok(()),
                },
            };
            self.name(load, theirs)?;
            load.push(theirs, if how == Passing::Share && own != old { TABLE } else { BLOCK });
            if own != old {
                unit.table.set(at, own);
                if old.is_present() && how == Passing::Move {
                    cx.pending.invalidate(page, ENTRIES, PageSize::Huge);
                }
            }
        }
        Ok(())
    }

    /// Whether the table of level 1 that an entry leads to can move as it is: full, of pages that can be passed, without records.
    fn is_whole(&self, entry: Entry) -> bool {
        let table = self.below(entry);
        let plain = |index: usize| {
            let entry = table.get(index);
            entry.record() == 0 && entry.hindrance().is_none()
        };
        table.info().table().count() == ENTRIES && (0..ENTRIES).all(plain)
    }

    /// Counts an entry's pages in the load's runs; a page of each record is held.
    pub(super) fn name(&self, load: &mut Load<M>, entry: Entry) -> Result<(), Short> {
        self.open_run(load, entry.record())?;
        self.count_run(load, entry.record(), 1);
        Ok(())
    }

    /// Sees to it that the load has a run for a record.
    pub(super) fn open_run(&self, load: &mut Load<M>, record: usize) -> Result<(), Short> {
        if record == 0 || load.twin_of(record).is_some() {
            return Ok(());
        }
        let Some(free) = load.runs.get_mut(load.used) else { return Err(Short::Full) };
        if !self.records.get(record).is_some_and(|record| record.extend(1)) {
            return Err(SpaceError::NotMapped.into());
        }
        *free = Run { record, twin: 0, pages: 0 };
        load.used += 1;
        Ok(())
    }

    pub(super) fn count_run(&self, load: &mut Load<M>, record: usize, entries: usize) {
        let pages = entries * load.span;
        if record != 0
            && let Some(run) = load.twin_of(record)
        {
            run.pages += pages;
        }
    }

    /// Takes leaves of the table of the load's first page.
    fn take_table<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        count: usize,
        how: Passing,
        load: &mut Load<M>,
    ) -> Result<(), Short> {
        let page = load.first;
        let at = index(page, 2);
        let mut entry = unit.table.get(at);
        if !entry.is_table() {
            if let Some(error) = entry.hindrance() {
                return Err(error.into());
            }
            entry = self.split(cx, unit, at, entry)?;
        }
        let (table, from) = (self.below(entry), index(page, 1));
        let word = table.info().table();
        let mut leaves = Leaves { table, page, from, to: from + count, word };
        if let Some(block) = word.reservation() {
            self.break_reservation(cx, &mut leaves, block, &[0; ENTRIES / 64]);
        }
        let (result, stale) = match how {
            Passing::Move => self.move_leaves(&leaves, load),
            Passing::Copy => self.copy_leaves(&leaves, load),
            Passing::Share => self.lend_leaves(cx, &leaves, load),
        };
        if stale {
            cx.pending.invalidate(page, load.len, PageSize::Small);
        }
        self.close_leaves(cx, unit, (at, entry), &leaves, word);
        result
    }

    /// The pages go, and claims stay. Says also whether cores may have cached one of them.
    fn move_leaves(&self, leaves: &Leaves<M>, load: &mut Load<M>) -> (Result<(), Short>, bool) {
        self.each_leaf(leaves, load, |old| (Entry::claim(old.record()), old, old.is_present()))
    }

    /// Pages of the space's own are shared until written from now on.
    fn copy_leaves(&self, leaves: &Leaves<M>, load: &mut Load<M>) -> (Result<(), Short>, bool) {
        self.each_leaf(leaves, load, |old| {
            if !old.is_owned() {
                return (old, old, false);
            }
            self.memory.info(old.frame()).share();
            (old.share(), old.share(), old.is_writable())
        })
    }

    /// Exchanges leaves as long as they can be passed: `pass` says for each what stays, what goes into the load, and whether cores may have
    /// cached what may not be used any more. Entries of a record are counted together.
    #[inline(always)]
    fn each_leaf(
        &self,
        leaves: &Leaves<M>,
        load: &mut Load<M>,
        pass: impl Fn(Entry) -> (Entry, Entry, bool),
    ) -> (Result<(), Short>, bool) {
        let (mut record, mut counted, mut stale) = (0, 0, false);
        let (mut count, mut result) = (0, Ok(()));
        for place in leaves.entries() {
            // ORDER: Relaxed: entries of this table change under the unit's lock, which we have.
            let old = Entry::from_raw(place.load(Ordering::Relaxed));
            let own = old.is_own_of(record);
            if let Some(error) = old.hindrance().filter(|_| !own) {
                result = Err(error.into());
                break;
            }
            if !own && old.record() != record {
                self.count_run(load, record, count - counted);
                (record, counted) = (old.record(), count);
                result = self.open_run(load, record);
            }
            if result.is_err() {
                break;
            }
            let (stays, goes, narrows) = pass(old);
            // ORDER: Relaxed: nothing is published; the shootdown deals with other cores' walks.
            place.store(stays.raw(), Ordering::Relaxed);
            if let Some(room) = load.room().get_mut(count) {
                room.write(goes);
            }
            stale |= narrows;
            count += 1;
        }
        self.count_run(load, record, count - counted);
        // SAFETY: obligation 1: written above, and a table has no more leaves than a load has room.
        unsafe { load.filled(count) };
        (result, stale)
    }
}
