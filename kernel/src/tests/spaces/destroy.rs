//! The end of a large space that every core has run.

use alloc::vec::Vec;

use mm::space::{Access, Backing, Fault, Mapping, Progress, Protection};
use mm::virt::USER_PAGES;
use mm::{FrameId, PageSize};
use percpu::IrqOff;

use super::{BLOCK, UNIT, ask, check, load, map, new_object, new_space, range, release, share, store};
use crate::spaces::{self, Object, Owned};
use crate::tests::bed::{self, Blame};
use crate::tests::{Bed, Result, ensure};
use crate::{cores, memory};

/// Places far apart, each with tables of all levels, and pages of each.
const PLACES: usize = 24;
const PAGES: usize = 40;
/// Above all memory that a machine of today has: no frame of the allocator.
const DEVICE: usize = 1 << 33;
/// Pages of the object that the space shows.
const SHOWN: usize = 5_000;

fn place(number: usize) -> usize {
    (3 + number * 67) * UNIT + number * 5 * BLOCK + 7
}

/// A large space is taken apart in steps, of which the first is made by hand while every core still has the space active; then it is
/// destroyed. Frames, records and objects are back, and no core reaches anything of it any more.
///
/// Planted: `Records::destroy` not called; only the boot core takes part in `settle`.
pub(in crate::tests) fn large(bed: &mut Bed) -> Result {
    bed::settle(&mut bed.crew)?;
    memory::drain_all(&mut bed.crew);
    let before = memory::free_frames();
    let (space, twin) = (new_space()?, new_space()?);
    let object = new_object(SHOWN, PageSize::Small)?;
    IrqOff::with(|irq| populate(irq, &space, &twin, &object))?;
    run_everywhere(bed, &space)?;
    let whole = range(0, USER_PAGES);
    let step = IrqOff::with(|irq| spaces::with(irq, &space, |cx| space.unmap(cx, whole)));
    ensure!(matches!(step, Ok(Progress::More(_))), "one step takes all of a large space out: {step:?}");
    check(&space)?;
    let users = space.tlb().cores().snapshot().len();
    space.destroy();
    let mut shown = Vec::new();
    object.attachments(|place| shown.push(place.space));
    let own = twin.tlb().id().raw();
    ensure!(shown.iter().all(|&id| id == own), "the object is still shown by {shown:?}, {own} is left");
    unreachable(bed)?;
    // What it shared is the other's alone, and still there.
    let found = IrqOff::with(|irq| {
        twin.activate(irq);
        load(irq, place(1))
    });
    ensure!(found == Ok(place(1) as u64), "a page of the other space reads {found:x?}");
    twin.destroy();
    release(object);
    bed::settle(&mut bed.crew)?;
    memory::drain_all(&mut bed.crew);
    let after = memory::free_frames();
    ensure!(after == before, "{before} frames were free before, {after} afterwards; {users} cores ran it");
    Ok(())
}

/// Pages of every kind in many places, some shared with the other space.
fn populate(irq: &mut IrqOff, space: &Owned, twin: &Owned, object: &Object) -> Result {
    space.activate(irq);
    for number in 0..PLACES {
        map(irq, space, range(place(number), PAGES), &Mapping::anonymous())?;
        let first = place(number);
        for page in first..first + PAGES {
            ensure!(store(irq, page, page as u64).is_ok(), "page {page:#x} cannot be written");
        }
    }
    let shared = share(irq, space, twin, range(place(1), PAGES));
    ensure!(shared.is_ok(), "sharing: {shared:?}");
    let shown = Mapping::new(Backing::Shared(object, 0), Protection::ReadWrite).now();
    map(irq, space, range(UNIT - 900, SHOWN), &shown)?;
    map(irq, twin, range(UNIT, 300), &Mapping::new(Backing::Copy(object, 0), Protection::ReadWrite))?;
    let nothing =
        [Backing::Guard, Backing::Reserved, Backing::Pager(1), Backing::Device(FrameId::new(DEVICE))];
    for (number, backing) in nothing.into_iter().enumerate() {
        let mapping = Mapping::new(backing, Protection::Read);
        map(irq, space, range(place(PLACES) + number * 3 * BLOCK, 2 * BLOCK), &mapping)?;
    }
    // A block as one large page, and promises of many.
    map(irq, space, range(2 * UNIT, 500 * BLOCK), &Mapping::anonymous())?;
    for page in 2 * UNIT..2 * UNIT + BLOCK {
        let done = ask(irq, space, page, Access::Write);
        ensure!(done == Fault::Resolved, "page {page:#x}: {done:?}");
    }
    Ok(())
}

/// Every core runs the space, writes a page of its own and keeps the space loaded.
fn run_everywhere(bed: &mut Bed, space: &Owned) -> Result {
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| {
        let page = place(held.core().index() % PLACES) + PAGES / 2;
        let result = IrqOff::with(|irq| {
            space.activate(irq);
            let found = load(irq, page);
            ensure!(found == Ok(page as u64), "page {page:#x} reads {found:x?}");
            Ok(())
        });
        blame.note(result);
    });
    blame.verdict()
}

/// No core has a translation or a space left.
fn unreachable(bed: &mut Bed) -> Result {
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| {
        let core = held.core();
        let page = place(core.index() % PLACES) + PAGES / 2;
        let result = IrqOff::with(|irq| {
            let found = load(irq, page);
            ensure!(found.is_err(), "{core} reads {found:x?} in a space that is gone");
            Ok(())
        });
        blame.note(result);
    });
    blame.verdict()
}
