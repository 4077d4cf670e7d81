//! Address spaces against a naive model: a map from page to what it shows.
//!
//! Random operations run on two spaces and on the model; accesses go through a simulated CPU, which walks the real tables and caches
//! translations until it is told to drop them. After every operation the space's own check must agree, and what it has paid for, and in the
//! end every frame is back.
//!
//! Planted bugs that paying caught: a shared frame that is let go and not counted (`Pending::unshare`), a page that is lent and stays the
//! space's to pay for, a move that is taken for one between spaces of one payer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Arena, BASE, Tap, Tlb, Watch};
use mm::bank::Payer;
use mm::space::{
    Access, Backing, Course, Cx, Fault, Format, Kind, Mapping, Object, Pass, Passing, Pending, Phase,
    Progress, Protection, Space, SpaceError, Steps, Upper,
};
use mm::tlb::SpaceIds;
use mm::virt::USER_PAGES;
use mm::{FrameId, PageId, PageRange, PageSize};
use percpu::IrqOff;
use percpu::sync::atomic::{AtomicUsize, Ordering};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// What a page shows in the model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Page {
    kind: Kind,
    protection: Protection,
    /// Content of a page of its own.
    own: Option<u64>,
    /// The object and its page, or the device's frame, or the pager's page.
    from: (usize, usize),
}

#[derive(Clone, Debug)]
enum Op {
    Map { space: usize, start: usize, pages: usize, what: usize, protection: Protection, now: bool },
    Unmap { space: usize, start: usize, pages: usize },
    Protect { space: usize, start: usize, pages: usize, protection: Protection },
    Touch { space: usize, page: usize, access: Access, value: u64 },
    Sweep { space: usize, start: usize, value: u64 },
    Share { from: usize, start: usize, pages: usize },
    Pass { from: usize, start: usize, pages: usize, to: usize, target: usize, how: Passing },
    Supply { space: usize, page: usize, value: u64 },
    Look { space: usize, page: usize },
}

/// Places near the borders of blocks and units, where mistakes are made.
fn place() -> impl Strategy<Value = usize> {
    let border = prop_oneof![Just(512), Just(1024), Just(1 << 18), Just(1 << 27), Just((1 << 18) - 1024)];
    prop_oneof![
        3 => (border, 0usize..40).prop_map(|(border, offset)| border + offset - 20),
        2 => (0usize..6).prop_map(|block| 512 * (1 + block)),
        1 => Just(1 << 18),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![40 => 1usize..30, 20 => Just(512), 20 => 500usize..1200, 1 => Just(1 << 18), 1 => Just((1 << 18) + 700)]
}

fn protection() -> impl Strategy<Value = Protection> {
    prop_oneof![
        3 => Just(Protection::ReadWrite),
        1 => Just(Protection::Read),
        1 => Just(Protection::ReadExecute)
    ]
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![3 => Just(Access::Write), 2 => Just(Access::Read), 1 => Just(Access::Execute)]
}

fn passing() -> impl Strategy<Value = Passing> {
    prop_oneof![2 => Just(Passing::Move), 1 => Just(Passing::Share), 1 => Just(Passing::Copy)]
}

fn op() -> impl Strategy<Value = Op> {
    let space = 0usize..2;
    prop_oneof![
        6 => (space.clone(), place(), length(), 0usize..9, protection(), any::<bool>()).prop_map(
            |(space, start, pages, what, protection, now)| Op::Map { space, start, pages, what, protection, now }
        ),
        4 => (space.clone(), place(), length()).prop_map(|(space, start, pages)| Op::Unmap { space, start, pages }),
        3 => (space.clone(), place(), length(), protection()).prop_map(
            |(space, start, pages, protection)| Op::Protect { space, start, pages, protection }
        ),
        12 => (space.clone(), place(), access(), any::<u64>()).prop_map(
            |(space, page, access, value)| Op::Touch { space, page, access, value }
        ),
        2 => (space.clone(), place(), any::<u64>()).prop_map(|(space, start, value)| Op::Sweep { space, start, value }),
        2 => (space.clone(), place(), length()).prop_map(|(from, start, pages)| Op::Share { from, start, pages }),
        5 => (space.clone(), place(), length(), space.clone(), place(), passing()).prop_map(
            |(from, start, pages, to, target, how)| Op::Pass { from, start, pages, to, target, how }
        ),
        1 => (space.clone(), place(), any::<u64>()).prop_map(|(space, page, value)| Op::Supply { space, page, value }),
        2 => (space, place()).prop_map(|(space, page)| Op::Look { space, page }),
    ]
}

static IDS: SpaceIds = SpaceIds::new();

/// Frames of a machine: enough for a few reservations.
const FRAMES: usize = if cfg!(miri) { 11 * 512 } else { 24 * 512 };
/// Pages of the objects; the second is made of 2 MiB blocks.
const OBJECT_PAGES: [usize; 2] = [1500, 2048];
/// The device's first frame: not the pool's.
const DEVICE: usize = BASE + FRAMES - 4096;

/// Steps of all cases.
static STEPS: AtomicUsize = AtomicUsize::new(0);

/// Who pays for the spaces.
const PAYERS: [Payer; 2] = [Payer::new(1), Payer::new(2)];

/// The word of a page that accesses read and write.
const WORD: usize = 7;

struct Bed<'w> {
    arena: Arena,
    watch: &'w Watch,
    spaces: Vec<Space<Arena>>,
    tlbs: [Tlb; 2],
    objects: Vec<Object<Arena>>,
    model: [BTreeMap<usize, Page>; 2],
    /// Of objects: the two, and those that passing has made.
    contents: BTreeMap<usize, BTreeMap<usize, u64>>,
    lent: usize,
    /// Operations and accesses so far.
    steps: usize,
}

