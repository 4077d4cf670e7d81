//! Threads on two spaces: each has pages of its own, of which it knows everything, and some that all fight for, whose contents must at least
//! belong there.
//!
//! The threads' own pages lie side by side in one table, fill blocks that become large pages, and are all there is in units that come and go
//! beside each other. An access walks the tables and touches the frame while the shootdown of others waits, as a core does that has
//! interrupts off. Retired tables are used again when all threads have met. Seeds are fixed; the order of events is not.
//!
//! Planted: `find` that takes a unit without its lock; a copy that keeps its reference; a broken reservation that keeps frames; `Few::push`
//! that says yes when it is full. A directory that goes back at once survives here: see the loom models.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Arena, Tap, Watch, walk};
use mm::bank::Payer;
use mm::space::{
    Access, Backing, Cx, Fault, Format, Mapping, Object, Pending, Progress, Protection, Space, SpaceError,
    Upper,
};
use mm::tlb::SpaceIds;
use mm::virt::USER_PAGES;
use mm::{PageId, PageRange, PageSize};
use percpu::IrqOff;
use percpu::sync::atomic::{AtomicU64, Ordering};
use perf::prng::Prng;
use std::collections::BTreeMap;
use std::sync::{Barrier, RwLock};

static IDS: SpaceIds = SpaceIds::new();

const THREADS: usize = 4;
const UNIT: usize = 1 << 18;
/// Rounds, and what a thread does in one.
const ROUNDS: usize = 40;
const OPS: usize = 60;
const FRAMES: usize = 64 * 512;
/// The word that accesses use.
const WORD: usize = 7;
/// Pages of the object; page `p` of a space shows its page `p % OBJECT`.
const OBJECT: usize = 512;

/// What a page's word says belongs to it: the object's page that it shows, or could show.
const fn tag(page: usize) -> u64 {
    1 << 31 | (page % OBJECT) as u64
}

struct Bed {
    arena: Arena,
    watch: Watch,
    spaces: [Space<Arena>; 2],
    object: Object<Arena>,
    /// Read while a translation is used, written by a shootdown.
    cores: RwLock<()>,
}

impl Bed {
    fn new() -> Self {
        let arena = Arena::new(FRAMES);
        let watch = Watch::new(arena, FRAMES);
        let format = Format::new(true, true);
        let spaces = [1, 2].map(|number| {
            let (payer, how) = (Payer::new(number), (format, Upper::Empty));
            Space::paid_by(payer, arena, &mut Tap(&watch), IDS.take(), how).unwrap()
        });
        let object = Object::new(arena, &mut Tap(&watch), OBJECT, PageSize::Small).unwrap();
        Self { arena, watch, spaces, object, cores: RwLock::new(()) }
    }

    fn with<R>(&self, space: usize, f: impl FnOnce(&mut Cx<'_, Tap<'_>>) -> R) -> R {
        let (mut tap, mut pending) = (Tap(&self.watch), Pending::new());
        let result = IrqOff::with(|irq| f(&mut Cx::new(irq, &mut tap, &mut pending)));
        self.settle(space, &mut pending);
        result
    }

    fn settle(&self, space: usize, pending: &mut Pending) {
        if !pending.is_empty() {
            let asked = self.cores.write().unwrap();
            drop(asked);
            self.spaces[space].settle(&mut Tap(&self.watch), pending);
        }
    }

    fn all(
        &self,
        space: usize,
        mut rest: PageRange,
        f: impl Fn(&mut Cx<'_, Tap<'_>>, PageRange) -> Result<Progress<PageId>, SpaceError>,
    ) -> Result<(), SpaceError> {
        while let Progress::More(at) = self.with(space, |cx| f(cx, rest))? {
            rest = PageRange::new(at, rest.end().number() - at.number()).unwrap();
        }
        Ok(())
    }

    fn unmap(&self, space: usize, range: PageRange) {
        self.all(space, range, |cx, rest| self.spaces[space].unmap(cx, rest)).unwrap();
    }

    fn share(&self, from: usize, mut rest: PageRange) -> Result<(), SpaceError> {
        loop {
            let mut other = Pending::new();
            let step =
                self.with(from, |cx| self.spaces[from].share(cx, &self.spaces[1 - from], &mut other, rest));
            self.settle(1 - from, &mut other);
            match step? {
                Progress::Done(()) => return Ok(()),
                Progress::More(at) => {
                    rest = PageRange::new(at, rest.end().number() - at.number()).unwrap();
                }
            }
        }
    }

