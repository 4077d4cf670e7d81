//! Calls on address spaces and regions.

use abi::cap::Rights;
use abi::error::Error;
use abi::syscall::Syscall;
use abi::task::Protection as Asked;
use mm::PageSize;
use mm::space::{Backing, Mapping, Progress, Protection, SpaceError};
use mm::virt::{PAGE_BYTES, PageId, PageRange, USER_PAGES};
use percpu::IrqOff;

use super::{Result, find, get, table};
use crate::dispatch;
use crate::process::Process;
use crate::region::Region;
use crate::spaces::{self, Physical, Space};

/// The first page that may be mapped: below it null pointers are caught.
pub(super) const FIRST_PAGE: usize = 16;
/// The page after the last that may be mapped: behind it a return address after SYSCALL would not be canonical.
pub(super) const LAST_PAGE: usize = USER_PAGES - 1;

fn protection(word: u64) -> Result<Protection> {
    match Asked::decode(word) {
        Some(Asked::Read) => Ok(Protection::Read),
        Some(Asked::ReadWrite) => Ok(Protection::ReadWrite),
        Some(Asked::ReadExecute) => Ok(Protection::ReadExecute),
        None => Err(Error::BadArgument),
    }
}

pub(super) fn range(address: u64, pages: u64) -> Result<PageRange> {
    let (first, within) = (address as usize / PAGE_BYTES, (address as usize).is_multiple_of(PAGE_BYTES));
    let end = first.checked_add(pages as usize).filter(|&end| end <= LAST_PAGE);
    match end {
        Some(_) if within && pages > 0 && first >= FIRST_PAGE => {
            PageRange::new(PageId::new(first), pages as usize).ok_or(Error::BadArgument)
        }
        _ => Err(Error::BadArgument),
    }
}

pub(super) fn refusal(error: SpaceError) -> Error {
    match error {
        SpaceError::Occupied => Error::Occupied,
        SpaceError::NotMapped => Error::NotMapped,
        SpaceError::Shortage(_) | SpaceError::TooManyMappings => Error::NoMemory,
        SpaceError::BeyondObject => Error::BadArgument,
        SpaceError::WrongKind => Error::BadArgument,
    }
}

/// Works on a process's space: the caller's own, which cannot end before its thread does, or another's.
pub(super) fn visit<R>(
    irq: &mut IrqOff,
    process: &Process,
    f: impl FnOnce(&mut IrqOff, &Space) -> Result<R>,
) -> Result<R> {
    let own = core::ptr::eq(dispatch::current(irq).space(), process.space());
    let work = |irq: &mut IrqOff| f(irq, process.space());
    if own { work(irq) } else { process.visit(irq, work).unwrap_or(Err(Error::WrongState)) }
}

/// Maps pages where the caller says, or where there is room.
fn map_into(
    irq: &mut IrqOff,
    space: &Space,
    address: u64,
    pages: u64,
    mapping: &Mapping<'_, Physical>,
) -> Result {
    if address != 0 {
        let range = range(address, pages)?;
        spaces::with(irq, space, |cx| space.map(cx, range, mapping)).map_err(refusal)?;
        return Ok(address);
    }
    if pages == 0 || pages as usize > LAST_PAGE {
        return Err(Error::BadArgument);
    }
    let process = dispatch::current(irq).process().clone();
    let next = || process.next_place(pages);
    let place = spaces::with(irq, space, |cx| space.place(cx, pages as usize, PageSize::Small, next));
    drop(process);
    let place = place
        .filter(|range| range.start().number() >= FIRST_PAGE && range.end().number() <= LAST_PAGE)
        .ok_or(Error::NoMemory)?;
    spaces::with(irq, space, |cx| space.map(cx, place, mapping)).map_err(refusal)?;
    Ok(place.start().address() as u64)
}

pub(super) fn map(irq: &mut IrqOff, process: u64, address: u64, pages: u64, protection_word: u64) -> Result {
    let process = find::<Process>(irq, process, Rights::MAP)?;
    let protection = protection(protection_word)?;
    let mapping = Mapping::new(Backing::Anonymous, protection);
    visit(irq, &process, |irq, space| map_into(irq, space, address, pages, &mapping))
}

pub(super) fn unmap(irq: &mut IrqOff, handle: u64, address: u64, pages: u64) -> Result {
    let process = find::<Process>(irq, handle, Rights::MAP)?;
    let range = range(address, pages)?;
    let progress = visit(irq, &process, |irq, space| {
        spaces::with(irq, space, |cx| space.unmap(cx, range)).map_err(refusal)
    });
    step_done(irq, progress?, range, |at, left| (Syscall::Unmap, [handle, at, left, 0, 0, 0]))
}

/// A step of an operation on a range is done: the call is made again for what is left, so that the core is its scheduler's in between. What has
/// been done stays, also if the caller is ended or the next step fails.
fn step_done(
    irq: &mut IrqOff,
    progress: Progress<PageId>,
    range: PageRange,
    again: impl FnOnce(u64, u64) -> (Syscall, [u64; 6]),
) -> Result {
    let Progress::More(at) = progress else { return Ok(0) };
    let left = range.end().number() - at.number();
    let (call, arguments) = again(at.address() as u64, left as u64);
    dispatch::current(irq).call_again(call as u64, arguments);
    dispatch::leave()
}

pub(super) fn protect(
    irq: &mut IrqOff,
    handle: u64,
    address: u64,
    pages: u64,
    protection_word: u64,
) -> Result {
    let process = find::<Process>(irq, handle, Rights::MAP)?;
    let (range, protection) = (range(address, pages)?, protection(protection_word)?);
    let progress = visit(irq, &process, |irq, space| {
        spaces::with(irq, space, |cx| space.protect(cx, range, protection)).map_err(refusal)
    });
    step_done(irq, progress?, range, |at, left| (Syscall::Protect, [handle, at, left, protection_word, 0, 0]))
}

pub(super) fn region_create(irq: &mut IrqOff, pages: u64) -> Result {
    let region = Region::charged(irq, pages)?;
    table(irq).insert(region, Rights::ALL).map(|handle| handle.0)
}

pub(super) fn region_map(
    irq: &mut IrqOff,
    process: u64,
    region: u64,
    address: u64,
    first: u64,
    pages: u64,
    protection_word: u64,
) -> Result {
    let process = find::<Process>(irq, process, Rights::MAP)?;
    let protection = protection(protection_word)?;
    let rights = match protection {
        Protection::ReadWrite => Rights::MAP.with(Rights::WRITE),
        Protection::Read | Protection::ReadExecute => Rights::MAP,
    };
    // Counted: the mapping that is being made relies on the object.
    let region = get::<Region>(irq, region, rights)?;
    if protection == Protection::ReadExecute && region.object().is_none() {
        return Err(Error::BadArgument);
    }
    let mapping = Mapping::new(region.backing(first, pages)?, protection);
    visit(irq, &process, |irq, space| map_into(irq, space, address, pages, &mapping))
}
