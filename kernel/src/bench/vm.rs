//! Address spaces: regions made, taken out and changed, faults, and how both scale.
//!
//! Measured is what a system call would do below its entry: the walk, the entries, invalidation on this core, and giving frames back. The
//! space is the active one, so that there is something to invalidate; no other core has ever run it, but in `vm.scale`.

use core::cell::Cell;

use mm::space::{Access, Backing, Fault, Mapping, Protection};
use mm::virt::{PageId, PageRange, PageSize};
use mm::{FrameId, tlb::Counts};
use percpu::{Held, IrqOff, epoch};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Unit, Value};
use perf::runner::Trouble;

use super::crew::{self, Body};
use super::{Lab, Meter, place};
use crate::arch::tlb;
use crate::machine;
use crate::spaces::{self, Object, Owned, Physical, Tap};

/// Pages of a range, by the size of a page. What is measured is per page.
const COUNTS: [u32; 4] = [1, 16, 512, 2048];

const SINGLE: Bench<Lab> = Bench {
    id: "",
    version: 1,
    doc: "",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: range_cases,
    run: |_, _, _| Err(Trouble::Failed("a row without a body")),
};

/// Making a region.
pub(super) const MAP: Bench<Lab> = Bench {
    id: "vm.map",
    doc: "making a region of that many pages and entering them all, per page",
    run: |_, case, meter| range(case, meter, Side::Map),
    ..SINGLE
};

/// Taking a region out.
pub(super) const UNMAP: Bench<Lab> = Bench {
    id: "vm.unmap",
    doc: "taking a region of that many pages out, invalidation on the own core and frames given back, per page",
    run: |_, case, meter| range(case, meter, Side::Unmap),
    ..SINGLE
};

/// Changing a region.
pub(super) const PROTECT: Bench<Lab> = Bench {
    id: "vm.protect",
    doc: "making a writable region of that many pages read-only, invalidation on the own core included, per page",
    run: |_, case, meter| range(case, meter, Side::Protect),
    ..SINGLE
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Map,
    Unmap,
    Protect,
}

/// An object's pages; a device's, so that 2 MiB pages need no memory; pages of the space's own, touched before.
const SHARED: &str = "shared";
const DEVICE: &str = "device";
const OWN: &str = "own";

fn range_cases(_: &Lab, visit: &mut dyn FnMut(Case)) {
    let kinds = [(4, SHARED), (2048, DEVICE), (4, OWN)];
    for (size, memory) in kinds {
        for pages in COUNTS {
            let case = Case::new(place::alone()).with("pages", Value::Num(u64::from(pages)));
            visit(case.with("kib", Value::Num(size)).with("of", Value::Word(memory)).batch(pages));
        }
    }
}

/// Where regions are made: aligned to 1 GiB, in a unit in which something else stays.
const BASE: usize = 5 << 18;
/// What stays there.
const NEIGHBOUR: usize = BASE - 512;
/// Above all memory that a machine of today has: no frame of the allocator. Not a multiple of 1 GiB, so that pages of 2 MiB are used.
const DEVICE_FRAME: usize = (1 << 33) + 512;

/// Pages from which on a range has tables of its own.
const FEW: usize = 512;

/// A space that is active on this core, with an object to show.
struct Scene {
    space: Owned,
    object: Object,
    range: PageRange,
    of: &'static str,
}

impl Scene {
    fn new(irq: &mut IrqOff, case: &Case) -> Result<Self, Trouble> {
        const NO_MEMORY: Trouble = Trouble::Skipped("not enough memory for the pages");
        let pages = case.params.num("pages").unwrap_or(1) as usize;
        let of = case.params.word("of").ok_or(Trouble::Failed("pages of what?"))?;
        let span = if case.params.num("kib") == Some(4) { 1 } else { PageSize::Huge.pages() };
        // A few pages lie in a table that others use, too; many have tables of their own.
        let start = if pages < FEW { BASE + 8 * span } else { BASE };
        let range = PageRange::new(PageId::new(start), pages * span).ok_or(NO_MEMORY)?;
        let space = Owned::new().ok_or(NO_MEMORY)?;
        let objects = if of == SHARED { pages } else { 1 };
        let object = Object::new(Physical, &mut Tap::new(irq), objects, PageSize::Small);
        let object = object.map_err(|_| NO_MEMORY)?;
        let scene = Self { space, object, range, of };
        let ready = scene.object.populate(&mut Tap::new(irq), 0, objects).is_ok()
            && scene.neighbours(irq)
            && scene.map(irq)
            && scene.touch(irq);
        scene.space.activate(irq);
        scene.unmap(irq);
        if ready { Ok(scene) } else { Err(scene.close(irq, NO_MEMORY)) }
    }