    /// One access, with its faults: what it found, or why it cannot be. A write leaves `value`.
    fn access(&self, space: usize, page: usize, access: Access, value: u64) -> Result<u64, Fault> {
        let id = PageId::new(page);
        for _ in 0..10_000 {
            let using = self.cores.read().unwrap();
            let found = walk(self.arena, self.spaces[space].root(), id);
            if let Some(found) = found.filter(|found| found.allows(access)) {
                // SAFETY: inside the arena; every thread accesses this word atomically while the page is mapped.
                let word = unsafe { AtomicU64::from_ptr(self.arena.word(found.frame, WORD)) };
                // ORDER: Relaxed, both: the value alone counts.
                return Ok(match access {
                    Access::Write => word.swap(value, Ordering::Relaxed),
                    _ => word.load(Ordering::Relaxed),
                });
            }
            drop(using);
            match self.with(space, |cx| self.spaces[space].fault(cx, id, access)) {
                Fault::Resolved => {}
                fault => return Err(fault),
            }
        }
        panic!("{id:?} is resolved again and again");
    }
}

/// What a thread knows of a page of its own.
#[derive(Clone, Copy, Debug)]
struct Known {
    writable: bool,
    value: u64,
}

struct Worker<'b> {
    bed: &'b Bed,
    prng: Prng,
    own: Vec<PageRange>,
    known: [BTreeMap<usize, Known>; 2],
    stamp: u64,
}

fn range(start: usize, pages: usize) -> PageRange {
    PageRange::new(PageId::new(start), pages).unwrap()
}

/// The places that belong to a thread: beside the others' in one table, a block of its own in one unit with theirs, and a unit of its own
/// beside theirs.
fn places(thread: usize) -> Vec<PageRange> {
    vec![
        range(UNIT + 4096 + thread * 128, 128),
        range(UNIT + 8192 + thread * 512, 512),
        range((4 + thread) * UNIT + UNIT - 40, 40),
        range((130 + thread) << 27, 3),
    ]
}

/// Places that all threads fight for: across units, across blocks, and a block.
const CONTESTED: [(usize, usize); 4] =
    [(2 * UNIT - 8, 16), (20 * UNIT - 4, 8), (UNIT + 1020, 10), (UNIT + 2048, 512)];

