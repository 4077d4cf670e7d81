//! What passing promises in single cases: which frames and tables go, who has what where memory runs out or somebody meddles.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::bed::{Bed, range};
use common::{Arena, Tap, walk};
use mm::space::{
    Access, Backing, Course, Cx, Fault, Kind, Load, Mapping, Memory, Object, Pass, Passing, Phase,
    Protection, Shortage, Space, SpaceError, Steps, Use,
};
use mm::{FrameId, PageId, PageRange, PageSize};
use std::cell::Cell;

const WAYS: [Passing; 3] = [Passing::Move, Passing::Share, Passing::Copy];

/// Frames of a machine where many are made.
const FRAMES: usize = 6 * 512;
/// A word of every frame, which says which page it was written for.
const WORD: usize = 3;

/// Touches pages, and writes their numbers.
fn fill(bed: &Bed, space: &Space<Arena>, pages: impl Iterator<Item = usize>) {
    for page in pages {
        assert_eq!(bed.touch(space, page, Access::Write), Fault::Resolved);
        bed.arena.write(frame(bed, space, page), WORD, page as u64);
    }
}

fn frame(bed: &Bed, space: &Space<Arena>, page: usize) -> FrameId {
    walk(bed.arena, space.root(), PageId::new(page)).unwrap().frame
}

fn content(bed: &Bed, space: &Space<Arena>, page: usize) -> u64 {
    bed.arena.read(frame(bed, space, page), WORD)
}

/// A block of 2 MiB goes as one entry, its frames with it; when it is cut later, each frame says where it is shown.
///
/// Planted: frames of a block that do not hear that it has moved.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_block_moves_whole() {
    let bed = Bed::new();
    let (one, two) = (bed.space(), bed.space());
    bed.map(&one, range(1024, 512), &Mapping::anonymous());
    fill(&bed, &one, 1024..1536);
    let first = frame(&bed, &one, 1024);
    let used = bed.watch.used();
    bed.pass((&one, range(1024, 512)), (&two, 5120), Passing::Move).unwrap();
    let found = walk(bed.arena, two.root(), PageId::new(5120 + 77)).unwrap();
    assert_eq!((found.span, found.frame.number()), (512, first.number() + 77));
    assert_eq!(one.check().unwrap().mapped, 0);
    assert_eq!(bed.watch.used(), used, "two tables there for two here");
    bed.protect(&two, range(5120 + 9, 1), Protection::Read).unwrap();
    assert_eq!(two.check().unwrap().private, 512);
    bed.close(one);
    bed.close(two);
    assert_eq!(bed.watch.used(), 0);
}

/// A table full of pages without records goes as it is, with what is only promised in it, and its reservation.
///
/// Planted: frames of a table that do not hear that it has moved.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_table_moves_whole() {
    let bed = Bed::new();
    let (one, two) = (bed.space(), bed.space());
    bed.map(&one, range(512, 1536), &Mapping::anonymous());
    fill(&bed, &one, (512..1024).step_by(3));
    let shown = frame(&bed, &one, 512 + 33);
    bed.pass((&one, range(512, 1536)), (&two, 5120), Passing::Move).unwrap();
    assert_eq!(frame(&bed, &two, 5120 + 33), shown);
    let space = two.tlb().id().raw();
    assert_eq!(bed.arena.info(shown).usage(), Use::Private { space, page: PageId::new(5120 + 33) });
    let usage = two.check().unwrap();
    assert_eq!((usage.private, usage.reserved, usage.mapped), (171, 341, 1536));
    // What was promised is still.
    assert_eq!(bed.touch(&two, 5120 + 34, Access::Write), Fault::Resolved);
    assert_eq!(content(&bed, &two, 5120 + 33), 512 + 33);
    bed.close(one);
    bed.close(two);
    assert_eq!(bed.watch.used(), 0);
}

