//! Spaces that are taken down at once: what was theirs goes back, what is others' stays, whatever state they were in.
//!
//! Planted bug that closing caught: a dismantled table whose frame stays paid for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::bed::{Bed, IDS, range};
use common::{Arena, BASE, POISON, Tap, Watch, walk};
use mm::frames::Policy;
use mm::space::{
    Access, Backing, Fault, Format, Mapping, Object, Pool, Progress, Protection, STEP, Shortage, Space, Upper,
};
use mm::{FrameId, Order, PageId, PageSize};
use percpu::sync::atomic::{AtomicBool, Ordering};

const UNIT: usize = PageSize::Giant.pages();
const BLOCK: usize = PageSize::Huge.pages();

/// Takes a space down; returns how many steps it took.
fn end(bed: &Bed, space: Space<Arena>) -> usize {
    let mut steps = 1;
    // SAFETY: the space is ours, and no CPU has ever run it.
    while let Progress::More(()) = unsafe { space.dismantle(&mut bed.tap()) } {
        steps += 1;
    }
    let usage = common::check(&space).unwrap();
    assert_eq!((usage.tables, usage.mapped, usage.private, usage.reserved), (1, 0, 0, 0), "nothing is left");
    assert!(space.close(&mut bed.tap()).is_ok(), "a space that was taken down is empty");
    steps
}

/// Touches pages for writing.
fn touch(bed: &Bed, space: &Space<Arena>, pages: impl Iterator<Item = usize>) {
    for page in pages {
        assert_eq!(bed.touch(space, page, Access::Write), Fault::Resolved);
    }
}

fn shown(object: &Object<Arena>) -> usize {
    let mut count = 0;
    object.attachments(|_| count += 1);
    count
}

#[test]
fn an_empty_space_ends_in_one_step() {
    let bed = Bed::new();
    assert_eq!(end(&bed, bed.space()), 1);
    assert_eq!(bed.watch.used(), 0);
}

/// Every kind of region, in tables of every level, some touched.
///
/// Planted: leaves that are not at the beginning of their line are kept; the owned ones of a line are given back only if the first is;
/// a borrowed page is given back.
#[test]
fn every_kind_of_region_goes() {
    let bed = Bed::new();
    let space = bed.space();
    let object = Object::new(bed.arena, &mut bed.tap(), 700, PageSize::Small).unwrap();
    let regions = [
        (10, 5, Backing::Guard),
        (20, 5, Backing::Reserved),
        (30, 5, Backing::Pager(7)),
        (UNIT, UNIT, Backing::Device(FrameId::new(1 << 30))),
        (2 * UNIT, 3 * BLOCK, Backing::Device(FrameId::new((1 << 30) + 512))),
        (3 * UNIT + 100, 600, Backing::Shared(&object, 9)),
        (3 * UNIT + 97, 3, Backing::Anonymous),
        (300 * UNIT + 7, 40, Backing::Copy(&object, 0)),
        (900 * UNIT - 3, 6, Backing::Anonymous),
        (901 * UNIT, UNIT, Backing::Anonymous),
        (902 * UNIT, UNIT, Backing::Guard),
    ];
    for (first, pages, backing) in regions {
        bed.map(&space, range(first, pages), &Mapping::new(backing, Protection::ReadWrite));
    }
    let placed = Mapping::anonymous().placed(Policy::LocalOnly);
    bed.map(&space, range(5 * UNIT + 3, 20), &placed);
    touch(&bed, &space, [5 * UNIT + 5, 5 * UNIT + 9, 3 * UNIT + 104, 3 * UNIT + 600].into_iter());
    touch(&bed, &space, (900 * UNIT - 3..900 * UNIT + 3).step_by(2));
    // An own page and a borrowed one in one line.
    touch(&bed, &space, [3 * UNIT + 99, 3 * UNIT + 101].into_iter());
    touch(&bed, &space, 300 * UNIT + 20..300 * UNIT + 26);
    assert_eq!(bed.touch(&space, 300 * UNIT + 19, Access::Read), Fault::Resolved);
    let frame = bed.tap().take(Order::FRAME, Policy::Local).unwrap();
    bed.with(&space, |cx| space.supply(cx, PageId::new(33), frame)).unwrap();
    common::check(&space).unwrap();
    assert_eq!(shown(&object), 2);
    end(&bed, space);
    assert_eq!((shown(&object), object.populated() > 0), (0, true), "detached, and still there");
    object.release(&mut bed.tap());
    assert_eq!(bed.watch.used(), 0);
}

