//! Sharing a range with another space until one of the two writes.
//!
//! Owned pages lose their write permission and get a count of mappings; whoever writes one gets a copy, the last one keeps the frame. What
//! is not there yet is promised to both. Entries are carried over in loads, so that no core ever has the locks of two spaces.

use super::entry::{ENTRIES, Entry, Level, span};
use super::memory::{Frames, Memory, Pool, Shortage};
use super::pending::{Halt, Pending};
use super::walk::{self, Act, Found, Leaves, Stop, Visit, index};
use super::{Cx, Kind, Progress, Space, SpaceError};
use crate::id::Order;
use crate::virt::{PageId, PageRange, PageSize};

/// Entries that are carried at once.
const LOAD: usize = 64;

/// What is carried, as it goes into the other space. For every entry with a record a page of that record is held.
struct Load {
    entries: [Entry; LOAD],
    len: usize,
    /// Pages that each entry covers.
    span: usize,
}

impl Load {
    fn all(&self) -> &[Entry] {
        &self.entries[..self.len]
    }
}

/// The record of the source that was met last, and its twin in the other space. A page of each is held meanwhile, so that neither number
/// comes to mean something else.
#[derive(Clone, Copy)]
struct Twin {
    theirs: usize,
    own: usize,
}

impl<M: Memory> Space<M> {
    /// Makes a range of `to` show what this space shows in the same range, copied when either writes. One step; nothing may be mapped in
    /// that range of `to`.
    ///
    /// `cx` is settled with this space, `other` with `to`.
    ///
    /// # Errors
    /// [`SpaceError::WrongKind`]: there is a device in the range; [`SpaceError::Occupied`], [`SpaceError::Shortage`],
    /// [`SpaceError::TooManyMappings`]. What `to` has got until then stays until it is unmapped.
    pub fn share<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        to: &Self,
        other: &mut Pending,
        range: PageRange,
    ) -> Result<Progress<PageId>, SpaceError> {
        let mut twin = Twin { theirs: 0, own: 0 };
        let mut page = range.start();
        let mut left = super::STEP;
        let result = loop {
            if page >= range.end() {
                break Ok(Progress::Done(()));
            }
            if left == 0 {
                break Ok(Progress::More(page));
            }
            let load = match self.collect(cx, page, range.end()) {
                Ok(Ok(load)) => load,
                Ok(Err(hole)) => {
                    left = left.saturating_sub(walk::hole_cost(page, hole));
                    page = hole;
                    continue;
                }
                Err(error) => break Err(error),
            };
            let mut theirs = Cx { pool: &mut *cx.pool, pending: &mut *other, steps: super::STEP };
            if let Err(error) = to.plant(&mut theirs, self, &load, page, &mut twin) {
                break Err(error);
            }
            left = left.saturating_sub(load.len);
            page = PageId::new(page.number() + load.len * load.span);
        };
        self.records.subtract(cx.pool, twin.theirs, 1);
        to.records.subtract(cx.pool, twin.own, 1);
        result
    }

    /// The next load of this space, its pages shared from now on; or the page up to which there is nothing.
    fn collect<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        page: PageId,
        end: PageId,
    ) -> Result<Result<Load, PageId>, SpaceError> {
        let left = end.number() - page.number();
        let promise = match self.find(cx, page, false)? {
            Found::Hole(next) => return Ok(Err(next)),
            Found::Giant(_locked, old) => self.promise(old, page, (3, left)),
            Found::Unit(unit) => self.promise(unit.table.get(index(page, 2)), page, (2, left)),
        };
        if let Some(load) = promise {
            return Ok(Ok(load));
        }
        let count = left.min(LOAD - page.number() % LOAD);
        let Some(part) = PageRange::new(page, count) else { return Ok(Err(end)) };
        let load = Load { entries: [Entry::EMPTY; LOAD], len: 0, span: 1 };
        let mut collect = Collect { space: self, load };
        cx.steps = super::STEP;
        let result = self.walk(cx, part, &mut collect);
        match result {
            Ok(_) => {
                // Where a table of level 1 is missing nothing was shown to the visitor.
                collect.load.len = count;
                Ok(Ok(collect.load))
            }
            Err(error) => {
                self.put_down(cx.pool, &collect.load);
                Err(error)
            }
        }
    }

    /// A whole entry of a higher level that is a promise only, or nothing: a load of its own.
    fn promise(&self, entry: Entry, page: PageId, (level, left): (Level, usize)) -> Option<Load> {
        if entry.is_present() || !page.number().is_multiple_of(span(level)) || left < span(level) {
            return None;
        }
        let load = Load { entries: [entry; LOAD], len: 1, span: span(level) };
        self.hold(entry).then_some(load)
    }

    /// Holds a page of an entry's record, under the lock of the entry.
    pub(super) fn hold(&self, entry: Entry) -> bool {
        entry.record() == 0 || self.records.get(entry.record()).is_some_and(|record| record.extend(1))
    }

    /// Drops what a load holds.
    fn put_down<P: Pool>(&self, pool: &mut P, load: &Load) {
        for entry in load.all() {
            self.records.subtract(pool, entry.record(), 1);
            if entry.is_owned() && self.memory.info(entry.frame()).unshare() {
                // The space it came from has unmapped it meanwhile, and is done with its shootdown (A3).
                pool.give(entry.frame(), Order::FRAME);
            }
        }
    }

    /// Puts a load into this space.
    fn plant<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        from: &Self,
        load: &Load,
        page: PageId,
        twin: &mut Twin,
    ) -> Result<(), SpaceError> {
        let mut entries = [Entry::EMPTY; LOAD];
        let (mut made, mut planted) = (0, 0);
        let owned = load.all().iter().filter(|entry| entry.is_present() && entry.is_owned()).count();
        let paid = self.purse.take(owned, &mut Frames(cx.pool)).map_err(Shortage::from);
        let refund = if paid.is_ok() { owned } else { 0 };
        let mut result = paid.map_err(SpaceError::from);
        for (place, &entry) in entries.iter_mut().zip(load.all()).filter(|_| refund == owned) {
            match self.translate(cx, from, entry, (load.span, twin)) {
                Ok(new) => *place = new,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            made += 1;
        }
        if result.is_ok()
            && entries.iter().any(|entry| !entry.is_empty())
            && let Some(part) = PageRange::new(page, load.len * load.span)
        {
            let mut plant = Plant { entries: &entries[..load.len], done: 0 };
            result = self.walk(cx, part, &mut plant).map(|_| ());
            planted = plant.done;
        }
        if result.is_err() {
            self.refund(cx.pool, refund);
            from.put_down(cx.pool, load);
            for entry in &entries[..made] {
                self.records.subtract(cx.pool, entry.record(), (load.span - planted) as u64);
            }
            return result;
        }
        for entry in load.all() {
            from.records.subtract(cx.pool, entry.record(), 1);
        }
        Ok(())
    }

    /// An entry of another space as this one has it: with a record of its own.
    fn translate<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        from: &Self,
        entry: Entry,
        (pages, twin): (usize, &mut Twin),
    ) -> Result<Entry, SpaceError> {
        let number = entry.record();
        if number == 0 {
            return Ok(entry);
        }
        if twin.theirs != number {
            let record = from.records.get(number).ok_or(SpaceError::NotMapped)?;
            let own = self.records.add((&self.purse, cx.pool), &record.terms(), self.tlb.id().raw(), 1)?;
            from.records.subtract(cx.pool, twin.theirs, 1);
            self.records.subtract(cx.pool, twin.own, 1);
            let held = record.extend(1);
            debug_assert!(held, "O2: the load holds a page of the record");
            *twin = Twin { theirs: number, own };
        }
        let extended = self.records.get(twin.own).is_some_and(|record| record.extend(pages as u64));
        debug_assert!(extended, "O2: a page of the twin is held");
        Ok(entry.with_record(twin.own))
    }
}