/// What moves is taken back from every core before it is anywhere else: single pages, a table, a block.
///
/// Planted: the invalidation of a table left out.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn what_moves_is_invalidated() {
    for (pages, touched, target) in [(20, 20, 5123), (512, 100, 5120), (512, 512, 5120)] {
        let bed = Bed::new();
        let (one, two) = (bed.space(), bed.space());
        bed.map(&one, range(512, pages), &Mapping::anonymous());
        fill(&bed, &one, 512..512 + touched);
        let mut load = Load::new();
        let places = (PageId::new(512), PageId::new(target));
        let (taken, batch) =
            bed.with_pool(&one, &mut bed.tap(), |cx| one.take(cx, places, pages, Passing::Move, &mut load));
        assert_eq!((taken, load.pages()), (Ok(()), pages));
        assert!((512..512 + touched).all(|page| batch.covers(PageId::new(page))), "{pages}, {touched}");
        bed.with(&one, |cx| one.put_back(cx, &one, PageId::new(512), &mut load)).unwrap();
        bed.with(&one, |cx| one.part(cx, &mut load));
        assert_eq!(content(&bed, &one, 512), 512);
        bed.close(one);
        bed.close(two);
        assert_eq!(bed.watch.used(), 0);
    }
}

/// What is shared belongs to one object, touched or not, whoever goes first.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn what_is_shared_is_one_object() {
    const THERE: usize = 5127;
    let bed = Bed::new();
    let (one, two, three) = (bed.space(), bed.space(), bed.space());
    bed.map(&one, range(512, 1200), &Mapping::anonymous());
    fill(&bed, &one, (512..1024).chain(1030..1040));
    bed.pass((&one, range(512, 1200)), (&two, THERE), Passing::Share).unwrap();
    // The first was touched before, the others by one of the two.
    for (offset, first_here) in [(88, true), (588, true), (688, false)] {
        let (here, there) = ((&one, 512 + offset), (&two, THERE + offset));
        let (first, second) = if first_here { (here, there) } else { (there, here) };
        assert_eq!(bed.touch(first.0, first.1, Access::Write), Fault::Resolved);
        assert_eq!(bed.touch(second.0, second.1, Access::Read), Fault::Resolved);
        assert_eq!(frame(&bed, here.0, here.1), frame(&bed, there.0, there.1));
    }
    // Shared once more, it is the same object.
    bed.pass((&two, range(THERE, 1200)), (&three, 512), Passing::Share).unwrap();
    assert_eq!(bed.touch(&three, 600, Access::Write), Fault::Resolved);
    assert_eq!(frame(&bed, &three, 600), frame(&bed, &one, 600));
    for space in [&one, &two, &three] {
        assert!(bed.regions(space).iter().all(|region| region.kind == Kind::Shared));
        space.check().unwrap();
    }
    bed.close(one);
    assert_eq!(content(&bed, &two, THERE + 88), 600);
    bed.close(two);
    bed.close(three);
    assert_eq!(bed.watch.used(), 0);
}

/// Pages of a space that memory is to run out for: its own, copies of an object's, and an object's.
const PAGES: usize = 1000;

fn touched() -> impl Iterator<Item = usize> {
    (512..1100).chain(1200..1230).chain(1400..1410)
}

fn furnish(bed: &Bed, object: &Object<Arena>) -> Space<Arena> {
    let space = bed.space();
    bed.map(&space, range(512, 700), &Mapping::anonymous());
    bed.map(&space, range(1212, 150), &Mapping::new(Backing::Copy(object, 0), Protection::ReadWrite));
    bed.map(&space, range(1362, 150), &Mapping::new(Backing::Shared(object, 7), Protection::ReadWrite));
    fill(bed, &space, touched());
    object.populate(&mut bed.tap(), 0, 300).unwrap();
    space
}

/// Passes with the `nth` allocation failing; says whether there were fewer.
fn fail_at(nth: usize, how: Passing, target: usize) -> bool {
    let bed = Bed::with_frames(FRAMES);
    let object = Object::new(bed.arena, &mut bed.tap(), 300, PageSize::Small).unwrap();
    let (one, two) = (furnish(&bed, &object), bed.space());
    bed.watch.fail_at(Some(nth));
    let result = bed.pass((&one, range(512, PAGES)), (&two, target), how);
    let over = bed.watch.takes() <= nth;
    bed.watch.fail_at(None);
    if let Err(error) = result {
        assert_eq!(error, SpaceError::Shortage(Shortage::Memory), "{how:?}, failing at {nth}");
        assert_eq!(two.check().unwrap().mapped, 0, "{how:?}, failing at {nth}");
        assert_eq!(one.check().unwrap().mapped, PAGES, "{how:?}, failing at {nth}");
        for page in touched() {
            assert_eq!(content(&bed, &one, page), page as u64, "{how:?}, failing at {nth}");
        }
        fill(&bed, &one, (512..1512).step_by(5));
    }
    bed.close(one);
    bed.close(two);
    object.release(&mut bed.tap());
    assert_eq!(bed.watch.used(), 0, "{how:?}, failing at {nth}");
    bed.arena.free();
    over
}

