//! What address spaces promise in single cases: large pages, sharing, reverse look-up, placement, and that nothing has happened where
//! memory ran out.

mod common;

use common::bed::{Bed, range};
use common::{Arena, BASE, POISON, walk};
use mm::frames::Policy;
use mm::space::{
    Access, Attachment, Backing, Fault, Mapping, Object, Pool, Protection, Region, Shortage, Space,
    SpaceError, Usage, Use,
};
use mm::{FrameId, Order, PageId, PageSize};

/// Planted: `promote` not called; `enlarge` without the size bit; no `tables_freed`.
#[test]
fn a_block_that_is_touched_whole_becomes_one_large_page() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(1024, 1024), &Mapping::anonymous());
    for page in 1024..1535 {
        assert_eq!(bed.touch(&space, page, Access::Write), Fault::Resolved);
    }
    let before = space.check().unwrap();
    assert_eq!((before.private, before.reserved, before.large), (511, 1, 0));
    assert_eq!(bed.touch(&space, 1535, Access::Read), Fault::Resolved);
    let after = space.check().unwrap();
    assert_eq!((after.private, after.reserved, after.large), (512, 0, 512));
    assert_eq!(after.tables + 1, before.tables, "the table of 4 KiB pages is gone");
    assert_eq!(walk(bed.arena, space.root(), PageId::new(1100)).map(|found| found.span), Some(512));
    // A change of a part makes it small pages again, the frames where they were.
    let frame = walk(bed.arena, space.root(), PageId::new(1300)).unwrap().frame;
    bed.protect(&space, range(1030, 1), Protection::Read).unwrap();
    assert_eq!(space.check().unwrap().large, 0);
    assert_eq!(walk(bed.arena, space.root(), PageId::new(1300)).unwrap().frame, frame);
    assert!(!walk(bed.arena, space.root(), PageId::new(1030)).unwrap().writable);
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}

#[test]
fn a_reservation_is_given_back_when_a_part_of_it_goes() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(512, 512), &Mapping::anonymous());
    for page in 512..612 {
        assert_eq!(bed.touch(&space, page, Access::Write), Fault::Resolved);
    }
    assert_eq!(space.check().unwrap().reserved, 412);
    bed.unmap(&space, range(520, 10)).unwrap();
    let usage = space.check().unwrap();
    assert_eq!((usage.private, usage.reserved), (90, 0));
    assert_eq!(bed.watch.used(), usage.frames());
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}

#[test]
fn large_regions_take_few_tables() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(1 << 18, 64 << 18), &Mapping::anonymous());
    assert_eq!(space.check().unwrap().tables, 2, "64 GiB in 64 entries of one table");
    assert_eq!(bed.touch(&space, (3 << 18) + 77, Access::Write), Fault::Resolved);
    assert_eq!(space.check().unwrap().tables, 4);
    bed.close(space);
}

/// Planted: `with_protection` of a shared page sets the CPU's write bit; `is_sole` always true; always false.
#[test]
fn shared_pages_are_copied_when_written() {
    let bed = Bed::new();
    let (one, two) = (bed.space(), bed.space());
    bed.map(&one, range(512, 600), &Mapping::anonymous());
    for page in 512..522 {
        assert_eq!(bed.touch(&one, page, Access::Write), Fault::Resolved);
    }
    bed.share(&one, &two, range(512, 600)).unwrap();
    let frame = |space: &Space<Arena>, page| walk(bed.arena, space.root(), PageId::new(page)).unwrap();
    assert_eq!(frame(&one, 515), frame(&two, 515));
    assert!(!frame(&one, 515).writable && !frame(&two, 515).writable);
    let first = frame(&one, 515).frame;
    bed.arena.write(first, 3, 99);
    // Making it writable again by protection must not undo the sharing.
    bed.protect(&two, range(512, 600), Protection::ReadWrite).unwrap();
    assert!(!frame(&two, 515).writable);
    assert_eq!(bed.touch(&two, 515, Access::Write), Fault::Resolved);
    assert_ne!(frame(&two, 515).frame, first);
    assert_eq!(bed.arena.read(frame(&two, 515).frame, 3), 99);
    assert_eq!(frame(&one, 515).frame, first);
    assert_eq!(bed.touch(&one, 515, Access::Write), Fault::Resolved);
    assert_eq!(frame(&one, 515), common::Translation { frame: first, writable: true, executable: false, span: 1 });
    for space in [&one, &two] {
        space.check().unwrap();
    }
    bed.close(one);
    assert_eq!(frame(&two, 516).frame.number() >= BASE, true);
    assert_ne!(bed.arena.read(frame(&two, 516).frame, 0), POISON, "still there for the other");
    bed.close(two);
    assert_eq!(bed.watch.used(), 0);
}

