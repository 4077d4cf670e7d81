//! Looking at a space: which region an address is in, where there is room.

use super::entry::{Entry, Level, span};
use super::memory::{Memory, Pool};
use super::pending::Halt;
use super::walk::{Act, Leaves, Stop, Visit};
use super::{Cx, Kind, Progress, Protection, Space};
use crate::virt::{PageId, PageRange, PageSize, USER_PAGES};
use percpu::sync::atomic::Ordering;

/// Consecutive pages of one kind, with one protection and made by one mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// Its pages, from the one that was asked for.
    pub range: PageRange,
    /// What it is made of.
    pub kind: Kind,
    /// What may be done with it.
    pub protection: Protection,
    /// How many pages are there.
    pub present: usize,
}

/// Collects equal entries.
struct Look<'s, M> {
    space: &'s Space<M>,
    region: Option<(Kind, u64, Protection)>,
    start: PageId,
    end: PageId,
    present: usize,
}

/// Looks for the first page that is not free.
struct Seek {
    found: Option<PageId>,
}

impl<M: Memory> Space<M> {
    fn kind(&self, entry: Entry) -> Kind {
        if !entry.is_present()
            && let Some(kind) = entry.lazy_kind()
        {
            return kind;
        }
        match self.records.get(entry.record()) {
            Some(record) => record.kind(),
            None if entry.is_owned() => Kind::Anonymous,
            None => Kind::Device,
        }
    }

    /// The first region at or after a page: for the page's own, what it has from there on. It ends where anything differs, and after one
    /// step's entries at the latest; the next one then begins there.
    #[must_use]
    pub fn region<P: Pool>(&self, cx: &mut Cx<'_, P>, from: PageId) -> Option<Region> {
        let mut look = Look { space: self, region: None, start: from, end: from, present: 0 };
        let mut at = from;
        while let Some(range) = PageRange::new(at, USER_PAGES.checked_sub(at.number())?) {
            cx.steps = super::STEP;
            match self.walk(cx, range, &mut look) {
                Ok(Progress::More(next)) if look.region.is_none() => at = next,
                _ => break,
            }
        }
        let (kind, _, protection) = look.region?;
        let range = PageRange::new(look.start, look.end.number() - look.start.number())?;
        Some(Region { range, kind, protection, present: look.present })
    }

    /// Room for `pages` pages where nothing is mapped, at a multiple of `align`: at random places, then at the first that will do. The place may
    /// be taken by another core before it is mapped; then one asks again.
    #[must_use]
    pub fn place<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        pages: usize,
        align: PageSize,
        mut random: impl FnMut() -> u64,
    ) -> Option<PageRange> {
        let span = align.pages();
        let last = USER_PAGES.checked_sub(pages)? / span;
        if last == 0 {
            return None;
        }
        for _ in 0..TRIES {
            // Page 0 stays free, so that null is never mapped.
            let at = PageId::new((random() as usize % last + 1) * span);
            if let Some(range) = PageRange::new(at, pages)
                && self.occupied(cx, range).is_none()
            {
                return Some(range);
            }
        }
        self.first_fit(cx, pages, span)
    }

    /// The first page of a range that is not free.
    fn occupied<P: Pool>(&self, cx: &mut Cx<'_, P>, range: PageRange) -> Option<PageId> {
        let mut seek = Seek { found: None };
        let mut at = range.start();
        while let Some(rest) = PageRange::new(at, range.end().number() - at.number()) {
            cx.steps = super::STEP;
            match self.walk(cx, rest, &mut seek) {
                Ok(Progress::More(next)) if seek.found.is_none() => at = next,
                _ => break,
            }
        }
        seek.found
    }

    fn first_fit<P: Pool>(&self, cx: &mut Cx<'_, P>, pages: usize, span: usize) -> Option<PageRange> {
        let mut at = span;
        loop {
            let range = PageRange::new(PageId::new(at), pages)?;
            let Some(page) = self.occupied(cx, range) else { return Some(range) };
            let end = self.region(cx, page).map_or(page.number() + 1, |region| region.range.end().number());
            at = end.next_multiple_of(span);
        }
    }
}

/// Random places that are tried. With a half-empty half of the address space all fail once in a million.
const TRIES: usize = 20;

impl<M: Memory> Look<'_, M> {
    fn see(&mut self, page: PageId, pages: usize, entry: Entry) -> Result<(), Stop> {
        let over = Halt::Pause(page);
        if entry.is_empty() {
            return if self.region.is_some() { Err(over) } else { Ok(()) };
        }
        let found = (self.space.kind(entry), entry.attributes(), entry.protection());
        match self.region {
            None => {
                self.region = Some(found);
                self.start = page;
            }
            Some(region) if region != found || self.end != page => return Err(over),
            Some(_) => {}
        }
        self.end = PageId::new(page.number() + pages);
        self.present += if entry.is_present() { pages } else { 0 };
        Ok(())
    }
}

impl Seek {
    fn see(&mut self, page: PageId, entry: Entry) -> Result<(), Stop> {
        if entry.is_empty() {
            return Ok(());
        }
        self.found = Some(page);
        Err(Halt::Pause(page))
    }
}

impl<M: Memory, P: Pool> Visit<M, P> for Seek {
    const CREATES: bool = false;

    fn block(&mut self, _: &mut Cx<'_, P>, page: PageId, _: Level, old: Entry) -> Result<Act, Stop> {
        self.see(page, old).map(|()| Act::Keep)
    }

    fn part(&mut self, page: PageId, _: usize, old: Entry) -> Result<Act, Stop> {
        self.see(page, old).map(|()| Act::Keep)
    }

    fn leaves(&mut self, _: &mut Cx<'_, P>, leaves: &mut Leaves<M>) -> Result<(), Stop> {
        let from = leaves.page.number();
        let entries = leaves.entries().iter().enumerate();
        for (index, place) in entries {
            // ORDER: Relaxed: entries of this table change under the unit's lock, which we have.
            self.see(PageId::new(from + index), Entry::from_raw(place.load(Ordering::Relaxed)))?;
        }
        Ok(())
    }
}

impl<M: Memory, P: Pool> Visit<M, P> for Look<'_, M> {
    const CREATES: bool = false;

    fn block(&mut self, _: &mut Cx<'_, P>, page: PageId, level: Level, old: Entry) -> Result<Act, Stop> {
        self.see(page, span(level), old).map(|()| Act::Keep)
    }

    fn part(&mut self, page: PageId, pages: usize, old: Entry) -> Result<Act, Stop> {
        self.see(page, pages, old).map(|()| Act::Keep)
    }

    fn leaves(&mut self, _: &mut Cx<'_, P>, leaves: &mut Leaves<M>) -> Result<(), Stop> {
        for index in 0..leaves.len() {
            let page = PageId::new(leaves.page.number() + index);
            self.see(page, 1, leaves.table.get(leaves.from + index))?;
        }
        Ok(())
    }
}
