//! Passing pages to another space, or to another place of the same one: moved, shared, or copied when written.
//!
//! The place where pages go is claimed first: mapped as reserved. Then they go in loads (`load`). A load is taken out of one space under its
//! unit's lock (`take`) and put into the other under that one's (`land`); in between, nobody having a lock, cores forget what they may not use
//! any more (A3). In the end claims are unmapped: those that moved pages have left, or after an error those where they should have gone to.
//!
//! An error takes everything back, without memory: both spaces are as before. Only where somebody else changes the places meanwhile, what
//! finds no place any more is given up as if it had been unmapped; so is what the bank that it left cannot pay for any more (A8). Between
//! spaces of one payer that cannot be.

use super::load::{LEAVES, Load};
use super::memory::{Frames, Memory, Pool, Shortage};
use super::{Backing, Cx, Mapping, Progress, Protection, Space, SpaceError};
use crate::virt::{PageId, PageRange, PageSize};

/// How pages are passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passing {
    /// Whoever had them has them no longer; frames and contents are the same.
    Move,
    /// Both see what either writes: pages of one space alone become an object's first.
    Share,
    /// Each gets a copy of what it writes. An object's pages stay the object's for both.
    Copy,
}

/// Runs one step of an operation on a space and settles it: what every operation needs that has several.
pub trait Steps<M: Memory> {
    /// Where frames come from.
    type Pool<'p>: Pool;

    /// Runs a step; when this returns every core knows what it has to.
    fn step<R>(&mut self, space: &Space<M>, f: impl FnOnce(&mut Cx<'_, Self::Pool<'_>>) -> R) -> R;
}

/// What a pass does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing has been done.
    Begin,
    /// Pages go to where they shall be.
    Forward,
    /// What has moved goes back, the last first.
    Back,
    /// What was claimed is unmapped.
    Clear,
    /// It is over.
    Over,
}

/// How far a pass has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    /// What it does.
    pub phase: Phase,
    /// Why it is taken back.
    pub error: Option<SpaceError>,
    /// Pages that have arrived, are still to go back, or have been cleared.
    pub done: usize,
}

impl Course {
    /// Of a pass that has not begun.
    pub const START: Self = Self { phase: Phase::Begin, error: None, done: 0 };
}

