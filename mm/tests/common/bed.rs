//! One machine for tests of single cases: every operation is settled at once, as if it were the only one.

use super::{Arena, Tap, Watch};
use mm::space::{
    Access, Course, Cx, Fault, Format, Mapping, Pass, Passing, Pending, Phase, Pool, Progress, Protection,
    Region, Space, SpaceError, Steps, Upper,
};
use mm::tlb::SpaceIds;
use mm::virt::USER_PAGES;
use mm::{Batch, PageId, PageRange};
use percpu::IrqOff;
use std::cell::Cell;

pub(crate) static IDS: SpaceIds = SpaceIds::new();

/// Frames of a machine, if nothing else is said.
const FRAMES: usize = if cfg!(miri) { 4 * 512 } else { 16 * 512 };

/// A machine, its pool, and operations that are settled at once.
pub(crate) struct Bed {
    pub(crate) arena: Arena,
    pub(crate) watch: Watch,
    /// Operations that have begun: none may be under way when retired tables are used again.
    depth: Cell<usize>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with_frames(FRAMES)
    }

    pub(crate) fn with_frames(frames: usize) -> Self {
        let arena = Arena::new(frames);
        Self { arena, watch: Watch::new(arena, frames), depth: Cell::new(0) }
    }

    pub(crate) fn tap(&self) -> Tap<'_> {
        Tap(&self.watch)
    }

    pub(crate) fn space(&self) -> Space<Arena> {
        Space::new(self.arena, &mut self.tap(), IDS.take(), Format::new(true, true), Upper::Empty).unwrap()
    }

    /// An operation, and everything that follows from it.
    pub(crate) fn with<R>(&self, space: &Space<Arena>, f: impl FnOnce(&mut Cx<'_, Tap<'_>>) -> R) -> R {
        self.with_pool(space, &mut self.tap(), f).0
    }

    /// The same with another pool; gives also what other cores were told to invalidate.
    pub(crate) fn with_pool<P: Pool, R>(
        &self,
        space: &Space<Arena>,
        pool: &mut P,
        f: impl FnOnce(&mut Cx<'_, P>) -> R,
    ) -> (R, Batch) {
        let mut pending = Pending::new();
        self.depth.set(self.depth.get() + 1);
        let result = IrqOff::with(|irq| f(&mut Cx::new(irq, pool, &mut pending)));
        let batch = *pending.batch();
        space.settle(pool, &mut pending);
        self.depth.set(self.depth.get() - 1);
        if self.depth.get() == 0 {
            self.watch.grace();
        }
        (result, batch)
    }

    pub(crate) fn map(&self, space: &Space<Arena>, range: PageRange, mapping: &Mapping<'_, Arena>) {
        self.with(space, |cx| space.map(cx, range, mapping)).unwrap();
    }

    pub(crate) fn touch(&self, space: &Space<Arena>, page: usize, access: Access) -> Fault {
        self.with(space, |cx| space.fault(cx, PageId::new(page), access))
    }

    /// Changes the protection of a range that is one step.
    pub(crate) fn protect(
        &self,
        space: &Space<Arena>,
        range: PageRange,
        to: Protection,
    ) -> Result<(), SpaceError> {
        self.with(space, |cx| space.protect(cx, range, to)).map(|step| assert_eq!(step, Progress::Done(())))
    }

    pub(crate) fn unmap(&self, space: &Space<Arena>, mut rest: PageRange) -> Result<(), SpaceError> {
        while let Progress::More(at) = self.with(space, |cx| space.unmap(cx, rest))? {
            rest = PageRange::new(at, rest.end().number() - at.number()).unwrap();
        }
        Ok(())
    }

    pub(crate) fn share(
        &self,
        from: &Space<Arena>,
        to: &Space<Arena>,
        mut rest: PageRange,
    ) -> Result<(), SpaceError> {
        loop {
            let mut other = Pending::new();
            let step = self.with(from, |cx| from.share(cx, to, &mut other, rest));
            to.settle(&mut self.tap(), &mut other);
            match step? {
                Progress::Done(()) => return Ok(()),
                Progress::More(at) => {
                    rest = PageRange::new(at, rest.end().number() - at.number()).unwrap();
                }
            }
        }
    }

    /// Passes pages, in pieces of some pages each.
    pub(crate) fn pass(
        &self,
        (from, range): (&Space<Arena>, PageRange),
        (to, target): (&Space<Arena>, usize),
        how: Passing,
    ) -> Result<(), SpaceError> {
        let target = PageRange::new(PageId::new(target), range.len()).unwrap();
        let mut pass = Pass { from: (from, range), to: (to, target), how, course: Course::START };
        loop {
            pass.run(&mut &*self, 300)?;
            if pass.course.phase == Phase::Over {
                return Ok(());
            }
        }
    }

    pub(crate) fn close(&self, space: Space<Arena>) {
        self.unmap(&space, range(0, USER_PAGES)).unwrap();
        assert!(space.close(&mut self.tap()).is_ok(), "everything is unmapped");
        self.watch.grace();
    }

    pub(crate) fn regions(&self, space: &Space<Arena>) -> Vec<Region> {
        let mut all = Vec::new();
        let mut at = PageId::new(0);
        while let Some(region) = self.with(space, |cx| space.region(cx, at)) {
            at = region.range.end();
            all.push(region);
        }
        all
    }
}

impl Steps<Arena> for &Bed {
    type Pool<'p> = Tap<'p>;

    fn step<R>(&mut self, space: &Space<Arena>, f: impl FnOnce(&mut Cx<'_, Tap<'_>>) -> R) -> R {
        self.with(space, f)
    }
}

pub(crate) fn range(start: usize, pages: usize) -> PageRange {
    PageRange::new(PageId::new(start), pages).unwrap()
}
