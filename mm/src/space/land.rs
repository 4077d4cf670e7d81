//! Putting pages that were taken where they shall be, or back, or giving them up.

use super::entry::{ENTRIES, Entry};
use super::load::{Load, Run};
use super::memory::{Memory, Pool};
use super::table::{Locked, Table};
use super::walk::{Found, index};
use super::{Cx, Space, SpaceError};
use crate::id::Order;
use crate::virt::PageId;
use percpu::sync::atomic::Ordering;

/// What the places look like that a load is put into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Places {
    /// Claimed for it.
    Claimed,
    /// Left by what moved away: claims that keep their record.
    Left,
}

impl<M: Memory> Space<M> {
    /// Puts a load where `target` and what follows has been claimed for it. `from` is the space that it was taken from.
    ///
    /// # Errors
    /// [`SpaceError::Occupied`]: somebody has changed the place meanwhile; [`SpaceError::Shortage`], [`SpaceError::TooManyMappings`]. What has
    /// not been put there is still in the load: [`Space::put_back`], then [`Space::discard`].
    pub fn put<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        from: &Self,
        target: PageId,
        load: &mut Load<M>,
    ) -> Result<(), SpaceError> {
        self.pair_records(cx, from, target, load)?;
        let result = self.land(cx, (from, Places::Claimed), target, load);
        for run in load.runs() {
            self.records.subtract(cx.pool, run.twin, run.pages as u64);
        }
        if result.is_ok() {
            from.let_go(cx.pool, load);
        }
        result
    }

    /// Puts what a load has left where it was taken from, or a load of pages that had been moved away from `target` there again. `from` is
    /// the space that it was taken from.
    ///
    /// # Errors
    /// [`SpaceError::Occupied`]: somebody has changed the place meanwhile. What has not been put there is still in the load.
    pub fn put_back<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        from: &Self,
        target: PageId,
        load: &mut Load<M>,
    ) -> Result<(), SpaceError> {
        let result = self.land(cx, (from, Places::Left), target, load);
        if result.is_ok() {
            from.let_go(cx.pool, load);
        }
        result
    }

    /// Gives up what a load of this space still has: as if it had been unmapped.
    pub fn discard<P: Pool>(&self, cx: &mut Cx<'_, P>, load: &mut Load<M>) {
        let order = if load.span == 1 { Order::FRAME } else { Order::HUGE };
        for index in load.done..load.len {
            let Some(&entry) = load.rest().first() else { break };
            load.done = index + 1;
            if load.span != 1 && entry.is_table() {
                self.discard_table(cx.pool, entry);
            } else if entry.is_owned() {
                self.discard_frame(cx.pool, entry, order);
            }
        }
        self.let_go(cx.pool, load);
    }

    /// The last that is done with a load of this space: nothing of it stays.
    pub fn part<P: Pool>(&self, cx: &mut Cx<'_, P>, load: &mut Load<M>) {
        self.discard(cx, load);
        if let Some(lent) = load.lent.take() {
            lent.release(&self.records, cx.pool);
        }
    }

    /// Frames that entries of a load own which are still to be put somewhere.
    pub(super) fn owned(&self, load: &Load<M>) -> usize {
        let owned = |entry: &Entry| {
            if load.span != 1 && entry.is_table() {
                let table = self.below(*entry);
                let leaves = match table.info().table().reservation() {
                    Some(_) => ENTRIES,
                    None => (0..ENTRIES).filter(|&index| table.get(index).is_owned()).count(),
                };
                return leaves + 1;
            }
            if entry.is_owned() { load.span } else { 0 }
        };
        load.rest().iter().map(owned).sum()
    }

    /// Gives up the pages of records that a load holds.
    fn let_go<P: Pool>(&self, pool: &mut P, load: &mut Load<M>) {
        for run in load.runs() {
            self.records.subtract(pool, run.record, 1);
        }
        load.used = 0;
    }

    fn discard_frame<P: Pool>(&self, pool: &mut P, entry: Entry, order: Order) {
        if !entry.is_copy() || self.memory.info(entry.frame()).unshare() {
            pool.give(entry.frame(), order);
        }
    }

    fn discard_table<P: Pool>(&self, pool: &mut P, entry: Entry) {
        let table = self.below(entry);
        match table.info().table().reservation() {
            Some(block) => pool.give(block, Order::HUGE),
            None => {
                let owned = (0..ENTRIES).map(|index| table.get(index)).filter(|entry| entry.is_owned());
                owned.for_each(|entry| self.discard_frame(pool, entry, Order::FRAME));
            }
        }
        pool.give(table.frame, Order::FRAME);
    }

    /// Finds or makes a record here for each that the load's entries name, and counts the pages that it gets.
    fn pair_records<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        from: &Self,
        target: PageId,
        load: &mut Load<M>,
    ) -> Result<(), SpaceError> {
        for at in 0..load.used {
            let Run { record, pages, .. } = load.runs[at];
            let twin = self.pair_record(cx, from, target, load, (record, pages));
            match twin {
                Ok(twin) => load.runs[at].twin = twin,
                Err(error) => {
                    let paired = load.runs.get(..at).unwrap_or_default();
                    paired.iter().for_each(|run| self.records.subtract(cx.pool, run.twin, run.pages as u64));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn pair_record<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        from: &Self,
        target: PageId,
        load: &mut Load<M>,
        (record, pages): (usize, usize),
    ) -> Result<usize, SpaceError> {
        let theirs = from.records.get(record).ok_or(SpaceError::NotMapped)?;
        let terms = theirs.moved(load.page(), target);
        let before = || target.number().checked_sub(1).map_or(0, |page| self.record_at(PageId::new(page)));
        let known = if load.pair.0 == record { load.pair.1 } else { before() };
        if let Some(own) = self.records.get(known)
            && own.extend(pages as u64)
        {
            if own.shows(&terms, target) {
                load.pair = (record, known);
                return Ok(known);
            }
            self.records.subtract(cx.pool, known, pages as u64);
        }
        let twin = self.records.add((&self.purse, cx.pool), &terms, self.tlb.id().raw(), pages)?;
        load.pair = (record, twin);
        Ok(twin)
    }

    /// Puts the load's entries into the unit of `target`. What has been put is counted off the runs.
    fn land<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        way: (&Self, Places),
        target: PageId,
        load: &mut Load<M>,
    ) -> Result<(), SpaceError> {
        if load.rest().is_empty() {
            return Ok(());
        }
        let mut unit = match self.find(cx, target, false)? {
            Found::Unit(unit) => unit,
            Found::Giant(directory, old) if old.is_claim() => self.split_giant(cx, directory, target, old)?,
            Found::Giant(..) | Found::Hole(_) => return Err(SpaceError::Occupied),
        };
        let result = if load.span == 1 {
            self.land_leaves(cx, &mut unit, way, target, load)
        } else {
            self.land_blocks(cx, &mut unit, way, target, load)
        };
        self.leave(cx, unit, target);
        result
    }

    fn land_leaves<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        way: (&Self, Places),
        target: PageId,
        load: &mut Load<M>,
    ) -> Result<(), SpaceError> {
        let at = index(target, 2);
        let mut entry = unit.table.get(at);
        if entry.is_claim() {
            entry = self.split(cx, unit, at, entry)?;
        }
        if !entry.is_table() {
            return Err(SpaceError::Occupied);
        }
        let table = self.below(entry);
        let first = index(target, 1);
        let mut done = self.land_run(way, (&table, first), target, load);
        // What is left is of records, or goes back.
        while let Some(&entry) = load.rest().first() {
            let page = PageId::new(target.number() + done);
            let new = self.fitting(way, entry, (table.get(first + done), page), load)?;
            self.tell(entry, page);
            table.set(first + done, new);
            load.done += 1;
            done += 1;
        }
        Ok(())
    }

    /// Lands the entries at the beginning that have one record, or none, where claims are as they were made; returns how many.
    #[inline(always)]
    fn land_run(
        &self,
        (_, places): (&Self, Places),
        (table, first): (&Table<M>, usize),
        target: PageId,
        load: &mut Load<M>,
    ) -> usize {
        let Some(&head) = load.rest().first() else { return 0 };
        let record = head.record();
        let Some(twin) = load.twin_of(record).map(|run| run.twin).or((record == 0).then_some(0)) else {
            return 0;
        };
        if places == Places::Left {
            return 0;
        }
        let words = table.entries().get(first..).unwrap_or_default();
        let mut done = 0;
        for (place, &entry) in words.iter().zip(load.rest()) {
            // ORDER: Relaxed: entries of this table change under the unit's lock, which we have.
            let claimed = place.load(Ordering::Relaxed) == Entry::claim(0).raw();
            if !claimed || entry.record() != record {
                break;
            }
            self.tell(entry, PageId::new(target.number() + done));
            // ORDER: Release pairs with other cores' walks: the page is complete before it is led to.
            place.store(entry.with_record(twin).raw(), Ordering::Release);
            done += 1;
        }
        load.done += done;
        if let Some(run) = load.twin_of(record) {
            run.pages -= done;
        }
        done
    }

    /// A frame of the space's alone is shown at this page from now on.
    #[inline(always)]
    fn tell(&self, entry: Entry, page: PageId) {
        if entry.is_owned() && !entry.is_copy() {
            self.memory.info(entry.frame()).set_private(self.short_id(), page);
        }
    }

    fn land_blocks<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        unit: &mut Locked<M>,
        way: (&Self, Places),
        target: PageId,
        load: &mut Load<M>,
    ) -> Result<(), SpaceError> {
        let first = index(target, 2);
        for at in 0..load.rest().len() {
            let page = PageId::new(target.number() + at * ENTRIES);
            let Some(&entry) = load.rest().first() else { break };
            let place = self.cleared(cx, unit, first + at, page);
            let new = self.fitting(way, entry, (place, page), load)?;
            if entry.is_table() {
                self.tell_leaves(&self.below(entry), page);
            } else if entry.is_owned() {
                self.memory.info(entry.frame()).set_private(self.short_id(), page);
            }
            unit.table.set(first + at, new);
            load.done += 1;
        }
        Ok(())
    }

    /// The entry of level 2 where a block or a table goes. A claim that somebody has split meanwhile is made one again.
    fn cleared<P: Pool>(&self, cx: &mut Cx<'_, P>, unit: &Locked<M>, at: usize, page: PageId) -> Entry {
        let place = unit.table.get(at);
        if !place.is_table() {
            return place;
        }
        let table = self.below(place);
        let whole = self.uniform(&table, 2).filter(|whole| whole.is_claim());
        if let Some(whole) = whole {
            unit.table.set(at, whole);
            cx.pending.table(table.info(), table.frame, page);
            return whole;
        }
        place
    }

    /// The frames of a table that has come from elsewhere are shown here from now on.
    fn tell_leaves(&self, table: &Table<M>, page: PageId) {
        for index in 0..ENTRIES {
            self.tell(table.get(index), PageId::new(page.number() + index));
        }
    }

    /// An entry of a load as it stands at a place of this space, if the place is for it.
    #[inline(always)]
    fn fitting(
        &self,
        (from, places): (&Self, Places),
        entry: Entry,
        (place, page): (Entry, PageId),
        load: &mut Load<M>,
    ) -> Result<Entry, SpaceError> {
        let record = if load.span != 1 && entry.is_table() { 0 } else { entry.record() };
        if !place.is_claim() || places == Places::Claimed && place.record() != 0 {
            return Err(SpaceError::Occupied);
        }
        if record == 0 && place.record() == 0 {
            return Ok(entry);
        }
        let origin = load.page();
        if places == Places::Left {
            let theirs = from.records.get(record).ok_or(SpaceError::Occupied)?;
            let own = self.records.get(place.record()).ok_or(SpaceError::Occupied)?;
            let same = own.shows(&theirs.moved(origin, page), page);
            return if same { Ok(entry.with_record(place.record())) } else { Err(SpaceError::Occupied) };
        }
        let span = load.span;
        let run = load.twin_of(record).ok_or(SpaceError::NotMapped)?;
        run.pages -= span;
        Ok(entry.with_record(run.twin))
    }
}