#[test]
fn frames_say_where_they_are_shown() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(100, 4), &Mapping::anonymous());
    let _ = bed.touch(&space, 102, Access::Write);
    let frame = walk(bed.arena, space.root(), PageId::new(102)).unwrap().frame;
    use mm::space::Memory;
    let id = space.tlb().id().raw();
    assert_eq!(bed.arena.info(frame).usage(), Use::Private { space: id, page: PageId::new(102) });
    // An object's frame leads to its page, and the object's attachments to every place that shows it.
    let object = Object::new(bed.arena, &mut bed.tap(), 50, PageSize::Small).unwrap();
    bed.map(&space, range(200, 10), &Mapping::new(Backing::Shared(&object, 5), Protection::Read).now());
    bed.map(&space, range(300, 20), &Mapping::new(Backing::Copy(&object, 0), Protection::ReadWrite));
    let shown = walk(bed.arena, space.root(), PageId::new(203)).unwrap().frame;
    assert_eq!(object.page_of(shown), Some(8));
    let mut places = Vec::new();
    object.attachments(|place| places.push(place));
    places.sort_by_key(|place| place.page);
    let place = |page, offset, pages| Attachment { space: id, page, offset, pages };
    assert_eq!(places, [place(200, 5, 10), place(300, 0, 20)]);
    bed.unmap(&space, range(200, 10)).unwrap();
    let mut count = 0;
    object.attachments(|_| count += 1);
    assert_eq!(count, 1);
    // The object outlives its handle as long as it is shown, and no longer.
    object.release(&mut bed.tap());
    assert_eq!(bed.touch(&space, 305, Access::Read), Fault::Resolved);
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}

#[test]
fn guards_reserved_ranges_and_pagers_are_told_apart() {
    let bed = Bed::new();
    let space = bed.space();
    for (start, backing) in [(10, Backing::Guard), (20, Backing::Reserved), (30, Backing::Pager(0xabc))] {
        bed.map(&space, range(start, 5), &Mapping::new(backing, Protection::ReadWrite));
    }
    assert_eq!(bed.touch(&space, 11, Access::Read), Fault::Guard);
    assert_eq!(bed.touch(&space, 21, Access::Read), Fault::NotMapped);
    assert_eq!(bed.touch(&space, 33, Access::Write), Fault::Pager { cookie: 0xabc, page: 3 });
    assert_eq!(bed.touch(&space, 33, Access::Execute), Fault::Forbidden);
    assert_eq!(bed.touch(&space, 40, Access::Read), Fault::NotMapped);
    let frame = bed.tap().take(Order::FRAME, Policy::Local).unwrap();
    bed.with(&space, |cx| space.supply(cx, PageId::new(33), frame)).unwrap();
    assert_eq!(bed.with(&space, |cx| space.supply(cx, PageId::new(33), frame)), Err(SpaceError::NotMapped));
    assert_eq!(walk(bed.arena, space.root(), PageId::new(33)).unwrap().frame, frame);
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}