/// Blocks that are set aside, shown in part, broken, and whole as one large page.
///
/// Planted: the block of a reservation is kept; frames of one that was broken go back as a block; large pages are kept.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn blocks_go_as_they_were_taken() {
    let bed = Bed::new();
    let space = bed.space();
    for block in [2, 4, 6] {
        bed.map(&space, range(block * BLOCK, BLOCK), &Mapping::anonymous());
    }
    touch(&bed, &space, 2 * BLOCK..2 * BLOCK + 100);
    touch(&bed, &space, 4 * BLOCK..4 * BLOCK + 100);
    touch(&bed, &space, 6 * BLOCK..7 * BLOCK);
    bed.unmap(&space, range(4 * BLOCK + 20, 10)).unwrap();
    let usage = common::check(&space).unwrap();
    assert_eq!((usage.reserved, usage.large), (412, 512));
    end(&bed, space);
    assert_eq!(bed.watch.used(), 0);
}

/// An object's large pages stay the object's, which goes with the last space that shows it.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn an_object_goes_with_its_last_space() {
    let bed = Bed::new();
    let object = Object::new(bed.arena, &mut bed.tap(), 3 * BLOCK, PageSize::Huge).unwrap();
    let spaces = [bed.space(), bed.space()];
    for space in &spaces {
        let mapping = Mapping::new(Backing::Shared(&object, 0), Protection::ReadWrite).now();
        bed.map(space, range(UNIT, 3 * BLOCK), &mapping);
        bed.map(space, range(2 * UNIT + 5, 100), &mapping);
    }
    object.release(&mut bed.tap());
    let [one, two] = spaces;
    assert_eq!(common::check(&one).unwrap().large, 3 * BLOCK);
    end(&bed, one);
    common::check(&two).unwrap();
    let frame = walk(bed.arena, two.root(), PageId::new(UNIT + 5)).unwrap().frame;
    assert_ne!(bed.arena.read(frame, 0), POISON, "still there for the other");
    end(&bed, two);
    assert_eq!(bed.watch.used(), 0);
}

/// Pages that two spaces share until one writes stay with the other, which may write in place then.
///
/// Planted: the references of shared pages are not counted down; a shared page is given back though it is not the last.
#[test]
fn shared_pages_stay_with_the_other() {
    let bed = Bed::new();
    let (one, two) = (bed.space(), bed.space());
    bed.map(&one, range(100, 30), &Mapping::anonymous());
    touch(&bed, &one, 105..120);
    bed.share(&one, &two, range(100, 30)).unwrap();
    touch(&bed, &two, 110..112);
    touch(&bed, &one, 115..117);
    let frame = |page| walk(bed.arena, two.root(), PageId::new(page)).unwrap();
    let before = frame(106);
    end(&bed, one);
    common::check(&two).unwrap();
    assert_ne!(bed.arena.read(before.frame, 0), POISON, "still there for the other");
    touch(&bed, &two, 105..120);
    assert_eq!((frame(106).frame, frame(106).writable), (before.frame, true), "nobody else has it");
    assert!(frame(106).frame.number() >= BASE);
    end(&bed, two);
    assert_eq!(bed.watch.used(), 0);
}

/// Counts what goes back.
struct Counter<'w> {
    tap: Tap<'w>,
    given: usize,
}

impl Pool for Counter<'_> {
    fn take(&mut self, order: Order, policy: Policy) -> Result<FrameId, Shortage> {
        self.tap.take(order, policy)
    }

    fn give(&mut self, frame: FrameId, order: Order) {
        self.given += 1;
        self.tap.give(frame, order);
    }

    fn retire(&mut self, frame: FrameId) {
        panic!("nobody else can be looking at {frame:?}");
    }

    fn split(&mut self, block: FrameId) {
        panic!("{block:?} goes as it is");
    }

    fn merge(&mut self, _: FrameId) -> bool {
        panic!("nothing is taken");
    }
}

