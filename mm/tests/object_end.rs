//! Objects to which no reference is left: they go step by step, whatever their directories look like.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::bed::{Bed, range};
use common::{Arena, Tap};
use mm::frames::Policy;
use mm::space::{Backing, Mapping, Object, Orphans, Pool, Progress, Protection, Shortage};
use mm::{FrameId, Order, PageSize};

/// Most frames that one step gives back: 96 blocks, those of a line more, the directory frames that end with them, and the object's own.
const MOST: usize = 96 + 7 + 3 + 1;

/// Takes over what is offered, and counts what goes back.
struct Orphanage<'w> {
    tap: Tap<'w>,
    orphans: &'w Orphans<Arena>,
    offered: usize,
    given: usize,
}

impl<'w> Orphanage<'w> {
    fn new(bed: &'w Bed, orphans: &'w Orphans<Arena>) -> Self {
        Self { tap: bed.tap(), orphans, offered: 0, given: 0 }
    }

    /// Does steps, at most so many; returns how many there were to do.
    fn run(&mut self, most: usize) -> usize {
        let orphans = self.orphans;
        for steps in 0..most {
            let before = self.given;
            if !orphans.step(self) {
                return steps;
            }
            let given = self.given - before;
            assert!(given <= MOST, "{given} frames in one step");
        }
        most
    }

    /// Ends what was taken over; returns how many steps it took.
    fn finish(&mut self) -> usize {
        let steps = self.run(10_000);
        assert!(self.orphans.is_empty(), "each step brings the end nearer");
        steps
    }
}

impl Pool for Orphanage<'_> {
    fn take(&mut self, order: Order, policy: Policy) -> Result<FrameId, Shortage> {
        self.tap.take(order, policy)
    }

    fn give(&mut self, frame: FrameId, order: Order) {
        self.given += 1;
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

    fn orphan(&mut self, frame: FrameId) -> bool {
        self.offered += 1;
        // SAFETY: that is what the pool is told.
        unsafe { self.orphans.add(frame) };
        true
    }
}

fn object(bed: &Bed, pages: usize, touched: impl Iterator<Item = usize>) -> Object<Arena> {
    let object = Object::new(bed.arena, &mut bed.tap(), pages, PageSize::Small).unwrap();
    for page in touched {
        assert!(object.page(&mut bed.tap(), page).unwrap().is_some());
    }
    object
}

/// Directories of every depth, full, thin, and with holes that begin and end at their ends.
///
/// Planted: a directory frame stays when a hole follows it; a hole is skipped to the end of its block only, so that a step gets nowhere; the
/// bound counts words, not frames.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn an_object_goes_step_by_step() {
    let bed = Bed::with_frames(8 * 512);
    let cases: [(usize, Vec<usize>); 7] = [
        (504, (0..504).collect()),
        (505, (0..505).collect()),
        (3000, (0..3000).filter(|page| !(512..1536).contains(page)).collect()),
        (3000, (0..3000).step_by(7).collect()),
        (200_000, (0..200_000).step_by(1000).collect()),
        // Two levels of directory frames, of which most words lead nowhere.
        (300_000, (0..300_000).step_by(1500).chain([299_999]).collect()),
        (1 << 30, (0..150).map(|page| page * page * 40_000).chain([(1 << 30) - 1]).collect()),
    ];
    for (pages, touched) in cases {
        let count = touched.len();
        let object = object(&bed, pages, touched.into_iter());
        let used = bed.watch.used();
        let orphans = Orphans::new(bed.arena);
        let mut pool = Orphanage::new(&bed, &orphans);
        object.let_go(&mut pool);
        assert_eq!((pool.offered, bed.watch.used()), (1, used), "{pages} pages: offered, and nothing else");
        let steps = pool.finish();
        assert!(steps > count / 128, "{pages} pages: {steps} steps");
        assert_eq!(bed.watch.used(), 0, "{pages} pages");
    }
}

/// One that comes while another is being ended waits behind it.
///
/// Planted: it goes to the front, and is gone on with where the other one was.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn orphans_end_one_after_the_other() {
    let bed = Bed::new();
    let orphans = Orphans::new(bed.arena);
    let mut pool = Orphanage::new(&bed, &orphans);
    for _ in 0..3 {
        object(&bed, 1000, 0..1000).let_go(&mut pool);
        assert_eq!(pool.run(2), 2);
    }
    assert_eq!(pool.offered, 3);
    pool.finish();
    assert_eq!(bed.watch.used(), 0);
}

/// What a step could do is done at once; so is everything if nobody takes it over.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_small_object_goes_at_once() {
    let bed = Bed::new();
    let orphans = Orphans::new(bed.arena);
    let mut pool = Orphanage::new(&bed, &orphans);
    object(&bed, 504, 496..504).let_go(&mut pool);
    assert_eq!((pool.offered, bed.watch.used()), (0, 0));
    object(&bed, 504, 0..9).let_go(&mut bed.tap());
    assert_eq!(bed.watch.used(), 0);
    object(&bed, 504, 0..9).release(&mut pool);
    assert_eq!((pool.offered, bed.watch.used()), (0, 0));
    // A page in each directory frame: few frames, many words.
    object(&bed, 60_000, (0..60_000).step_by(1000)).let_go(&mut pool);
    assert_eq!(pool.offered, 1);
    pool.finish();
    assert_eq!(bed.watch.used(), 0);
}

/// The last that shows an object offers it: by unmapping, and by its end.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn the_last_space_offers_it() {
    let bed = Bed::new();
    let space = bed.space();
    let empty = bed.watch.used();
    let mapped = |object: Object<Arena>| {
        bed.map(&space, range(1000, 300), &Mapping::new(Backing::Shared(&object, 0), Protection::Read));
        object.release(&mut bed.tap());
    };
    let orphans = Orphans::new(bed.arena);
    let mut pool = Orphanage::new(&bed, &orphans);
    mapped(object(&bed, 300, 0..300));
    mapped_away(&bed, &space, &mut pool);
    assert_eq!(pool.offered, 1);
    pool.finish();
    // The frame of records stays.
    assert_eq!(bed.watch.used(), empty + 1);
    mapped(object(&bed, 300, 0..300));
    // SAFETY: the space is ours, and no CPU has ever run it.
    while let Progress::More(()) = unsafe { space.dismantle(&mut pool) } {}
    assert_eq!(pool.offered, 2);
    pool.finish();
    assert!(space.close(&mut bed.tap()).is_ok());
    assert_eq!(bed.watch.used(), 0);
}

fn mapped_away(bed: &Bed, space: &mm::space::Space<Arena>, pool: &mut Orphanage<'_>) {
    let mut rest = range(1000, 300);
    loop {
        let (progress, _) = bed.with_pool(space, pool, |cx| space.unmap(cx, rest).unwrap());
        let Progress::More(at) = progress else { return };
        rest = range(at.number(), 1300 - at.number());
    }
}