impl<'w> Bed<'w> {
    fn new(arena: Arena, watch: &'w Watch) -> Self {
        let mut tap = Tap(watch);
        let format = Format::new(true, true);
        let spaces = PAYERS
            .map(|payer| Space::paid_by(payer, arena, &mut tap, IDS.take(), (format, Upper::Empty)).unwrap())
            .into();
        let objects = vec![
            Object::new(arena, &mut tap, OBJECT_PAGES[0], PageSize::Small).unwrap(),
            Object::new(arena, &mut tap, OBJECT_PAGES[1], PageSize::Huge).unwrap(),
        ];
        let tlbs = [Tlb::default(), Tlb::default()];
        Self {
            arena,
            watch,
            spaces,
            tlbs,
            objects,
            model: Default::default(),
            contents: Default::default(),
            lent: 0,
            steps: 0,
        }
    }

    /// Runs an operation and settles it: the translation cache drops what it is told to, and nothing else.
    fn with<R>(&self, space: usize, f: impl FnOnce(&mut Cx<'_, Tap<'_>>) -> R) -> R {
        let mut tap = Tap(self.watch);
        let mut pending = Pending::new();
        let result = IrqOff::with(|irq| f(&mut Cx::new(irq, &mut tap, &mut pending)));
        self.settle(space, &mut pending);
        result
    }

    fn settle(&self, space: usize, pending: &mut Pending) {
        self.tlbs[space].forget(|page| pending.batch().covers(page));
        self.spaces[space].settle(&mut Tap(self.watch), pending);
    }

    /// Runs a restartable operation to its end.
    fn all(
        &self,
        space: usize,
        range: PageRange,
        f: impl Fn(&mut Cx<'_, Tap<'_>>, PageRange) -> Result<Progress<PageId>, SpaceError>,
    ) -> Result<(), SpaceError> {
        let mut rest = range;
        loop {
            match self.with(space, |cx| f(cx, rest))? {
                Progress::Done(()) => return Ok(()),
                Progress::More(at) => {
                    rest = PageRange::new(at, range.end().number() - at.number()).unwrap();
                }
            }
        }
    }

