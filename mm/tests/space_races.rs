//! What happens when another core does something at the worst moment, and other cases that once went wrong.
//!
//! One thread plays both cores: the pool calls the other core's operation when it is asked for a certain frame, where the operation under
//! test has no lock that the other needs. So each interleaving is always the same.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::bed::{Bed, range};
use common::{Arena, Tap, walk};
use mm::frames::Policy;
use mm::space::{
    Access, Backing, Cx, Fault, Mapping, Object, Pending, Pool, Progress, Protection, Shortage, Space,
    SpaceError,
};
use mm::virt::USER_PAGES;
use mm::{FrameId, Order, PageId, PageSize};

/// A pool that lets another core act before it gives its `at`th frame, which may then be refused.
struct Hook<'h, F> {
    tap: Tap<'h>,
    at: usize,
    takes: usize,
    act: F,
}

impl<F: FnMut() -> Result<(), Shortage>> Pool for Hook<'_, F> {
    fn take(&mut self, order: Order, policy: Policy) -> Result<FrameId, Shortage> {
        self.takes += 1;
        if self.takes == self.at + 1 {
            (self.act)()?;
        }
        self.tap.take(order, policy)
    }

    fn give(&mut self, frame: FrameId, order: Order) {
        self.tap.give(frame, order);
    }

    fn retire(&mut self, frame: FrameId) {
        self.tap.retire(frame);
    }

    fn split(&mut self, block: FrameId) {
        self.tap.split(block);
    }

    fn merge(&mut self, block: FrameId) -> bool {
        self.tap.merge(block)
    }
}

/// Runs an operation; before its `at`th frame another core acts. Says what the operation said.
fn interrupted<R, A>(bed: &Bed, space: &Space<Arena>, at: usize, act: A, f: F<'_, A, R>) -> R
where
    A: FnMut() -> Result<(), Shortage>,
{
    let mut hook = Hook { tap: bed.tap(), at, takes: 0, act };
    let result = bed.with_pool(space, &mut hook, f).0;
    assert!(hook.takes > at, "the other core has acted");
    result
}

type F<'f, A, R> = &'f mut dyn for<'h, 'c> FnMut(&mut Cx<'c, Hook<'h, A>>) -> R;

const UNIT: usize = 1 << 18;

/// What was made read-only for a moment must be invalidated even though the operation is refused: a core that still writes would write into
/// what is shared later.
#[test]
fn a_share_that_is_refused_invalidates_what_it_narrowed() {
    let bed = Bed::new();
    let (one, two) = (bed.space(), bed.space());
    bed.map(&one, range(512, 8), &Mapping::anonymous());
    bed.map(&one, range(520, 8), &Mapping::new(Backing::Device(FrameId::new(77)), Protection::Read));
    assert_eq!(bed.touch(&one, 515, Access::Write), Fault::Resolved);
    let mut other = Pending::new();
    let share = |cx: &mut Cx<'_, Tap<'_>>| one.share(cx, &two, &mut other, range(512, 16));
    let (result, batch) = bed.with_pool(&one, &mut bed.tap(), share);
    two.settle(&mut bed.tap(), &mut other);
    assert_eq!(result, Err(SpaceError::WrongKind));
    let narrowed = !walk(bed.arena, one.root(), PageId::new(515)).unwrap().writable;
    assert!(!narrowed || batch.covers(PageId::new(515)), "another core may still write");
    bed.close(one);
    bed.close(two);
    assert_eq!(bed.watch.used(), 0);
}

/// The object of a giant page goes while its frame is brought, which takes long and happens without a lock.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_giant_page_is_brought_while_its_region_goes() {
    let bed = Bed::with_frames(2 * UNIT);
    let space = bed.space();
    let object = Object::new(bed.arena, &mut bed.tap(), UNIT, PageSize::Giant).unwrap();
    bed.map(&space, range(UNIT, UNIT), &Mapping::new(Backing::Shared(&object, 0), Protection::ReadWrite));
    object.release(&mut bed.tap());
    let unmap = || {
        bed.unmap(&space, range(UNIT, UNIT)).unwrap();
        Ok(())
    };
    let fault =
        interrupted(&bed, &space, 0, unmap, &mut |cx| space.fault(cx, PageId::new(UNIT + 3), Access::Write));
    assert_eq!(fault, Fault::Resolved, "to be tried again");
    assert_eq!(bed.touch(&space, UNIT + 3, Access::Write), Fault::NotMapped);
    common::check(&space).unwrap();
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
    bed.arena.free();
}

