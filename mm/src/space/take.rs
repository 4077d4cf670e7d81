//! Taking pages out of a space to pass them on.
//!
//! Where both places lie alike in blocks of 2 MiB, a load is entries of level 2: blocks, and whole tables. Otherwise it is entries of one table.
//! What moves leaves claims behind that keep its record, so that it can be put back without memory.

use super::entry::{ENTRIES, Entry, span};
use super::load::{BLOCK, Load, Run, Short, TABLE};
use super::memory::{Memory, Pool};
use super::pass::Passing;
use super::table::Locked;
use super::walk::{Found, Leaves, index};
use super::{Cx, Space, SpaceError};
use crate::virt::{PageId, PageSize};

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
            let count = pages.min(ENTRIES - index(page, 1)).min(ENTRIES - index(target, 1));
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
            if load.cost >= ENTRIES {
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
    #[inline(always)]
    pub(super) fn name(&self, load: &mut Load<M>, entry: Entry) -> Result<(), Short> {
        if entry.record() == 0 { Ok(()) } else { self.name_record(load, entry.record()) }
    }

    fn name_record(&self, load: &mut Load<M>, record: usize) -> Result<(), Short> {
        let span = load.span;
        if let Some(run) = load.twin_of(record) {
            run.pages += span;
            return Ok(());
        }
        let Some(free) = load.runs.get_mut(load.used) else { return Err(Short::Full) };
        if !self.records.get(record).is_some_and(|record| record.extend(1)) {
            return Err(SpaceError::NotMapped.into());
        }
        *free = Run { record, twin: 0, pages: span };
        load.used += 1;
        Ok(())
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
        let mut stale = false;
        for index in leaves.from..leaves.to {
            let old = leaves.table.get(index);
            let can = match old.hindrance() {
                None => self.name(load, old),
                Some(error) => Err(error.into()),
            };
            if can.is_err() {
                return (can, stale);
            }
            leaves.table.set(index, Entry::claim(old.record()));
            load.push(old, 1);
            stale |= old.is_present();
        }
        (Ok(()), stale)
    }

    /// Pages of the space's own are shared until written from now on.
    fn copy_leaves(&self, leaves: &Leaves<M>, load: &mut Load<M>) -> (Result<(), Short>, bool) {
        let mut stale = false;
        for index in leaves.from..leaves.to {
            let old = leaves.table.get(index);
            let can = match old.hindrance() {
                None => self.name(load, old),
                Some(error) => Err(error.into()),
            };
            if can.is_err() {
                return (can, stale);
            }
            let mut new = old;
            if old.is_owned() {
                self.memory.info(old.frame()).share();
                new = old.share();
                leaves.table.set(index, new);
                stale |= old.is_writable();
            }
            load.push(new, 1);
        }
        (Ok(()), stale)
    }
}
