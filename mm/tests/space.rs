//! What address spaces promise in single cases: large pages, sharing, reverse look-up, placement, and that nothing has happened where
//! memory ran out.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::bed::{Bed, range};
use common::{Arena, BASE, POISON, walk};
use mm::frames::Policy;
use mm::space::{
    Access, Attachment, Backing, Fault, Mapping, Object, Pool, Progress, Protection, Region, Shortage, Space,
    SpaceError, Usage, Use,
};
use mm::{FrameId, Order, PageId, PageSize};

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_block_that_is_touched_whole_becomes_one_large_page() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(1024, 1024), &Mapping::anonymous());
    for page in 1024..1535 {
        assert_eq!(bed.touch(&space, page, Access::Write), Fault::Resolved);
    }
    let before = common::check(&space).unwrap();
    assert_eq!((before.private, before.reserved, before.large), (511, 1, 0));
    assert_eq!(bed.touch(&space, 1535, Access::Read), Fault::Resolved);
    let after = common::check(&space).unwrap();
    assert_eq!((after.private, after.reserved, after.large), (512, 0, 512));
    assert_eq!(after.tables + 1, before.tables, "the table of 4 KiB pages is gone");
    assert_eq!(walk(bed.arena, space.root(), PageId::new(1100)).map(|found| found.span), Some(512));
    // A change of a part makes it small pages again, the frames where they were.
    let frame = walk(bed.arena, space.root(), PageId::new(1300)).unwrap().frame;
    bed.protect(&space, range(1030, 1), Protection::Read).unwrap();
    assert_eq!(common::check(&space).unwrap().large, 0);
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
    assert_eq!(common::check(&space).unwrap().reserved, 412);
    bed.unmap(&space, range(520, 10)).unwrap();
    let usage = common::check(&space).unwrap();
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
    assert_eq!(common::check(&space).unwrap().tables, 2, "64 GiB in 64 entries of one table");
    assert_eq!(bed.touch(&space, (3 << 18) + 77, Access::Write), Fault::Resolved);
    assert_eq!(common::check(&space).unwrap().tables, 4);
    bed.close(space);
}

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
    assert_eq!(
        frame(&one, 515),
        common::Translation { frame: first, writable: true, executable: false, span: 1 }
    );
    for space in [&one, &two] {
        common::check(space).unwrap();
    }
    bed.close(one);
    assert!(frame(&two, 516).frame.number() >= BASE);
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
    let stranger = Object::new(bed.arena, &mut bed.tap(), 50, PageSize::Small).unwrap();
    assert_eq!(stranger.page_of(shown), None, "the frame is another object's");
    stranger.release(&mut bed.tap());
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
#[cfg_attr(miri, ignore = "takes minutes")]
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
    assert_eq!(
        walk(bed.arena, space.root(), PageId::new((2 << 18) + 1001)).unwrap().frame.number(),
        frame.number() + 1001
    );
    assert_eq!(walk(bed.arena, space.root(), PageId::new((2 << 18) + 1000)), None);
    common::check(&space).unwrap();
    assert_eq!(
        bed.with(&space, |cx| space.map(cx, range((2 << 18) + 999, 1), &Mapping::anonymous())),
        Err(SpaceError::Occupied)
    );
    bed.close(space);
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
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

/// Whatever is in the way, at its beginning or its end, small or large; what only touches a place is not.
///
/// Planted: what is in the way is not noticed; a place reaches one page further.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_place_has_nothing_in_it() {
    let bed = Bed::new();
    let space = bed.space();
    // Random ones are always page 1, so that the first that will do is looked for.
    let place = |pages| bed.with(&space, |cx| space.place(cx, pages, PageSize::Small, || 0));
    for (first, pages, expected) in
        [(9, 1, 1), (8, 1, 9), (1, 1, 2), (1, 5000, 5001), (4, 2 << 18, 4 + (2 << 18))]
    {
        bed.map(&space, range(first, pages), &Mapping::anonymous());
        assert_eq!(place(8), Some(range(expected, 8)), "{pages} pages from {first} on");
        bed.unmap(&space, range(first, pages)).unwrap();
    }
    bed.close(space);
}