    /// Something on both sides, so that tables of the upper levels stay.
    fn neighbours(&self, irq: &mut IrqOff) -> bool {
        let end = self.range.end().number() + 4096;
        let start = self.range.start().number();
        let near = if start == BASE { NEIGHBOUR } else { BASE };
        [near, BASE - (1 << 18), end.next_multiple_of(1 << 18) - 512].into_iter().all(|at| {
            let range = PageRange::new(PageId::new(at), 1).expect("a page of the user half");
            spaces::with(irq, &self.space, |cx| self.space.map(cx, range, &Mapping::anonymous())).is_ok()
        })
    }

    #[inline(always)]
    fn map(&self, irq: &mut IrqOff) -> bool {
        let mapping = match self.of {
            SHARED => Mapping::new(Backing::Shared(&self.object, 0), Protection::ReadWrite).now(),
            DEVICE => Mapping::new(Backing::Device(FrameId::new(DEVICE_FRAME)), Protection::ReadWrite),
            _ => Mapping::anonymous(),
        };
        spaces::with(irq, &self.space, |cx| self.space.map(cx, self.range, &mapping)).is_ok()
    }

    /// Brings every page of the space's own.
    fn touch(&self, irq: &mut IrqOff) -> bool {
        self.of != OWN
            || (0..self.range.len()).all(|index| {
                let page = PageId::new(self.range.start().number() + index);
                spaces::with(irq, &self.space, |cx| self.space.fault(cx, page, Access::Write))
                    == Fault::Resolved
            })
    }

    #[inline(always)]
    fn unmap(&self, irq: &mut IrqOff) {
        let done = spaces::all(irq, &self.space, self.range, |cx, range| self.space.unmap(cx, range));
        assert!(done.is_ok(), "the range begins and ends with a region");
    }

    #[inline(always)]
    fn protect(&self, irq: &mut IrqOff, protection: Protection) {
        let done =
            spaces::all(irq, &self.space, self.range, |cx, range| self.space.protect(cx, range, protection));
        assert!(done.is_ok(), "the range begins and ends with a region");
    }

    fn close(self, irq: &mut IrqOff, trouble: Trouble) -> Trouble {
        self.end(irq);
        trouble
    }

    fn end(self, irq: &mut IrqOff) {
        spaces::deactivate(irq);
        self.space.destroy();
        self.object.release(&mut Tap::new(irq));
        quiesce(irq);
    }
}

/// This core leaves the kernel, as it would between two system calls: tables that were taken out ripen, and go back.
fn quiesce(irq: &mut IrqOff) {
    epoch::leave_kernel(irq, machine::topology().core_count());
}

fn range(case: &Case, meter: &mut Meter<'_>, side: Side) -> Result<(), Trouble> {
    IrqOff::with(|irq| {
        let scene = Scene::new(irq, case)?;
        let mut sound = true;
        if side == Side::Protect {
            sound &= scene.map(irq) && scene.touch(irq);
        }
        let before = tlb::counts(place::here());
        meter.windows(
            irq,
            |irq| match side {
                Side::Map => {}
                Side::Unmap => sound &= scene.map(irq) && scene.touch(irq),
                Side::Protect => scene.protect(irq, Protection::ReadWrite),
            },
            |irq| match side {
                Side::Map => {
                    core::hint::black_box(scene.map(irq));
                }
                Side::Unmap => scene.unmap(irq),
                Side::Protect => scene.protect(irq, Protection::Read),
            },
            |irq| {
                if side == Side::Map {
                    scene.unmap(irq);
                }
                quiesce(irq);
            },
        );
        report(meter, &before, &tlb::counts(place::here()));
        scene.unmap(irq);
        scene.end(irq);
        if sound { Ok(()) } else { Err(Trouble::Failed("memory ran out between two windows")) }
    })
}

/// What invalidation has cost the machine meanwhile.
fn report(meter: &mut Meter<'_>, before: &Counts, after: &Counts) {
    meter.metric("interrupts", after.interrupts - before.interrupts, Unit::Count);
    meter.metric("flushes", after.flushes - before.flushes, Unit::Count);
}