/// Steps are bounded, each brings the end nearer, and none does what another has done.
///
/// Planted: a table whose step was full is taken out of the one above; steps have no bound.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn steps_are_bounded() {
    let bed = Bed::with_frames(40 * 512);
    let space = bed.space();
    // Touched whole in one place, thinly in many.
    bed.map(&space, range(512, 511), &Mapping::anonymous());
    touch(&bed, &space, 512..1023);
    for unit in 0..100 {
        let first = (3 + unit * 7) * UNIT + unit * 1031;
        // No whole block, so that no frames are set aside.
        bed.map(&space, range(first, 1000), &Mapping::new(Backing::Guard, Protection::Read));
        bed.map(&space, range(first + 1000, 500), &Mapping::anonymous());
        touch(&bed, &space, (first + 1000..first + 1500).step_by(90));
    }
    let mut pool = Counter { tap: bed.tap(), given: 0 };
    let mut steps = 0;
    loop {
        let before = pool.given;
        // SAFETY: as in `end`.
        let progress = unsafe { space.dismantle(&mut pool) };
        steps += 1;
        let given = pool.given - before;
        assert!(given <= 103 + 8 + 3, "{given} frames in one step: those of a line more, and tables");
        if progress == Progress::Done(()) {
            break;
        }
        assert!(given > 0, "a step that ends early has done something");
    }
    assert!(steps > 10, "{steps} steps");
    common::check(&space).unwrap();
    assert!(space.close(&mut bed.tap()).is_ok());
    assert_eq!(bed.watch.used(), 0);
}

/// Many records: more than a step detaches, with holes among them.
///
/// Planted: records are counted from the hint, not from the end; a record is freed and not taken out of its object's list.
#[test]
fn all_records_are_detached() {
    let bed = Bed::new();
    let object = Object::new(bed.arena, &mut bed.tap(), 8, PageSize::Small).unwrap();
    let (space, other) = (bed.space(), bed.space());
    let count = if cfg!(miri) { 90 } else { 400 };
    for number in 0..count {
        let mapping = Mapping::new(Backing::Shared(&object, number % 8), Protection::Read);
        bed.map(&space, range(100 + number, 1), &mapping);
        bed.map(&other, range(100 + number, 1), &mapping);
    }
    for number in (0..count).step_by(3) {
        bed.unmap(&space, range(100 + number, 1)).unwrap();
    }
    // Until numbers begin anew.
    let mapping = Mapping::new(Backing::Shared(&object, 0), Protection::Read);
    for _ in 0..if cfg!(miri) { 3 } else { 1023 - count } {
        bed.map(&space, range(100, 1), &mapping);
        bed.unmap(&space, range(100, 1)).unwrap();
    }
    bed.map(&space, range(100, 1), &mapping);
    let steps = end(&bed, space);
    assert_eq!(steps > 1, count * 2 / 3 * 256 > STEP, "{steps} steps");
    assert_eq!(shown(&object), count, "those of the other space");
    common::check(&other).unwrap();
    end(&bed, other);
    assert_eq!(shown(&object), 0);
    object.release(&mut bed.tap());
    assert_eq!(bed.watch.used(), 0);
}

/// The kernel's half of a root is copied, and left alone.
///
/// Planted: the upper half is not copied; the lower half is not cleared.
#[test]
fn the_upper_half_is_the_kernels() {
    let bed = Bed::new();
    let kernel = bed.tap().take(Order::FRAME, Policy::Local).unwrap();
    for index in 0..512 {
        bed.arena.write(kernel, index, 0xffff_0000_0000_0003 | (index as u64) << 12);
    }
    let root = bed.tap().take(Order::FRAME, Policy::Local).unwrap();
    (0..512).for_each(|index| bed.arena.write(root, index, POISON));
    bed.tap().give(root, Order::FRAME);
    let format = Format::new(true, true);
    let space = Space::new(bed.arena, &mut bed.tap(), IDS.take(), format, Upper::Kernel(kernel)).unwrap();
    bed.map(&space, range((255 << 27) + 5, 5), &Mapping::anonymous());
    touch(&bed, &space, [(255 << 27) + 6].into_iter());
    let root = space.root();
    let entry = |index| bed.arena.read(root, index);
    assert!((0..255).all(|index| entry(index) == 0) && entry(255) != 0);
    assert!((256..512).all(|index| entry(index) == 0xffff_0000_0000_0003 | (index as u64) << 12));
    end(&bed, space);
    bed.tap().give(kernel, Order::FRAME);
    assert_eq!(bed.watch.used(), 0);
}

