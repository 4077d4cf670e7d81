//! Page faults, one kind after the other, on the core that runs the tests.

use mm::PageSize;
use mm::frames::Policy;
use mm::space::{Access, Backing, Fault, Mapping, Memory, Pool, Protection};
use mm::virt::PageId;
use mm::{FrameId, Order};
use percpu::{IrqOff, NodeSet};

use super::faucet::Faucet;
use super::{BLOCK, UNIT, ask, check, load, map, new_object, new_space, protect, range, release, share};
use super::{store, unmap};
use crate::arch::entry;
use crate::spaces::{self, Owned, Physical, Tap};
use crate::tests::{Bed, Result, bed, ensure};
use crate::{machine, memory};

/// Where the tests map: in a unit of its own, away from any border.
const BASE: usize = 7 * UNIT + 3 * BLOCK;

/// Every kind of fault, by loads and stores; see each part.
///
/// Planted: `protect` or `unmap` of leaves invalidates nothing; `share` leaves pages writable, or does not invalidate; `leaf` lets the CPU
/// write what shall be copied first.
pub(in crate::tests) fn all(_: &mut Bed) -> Result {
    let parts = [lazy_zero, guard, protection, copies, promotion, objects, placement, pager];
    for part in parts {
        let (space, other) = (new_space()?, new_space()?);
        let result = IrqOff::with(|irq| {
            space.activate(irq);
            part(irq, &space, &other)
        });
        let sound = check(&space).and(check(&other)).map(|_| ());
        let kept = kernel_half(&space);
        space.destroy();
        other.destroy();
        result.and(sound).and(kept)?;
    }
    Ok(())
}

/// The upper half of a root is still the kernel's, entry by entry.
fn kernel_half(space: &Owned) -> Result {
    let kernel = FrameId::containing(entry::kernel_root());
    for index in 256..512 {
        let word = |root: FrameId| {
            // SAFETY: a word of a root, which the direct map shows.
            let at = unsafe { Physical.at(root).cast::<u64>().add(index) };
            // SAFETY: as above; nobody writes the kernel's half any more.
            unsafe { at.read_volatile() }
        };
        let (own, kernels) = (word(space.root()), word(kernel));
        ensure!(own == kernels, "entry {index} of the root is {own:#x}, the kernel's {kernels:#x}");
    }
    Ok(())
}

/// What a load of a page must find; `None`: it is refused.
fn reads(irq: &mut IrqOff, page: usize, wanted: Option<u64>) -> Result {
    let found = load(irq, page).ok();
    ensure!(found == wanted, "page {page:#x} reads {found:x?} instead of {wanted:x?}");
    Ok(())
}

/// Whether a store to a page must succeed.
fn writes(irq: &mut IrqOff, page: usize, value: u64, possible: bool) -> Result {
    let done = store(irq, page, value);
    ensure!(done.is_ok() == possible, "a store to page {page:#x}: {done:?}, possible: {possible}");
    Ok(())
}

/// Pages are zero when they are first touched, by a load or a store, and there is nothing beside the region.
fn lazy_zero(irq: &mut IrqOff, space: &Owned, _: &Owned) -> Result {
    // Frames that are not zero, so that they have to be made so.
    map(irq, space, range(BASE, 40), &Mapping::anonymous())?;
    (0..40).try_for_each(|page| writes(irq, BASE + page, !0, true))?;
    unmap(irq, space, range(BASE, 40))?;
    map(irq, space, range(BASE, 40), &Mapping::anonymous())?;
    for page in BASE..BASE + 40 {
        reads(irq, page, Some(0))?;
        writes(irq, page, page as u64, true)?;
        reads(irq, page, Some(page as u64))?;
    }
    reads(irq, BASE - 1, None)?;
    reads(irq, BASE + 40, None)?;
    writes(irq, BASE + 40, 1, false)
}