/// Bringing a page.
pub(super) const FAULT: Bench<Lab> = Bench {
    id: "vm.fault",
    doc: "answering a fault, from the decoded address to the entry, zeroing or copying the page included",
    cases: |_, visit| {
        for how in [ZERO, ZERO_RESERVED, COPY, TAKE_OVER, SHARED] {
            visit(Case::new(place::alone()).with("of", Value::Word(how)).batch(FAULTS as u32));
        }
    },
    run: fault,
    ..SINGLE
};

/// An anonymous page in a table of its own frames; out of a block of 2 MiB; a write to a page that two spaces share, and to one that they
/// shared before; an object's page that is there.
const ZERO: &str = "zero";
const ZERO_RESERVED: &str = "zero-in-block";
const COPY: &str = "copy";
const TAKE_OVER: &str = "take-over";
/// Faults in a window.
const FAULTS: usize = 64;

struct Faults {
    space: Owned,
    other: Owned,
    object: Object,
    range: PageRange,
    how: &'static str,
}

impl Faults {
    fn new(irq: &mut IrqOff, how: &'static str) -> Option<Self> {
        let (space, other) = (Owned::new()?, Owned::new()?);
        let object = Object::new(Physical, &mut Tap::new(irq), FAULTS, PageSize::Small).ok()?;
        object.populate(&mut Tap::new(irq), 0, FAULTS).ok()?;
        // Regions of a whole block lie in one.
        let range = PageRange::new(PageId::new(BASE), if how == ZERO_RESERVED { 512 } else { FAULTS })?;
        for space in [&space, &other] {
            let neighbour = PageRange::new(PageId::new(NEIGHBOUR), 1)?;
            spaces::with(irq, space, |cx| space.map(cx, neighbour, &Mapping::anonymous())).ok()?;
            let near = PageRange::new(PageId::new(BASE + 1024), 1)?;
            spaces::with(irq, space, |cx| space.map(cx, near, &Mapping::anonymous())).ok()?;
        }
        space.activate(irq);
        Some(Self { space, other, object, range, how })
    }

    fn prepare(&self, irq: &mut IrqOff) -> bool {
        let mapping = match self.how {
            SHARED => Mapping::new(Backing::Shared(&self.object, 0), Protection::ReadWrite),
            _ => Mapping::anonymous(),
        };
        let mut sound = spaces::with(irq, &self.space, |cx| self.space.map(cx, self.range, &mapping)).is_ok();
        if matches!(self.how, COPY | TAKE_OVER) {
            sound &= self.run(irq);
            let mut theirs = mm::space::Pending::new();
            let shared = spaces::with(irq, &self.space, |cx| {
                self.space.share(cx, &self.other, &mut theirs, self.range)
            });
            sound &= shared.is_ok();
            spaces::settle(irq, &self.other, &mut theirs);
            if self.how == TAKE_OVER {
                self.clear(irq, &self.other);
            }
        } else {
            // The table is there, as it is for all but one page in 512.
            sound &= self.one(irq, 0);
        }
        sound
    }

    fn clear(&self, irq: &mut IrqOff, space: &Owned) {
        let done = spaces::all(irq, space, self.range, |cx, range| space.unmap(cx, range));
        assert!(done.is_ok(), "the range begins and ends with a region");
    }

    #[inline(always)]
    fn one(&self, irq: &mut IrqOff, index: usize) -> bool {
        let page = PageId::new(BASE + index);
        spaces::with(irq, &self.space, |cx| self.space.fault(cx, page, Access::Write)) == Fault::Resolved
    }

    #[inline(always)]
    fn run(&self, irq: &mut IrqOff) -> bool {
        (0..FAULTS).all(|index| self.one(irq, index))
    }
}

fn fault(_: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let how = case.params.word("of").ok_or(Trouble::Failed("a fault of what?"))?;
    IrqOff::with(|irq| {
        let faults = Faults::new(irq, how).ok_or(Trouble::Skipped("not enough memory for the pages"))?;
        let sound = Cell::new(true);
        meter.windows(
            irq,
            |irq| sound.set(sound.get() & faults.prepare(irq)),
            |irq| sound.set(sound.get() & faults.run(irq)),
            |irq| {
                faults.clear(irq, &faults.space);
                faults.clear(irq, &faults.other);
                quiesce(irq);
            },
        );
        spaces::deactivate(irq);
        faults.space.destroy();
        faults.other.destroy();
        faults.object.release(&mut Tap::new(irq));
        quiesce(irq);
        if sound.get() { Ok(()) } else { Err(Trouble::Failed("a fault was not resolved")) }
    })
}