/// Takes one load out of the source.
struct Collect<'s, M> {
    space: &'s Space<M>,
    load: Load,
}

impl<M: Memory> Collect<'_, M> {
    /// What an entry becomes here, and what goes into the other space for it.
    fn take(&mut self, old: Entry) -> Result<(Entry, Entry), SpaceError> {
        if old.is_present() && !old.is_owned() && old.record() == 0 {
            return Err(SpaceError::WrongKind);
        }
        if !self.space.hold(old) {
            return Err(SpaceError::NotMapped);
        }
        if !old.is_present() {
            return Ok((old, old));
        }
        if old.is_owned() {
            self.space.memory.info(old.frame()).share();
            return Ok((old.share(), old.share()));
        }
        // The other space finds the object's page by its record when it needs it.
        let kind = if old.is_copy() { Kind::Copy } else { Kind::Shared };
        Ok((old, Entry::lazy(kind, self.space.format.bits(old.protection()), old.record())))
    }
}

impl<M: Memory, P: Pool> Visit<M, P> for Collect<'_, M> {
    const CREATES: bool = false;

    fn block(&mut self, _: &mut Cx<'_, P>, _: PageId, _: Level, _: Entry) -> Result<Act, Stop> {
        // A load is smaller than a block.
        Ok(Act::Split)
    }

    fn leaves(&mut self, cx: &mut Cx<'_, P>, leaves: &mut Leaves<M>) -> Result<(), Stop> {
        if let Some(block) = leaves.word.reservation() {
            self.space.break_reservation(cx, leaves, block, &[0; ENTRIES / 64]);
        }
        let mut narrowed = false;
        let mut result = Ok(());
        for index in 0..leaves.len() {
            let old = leaves.table.get(leaves.from + index);
            let (own, theirs) = match self.take(old) {
                Ok(taken) => taken,
                Err(error) => {
                    result = Err(Halt::Error(error));
                    break;
                }
            };
            if own != old {
                leaves.table.set(leaves.from + index, own);
                narrowed |= old.is_writable();
            }
            self.load.entries[index % LOAD] = theirs;
            self.load.len = index + 1;
        }
        // Also when the load is refused: what was narrowed stays so, and the next share takes it for invalidated.
        if narrowed {
            cx.pending.invalidate(leaves.page, leaves.len(), PageSize::Small);
        }
        result
    }
}