    fn run(&mut self, op: &Op) {
        self.steps += 1;
        match *op {
            Op::Map { space, start, pages, what, protection, now } => {
                self.map(space, start, pages, what, protection, now);
            }
            Op::Unmap { space, start, pages } => {
                let range = range(start, pages);
                let result = self.all(space, range, |cx, rest| self.spaces[space].unmap(cx, rest));
                if result.is_ok() {
                    self.model[space].retain(|&page, _| !range.contains(PageId::new(page)));
                }
            }
            Op::Protect { space, start, pages, protection } => {
                let range = range(start, pages);
                let result =
                    self.all(space, range, |cx, rest| self.spaces[space].protect(cx, rest, protection));
                if result.is_ok() {
                    let pages = self.model[space].range_mut(start..start + pages);
                    let apply = |page: &&mut Page| !matches!(page.kind, Kind::Guard | Kind::Reserved);
                    let changed = pages.map(|(_, page)| page).filter(apply);
                    changed.for_each(|page| page.protection = protection);
                }
            }
            Op::Touch { space, page, access, value } => self.touch(space, page, access, value),
            Op::Sweep { space, start, value } => {
                for page in start..start + 513 {
                    self.touch(space, page, Access::Write, value ^ page as u64);
                }
            }
            Op::Share { from, start, pages } => self.share(from, start, pages),
            Op::Pass { from, start, pages, to, target, how } => {
                self.pass((from, start), pages, (to, target), how);
            }
            Op::Supply { space, page, value } => self.supply(space, page, value),
            Op::Look { space, page } => self.look(space, page),
        }
    }