/// Bringing and taking out one page at a time, on many cores.
pub(super) const SCALE: Bench<Lab> = Bench {
    id: "vm.scale",
    doc: "a page brought by a fault and taken out again, on every core: in spaces of their own, in one space 1 GiB apart, or side by side",
    classes: &[Class::SelfCore, Class::Scaling],
    cases: |_, visit| {
        for apart in [SPACES, FAR, NEAR] {
            for cores in place::scales() {
                let placement = if cores == 1 { place::alone() } else { Placement::scaling(cores as u32) };
                let case = Case::new(placement).with("apart", Value::Word(apart));
                visit(case.with("cores", Value::Num(cores as u64)).batch(ROUNDS as u32));
            }
        }
    },
    run: scale,
    ..SINGLE
};

const SPACES: &str = "spaces";
const FAR: &str = "1gib";
const NEAR: &str = "2mib";
/// Pages that one window brings and takes out.
const ROUNDS: usize = 16;

struct Scale<'s> {
    spaces: &'s [Owned],
    apart: &'static str,
}

impl Scale<'_> {
    /// The space and the first page of a core.
    fn place(&self, irq: &IrqOff) -> (&Owned, usize) {
        let core = irq.core().index();
        match self.apart {
            SPACES => (&self.spaces[core % self.spaces.len()], BASE),
            FAR => (&self.spaces[0], BASE + (core << 18)),
            _ => (&self.spaces[0], BASE + core * 512),
        }
    }
}

impl Body for Scale<'_> {
    type State = usize;

    fn state(&self, _: &Held<'_, 0>) -> Option<usize> {
        IrqOff::with(|irq| {
            let (space, base) = self.place(irq);
            space.activate(irq);
            let range = PageRange::new(PageId::new(base), ROUNDS + 1)?;
            let mapped = spaces::with(irq, space, |cx| space.map(cx, range, &Mapping::anonymous()));
            // The last page stays, and with it the tables.
            let last = PageId::new(base + ROUNDS);
            let brought = spaces::with(irq, space, |cx| space.fault(cx, last, Access::Write));
            (mapped.is_ok() && brought == Fault::Resolved).then_some(base)
        })
    }

    #[inline(always)]
    fn timed(&self, &mut base: &mut usize, _: &mut Held<'_, 0>, _: u32) {
        // A chain of its own: the shootdown waits for other cores, which wait for nobody, or serve meanwhile.
        IrqOff::with(|irq| {
            let (space, _) = self.place(irq);
            for page in base..base + ROUNDS {
                let brought =
                    spaces::with(irq, space, |cx| space.fault(cx, PageId::new(page), Access::Write));
                assert!(brought == Fault::Resolved, "a page that was taken out is brought again");
                let range = PageRange::new(PageId::new(page), 1).expect("a page of the user half");
                let out = spaces::with(irq, space, |cx| space.unmap(cx, range));
                let again = spaces::with(irq, space, |cx| space.map(cx, range, &Mapping::anonymous()));
                assert!(out.is_ok() && again.is_ok(), "one page goes and comes");
            }
        });
    }

    fn close(&self, _: usize, _: &mut Held<'_, 0>) {
        IrqOff::with(|irq| spaces::deactivate(irq));
    }
}

fn scale(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let apart = case.params.word("apart").ok_or(Trouble::Failed("how far apart?"))?;
    let cores = case.params.num("cores").unwrap_or(1) as usize;
    let count = if apart == SPACES { machine::topology().core_count() } else { 1 };
    let all: Option<alloc::vec::Vec<Owned>> = (0..count).map(|_| Owned::new()).collect();
    let all = all.ok_or(Trouble::Skipped("not enough memory for the spaces"))?;
    let interrupts = || machine::topology().cores().map(|core| tlb::counts(core).interrupts).sum::<u64>();
    let before = interrupts();
    let result = crew::measure(lab, &place::first(cores), meter, &Scale { spaces: &all, apart });
    meter.metric("interrupts", interrupts() - before, Unit::Count);
    all.into_iter().for_each(Owned::destroy);
    IrqOff::with(quiesce);
    result
}