/// Guards and reserved ranges cannot be touched, and are told apart.
fn guard(irq: &mut IrqOff, space: &Owned, _: &Owned) -> Result {
    map(irq, space, range(BASE, 2), &Mapping::new(Backing::Guard, Protection::ReadWrite))?;
    map(irq, space, range(BASE + 2, 2), &Mapping::new(Backing::Reserved, Protection::ReadWrite))?;
    for page in BASE..BASE + 4 {
        reads(irq, page, None)?;
        writes(irq, page, 1, false)?;
    }
    let found = [BASE, BASE + 2, BASE + 4].map(|page| ask(irq, space, page, Access::Read));
    ensure!(found == [Fault::Guard, Fault::NotMapped, Fault::NotMapped], "guard, reserved, hole: {found:?}");
    Ok(())
}

/// What cannot be written is not written, before and after the page is there, and can be when the protection says so.
fn protection(irq: &mut IrqOff, space: &Owned, _: &Owned) -> Result {
    map(irq, space, range(BASE, 4), &Mapping::new(Backing::Anonymous, Protection::Read))?;
    writes(irq, BASE, 1, false)?;
    reads(irq, BASE, Some(0))?;
    writes(irq, BASE, 1, false)?;
    protect(irq, space, range(BASE, 2), Protection::ReadWrite)?;
    writes(irq, BASE, 5, true)?;
    writes(irq, BASE + 2, 5, false)?;
    let executes = |irq: &mut IrqOff| ask(irq, space, BASE, Access::Execute);
    ensure!(executes(irq) == Fault::Forbidden, "a page that can be written can be executed");
    protect(irq, space, range(BASE, 2), Protection::ReadExecute)?;
    ensure!(executes(irq) == Fault::Resolved, "a page that can be executed cannot");
    writes(irq, BASE, 6, false)?;
    reads(irq, BASE, Some(5))
}

/// After sharing, neither side sees what the other writes; whoever is left over has the frame to itself.
fn copies(irq: &mut IrqOff, space: &Owned, other: &Owned) -> Result {
    map(irq, space, range(BASE, 8), &Mapping::anonymous())?;
    (0..6).try_for_each(|page| writes(irq, BASE + page, 100 + page as u64, true))?;
    let shared = share(irq, space, other, range(BASE, 8));
    ensure!(shared.is_ok(), "sharing: {shared:?}");
    writes(irq, BASE, 200, true)?;
    reads(irq, BASE + 2, Some(102))?;
    other.activate(irq);
    reads(irq, BASE, Some(100))?;
    writes(irq, BASE + 1, 301, true)?;
    reads(irq, BASE + 1, Some(301))?;
    writes(irq, BASE, 300, true)?;
    reads(irq, BASE + 7, Some(0))?;
    space.activate(irq);
    for (page, wanted) in [(0, 200), (1, 101), (2, 102), (7, 0)] {
        reads(irq, BASE + page, Some(wanted))?;
    }
    writes(irq, BASE + 1, 201, true)?;
    unmap(irq, other, range(BASE, 8))?;
    writes(irq, BASE + 3, 203, true)?;
    reads(irq, BASE + 3, Some(203))?;
    let usage = check(space)?;
    ensure!(usage.private >= 4, "a page that nobody shares any more is not private: {usage:?}");
    Ok(())
}

/// A block that is touched whole becomes one large page, and small ones again when a part changes; its content stays.
fn promotion(irq: &mut IrqOff, space: &Owned, _: &Owned) -> Result {
    map(irq, space, range(BASE, 2 * BLOCK), &Mapping::anonymous())?;
    for page in BASE..BASE + BLOCK {
        writes(irq, page, page as u64, true)?;
    }
    let large = check(space)?.large;
    ensure!(large == BLOCK, "{large} pages are covered by large ones after all of a block were touched");
    (BASE..BASE + BLOCK).try_for_each(|page| reads(irq, page, Some(page as u64)))?;
    protect(irq, space, range(BASE + 9, 1), Protection::Read)?;
    unmap(irq, space, range(BASE + 20, 1))?;
    writes(irq, BASE + 9, 1, false)?;
    reads(irq, BASE + 20, None)?;
    for page in (BASE..BASE + BLOCK).filter(|page| ![BASE + 9, BASE + 20].contains(page)) {
        reads(irq, page, Some(page as u64))?;
        writes(irq, page, !page as u64, true)?;
    }
    reads(irq, BASE + 9, Some((BASE + 9) as u64))?;
    let large = check(space)?.large;
    ensure!(large == 0, "{large} pages are still covered by large ones after a part was changed");
    Ok(())
}