/// Puts entries into an empty range.
struct Plant<'e> {
    entries: &'e [Entry],
    /// Pages that a single entry of a higher level has got; where it meets a table it takes several places, of which one may be occupied.
    done: usize,
}

impl<M: Memory, P: Pool> Visit<M, P> for Plant<'_> {
    const CREATES: bool = true;

    fn block(&mut self, _: &mut Cx<'_, P>, _: PageId, level: Level, old: Entry) -> Result<Act, Stop> {
        match (old.is_empty(), self.entries) {
            (true, &[entry]) => {
                self.done += span(level);
                Ok(Act::Set(entry))
            }
            _ => Err(Halt::Error(SpaceError::Occupied)),
        }
    }

    fn part(&mut self, _: PageId, _: usize, old: Entry) -> Result<Act, Stop> {
        if old.is_empty() { Ok(Act::Split) } else { Err(Halt::Error(SpaceError::Occupied)) }
    }

    fn leaves(&mut self, _: &mut Cx<'_, P>, leaves: &mut Leaves<M>) -> Result<(), Stop> {
        let fits = leaves.len() == self.entries.len();
        if !fits || (leaves.from..leaves.to).any(|index| !leaves.table.get(index).is_empty()) {
            return Err(Halt::Error(SpaceError::Occupied));
        }
        for (index, &entry) in self.entries.iter().enumerate() {
            if !entry.is_empty() {
                leaves.table.set(leaves.from + index, entry);
                leaves.word = leaves.word.add(1);
            }
        }
        Ok(())
    }
}