    fn map(
        &mut self,
        space: usize,
        start: usize,
        pages: usize,
        what: usize,
        protection: Protection,
        now: bool,
    ) {
        let offset = if what == 4 || what == 5 { start % 3 * 256 } else { start % 7 };
        let (backing, kind, object) = match what {
            0..=2 => (Backing::Anonymous, Kind::Anonymous, 0),
            3 => (Backing::Shared(&self.objects[0], offset), Kind::Shared, 0),
            4 => (Backing::Shared(&self.objects[1], offset), Kind::Shared, 1),
            5 => (Backing::Copy(&self.objects[start % 2], offset), Kind::Copy, start % 2),
            6 => (Backing::Pager(7), Kind::Pager, 0),
            7 => (Backing::Device(FrameId::new(DEVICE + offset)), Kind::Device, 0),
            _ => (Backing::Guard, Kind::Guard, 0),
        };
        let pages = if kind == Kind::Device { pages.min(1500) } else { pages };
        let mut mapping = Mapping::new(backing, protection);
        if now {
            mapping = mapping.now();
        }
        let range = range(start, pages);
        let result = self.with(space, |cx| self.spaces[space].map(cx, range, &mapping));
        let occupied = self.model[space].range(start..start + pages).next().is_some();
        let object_pages = OBJECT_PAGES[object];
        let beyond = matches!(kind, Kind::Shared | Kind::Copy) && offset + pages > object_pages;
        match result {
            Ok(()) => {
                assert!(!occupied && !beyond, "mapped over something, or beyond the object");
                for index in 0..pages {
                    let from = (object, offset + index);
                    let from = if kind == Kind::Pager { (0, index) } else { from };
                    self.model[space].insert(start + index, Page { kind, protection, own: None, from });
                }
            }
            Err(SpaceError::Occupied) => assert!(occupied),
            Err(SpaceError::BeyondObject) => assert!(beyond),
            Err(SpaceError::Shortage(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }

    /// One access, faults and all.
    fn touch(&mut self, space: usize, page: usize, access: Access, value: u64) {
        self.steps += 1;
        let id = PageId::new(page);
        let root = self.spaces[space].root();
        let found = self.model[space].get(&page).copied();
        for _ in 0..4 {
            if let Some(translation) = self.tlbs[space].translate(self.arena, root, id)
                && translation.allows(access)
            {
                return self.hit(space, page, access, value, translation.frame);
            }
            self.tlbs[space].faulted(id);
            let fault = self.with(space, |cx| self.spaces[space].fault(cx, id, access));
            let allowed = found.is_some_and(|page| match access {
                Access::Read => true,
                Access::Write => page.protection == Protection::ReadWrite,
                Access::Execute => page.protection == Protection::ReadExecute,
            });
            match fault {
                Fault::Resolved => assert!(allowed, "resolved what is not allowed: {found:?}"),
                Fault::NotMapped => return assert!(found.is_none(), "{found:?} is not found"),
                Fault::Guard => return assert_eq!(found.map(|page| page.kind), Some(Kind::Guard)),
                Fault::Forbidden => {
                    return assert!(found.is_some() && !allowed, "{found:?} forbids {access:?}");
                }
                Fault::Pager { cookie, page: missing } => {
                    let found = found.expect("a pager's page");
                    assert_eq!((cookie, missing, found.own), (7, found.from.1, None));
                    return assert!(allowed);
                }
                Fault::Shortage(_) => return,
            }
        }
        panic!("the fault is resolved again and again");
    }

    /// The access goes through: what it finds and leaves there.
    fn hit(&mut self, space: usize, page: usize, access: Access, value: u64, frame: FrameId) {
        let found = self.model[space].get_mut(&page).expect("what is translated is mapped");
        let allowed = match access {
            Access::Read => true,
            Access::Write => found.protection == Protection::ReadWrite,
            Access::Execute => found.protection == Protection::ReadExecute,
        };
        assert!(allowed, "{found:?} lets {access:?} through at {page:#x}");
        if found.kind == Kind::Device {
            return assert_eq!(frame.number(), DEVICE + found.from.1);
        }
        let object = self.contents.entry(found.from.0).or_default();
        let expected = match (found.kind, found.own) {
            (_, Some(own)) => own,
            (Kind::Shared | Kind::Copy, None) => object.get(&found.from.1).copied().unwrap_or(0),
            (_, None) => 0,
        };
        assert_eq!(self.arena.read(frame, WORD), expected, "content of {found:?} at {page:#x}");
        if access == Access::Write {
            self.arena.write(frame, WORD, value);
            if found.kind == Kind::Shared {
                object.insert(found.from.1, value);
            } else {
                found.own = Some(value);
            }
        } else if found.kind == Kind::Anonymous {
            found.own.get_or_insert(0);
        }
    }

    fn share(&mut self, from: usize, start: usize, pages: usize) {
        let range = range(start, pages);
        let to = 1 - from;
        if self.model[to].range(start..start + pages).next().is_some() {
            return;
        }
        let mut rest = range;
        let result = loop {
            let mut other = Pending::new();
            let step = self.with(from, |cx| self.spaces[from].share(cx, &self.spaces[to], &mut other, rest));
            self.settle(to, &mut other);
            match step {
                Ok(Progress::Done(())) => break Ok(()),
                Ok(Progress::More(at)) => {
                    rest = PageRange::new(at, range.end().number() - at.number()).unwrap();
                }
                Err(error) => break Err(error),
            }
        };
        let in_range = self.model[from].range(start..start + pages);
        let copies: Vec<_> = in_range.map(|(&page, &what)| (page, what)).collect();
        let device = copies.iter().any(|(_, page)| page.kind == Kind::Device);
        match result {
            Ok(()) => {
                assert!(!device);
                self.model[to].extend(copies);
            }
            Err(error) => {
                assert!(device && error == SpaceError::WrongKind || matches!(error, SpaceError::Shortage(_)));
                self.all(to, range, |cx, rest| self.spaces[to].unmap(cx, rest))
                    .expect("room to take it back");
            }
        }
    }

    fn pass(
        &mut self,
        (from, start): (usize, usize),
        pages: usize,
        (to, target): (usize, usize),
        how: Passing,
    ) {
        let mapped: Vec<Page> = self.model[from].range(start..start + pages).map(|(_, &page)| page).collect();
        let occupied = self.model[to].range(target..target + pages).next().is_some();
        let overlaps = from == to && start < target + pages && target < start + pages;
        let occupied = occupied || overlaps;
        let all = mapped.len() == pages;
        let device = mapped.iter().any(|page| page.kind == Kind::Device);
        let pager = mapped.iter().any(|page| page.kind == Kind::Pager && page.own.is_none());
        let refused = device || pager && how == Passing::Share;
        let places = ((&self.spaces[from], range(start, pages)), (&self.spaces[to], range(target, pages)));
        let mut pass = Pass { from: places.0, to: places.1, how, course: Course::START };
        let result = loop {
            let result = pass.run(&mut &*self, 200);
            if result.is_err() || pass.course.phase == Phase::Over {
                break result;
            }
        };
        match result {
            Ok(()) => assert!(all && !occupied && !refused, "{how:?} of what cannot be passed"),
            Err(SpaceError::Occupied) => assert!(occupied),
            Err(SpaceError::NotMapped) => assert!(!all),
            Err(SpaceError::WrongKind) => assert!(refused),
            Err(SpaceError::Shortage(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
        if result.is_err() {
            return if how == Passing::Share {
                self.lend_what_was(from, start, pages);
            };
        }
        if how == Passing::Share {
            self.lend(from, start, pages);
        }
        let passed: Vec<Page> = (start..start + pages).map(|page| self.model[from][&page]).collect();
        if how == Passing::Move {
            self.model[from].retain(|&page, _| !(start..start + pages).contains(&page));
        }
        for (index, page) in passed.into_iter().enumerate() {
            self.model[to].insert(target + index, page);
        }
    }

    /// A pass that was taken back may have made pages an object's that nobody else shows.
    fn lend_what_was(&mut self, space: usize, start: usize, pages: usize) {
        for page in start..start + pages {
            let Some(what) = self.model[space].get(&page).copied() else { continue };
            let region = self.with(space, |cx| self.spaces[space].region(cx, PageId::new(page)));
            if region.is_some_and(|region| region.kind == Kind::Shared && region.kind != what.kind) {
                self.lend(space, page, 1);
            }
        }
    }

    /// In the model, what a space has alone becomes an object's.
    fn lend(&mut self, space: usize, start: usize, pages: usize) {
        let object = self.objects.len() + self.lent;
        self.lent += 1;
        for page in start..start + pages {
            let what = self.model[space].get_mut(&page).expect("every page is mapped");
            let content = match (what.kind, what.own) {
                (Kind::Shared | Kind::Guard, None) => continue,
                (_, Some(own)) => Some(own),
                (Kind::Copy, None) => {
                    self.contents.get(&what.from.0).and_then(|pages| pages.get(&what.from.1).copied())
                }
                (_, None) => None,
            };
            *what = Page { kind: Kind::Shared, own: None, from: (object, page - start), ..*what };
            if let Some(content) = content {
                self.contents.entry(object).or_default().insert(page - start, content);
            }
        }
    }

    fn supply(&mut self, space: usize, page: usize, value: u64) {
        use mm::space::Pool;
        let mut tap = Tap(self.watch);
        let Ok(frame) = tap.take(mm::Order::FRAME, mm::frames::Policy::Local) else { return };
        for index in 0..512 {
            self.arena.write(frame, index, value);
        }
        let result = self.with(space, |cx| self.spaces[space].supply(cx, PageId::new(page), frame));
        let wanted = |page: &&mut Page| page.kind == Kind::Pager && page.own.is_none();
        match (self.model[space].get_mut(&page).filter(wanted), result) {
            (Some(page), Ok(())) => page.own = Some(value),
            (_, Err(SpaceError::NotMapped | SpaceError::Shortage(_))) => tap.give(frame, mm::Order::FRAME),
            (page, result) => panic!("{result:?} for {page:?}"),
        }
    }

    fn look(&self, space: usize, page: usize) {
        let region = self.with(space, |cx| self.spaces[space].region(cx, PageId::new(page)));
        let next = self.model[space].range(page..).next();
        let Some(region) = region else { return assert!(next.is_none(), "{next:?} is not seen") };
        let (&first, what) = next.expect("what is seen is mapped");
        assert_eq!(region.range.start().number(), first);
        assert_eq!((region.kind, region.protection), (what.kind, shown(what)));
        for page in first..region.range.end().number() {
            let other = self.model[space][&page];
            assert_eq!((other.kind, shown(&other)), (region.kind, region.protection), "{page:#x}");
        }
    }

    fn check(&self) {
        for space in &self.spaces {
            common::check(space).unwrap_or_else(|broken| panic!("{broken:?}"));
        }
    }

    /// Ends both spaces, one after the other, each in one of two ways.
    fn close(mut self) {
        for space in 0..2 {
            if self.steps >> space & 1 == 0 {
                self.unmap_all(space);
            } else {
                self.dismantle(space);
            }
            self.model[space].clear();
            self.check();
            // What the other one has is as it was.
            let others: Vec<usize> = self.model[1 - space].keys().copied().step_by(97).collect();
            for page in others {
                self.touch(1 - space, page, Access::Read, 0);
            }
        }
        let mut tap = Tap(self.watch);
        for object in self.objects.drain(..) {
            object.release(&mut tap);
        }
        for space in self.spaces.drain(..) {
            space.close(&mut tap).expect("everything is unmapped");
        }
        self.watch.grace();
        assert_eq!(self.watch.used(), 0, "every frame is back");
        assert!(self.watch.owing().is_empty(), "every payer is: {:?}", self.watch.owing());
    }

    fn unmap_all(&self, space: usize) {
        let all = range(0, USER_PAGES);
        self.all(space, all, |cx, rest| self.spaces[space].unmap(cx, rest)).expect("nothing has to be cut");
    }

    /// Takes a space down as nobody runs it any more.
    fn dismantle(&self, space: usize) {
        self.tlbs[space].forget(|_| true);
        let mut tap = Tap(self.watch);
        // SAFETY: the only CPU has forgotten the space, and nobody else has it.
        while let Progress::More(()) = unsafe { self.spaces[space].dismantle(&mut tap) } {}
        let usage = common::check(&self.spaces[space]).unwrap();
        assert_eq!((usage.tables, usage.mapped), (1, 0), "nothing is left");
    }
}

impl Steps<Arena> for &Bed<'_> {
    type Pool<'p> = Tap<'p>;

    fn step<R>(&mut self, space: &Space<Arena>, f: impl FnOnce(&mut Cx<'_, Tap<'_>>) -> R) -> R {
        let index = self.spaces.iter().position(|own| std::ptr::eq(own, space)).unwrap();
        self.with(index, f)
    }
}

/// Guards say read-only in the tables, whatever was asked.
fn shown(page: &Page) -> Protection {
    page.protection
}

fn range(start: usize, pages: usize) -> PageRange {
    PageRange::new(PageId::new(start), pages).unwrap()
}

/// Random histories, some sixty operations and two thousand accesses each; `SPACE_CASES` says how many.
fn cases() -> u32 {
    let usual = if cfg!(miri) {
        1
    } else if cfg!(debug_assertions) {
        40
    } else {
        600
    };
    std::env::var("SPACE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(ops in prop::collection::vec(op(), 1..if cfg!(miri) { 20 } else { 120 })) {
        // The device's frames are the arena's last; the pool has the others. Each case finds it as the last one left it: all poison.
        static ARENA: OnceLock<Arena> = OnceLock::new();
        let arena = *ARENA.get_or_init(|| Arena::new(FRAMES));
        let watch = Watch::new(arena, FRAMES - 4096);
        let mut bed = Bed::new(arena, &watch);
        for op in &ops {
            bed.run(op);
            if !matches!(op, Op::Touch { .. } | Op::Look { .. }) {
                bed.check();
            }
        }
        // ORDER: Relaxed: a statistic.
        STEPS.fetch_add(bed.steps, Ordering::Relaxed);
        bed.close();
    }
}

/// Prints how much was tried; runs the model itself, so that the figure is its own.
#[test]
#[ignore = "prints a figure; run by hand"]
fn steps() {
    agrees_with_the_model();
    // ORDER: Relaxed: as above.
    println!("{} steps", STEPS.load(Ordering::Relaxed));
}