/// Everything that can be seen of a space.
fn snapshot(bed: &Bed, space: &Space<Arena>) -> (Vec<Region>, Usage, usize) {
    (bed.regions(space), common::check(space).unwrap(), bed.watch.used())
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
    ("protect inside a large page", |bed, space, _, _| bed.protect(space, range(600, 1), Protection::Read)),
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
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
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

/// An object of one block of 1 GiB: a giant page where it lies right, smaller ones where it does not.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn giant_blocks_of_objects_are_mapped_whole_where_they_fit() {
    let bed = Bed::with_frames(2 << 18);
    let space = bed.space();
    let object = Object::new(bed.arena, &mut bed.tap(), 1 << 18, PageSize::Giant).unwrap();
    let mapping = |offset| Mapping::new(Backing::Shared(&object, offset), Protection::ReadWrite);
    bed.map(&space, range(1 << 18, 1 << 18), &mapping(0));
    bed.map(&space, range(2 << 18, 1 << 18), &mapping(0).now());
    bed.map(&space, range((3 << 18) + 512, (1 << 18) - 512), &mapping(0).now());
    bed.map(&space, range(4 << 18, 1024), &mapping(7));
    let first = object.page(&mut bed.tap(), 0).unwrap().unwrap().number();
    for (page, access, span, shows) in [
        ((1 << 18) + 99, Access::Write, 1 << 18, 99),
        ((2 << 18) + 5, Access::Read, 1 << 18, 5),
        ((3 << 18) + 700, Access::Read, 512, 188),
        ((4 << 18) + 600, Access::Write, 1, 607),
    ] {
        assert_eq!(bed.touch(&space, page, access), Fault::Resolved);
        let found = walk(bed.arena, space.root(), PageId::new(page)).unwrap();
        assert_eq!((found.span, found.frame.number() - first), (span, shows));
        assert_eq!(object.page_of(found.frame), Some(shows));
    }
    assert_eq!(bed.touch(&space, (1 << 18) + 98, Access::Execute), Fault::Forbidden);
    // A hole in the middle, and a share of the rest, which shows the same frames.
    bed.unmap(&space, range((1 << 18) + 1000, 3)).unwrap();
    let other = bed.space();
    bed.share(&space, &other, range((1 << 18) + 900, 200)).unwrap();
    assert_eq!(bed.touch(&other, (1 << 18) + 1001, Access::Read), Fault::NotMapped);
    assert_eq!(bed.touch(&other, (1 << 18) + 1005, Access::Read), Fault::Resolved);
    let found = walk(bed.arena, other.root(), PageId::new((1 << 18) + 1005)).unwrap();
    assert_eq!(found.frame.number() - first, 1005);
    for space in [space, other] {
        common::check(&space).unwrap();
        bed.close(space);
    }
    object.release(&mut bed.tap());
    assert_eq!(bed.watch.used(), 0);
    bed.arena.free();
}