/// Between two loads of a share a region goes, and another gets its record's number: its pages must not be taken for the first one's.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_record_is_reused_in_the_middle_of_a_share() {
    let bed = Bed::new();
    let (one, two) = (bed.space(), bed.space());
    let objects = [0, 1].map(|_| Object::new(bed.arena, &mut bed.tap(), 512, PageSize::Small).unwrap());
    let mapping = |index: usize| Mapping::new(Backing::Shared(&objects[index], 0), Protection::ReadWrite);
    bed.map(&one, range(UNIT, 512), &mapping(0));
    bed.map(&one, range(2 * UNIT, 512), &Mapping::anonymous());
    let reuse = || {
        bed.unmap(&one, range(UNIT, 512)).unwrap();
        for _ in 0..1022 {
            bed.map(&one, range(10, 1), &mapping(1));
            bed.unmap(&one, range(10, 1)).unwrap();
        }
        bed.map(&one, range(3 * UNIT, 512), &mapping(1));
        Ok(())
    };
    let mut other = Pending::new();
    // A frame of records, a table of level 3 and two of level 2: the last is for the second load.
    let result = interrupted(&bed, &one, 3, reuse, &mut |cx| {
        one.share(cx, &two, &mut other, range(UNIT, 2 * UNIT + 512))
    });
    two.settle(&mut bed.tap(), &mut other);
    assert_eq!(result, Ok(Progress::Done(())));
    assert_eq!(bed.touch(&two, 3 * UNIT + 5, Access::Read), Fault::Resolved);
    let frame = walk(bed.arena, two.root(), PageId::new(3 * UNIT + 5)).unwrap().frame;
    assert_eq!(objects[1].page(&mut bed.tap(), 5), Ok(Some(frame)));
    for space in [one, two] {
        common::check(&space).unwrap();
        bed.close(space);
    }
    objects.into_iter().for_each(|object| object.release(&mut bed.tap()));
    assert_eq!(bed.watch.used(), 0);
}

/// A share that meets something in the middle of 1 GiB leaves what it has put there, with its record.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_giant_promise_meets_something() {
    let bed = Bed::new();
    let (one, two) = (bed.space(), bed.space());
    bed.map(&one, range(UNIT, UNIT), &Mapping::anonymous().placed(Policy::LocalOnly));
    bed.map(&two, range(UNIT + 100 * 512 + 5, 1), &Mapping::anonymous());
    assert_eq!(bed.share(&one, &two, range(UNIT, UNIT)), Err(SpaceError::Occupied));
    for space in [one, two] {
        common::check(&space).unwrap();
        bed.close(space);
    }
    assert_eq!(bed.watch.used(), 0);
}

/// A map fails after another core has put other regions where it was done already.
#[test]
fn a_map_that_fails_meets_foreign_regions() {
    let bed = Bed::new();
    let space = bed.space();
    let objects = [0, 1].map(|_| Object::new(bed.arena, &mut bed.tap(), 600, PageSize::Small).unwrap());
    let start = 2 * UNIT - 8;
    let meddle = || {
        bed.unmap(&space, range(start, 6)).unwrap();
        for index in 0..6 {
            let mapping = Mapping::new(Backing::Shared(&objects[1], index), Protection::Read);
            bed.map(&space, range(start + index, 1), &mapping);
        }
        Err(Shortage::Memory)
    };
    objects[0].populate(&mut bed.tap(), 0, 600).unwrap();
    let mapping = Mapping::new(Backing::Shared(&objects[0], 0), Protection::ReadWrite).now();
    // Two frames of records, a table of level 3, then two tables for the pages of each unit.
    let result = interrupted(&bed, &space, 5, meddle, &mut |cx| space.map(cx, range(start, 500), &mapping));
    assert_eq!(result, Err(SpaceError::Shortage(Shortage::Memory)));
    common::check(&space).unwrap();
    bed.close(space);
    objects.into_iter().for_each(|object| object.release(&mut bed.tap()));
    assert_eq!(bed.watch.used(), 0);
}

/// A step that ends with the range is the last one.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn no_step_is_left_with_nothing_to_do() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(512, 9 * 512), &Mapping::anonymous());
    for block in 0..9 {
        assert_eq!(bed.touch(&space, 512 * (1 + block), Access::Write), Fault::Resolved);
    }
    let whole = range(512, 9 * 512);
    let protect = |range, to| bed.with(&space, |cx| space.protect(cx, range, to)).unwrap();
    let Progress::More(end) = protect(whole, Protection::Read) else { panic!("all in one step") };
    let step = protect(range(512, end.number() - 512), Protection::ReadWrite);
    assert_eq!(step, Progress::Done(()));
    bed.unmap(&space, whole).unwrap();
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}

/// A step that is used up at the end of a table, or nearly, or in the middle, leaves no page out.
///
/// Planted: a step that has no room for a page goes on behind it.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn steps_leave_nothing_out() {
    let bed = Bed::new();
    let space = bed.space();
    for first in 1..130 {
        for (table, pages) in [first, 33, 10, 300].into_iter().enumerate() {
            let pages = range(512 * (table + 1), pages);
            bed.map(&space, pages, &Mapping::anonymous());
            for page in pages.start().number()..pages.end().number() {
                assert_eq!(bed.touch(&space, page, Access::Write), Fault::Resolved);
            }
        }
        let whole = range(512, 4 * 512);
        let step = bed.with(&space, |cx| space.unmap(cx, whole)).unwrap();
        let left = common::check(&space).unwrap().private;
        assert!(
            matches!(step, Progress::More(_)) && first + 343 - left <= 102,
            "{left} of {first} + 343 left"
        );
        bed.unmap(&space, whole).unwrap();
        assert_eq!(bed.regions(&space), [], "{first} pages in the first table");
    }
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}