#[test]
fn devices_are_mapped_with_the_largest_pages_that_fit() {
    let bed = Bed::new();
    let space = bed.space();
    let frame = FrameId::new(5 << 18);
    let device = Mapping::new(Backing::Device(frame), Protection::ReadWrite);
    bed.map(&space, range(2 << 18, 1 << 18), &device);
    let found = walk(bed.arena, space.root(), PageId::new((2 << 18) + 5)).unwrap();
    assert_eq!((found.span, found.frame.number()), (1 << 18, frame.number() + 5));
    bed.map(&space, range(1024, 600), &Mapping::new(Backing::Device(frame), Protection::Read));
    assert_eq!(walk(bed.arena, space.root(), PageId::new(1024)).unwrap().span, 512);
    assert_eq!(walk(bed.arena, space.root(), PageId::new(1536)).unwrap().span, 1);
    // A hole in the middle of 1 GiB: two levels of tables.
    bed.unmap(&space, range((2 << 18) + 1000, 1)).unwrap();
    assert_eq!(walk(bed.arena, space.root(), PageId::new((2 << 18) + 1001)).unwrap().frame.number(), frame.number() + 1001);
    assert_eq!(walk(bed.arena, space.root(), PageId::new((2 << 18) + 1000)), None);
    space.check().unwrap();
    assert_eq!(
        bed.with(&space, |cx| space.map(cx, range((2 << 18) + 999, 1), &Mapping::anonymous())),
        Err(SpaceError::Occupied)
    );
    bed.close(space);
}

#[test]
fn places_are_free_aligned_and_random() {
    let bed = Bed::new();
    let space = bed.space();
    let mut prng = perf::prng::Prng::new(5);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let place = bed.with(&space, |cx| space.place(cx, 700, PageSize::Huge, || prng.bits())).unwrap();
        assert_eq!(place.start().number() % 512, 0);
        bed.map(&space, place, &Mapping::anonymous());
        seen.insert(place.start());
    }
    assert_eq!(seen.len(), 50);
    let constant = bed.with(&space, |cx| space.place(cx, 1, PageSize::Small, || 0)).unwrap();
    assert_eq!(constant.start(), PageId::new(1), "null stays free");
    bed.close(space);
}

/// Everything that can be seen of a space.
fn snapshot(bed: &Bed, space: &Space<Arena>) -> (Vec<Region>, Usage, usize) {
    (bed.regions(space), space.check().unwrap(), bed.watch.used())
}

/// A space with regions of every kind, some touched, across borders of blocks and units.
fn furnish(bed: &Bed, object: &Object<Arena>) -> Space<Arena> {
    let space = bed.space();
    bed.map(&space, range(1 << 18, 2 << 18), &Mapping::anonymous());
    bed.map(&space, range(512, 1600), &Mapping::anonymous());
    bed.map(&space, range(4096, 1024), &Mapping::new(Backing::Shared(object, 0), Protection::ReadWrite));
    bed.map(&space, range(6144, 600), &Mapping::new(Backing::Copy(object, 100), Protection::ReadWrite));
    bed.map(&space, range(7168, 600), &Mapping::new(Backing::Pager(1), Protection::ReadWrite));
    for page in (512..1024).chain(1100..1110).chain([4097, 6150]) {
        assert_eq!(bed.touch(&space, page, Access::Write), Fault::Resolved);
    }
    space
}

/// One operation under test; says whether it went well.
type Try = fn(&Bed, &Space<Arena>, &Object<Arena>, &Space<Arena>) -> Result<(), SpaceError>;

