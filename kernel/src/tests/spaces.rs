//! Address spaces on the machine: what a program would see of them, on every core at once.
//!
//! What is mapped, and how, is found out by loads and stores through the mapping (`arch::usercopy`), with the page faults that they
//! cause. Tables are looked at by the space's own check only.

pub(super) mod destroy;
mod faucet;
pub(super) mod faults;
pub(super) mod hunt;
pub(super) mod image;
pub(super) mod model;
pub(super) mod oom;
mod quarantine;

use mm::PageSize;
use mm::space::{Access, Fault, Mapping, Pending, Progress, Protection, SpaceError, Usage};
use mm::user::{CheckedPtr, UserPtr};
use mm::virt::{PAGE_BYTES, PageId, PageRange};
use percpu::IrqOff;

use super::{Result, Verdict, ensure, failed};
use crate::arch::usercopy::{UserFault, Word};
use crate::spaces::{self, Object, Owned, Physical, Space, Tap};

const NO_MEMORY: Verdict = Verdict::Skipped("not enough memory for address spaces");

/// Pages of 2 MiB and of 1 GiB.
const BLOCK: usize = PageSize::Huge.pages();
const UNIT: usize = PageSize::Giant.pages();

fn new_space() -> core::result::Result<Owned, Verdict> {
    Owned::new().ok_or(NO_MEMORY)
}

fn new_object(pages: usize, granule: PageSize) -> core::result::Result<Object, Verdict> {
    IrqOff::with(|irq| Object::new(Physical, &mut Tap::new(irq), pages, granule)).map_err(|_| NO_MEMORY)
}

fn release(object: Object) {
    IrqOff::with(|irq| object.release(&mut Tap::new(irq)));
}

fn range(start: usize, pages: usize) -> PageRange {
    PageRange::new(PageId::new(start), pages).expect("tests name ranges of the user half")
}

/// A word of a page, for `usercopy`.
fn word_of(page: usize, word: usize) -> CheckedPtr<u64> {
    let at = UserPtr::<u64>::new(page * PAGE_BYTES + word * size_of::<u64>());
    at.check().expect("U1: an aligned word of the user half")
}

/// Loads a page's first word as a program would.
fn load(irq: &mut IrqOff, page: usize) -> core::result::Result<u64, UserFault> {
    u64::load(irq, word_of(page, 0))
}

/// Stores to a page's first word as a program would.
fn store(irq: &mut IrqOff, page: usize, value: u64) -> core::result::Result<(), UserFault> {
    u64::store(irq, word_of(page, 0), value)
}

fn map(irq: &mut IrqOff, space: &Space, range: PageRange, mapping: &Mapping<'_, Physical>) -> Result {
    let done = spaces::with(irq, space, |cx| space.map(cx, range, mapping));
    ensure!(done.is_ok(), "mapping {range:?}: {done:?}");
    Ok(())
}

fn unmap(irq: &mut IrqOff, space: &Space, range: PageRange) -> Result {
    let done = spaces::all(irq, space, range, |cx, rest| space.unmap(cx, rest));
    ensure!(done.is_ok(), "unmapping {range:?}: {done:?}");
    Ok(())
}

fn protect(irq: &mut IrqOff, space: &Space, range: PageRange, to: Protection) -> Result {
    let done = spaces::all(irq, space, range, |cx, rest| space.protect(cx, rest, to));
    ensure!(done.is_ok(), "protecting {range:?}: {done:?}");
    Ok(())
}

/// Shares a range until one of the two writes, step by step.
fn share(
    irq: &mut IrqOff,
    from: &Space,
    to: &Space,
    range: PageRange,
) -> core::result::Result<(), SpaceError> {
    whole(range, |rest| {
        let mut theirs = Pending::new();
        let step = spaces::with(irq, from, |cx| from.share(cx, to, &mut theirs, rest));
        spaces::settle(irq, to, &mut theirs);
        step
    })
}

/// What a fault comes to, without the CPU.
fn ask(irq: &mut IrqOff, space: &Space, page: usize, access: Access) -> Fault {
    spaces::with(irq, space, |cx| space.fault(cx, PageId::new(page), access))
}

fn check(space: &Space) -> core::result::Result<Usage, Verdict> {
    space.check().map_err(|broken| failed(format_args!("the tables contradict themselves: {broken:?}")))
}

/// Runs a restartable operation to its end.
fn whole(
    range: PageRange,
    mut step: impl FnMut(PageRange) -> core::result::Result<Progress<PageId>, SpaceError>,
) -> core::result::Result<(), SpaceError> {
    let mut rest = range;
    while let Progress::More(at) = step(rest)? {
        let left = range.end().number() - at.number();
        rest = PageRange::new(at, left).ok_or(SpaceError::NotMapped)?;
    }
    Ok(())
}