/// A second root has an upper half of its own, and the lower half of the first, which bars execution; both as long as there is anything.
///
/// Planted: the second root is left as it was, when an entry comes or goes; the first is not barred; one frame is given back.
#[test]
fn the_second_root_keeps_step() {
    const NO_EXECUTE: u64 = 1 << 63;
    let bed = Bed::new();
    let [kernel, border] = [0; 2].map(|_| bed.tap().take(Order::FRAME, Policy::Local).unwrap());
    for index in 0..512 {
        bed.arena.write(kernel, index, 0x1000_0003);
        bed.arena.write(border, index, 0x2000_0003);
    }
    let upper = Upper::Isolated { kernel, border };
    let space = Space::new(bed.arena, &mut bed.tap(), IDS.take(), Format::new(true, true), upper).unwrap();
    let [first, second] = [0, 1].map(|number| FrameId::new(space.root().number() + number));
    let entries = |root, range: std::ops::Range<usize>| range.map(move |index| bed.arena.read(root, index));
    for _ in 0..2 {
        bed.map(&space, range(5 << 27, 3), &Mapping::anonymous());
        bed.map(&space, range(77 << 27, 3), &Mapping::anonymous());
        touch(&bed, &space, [(5 << 27) + 1].into_iter());
        assert!(entries(second, 0..256).all(|entry| entry & NO_EXECUTE == 0));
        let used = entries(second, 0..256).filter(|&entry| entry != 0).count();
        assert_eq!(used, 2, "two entries of the root are in use");
        let barred = |entry| if entry == 0 { 0 } else { entry | NO_EXECUTE };
        assert!(entries(first, 0..256).eq(entries(second, 0..256).map(barred)));
        bed.unmap(&space, range(5 << 27, 3)).unwrap();
        bed.unmap(&space, range(77 << 27, 3)).unwrap();
        assert!([first, second].into_iter().all(|root| entries(root, 0..256).all(|entry| entry == 0)));
        assert!(common::check(&space).is_ok());
    }
    assert!(entries(first, 256..512).all(|entry| entry == 0x1000_0003));
    assert!(entries(second, 256..512).all(|entry| entry == 0x2000_0003));
    bed.map(&space, range(5 << 27, 3), &Mapping::anonymous());
    // SAFETY: the space is this thread's alone, and no core has loaded it.
    while unsafe { space.dismantle(&mut bed.tap()) } != Progress::Done(()) {}
    assert_eq!(common::check(&space).map(|usage| usage.tables), Ok(2));
    assert!(space.close(&mut bed.tap()).is_ok());
    [kernel, border].into_iter().for_each(|frame| bed.tap().give(frame, Order::FRAME));
    bed.watch.grace();
    assert_eq!(bed.watch.used(), 0);
}

/// Spaces that show one object are taken down on two cores while a third reads its list.
#[test]
fn objects_are_left_under_their_lock() {
    let arena = Arena::new(4 * 512);
    let watch = Watch::new(arena, 4 * 512);
    let object = Object::new(arena, &mut Tap(&watch), 64, PageSize::Small).unwrap();
    let rounds = if cfg!(miri) { 3 } else { 2000 };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let live = || {
            for _ in 0..rounds {
                live_once(arena, &watch, &object);
            }
        };
        let others = [scope.spawn(live), scope.spawn(live)];
        scope.spawn(|| {
            // ORDER: Acquire: nothing but the end is read by it.
            while !done.load(Ordering::Acquire) {
                object.attachments(|place| assert_eq!((place.offset % 7, place.page % 100), (1, 50)));
            }
        });
        others.into_iter().for_each(|other| other.join().unwrap());
        // ORDER: Release pairs with Acquire above.
        done.store(true, Ordering::Release);
    });
    assert_eq!(shown(&object), 0);
    object.release(&mut Tap(&watch));
    assert_eq!(watch.used(), 0);
}

/// A space with five records, from its beginning to its end.
fn live_once(arena: Arena, watch: &Watch, object: &Object<Arena>) {
    use mm::space::{Cx, Pending};
    let mut tap = Tap(watch);
    let space = Space::new(arena, &mut tap, IDS.take(), Format::new(true, true), Upper::Empty).unwrap();
    for number in 0..5 {
        let mapping = Mapping::new(Backing::Shared(object, 1 + number * 7), Protection::Read).now();
        let mut pending = Pending::new();
        let range = range(50 + number * 100, 3);
        let mapped =
            percpu::IrqOff::with(|irq| space.map(&mut Cx::new(irq, &mut tap, &mut pending), range, &mapping));
        mapped.unwrap();
        space.settle(&mut tap, &mut pending);
    }
    // SAFETY: as in `end`.
    while let Progress::More(()) = unsafe { space.dismantle(&mut tap) } {}
    assert!(space.close(&mut tap).is_ok());
}