const TRIES: &[(&str, Try)] = &[
    ("map anonymous", |bed, space, _, _| {
        bed.with(space, |cx| space.map(cx, range((4 << 18) - 700, 1500), &Mapping::anonymous()))
    }),
    ("map far away", |bed, space, _, _| {
        bed.with(space, |cx| space.map(cx, range(1 << 33, 3), &Mapping::anonymous()))
    }),
    ("map bound to a node", |bed, space, _, _| {
        let mapping = Mapping::anonymous().placed(Policy::LocalOnly);
        bed.with(space, |cx| space.map(cx, range(9000, 3), &mapping))
    }),
    ("map an object now", |bed, space, object, _| {
        let mapping = Mapping::new(Backing::Shared(object, 0), Protection::ReadWrite).now();
        bed.with(space, |cx| space.map(cx, range(10_000, 1000), &mapping))
    }),
    ("map over something", |bed, space, object, _| {
        let mapping = Mapping::new(Backing::Shared(object, 0), Protection::ReadWrite).now();
        match bed.with(space, |cx| space.map(cx, range(7168 - 700, 1000), &mapping)) {
            Err(SpaceError::Occupied) => Ok(()),
            other => panic!("{other:?}"),
        }
    }),
    ("unmap inside a large page", |bed, space, _, _| bed.unmap(space, range(600, 3))),
    ("unmap across blocks", |bed, space, _, _| bed.unmap(space, range(700, 900))),
    ("unmap inside a unit", |bed, space, _, _| bed.unmap(space, range((1 << 18) + 5, 1))),
    ("unmap across units", |bed, space, _, _| bed.unmap(space, range((2 << 18) - 5, 700))),
    ("protect inside a large page", |bed, space, _, _| {
        bed.protect(space, range(600, 1), Protection::Read)
    }),
    ("protect across units", |bed, space, _, _| {
        bed.protect(space, range((2 << 18) - 5, 700), Protection::Read)
    }),
    ("touch a reservation", |bed, space, _, _| done(bed.touch(space, 1200, Access::Write))),
    ("touch a new block", |bed, space, _, _| done(bed.touch(space, (1 << 18) + 9, Access::Write))),
    ("touch an object", |bed, space, _, _| done(bed.touch(space, 4500, Access::Write))),
    ("copy an object's page", |bed, space, _, _| done(bed.touch(space, 6300, Access::Write))),
    ("share", |bed, space, _, other| {
        let result = bed.share(space, other, range(512, 8000));
        if result.is_err() {
            bed.unmap(other, range(512, 8000)).unwrap();
        }
        result
    }),
];

fn done(fault: Fault) -> Result<(), SpaceError> {
    match fault {
        Fault::Resolved => Ok(()),
        Fault::Shortage(shortage) => Err(SpaceError::Shortage(shortage)),
        other => panic!("{other:?}"),
    }
}

/// Memory runs out at the first, second, … allocation of every operation: it is refused, and the space is as it was. A block of 2 MiB that
/// cannot be had is no failure: the pages then lie singly.
///
/// Planted: `prepare_ends` without `join`; `map` without `unmake`; `raise` without the table's lock word.
#[test]
fn out_of_memory_changes_nothing() {
    for (name, attempt) in TRIES {
        let mut failures = 0;
        for nth in 0.. {
            let bed = Bed::new();
            let object = Object::new(bed.arena, &mut bed.tap(), 1100, PageSize::Small).unwrap();
            let (space, other) = (furnish(&bed, &object), bed.space());
            // The directory and the frames of an object stay once they are there, and so do those of records: not the space's state.
            object.populate(&mut bed.tap(), 0, 1100).unwrap();
            let (before, others) = (snapshot(&bed, &space), snapshot(&bed, &other));
            bed.watch.fail_at(Some(nth));
            let result = attempt(&bed, &space, &object, &other);
            let over = bed.watch.takes() <= nth;
            bed.watch.fail_at(None);
            let settled = |mut seen: (Vec<Region>, Usage, usize)| {
                seen.2 -= seen.1.records;
                seen.1.records = 0;
                seen
            };
            match result {
                Err(SpaceError::Shortage(Shortage::Memory)) => {
                    failures += 1;
                    let (after, theirs) = (snapshot(&bed, &space), snapshot(&bed, &other));
                    let extra = after.1.records - before.1.records + theirs.1.records - others.1.records;
                    let (mut was, mut is) = (settled(before), settled(after));
                    is.2 -= extra.min(theirs.1.records);
                    if *name == "share" {
                        // What was shared for a moment is counted, in small pages, until it is written.
                        was.1 = Usage { private: 0, counted: 0, large: 0, reserved: 0, tables: 0, ..was.1 };
                        is.1 = Usage { private: 0, counted: 0, large: 0, reserved: 0, tables: 0, ..is.1 };
                        (was.2, is.2) = (0, 0);
                    }
                    assert_eq!(was, is, "{name}, failing at {nth}");
                }
                Ok(()) => {}
                Err(other) => panic!("{name}, failing at {nth}: {other:?}"),
            }
            bed.close(space);
            bed.close(other);
            object.release(&mut bed.tap());
            assert_eq!(bed.watch.used(), 0, "{name}, failing at {nth}");
            bed.arena.free();
            if over {
                break;
            }
        }
        println!("{name}: {failures} failures");
    }
}