/// An object of 2 MiB blocks, lazily and at once, aligned and not, for itself and until written.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn large_blocks_of_objects_are_mapped_whole_where_they_fit() {
    let bed = Bed::new();
    let space = bed.space();
    let object = Object::new(bed.arena, &mut bed.tap(), 1536, PageSize::Huge).unwrap();
    assert_eq!(object.pages(), 1536);
    let shared = |offset| Mapping::new(Backing::Shared(&object, offset), Protection::ReadWrite);
    let copied = Mapping::new(Backing::Copy(&object, 0), Protection::ReadWrite);
    let cases: [(usize, usize, Mapping<'_, Arena>, usize); 6] = [
        (4096, 1024, shared(0), 512),
        (8192, 1024, shared(512).now(), 512),
        (12288, 1024, shared(3), 1),
        (16384, 1024, shared(3).now(), 1),
        (20480, 1024, copied, 1),
        (24576 + 100, 1400, shared(100).now(), 512),
    ];
    for (start, pages, mapping, span) in &cases {
        bed.map(&space, range(*start, *pages), mapping);
        let page = start + 700;
        assert_eq!(bed.touch(&space, page, Access::Read), Fault::Resolved);
        let found = walk(bed.arena, space.root(), PageId::new(page)).unwrap();
        assert_eq!(found.span, *span, "{start}");
        let offset = match mapping.backing {
            Backing::Shared(_, offset) | Backing::Copy(_, offset) => offset + 700,
            _ => unreachable!(),
        };
        assert_eq!(object.page(&mut bed.tap(), offset), Ok(Some(found.frame)), "{start}");
    }
    // The copy is a page; the object's block stays.
    let page = PageId::new(20480 + 700);
    let before = walk(bed.arena, space.root(), page).unwrap().frame;
    assert_eq!(bed.touch(&space, page.number(), Access::Write), Fault::Resolved);
    assert_ne!(walk(bed.arena, space.root(), page).unwrap().frame, before);
    let beyond = bed.with(&space, |cx| space.map(cx, range(10, 2), &shared(1535)));
    assert_eq!(beyond, Err(SpaceError::BeyondObject));
    assert_eq!(
        bed.with(&space, |cx| space.map(cx, range(10, 2), &shared(usize::MAX))),
        Err(SpaceError::BeyondObject)
    );
    common::check(&space).unwrap();
    bed.close(space);
    object.release(&mut bed.tap());
    assert_eq!(bed.watch.used(), 0);
}

/// More pages that are shared until written, and more records, than one step has room for.
///
/// Planted: a step that goes on one page too late; `Few::push` that says yes when it is full.
#[test]
fn unmapping_goes_on_where_room_ran_out() {
    let bed = Bed::new();
    let (one, two) = (bed.space(), bed.space());
    bed.map(&one, range(512, 200), &Mapping::anonymous());
    for page in 512..612 {
        assert_eq!(bed.touch(&one, page, Access::Write), Fault::Resolved);
    }
    bed.share(&one, &two, range(512, 200)).unwrap();
    let step = bed.with(&one, |cx| one.unmap(cx, range(512, 200)));
    assert_eq!(step, Ok(Progress::More(PageId::new(512 + 24))));
    assert_eq!(walk(bed.arena, one.root(), PageId::new(512 + 23)), None);
    assert!(walk(bed.arena, one.root(), PageId::new(512 + 24)).is_some());
    let left = bed.regions(&one);
    assert_eq!(left.iter().map(|region| region.range).collect::<Vec<_>>(), [range(536, 176)]);
    common::check(&one).unwrap();
    bed.unmap(&one, range(536, 176)).unwrap();
    // Records: the object lives until the last of its mappings is settled.
    let object = Object::new(bed.arena, &mut bed.tap(), 50, PageSize::Small).unwrap();
    for index in 0..10 {
        let mapping = Mapping::new(Backing::Shared(&object, index), Protection::Read).now();
        bed.map(&one, range(1000 + 2 * index, 1), &mapping);
    }
    object.release(&mut bed.tap());
    let step = bed.with(&one, |cx| one.unmap(cx, range(1000, 20)));
    assert_eq!(step, Ok(Progress::More(PageId::new(1008))));
    common::check(&one).unwrap();
    for space in [one, two] {
        bed.close(space);
    }
    assert_eq!(bed.watch.used(), 0);
}