/// Pages of one space that go to another, or to another place in it.
#[derive(Debug)]
pub struct Pass<'s, M: Memory> {
    /// The space that has them, and where.
    pub from: (&'s Space<M>, PageRange),
    /// Where they go: as many pages.
    pub to: (&'s Space<M>, PageRange),
    /// How they go.
    pub how: Passing,
    /// How far it has come.
    pub course: Course,
}

impl<M: Memory> Pass<'_, M> {
    /// Goes on, and stops when it has cost about so many leaves of page tables, taken and put.
    ///
    /// # Errors
    /// Once the pass is over: [`SpaceError::Occupied`]: something is mapped at the target; those of [`Space::take`] and [`Space::put`].
    pub fn run<S: Steps<M>>(&mut self, steps: &mut S, budget: usize) -> Result<(), SpaceError> {
        let mut left = budget;
        while left > 0 && self.course.phase != Phase::Over {
            if self.course.phase == Phase::Clear && self.from.1.len() > 4 * budget && left < budget {
                // A step of unmapping costs as much as all this, if there are many claims: each takes some three instructions.
                break;
            }
            let cost = match self.course.phase {
                Phase::Begin => self.claim(steps)?,
                Phase::Forward => self.forward(steps, left),
                Phase::Back => self.back(steps),
                Phase::Clear => self.clear(steps),
                Phase::Over => 0,
            };
            left = left.saturating_sub(cost);
        }
        match (self.course.phase, self.course.error) {
            (Phase::Over, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn claim<S: Steps<M>>(&mut self, steps: &mut S) -> Result<usize, SpaceError> {
        let (space, range) = self.to;
        if core::ptr::eq(space, self.from.0) && self.from.1.intersection(range).is_some() {
            // A hole of the source would be claimed, and look like what is passed.
            return Err(SpaceError::Occupied);
        }
        let claim = Mapping::new(Backing::Reserved, Protection::Read);
        let claimed = steps.step(space, |cx| space.map(cx, range, &claim));
        self.course =
            Course { phase: if claimed.is_ok() { Phase::Forward } else { Phase::Over }, ..Course::START };
        // Some 30 instructions for an entry, of which most are of level 2 if there are many.
        let entries = range.len() % PageSize::Huge.pages() + range.len() / PageSize::Huge.pages();
        claimed.map(|()| entries / 4 + 1)
    }

    /// The places of the page that comes next.
    fn next(&self) -> (PageId, PageId) {
        let at = |range: PageRange| PageId::new(range.start().number() + self.course.done);
        (at(self.from.1), at(self.to.1))
    }

    /// Passes loads as long as they may cost something.
    fn forward<S: Steps<M>>(&mut self, steps: &mut S, budget: usize) -> usize {
        let (from, range) = self.from;
        let mut load = Load::new();
        let (mut cost, mut result) = (1, Ok(()));
        while result.is_ok() && self.course.done < range.len() && cost <= budget {
            result = self.pass_load(steps, &mut load);
            cost += load.cost() + 1;
        }
        steps.step(from, |cx| from.part(cx, &mut load));
        match result {
            Err(error) => {
                self.course.error = Some(error);
                self.course.phase = Phase::Back;
            }
            Ok(()) if self.course.done < range.len() => {}
            Ok(()) if self.how == Passing::Move => {
                self.course = Course { phase: Phase::Clear, error: None, done: 0 };
            }
            Ok(()) => self.course.phase = Phase::Over,
        }
        cost
    }

    fn pass_load<S: Steps<M>>(&mut self, steps: &mut S, load: &mut Load<M>) -> Result<(), SpaceError> {
        let ((from, range), (to, _), how) = (self.from, self.to, self.how);
        let (page, target) = self.next();
        let rest = range.len() - self.course.done;
        steps.step(from, |cx| from.take(cx, (page, target), rest, how, load))?;
        let (frames, moves) = (from.owned(load), how == Passing::Move);
        let handed = moves && from.purse.hand(&to.purse, frames);
        let put = steps.step(to, |cx| {
            if !handed {
                to.purse.take(frames, &mut Frames(cx.pool)).map_err(Shortage::from)?;
            }
            let put = to.put(cx, from, target, load);
            if !handed {
                to.refund(cx.pool, from.owned(load));
            }
            put
        });
        self.course.done = load.page().number() - range.start().number();
        if moves {
            let left = from.owned(load);
            let is_paid = !handed || self.pay_back(steps, left);
            if !handed {
                steps.step(from, |cx| from.refund(cx.pool, frames - left));
            }
            if put.is_err() && is_paid {
                self.put_back(steps, from, (from, load.page()), load);
            }
        }
        put
    }

    /// Puts a load of `owner`'s back into a space, which has paid for it. What finds its place changed there as well goes with the load.
    fn put_back<S: Steps<M>>(
        &self,
        steps: &mut S,
        owner: &Space<M>,
        (space, page): (&Space<M>, PageId),
        load: &mut Load<M>,
    ) {
        steps.step(space, |cx| {
            let _back = space.put_back(cx, owner, page, load);
            space.refund(cx.pool, owner.owned(load));
        });
    }

    /// Has the space that pages come from pay again for frames that the other one has paid for. `false` if its bank cannot: another one than the
    /// other's, which has spent meanwhile what it got back. They are given up then.
    fn pay_back<S: Steps<M>>(&self, steps: &mut S, frames: usize) -> bool {
        let (from, to) = (self.from.0, self.to.0);
        if to.purse.hand(&from.purse, frames) {
            return true;
        }
        steps.step(to, |cx| to.refund(cx.pool, frames));
        steps.step(from, |cx| from.purse.take(frames, &mut Frames(cx.pool))).is_ok()
    }

    /// Moves back what lies in one table on both sides, from the end on. What was not moved is only unmapped.
    fn back<S: Steps<M>>(&mut self, steps: &mut S) -> usize {
        const TABLE: usize = PageSize::Huge.pages();
        let ((from, range), (to, place)) = (self.from, self.to);
        if self.how != Passing::Move || self.course.done == 0 {
            (self.course.phase, self.course.done) = (Phase::Clear, 0);
            return 1;
        }
        let last = self.course.done - 1;
        let before = |range: PageRange| (range.start().number() + last) % TABLE;
        let count = match last.min(before(range)).min(before(place)) + 1 {
            // It may be one that has moved as it is.
            TABLE => TABLE,
            count => count.min(LEAVES),
        };
        self.course.done -= count;
        let (page, target) = self.next();
        let mut load = Load::new();
        let mut at = 0;
        while at < count {
            let places = (PageId::new(target.number() + at), PageId::new(page.number() + at));
            let taken = steps.step(to, |cx| to.take(cx, places, count - at, Passing::Move, &mut load));
            // What is not there any more, nobody misses.
            at += if taken.is_ok() { load.pages() } else { 1 };
            let frames = to.owned(&load);
            if taken.is_ok() && self.pay_back(steps, frames) {
                self.put_back(steps, to, (from, places.1), &mut load);
            }
            steps.step(to, |cx| to.part(cx, &mut load));
        }
        TABLE
    }

    /// A step of unmapping what was claimed.
    fn clear<S: Steps<M>>(&mut self, steps: &mut S) -> usize {
        let (space, range) = if self.course.error.is_some() { self.to } else { self.from };
        let at = PageId::new(range.start().number() + self.course.done);
        let rest = PageRange::new(at, range.len() - self.course.done);
        let cleared = rest.map(|rest| steps.step(space, |cx| space.unmap(cx, rest)));
        match cleared {
            Some(Ok(Progress::More(at))) => self.course.done = at.number() - range.start().number(),
            // An error: somebody has mapped a region across the end meanwhile, and there is no memory to cut it. It stays.
            Some(Ok(Progress::Done(())) | Err(_)) | None => {
                (self.course.phase, self.course.done) = (Phase::Over, range.len());
            }
        }
        super::STEP / 4
    }
}