/// Empty entries of 1 GiB take time, too.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_step_is_bounded_where_nothing_is_mapped() {
    let bed = Bed::new();
    let space = bed.space();
    for directory in 0..100 {
        bed.map(&space, range(directory << 27, UNIT), &Mapping::anonymous());
    }
    let step = bed.with(&space, |cx| space.protect(cx, range(0, USER_PAGES), Protection::Read)).unwrap();
    assert!(matches!(step, Progress::More(_)), "{step:?}");
    let two = bed.space();
    let mut other = Pending::new();
    let step = bed.with(&space, |cx| space.share(cx, &two, &mut other, range(0, USER_PAGES))).unwrap();
    two.settle(&mut bed.tap(), &mut other);
    assert!(matches!(step, Progress::More(_)), "{step:?}");
    bed.close(two);
    bed.unmap(&space, range(1 << 27, 98 << 27)).unwrap();
    let last = bed.with(&space, |cx| space.region(cx, PageId::new(UNIT))).unwrap();
    assert_eq!(last.range, range(99 << 27, UNIT));
    bed.close(space);
}

/// Pages that become one, for the first time or again because what split them is refused, may be cached as small ones, each for itself.
///
/// Planted: no invalidation in `promote`, in `join_leaves`.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn pages_that_are_joined_are_invalidated_one_by_one() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(1024, 1024), &Mapping::anonymous());
    for page in 1024..1535 {
        assert_eq!(bed.touch(&space, page, Access::Write), Fault::Resolved);
    }
    let (fault, batch) =
        bed.with_pool(&space, &mut bed.tap(), |cx| space.fault(cx, PageId::new(1535), Access::Write));
    assert_eq!((fault, common::check(&space).unwrap().large), (Fault::Resolved, 512));
    assert!(batch.is_whole(), "{batch:?}");
    bed.protect(&space, range(1030, 1), Protection::Read).unwrap();
    bed.protect(&space, range(1030, 1), Protection::ReadWrite).unwrap();
    assert_eq!(common::check(&space).unwrap().large, 0);
    let device = Mapping::new(Backing::Device(FrameId::new(5 * UNIT)), Protection::ReadWrite);
    bed.map(&space, range(2 * UNIT, UNIT), &device);
    for (nth, refused) in [(0, range(1100, 700)), (1, range(2 * UNIT + 1000, 1))] {
        bed.watch.fail_at(Some(nth));
        let (result, batch) = bed.with_pool(&space, &mut bed.tap(), |cx| space.unmap(cx, refused));
        bed.watch.fail_at(None);
        assert_eq!(result, Err(SpaceError::Shortage(Shortage::Memory)));
        assert!(batch.is_whole(), "{batch:?}");
    }
    assert_eq!(common::check(&space).unwrap().large, 512 + UNIT);
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}

#[test]
fn null_is_no_place_even_for_the_largest() {
    let bed = Bed::new();
    let space = bed.space();
    for (pages, align) in
        [(USER_PAGES, PageSize::Small), (USER_PAGES - 1, PageSize::Giant), (USER_PAGES + 1, PageSize::Small)]
    {
        assert_eq!(bed.with(&space, |cx| space.place(cx, pages, align, || 0)), None);
    }
    let most = bed.with(&space, |cx| space.place(cx, USER_PAGES - 1, PageSize::Small, || 3)).unwrap();
    assert_eq!(most, range(1, USER_PAGES - 1));
    bed.close(space);
}

#[test]
fn a_device_ends_where_addresses_end() {
    let bed = Bed::new();
    let space = bed.space();
    let try_map = |first: usize| {
        let mapping = Mapping::new(Backing::Device(FrameId::new(first)), Protection::Read);
        bed.with(&space, |cx| space.map(cx, range(1024, 600), &mapping))
    };
    assert_eq!(try_map((1 << 40) - 599), Err(SpaceError::BeyondObject));
    assert_eq!(try_map(usize::MAX - 5), Err(SpaceError::BeyondObject));
    assert_eq!(try_map((1 << 40) - 600), Ok(()));
    bed.close(space);
}

/// A page that no pager owes is refused, and a large page stays one.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn supply_leaves_other_regions_alone() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(1024, 512), &Mapping::anonymous());
    bed.map(&space, range(UNIT, UNIT), &Mapping::anonymous());
    for page in 1024..1536 {
        assert_eq!(bed.touch(&space, page, Access::Write), Fault::Resolved);
    }
    let before = common::check(&space).unwrap();
    let frame = bed.tap().take(Order::FRAME, Policy::Local).unwrap();
    for page in [1030, UNIT + 1000, 5] {
        let result = bed.with(&space, |cx| space.supply(cx, PageId::new(page), frame));
        assert_eq!(result, Err(SpaceError::NotMapped));
        assert_eq!(common::check(&space).unwrap(), before);
    }
    bed.tap().give(frame, Order::FRAME);
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}