impl Worker<'_> {
    fn below(&mut self, bound: usize) -> usize {
        self.prng.bits() as usize % bound
    }

    fn part(&mut self, whole: PageRange) -> PageRange {
        if self.below(3) == 0 {
            return whole;
        }
        let from = self.below(whole.len());
        let len = 1 + self.below(whole.len() - from);
        range(whole.start().number() + from, len)
    }

    fn stamp(&mut self, page: usize) -> u64 {
        self.stamp += 1;
        tag(page) << 32 | self.stamp
    }

    fn round(&mut self) {
        for _ in 0..OPS {
            if self.below(3) == 0 {
                self.fight();
            } else {
                self.own();
            }
        }
    }

    /// An operation on pages that nobody else touches: everything about it is known.
    fn own(&mut self) {
        let place = self.below(self.own.len());
        let (space, whole) = (self.below(2), self.own[place]);
        let part = self.part(whole);
        match self.below(10) {
            0..=1 => self.map(space, part),
            2 => {
                self.bed.unmap(space, part);
                self.known[space].retain(|&page, _| !part.contains(PageId::new(page)));
            }
            3 => self.protect(space, part),
            4 => self.share(space, part),
            _ => {
                let every = if self.below(2) == 0 { 1 } else { 7 };
                for page in (part.start().number()..part.end().number()).step_by(every) {
                    self.touch(space, page);
                }
            }
        }
    }

    fn map(&mut self, space: usize, part: PageRange) {
        let free = self.known[space].range(part.start().number()..part.end().number()).next().is_none();
        let result = self.bed.with(space, |cx| self.bed.spaces[space].map(cx, part, &Mapping::anonymous()));
        assert_eq!(result, if free { Ok(()) } else { Err(SpaceError::Occupied) });
        if free {
            let pages = part.start().number()..part.end().number();
            self.known[space].extend(pages.map(|page| (page, Known { writable: true, value: 0 })));
        }
    }

    fn protect(&mut self, space: usize, part: PageRange) {
        let writable = self.below(2) == 0;
        let to = if writable { Protection::ReadWrite } else { Protection::Read };
        self.bed.all(space, part, |cx, rest| self.bed.spaces[space].protect(cx, rest, to)).unwrap();
        let pages = self.known[space].range_mut(part.start().number()..part.end().number());
        pages.for_each(|(_, known)| known.writable = writable);
    }

    fn share(&mut self, from: usize, part: PageRange) {
        self.bed.unmap(1 - from, part);
        self.known[1 - from].retain(|&page, _| !part.contains(PageId::new(page)));
        self.bed.share(from, part).unwrap();
        let pages: Vec<_> = {
            let pages = self.known[from].range(part.start().number()..part.end().number());
            pages.map(|(&page, &known)| (page, known)).collect()
        };
        self.known[1 - from].extend(pages);
    }

    fn touch(&mut self, space: usize, page: usize) {
        let value = self.stamp(page);
        let access = if self.below(2) == 0 { Access::Write } else { Access::Read };
        let result = self.bed.access(space, page, access, value);
        match self.known[space].get_mut(&page) {
            None => assert_eq!(result, Err(Fault::NotMapped), "{page:#x}"),
            Some(known) if access == Access::Write && !known.writable => {
                assert_eq!(result, Err(Fault::Forbidden), "{page:#x}");
            }
            Some(known) => {
                assert_eq!(result, Ok(known.value), "{page:#x} of {space}");
                if access == Access::Write {
                    known.value = value;
                }
            }
        }
    }

    /// An operation on what everybody wants: anything may come of it, but nothing foreign is ever seen.
    fn fight(&mut self) {
        let (start, pages) = CONTESTED[self.below(CONTESTED.len())];
        let part = self.part(range(start, pages));
        let (space, bed) = (self.below(2), self.bed);
        let it = &bed.spaces[space];
        match self.below(12) {
            0..=1 => {
                let offset = part.start().number() % OBJECT;
                let fits = offset + part.len() <= OBJECT;
                let mapping = match self.below(6) {
                    0 if fits => Mapping::new(Backing::Shared(&bed.object, offset), Protection::ReadWrite),
                    1 if fits => {
                        Mapping::new(Backing::Shared(&bed.object, offset), Protection::ReadWrite).now()
                    }
                    2 if fits => Mapping::new(Backing::Copy(&bed.object, offset), Protection::ReadWrite),
                    _ => Mapping::anonymous(),
                };
                let result = bed.with(space, |cx| it.map(cx, part, &mapping));
                assert!(matches!(result, Ok(()) | Err(SpaceError::Occupied)), "{result:?}");
            }
            2..=3 => bed.unmap(space, part),
            4 => {
                let to = if self.below(4) == 0 { Protection::Read } else { Protection::ReadWrite };
                bed.all(space, part, |cx, rest| it.protect(cx, rest, to)).unwrap();
            }
            5 => {
                let result = bed.share(space, part);
                assert!(matches!(result, Ok(()) | Err(SpaceError::Occupied)), "{result:?}");
            }
            6 => {
                let seen = bed.with(space, |cx| it.region(cx, part.start()));
                assert!(seen.is_none_or(|region| region.range.start() >= part.start()));
            }
            _ => {
                for page in part.start().number()..part.end().number() {
                    self.meet(space, page);
                }
            }
        }
    }

    fn meet(&mut self, space: usize, page: usize) {
        let value = tag(page) << 32 | 1;
        let access = if self.below(3) == 0 { Access::Read } else { Access::Write };
        match self.bed.access(space, page, access, value) {
            Ok(0) => {}
            Ok(seen) => assert_eq!(seen >> 32, tag(page), "{seen:#x} at {page:#x} of {space}"),
            Err(fault) => assert!(matches!(fault, Fault::NotMapped | Fault::Forbidden), "{fault:?}"),
        }
    }
}

/// Ends the test with the thread that failed: the others would wait for it.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::exit(101);
        }
    }
}

/// A thread's rounds; between two of them nobody is in the kernel.
fn live(bed: &Bed, barrier: &Barrier, seed: u64, thread: usize) {
    let prng = Prng::new(seed * 100 + thread as u64);
    let mut worker = Worker { bed, prng, own: places(thread), known: Default::default(), stamp: 0 };
    for _ in 0..ROUNDS {
        worker.round();
        if barrier.wait().is_leader() {
            bed.spaces.iter().for_each(|space| assert_eq!(common::check(space).err(), None));
            bed.watch.grace();
        }
        barrier.wait();
    }
}

fn run(seed: u64) {
    let bed = Bed::new();
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (bed, barrier) = (&bed, &barrier);
            scope.spawn(move || {
                let _watch = Alarm;
                live(bed, barrier, seed, thread);
            });
        }
    });
    (0..2).for_each(|space| bed.unmap(space, range(0, USER_PAGES)));
    let Bed { arena, watch, spaces, object, .. } = bed;
    object.release(&mut Tap(&watch));
    for space in spaces {
        let usage = common::check(&space).unwrap();
        assert_eq!((usage.tables, usage.mapped), (1, 0));
        assert!(space.close(&mut Tap(&watch)).is_ok(), "everything is unmapped");
    }
    watch.grace();
    assert_eq!(watch.used(), 0, "every frame is back");
    assert!(watch.owing().is_empty(), "every payer is: {:?}", watch.owing());
    arena.free();
}

#[test]
#[cfg_attr(miri, ignore = "a page is copied while its last writer still writes, as on hardware")]
fn threads_share_two_spaces() {
    for seed in 0..if cfg!(debug_assertions) { 1 } else { 6 } {
        run(seed);
    }
}