/// The table of records grows up to its end; then nothing more is mapped, and nothing has changed. One that is free is found again.
///
/// Planted: a record for everybody; `destroy` that forgets frames.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_space_has_1023_mappings_of_objects() {
    let bed = Bed::new();
    let space = bed.space();
    let object = Object::new(bed.arena, &mut bed.tap(), 50, PageSize::Small).unwrap();
    let mapping = |offset| Mapping::new(Backing::Shared(&object, offset), Protection::Read);
    for index in 0..1023 {
        bed.map(&space, range(1000 + 2 * index, 1), &mapping(index % 50));
        if index % 64 == 0 {
            assert_eq!(common::check(&space).unwrap().records, 1 + (index + 1) / 64);
        }
    }
    let before = snapshot(&bed, &space);
    assert_eq!(before.1.records, 16);
    let refused = bed.with(&space, |cx| space.map(cx, range(10, 1), &mapping(0)));
    assert_eq!(refused, Err(SpaceError::TooManyMappings));
    let placed = Mapping::anonymous().placed(Policy::LocalOnly);
    assert_eq!(bed.with(&space, |cx| space.map(cx, range(10, 1), &placed)), Err(SpaceError::TooManyMappings));
    assert_eq!(snapshot(&bed, &space), before);
    let mut count = 0;
    object.attachments(|_| count += 1);
    assert_eq!(count, 1023);
    // Sharing needs records in the other space.
    let other = bed.space();
    for index in 0..1023 {
        bed.map(&other, range(8192 + 2 * index, 1), &mapping(0));
    }
    assert_eq!(bed.share(&space, &other, range(1000, 4)), Err(SpaceError::TooManyMappings));
    // Plain memory needs no record; and one that is free is found.
    bed.map(&space, range(20, 1), &Mapping::anonymous());
    bed.unmap(&space, range(1000 + 2 * 77, 1)).unwrap();
    bed.map(&space, range(10, 1), &mapping(49));
    assert_eq!(bed.touch(&space, 10, Access::Read), Fault::Resolved);
    for space in [space, other] {
        common::check(&space).unwrap();
        bed.close(space);
    }
    object.release(&mut bed.tap());
    assert_eq!(bed.watch.used(), 0);
}

#[test]
fn a_space_with_something_in_it_is_not_closed() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(1 << 34, 1), &Mapping::new(Backing::Guard, Protection::Read));
    let space = space.close(&mut bed.tap()).expect_err("a guard is something");
    assert_eq!(common::check(&space).unwrap().mapped, 1);
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}

/// A region that takes more than a step to look at is reported in parts; neighbours and holes are told apart.
///
/// Planted: `see` that does not look whether pages touch.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn regions_are_told_in_parts_and_apart() {
    let bed = Bed::new();
    let space = bed.space();
    bed.map(&space, range(512, 10 * 512), &Mapping::anonymous());
    for block in 0..10 {
        assert_eq!(bed.touch(&space, 512 * (1 + block) + 9, Access::Write), Fault::Resolved);
    }
    bed.map(&space, range(20 * 512, 512), &Mapping::anonymous());
    bed.map(&space, range(22 * 512 - 3, 3), &Mapping::anonymous());
    bed.map(&space, range(22 * 512, 4), &Mapping::new(Backing::Anonymous, Protection::Read));
    bed.unmap(&space, range(20 * 512 + 100, 1)).unwrap();
    bed.map(&space, range((8 << 18) - 3, 3), &Mapping::anonymous());
    bed.map(&space, range(9 << 18, 3), &Mapping::anonymous());
    let seen: Vec<_> = bed.regions(&space).iter().map(|region| (region.range, region.present)).collect();
    let expected = [
        (range(512, 8 * 512), 8),
        (range(9 * 512, 2 * 512), 2),
        (range(20 * 512, 100), 0),
        (range(20 * 512 + 101, 411), 0),
        (range(22 * 512 - 3, 3), 0),
        (range(22 * 512, 4), 0),
        (range((8 << 18) - 3, 3), 0),
        (range(9 << 18, 3), 0),
    ];
    assert_eq!(seen, expected);
    bed.close(space);
    assert_eq!(bed.watch.used(), 0);
}