/// Memory runs out at each step of each way, alike and apart: both spaces have what they had.
///
/// Planted: nothing goes back.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn out_of_memory_takes_everything_back() {
    for (how, target) in WAYS.into_iter().flat_map(|how| [(how, 5120), (how, 5120 + 9)]) {
        let fine = (0..).position(|nth| fail_at(nth, how, target)).unwrap();
        assert!(fine > 2, "{how:?} takes memory");
    }
}

/// Steps between which somebody else acts, once.
struct Meddling<'b, F> {
    bed: &'b Bed,
    at: usize,
    count: Cell<usize>,
    act: F,
}

impl<F: Fn()> Steps<Arena> for Meddling<'_, F> {
    type Pool<'p> = Tap<'p>;

    fn step<R>(&mut self, space: &Space<Arena>, f: impl FnOnce(&mut Cx<'_, Tap<'_>>) -> R) -> R {
        if self.count.replace(self.count.get() + 1) == self.at {
            (self.act)();
        }
        self.bed.with(space, f)
    }
}

/// What somebody does meanwhile.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Unmaps a part of the target.
    Target,
    /// The same, and maps and fills something there.
    Replace,
    /// Unmaps a part of the source.
    Source,
}

/// A pass in the middle of which somebody acts, before step `at`; says whether it has come to that.
fn meddle(how: Passing, target: PageRange, act: Act, at: usize) -> bool {
    const LOST: core::ops::Range<usize> = 1212..1242;
    let bed = Bed::with_frames(FRAMES);
    let (one, two) = (bed.space(), bed.space());
    bed.map(&one, range(512, 1200), &Mapping::anonymous());
    fill(&bed, &one, (512..1200).step_by(3));
    let start = target.start().number() + 700;
    let mut steps = Meddling {
        bed: &bed,
        at,
        count: Cell::new(0),
        act: || match act {
            Act::Source => bed.unmap(&one, range(LOST.start, LOST.len())).unwrap(),
            Act::Target => bed.unmap(&two, range(start, 30)).unwrap(),
            Act::Replace => {
                bed.unmap(&two, range(start, 30)).unwrap();
                bed.map(&two, range(start + 3, 5), &Mapping::anonymous());
                fill(&bed, &two, start + 3..start + 8);
            }
        },
    };
    let mut pass = Pass { from: (&one, range(512, 1200)), to: (&two, target), how, course: Course::START };
    let result = loop {
        let result = pass.run(&mut steps, 100);
        if result.is_err() || pass.course.phase == Phase::Over {
            break result;
        }
    };
    let acted = steps.count.get() > at;
    if result.is_err() {
        for page in (512..1200).step_by(3).filter(|page| !LOST.contains(page)) {
            assert_eq!(content(&bed, &one, page), page as u64, "{how:?}, {target:?}, {act:?} at {at}");
        }
    }
    one.check().unwrap();
    two.check().unwrap();
    bed.close(one);
    bed.close(two);
    assert_eq!(bed.watch.used(), 0, "{how:?}, {target:?}, {act:?} at {at}");
    bed.arena.free();
    acted
}

/// Between any two steps somebody unmaps a part of the target or of the source, or maps something there: nothing is lost that nobody has
/// unmapped, and every frame is back in the end.
///
/// Planted: pages land also where nothing is claimed.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn somebody_meddles() {
    for how in WAYS {
        for target in [range(5120, 1200), range(5120 + 9, 1200)] {
            for act in [Act::Target, Act::Replace, Act::Source] {
                let steps = (0..).take_while(|&at| meddle(how, target, act, at)).count();
                assert!(steps > 5, "{how:?} has steps");
            }
        }
    }
}