/// Two spaces that show an object see each other's writes; one that shows it to copy sees its own alone.
fn objects(irq: &mut IrqOff, space: &Owned, other: &Owned) -> Result {
    for granule in [PageSize::Small, PageSize::Huge] {
        let object = new_object(600, granule)?;
        let shared = Mapping::new(Backing::Shared(&object, 0), Protection::ReadWrite);
        let constant = Mapping::new(Backing::Shared(&object, 1), Protection::Read).now();
        let copied = Mapping::new(Backing::Copy(&object, 0), Protection::ReadWrite);
        map(irq, space, range(BASE, 600), &shared)?;
        map(irq, other, range(BASE + 1, 500), &constant)?;
        map(irq, other, range(BASE + 1024, 600), &copied)?;
        for (page, value) in [(1, 11), (400, 12)] {
            space.activate(irq);
            writes(irq, BASE + page, value, true)?;
            other.activate(irq);
            reads(irq, BASE + page, Some(value))?;
            writes(irq, BASE + page, 1, false)?;
            reads(irq, BASE + 1024 + page, Some(value))?;
            writes(irq, BASE + 1024 + page, value + 100, true)?;
            reads(irq, BASE + 1024 + page, Some(value + 100))?;
            reads(irq, BASE + page, Some(value))?;
        }
        unmap(irq, other, range(BASE, 2048))?;
        unmap(irq, space, range(BASE, 600))?;
        release(object);
    }
    space.activate(irq);
    Ok(())
}

/// A region that is bound to a node has its frames there: the frame that a fault takes lies on it, and is what the page shows.
fn placement(irq: &mut IrqOff, space: &Owned, _: &Owned) -> Result {
    let faucet = Faucet::new();
    let has_memory = |&node: &_| memory::frames().node_stats(node).frames > 0;
    for (number, node) in machine::topology().nodes().filter(has_memory).enumerate() {
        let start = BASE + 8 * number;
        let mapping = Mapping::anonymous().placed(Policy::Bind(NodeSet::one(node)));
        map(irq, space, range(start, 8), &mapping)?;
        for page in start..start + 8 {
            let done = faucet.with(irq, space, |cx| space.fault(cx, PageId::new(page), Access::Write));
            ensure!(done == Fault::Resolved, "{done:?} on a region bound to {node}");
            let (frame, mark) = (faucet.last(), page as u64 ^ 0x5eed);
            let found = bed::node_at(frame.address());
            ensure!(found == node, "a page bound to {node} lies on {found}");
            writes(irq, page, mark, true)?;
            // SAFETY: the frame, which the direct map shows; this core wrote it last.
            let shown = unsafe { Physical.at(frame).cast::<u64>().read_volatile() };
            ensure!(shown == mark, "page {page:#x} does not show the frame that its fault took");
        }
    }
    Ok(())
}

/// A page that a pager is to supply cannot be touched until it has been, and then shows what was supplied.
fn pager(irq: &mut IrqOff, space: &Owned, _: &Owned) -> Result {
    const COOKIE: u64 = 0xc00_c1e;
    map(irq, space, range(BASE, 600), &Mapping::new(Backing::Pager(COOKIE), Protection::ReadWrite))?;
    for page in [3, 599] {
        reads(irq, BASE + page, None)?;
        let found = ask(irq, space, BASE + page, Access::Write);
        ensure!(found == Fault::Pager { cookie: COOKIE, page }, "the pager is told {found:?}");
        let frame = Tap::new(irq).take(Order::FRAME, Policy::Local);
        let Ok(frame) = frame else { return Err(super::NO_MEMORY) };
        Physical.fill(frame, COOKIE + page as u64);
        let done = spaces::with(irq, space, |cx| space.supply(cx, PageId::new(BASE + page), frame));
        ensure!(done.is_ok(), "supplying a page: {done:?}");
        reads(irq, BASE + page, Some(COOKIE + page as u64))?;
        writes(irq, BASE + page, 1, true)?;
        reads(irq, BASE + page + 1, None)?;
    }
    Ok(())
}
