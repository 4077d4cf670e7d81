//! Copies between the kernel and user memory, and the faults on their way.
//!
//! Planted, and seen by every test here: `user_close` without `clac`.

use core::ptr::NonNull;

use mm::user::{CheckedSlice, USER_END, UserError, UserPtr, UserSlice};
use mm::virt::PAGE_BYTES;
use percpu::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use percpu::{IrqOff, core_local};
use x86_64::VirtAddr;
use x86_64::registers::rflags::{self, RFlags};

use super::bed::{Blame, Deadline};
use super::{Bed, Result, Verdict, ensure, failed};
use crate::arch::usercopy::{self, UserFault, Word};
use crate::cores;
use crate::fault::{self, Access, Kind, Mode, Obstacle, Resolution};
use crate::trial::{self, BASE, Map, PAGES, Trial};

/// The longest copy of the tests below: a few blocks of the copy loop, and bytes beside them.
const LONG: usize = 300;
/// What the kernel's side of a copy, or the user's, holds before it.
const BLANK: u8 = 0xa5;

fn trial() -> core::result::Result<Trial, Verdict> {
    Trial::new().ok_or(Verdict::Skipped("not enough memory for a mapping"))
}

/// Runs a test in the mapping, and asks after it whether user memory is closed again.
fn within(trial: &Trial, test: impl FnOnce(&mut IrqOff) -> Result) -> Result {
    IrqOff::with(|irq| trial.enter(irq, |irq| test(irq).and_then(|()| closed())))
}

/// EFLAGS.AC is clear: user memory is closed to the kernel.
fn closed() -> Result {
    ensure!(!rflags::read().contains(RFlags::ALIGNMENT_CHECK), "EFLAGS.AC is left set");
    Ok(())
}

fn checked(at: usize, bytes: usize) -> core::result::Result<CheckedSlice, Verdict> {
    trial::claim(at, bytes).check().map_err(|error| failed(format_args!("{bytes} bytes at {at}: {error}")))
}

/// A value that tells positions apart.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(167) >> 3).to_le_bytes()[0] ^ 0x3c
}

/// Gives the pages' bytes `from..to` values.
fn fill(trial: &Trial, from: usize, to: usize, value: impl Fn(usize) -> u8) {
    for at in from..to {
        // ORDER: Relaxed; this core copies it later.
        trial.byte(at).store(value(at), Ordering::Relaxed);
    }
}

/// The first of the pages' bytes `from..to` that has another value.
fn differs(trial: &Trial, from: usize, to: usize, value: impl Fn(usize) -> u8) -> Option<usize> {
    // ORDER: Relaxed; this core wrote it.
    (from..to).find(|&at| trial.byte(at).load(Ordering::Relaxed) != value(at))
}

/// Copies of every length up to a few blocks, at every alignment, over a page border and beside it, in both directions, and clearing:
/// exactly the bytes that were asked for change.
///
/// Planted: `user_clear` takes a word too many, which runs out of the half and ends the run.
pub(super) fn copies(_: &mut Bed) -> Result {
    let trial = trial()?;
    trial.set_all(Map::Writable);
    within(&trial, |irq| {
        for bytes in (0..=LONG).filter(|bytes| *bytes < 70 || bytes % 23 == 0) {
            for shift in 0..8 {
                one_copy(irq, &trial, PAGE_BYTES + 64 + shift, bytes)?;
                one_copy(irq, &trial, PAGE_BYTES - bytes / 2 - shift, bytes)?;
            }
        }
        one_copy(irq, &trial, 3 * PAGE_BYTES - 5, 2000)
    })
}

fn one_copy(irq: &mut IrqOff, trial: &Trial, at: usize, bytes: usize) -> Result {
    let mut buffer = [BLANK; 2016];
    let (from, to) = (at - 8, at + bytes + 8);
    let user = checked(at, bytes)?;
    fill(trial, from, to, pattern);
    let kernel = &mut buffer[8..][..bytes];
    ensure!(usercopy::copy_in(irq, user, kernel).is_ok(), "in, {bytes} bytes at {at:#x}: a fault");
    let wrong = (0..bytes).find(|&i| kernel[i] != pattern(at + i));
    ensure!(wrong.is_none(), "in, {bytes} bytes at {at:#x}: byte {wrong:?} differs");
    let beside = buffer[..8].iter().chain(&buffer[8 + bytes..]).any(|&byte| byte != BLANK);
    ensure!(!beside, "in, {bytes} bytes at {at:#x}: bytes beside it were written");
    let inside = |i: usize| (at..at + bytes).contains(&i);
    fill(trial, from, to, |_| BLANK);
    ensure!(
        usercopy::copy_out(irq, &buffer[8..][..bytes], user).is_ok(),
        "out, {bytes} bytes at {at:#x}: a fault"
    );
    let wrong = differs(trial, from, to, |i| if inside(i) { pattern(i) } else { BLANK });
    ensure!(wrong.is_none(), "out, {bytes} bytes at {at:#x}: byte {wrong:x?} is wrong");
    fill(trial, from, to, pattern);
    ensure!(usercopy::clear(irq, user).is_ok(), "clear, {bytes} bytes at {at:#x}: a fault");
    let wrong = differs(trial, from, to, |i| if inside(i) { 0 } else { pattern(i) });
    ensure!(wrong.is_none(), "clear, {bytes} bytes at {at:#x}: byte {wrong:x?} is wrong");
    closed()
}

/// Single values are loaded, stored and exchanged; on a page that is absent or cannot be written they are refused, and nothing changes.
pub(super) fn values(_: &mut Bed) -> Result {
    let trial = trial()?;
    trial.set(0, Map::Writable);
    trial.set(1, Map::ReadOnly);
    fill(&trial, 0, 2 * PAGE_BYTES, |_| 0);
    within(&trial, |irq| {
        one_value(irq, &trial, 0x11_u8)?;
        one_value(irq, &trial, u32::MAX - 5)?;
        one_value(irq, &trial, u64::MAX - 9)?;
        let at = |page: usize| UserPtr::<u32>::new(BASE + page * PAGE_BYTES + 64).check();
        let [Ok(here), Ok(constant), Ok(nowhere)] = [0, 1, 2].map(at) else {
            return Err(failed(format_args!("an aligned claim is refused")));
        };
        let steps = [(0, 7, Ok(0)), (0, 8, Ok(7)), (7, 9, Ok(7)), (0, 0, Ok(9))];
        for (old, new, found) in steps {
            let got = usercopy::compare_exchange(irq, here, old, new);
            ensure!(got == found, "exchange {old} for {new}: {got:?}, not {found:?}");
        }
        for ptr in [constant, nowhere] {
            let got = usercopy::compare_exchange(irq, ptr, 0, 1);
            ensure!(got == Err(UserFault { done: 0 }), "exchange at {ptr:?}: {got:?}");
            closed()?;
        }
        Ok(())
    })
}

fn one_value<T: Word + PartialEq + core::fmt::Debug>(irq: &mut IrqOff, trial: &Trial, value: T) -> Result {
    let ptr =
        |at: usize| UserPtr::<T>::new(BASE + at).check().map_err(|e| failed(format_args!("{at:#x}: {e}")));
    let (here, constant, nowhere) = (ptr(16)?, ptr(PAGE_BYTES)?, ptr(2 * PAGE_BYTES)?);
    let stored = T::store(irq, here, value);
    ensure!(stored.is_ok(), "storing {value:?}: {stored:?}");
    let beside = differs(trial, 16 + size_of::<T>(), 64, |_| 0);
    ensure!(beside.is_none(), "storing {value:?} wrote byte {beside:x?}");
    let loaded = T::load(irq, here);
    ensure!(loaded == Ok(value), "stored {value:?}, loaded {loaded:?}");
    for ptr in [constant, nowhere] {
        let stored = T::store(irq, ptr, value);
        ensure!(stored == Err(UserFault { done: 0 }), "storing at {ptr:?}: {stored:?}");
        closed()?;
    }
    let loaded = T::load(irq, nowhere);
    ensure!(loaded == Err(UserFault { done: 0 }), "loading at {nowhere:?}: {loaded:?}");
    closed()?;
    ensure!(differs(trial, PAGE_BYTES, 2 * PAGE_BYTES, |_| 0).is_none(), "a read-only page was written");
    Ok(())
}

/// Where the second page is absent, or cannot be written, every copy stops exactly at the border and says so.
///
/// Planted: the rows of `user_covered` for words lead to `user_copy_stopped`.
pub(super) fn boundaries(_: &mut Bed) -> Result {
    let trial = trial()?;
    trial.set(0, Map::Writable);
    within(&trial, |irq| {
        for bytes in
            (1..=LONG).chain([1100, 2000]).filter(|bytes| *bytes < 70 || bytes % 23 == 0 || *bytes > LONG)
        {
            for before in [0, 1, 3, 4, 7, 8, 9, 15, 31, 32, 63, 64, 65, 128, 255, 1023]
                .into_iter()
                .filter(|b| *b < bytes)
            {
                trial.set(1, Map::Absent);
                trial::flush(1);
                cut_short(irq, &trial, bytes, before)?;
                trial.set(1, Map::ReadOnly);
                trial::flush(1);
                refused_writes(irq, &trial, bytes, before)?;
            }
        }
        Ok(())
    })
}

/// `before` bytes lie in the first page, the rest in the second, which is absent.
fn cut_short(irq: &mut IrqOff, trial: &Trial, bytes: usize, before: usize) -> Result {
    let at = PAGE_BYTES - before;
    let user = checked(at, bytes)?;
    let mut buffer = [BLANK; 2000];
    fill(trial, at, PAGE_BYTES, pattern);
    let expected = Err(UserFault { done: before });
    let got = usercopy::copy_in(irq, user, &mut buffer[..bytes]);
    ensure!(got == expected, "in, {bytes} bytes, {before} of them mapped: {got:?}");
    closed()?;
    let wrong = (0..bytes).find(|&i| buffer[i] != if i < before { pattern(at + i) } else { BLANK });
    ensure!(wrong.is_none(), "in, {bytes} bytes, {before} of them mapped: byte {wrong:?} is wrong");
    refused_writes(irq, trial, bytes, before)
}

/// The same where only writing is refused.
fn refused_writes(irq: &mut IrqOff, trial: &Trial, bytes: usize, before: usize) -> Result {
    let at = PAGE_BYTES - before;
    let user = checked(at, bytes)?;
    let buffer = [0x5a; 2000];
    let expected = Err(UserFault { done: before });
    fill(trial, at, PAGE_BYTES + bytes, pattern);
    let got = usercopy::copy_out(irq, &buffer[..bytes], user);
    ensure!(got == expected, "out, {bytes} bytes, {before} of them writable: {got:?}");
    closed()?;
    let wrong = differs(trial, at, PAGE_BYTES + bytes, |i| if i < PAGE_BYTES { 0x5a } else { pattern(i) });
    ensure!(wrong.is_none(), "out, {bytes} bytes, {before} of them writable: byte {wrong:x?} is wrong");
    let got = usercopy::clear(irq, user);
    ensure!(got == expected, "clear, {bytes} bytes, {before} of them writable: {got:?}");
    closed()?;
    let wrong = differs(trial, at, PAGE_BYTES + bytes, |i| if i < PAGE_BYTES { 0 } else { pattern(i) });
    ensure!(wrong.is_none(), "clear, {bytes} bytes, {before} of them writable: byte {wrong:x?} is wrong");
    Ok(())
}

core_local! {
    /// Faults that the resolvers below have seen, and the last of them.
    static FAULTS: core::cell::Cell<usize> = core::cell::Cell::new(0);
    static LAST: core::cell::Cell<Option<(u64, Access)>> = core::cell::Cell::new(None);
    /// The mapping that `map_it` completes.
    static MAPPED: core::cell::Cell<Option<&'static Trial>> = core::cell::Cell::new(None);
}

fn note(irq: &IrqOff, address: VirtAddr, access: Access) {
    FAULTS.owned(irq).set(FAULTS.owned(irq).get() + 1);
    LAST.owned(irq).set(Some((address.as_u64(), access)));
}

/// Counts, and refuses.
fn refuse_it(irq: &mut IrqOff, address: VirtAddr, access: Access) -> Resolution {
    note(irq, address, access);
    Resolution::Refused
}

/// Claims of the kernel's half, of no canonical address, and beyond the end are refused before anything is accessed; a copy up to the last
/// byte of the user half is made.
pub(super) fn claims(_: &mut Bed) -> Result {
    let trial = trial()?;
    trial.set(PAGES - 1, Map::Writable);
    within(&trial, |irq| {
        FAULTS.owned(irq).set(0);
        let before = fault::set_resolver(irq, Some(refuse_it));
        let outcome = refused_claims(irq);
        let last = checked(PAGES * PAGE_BYTES - 32, 32)?;
        let (cleared, seen) = (usercopy::clear(irq, last), FAULTS.owned(irq).get());
        fault::set_resolver(irq, before);
        ensure!(cleared.is_ok() && seen == 0, "the last bytes of the half: {cleared:?}, {seen} faults");
        outcome
    })
}

fn refused_claims(irq: &mut IrqOff) -> Result {
    let kernel = USER_END.wrapping_neg();
    let bad = [
        (kernel, 8, UserError::Kernel),
        (usize::MAX - 7, 8, UserError::Overflow),
        (usize::MAX - 8, 8, UserError::Kernel),
        (USER_END, 1, UserError::NotCanonical),
        (USER_END - 1, 2, UserError::NotCanonical),
        (1 << 62, 8, UserError::NotCanonical),
        (BASE, usize::MAX, UserError::Overflow),
        (BASE, usize::MAX / 2, UserError::NotCanonical),
    ];
    for (address, bytes, error) in bad {
        // A claim that passes is used, as a system call would.
        let got = UserSlice::new(address, bytes).check().map(|slice| usercopy::clear(irq, slice));
        ensure!(got == Err(error), "{bytes} bytes at {address:#x}: {got:?}, not {error:?}");
    }
    Ok(())
}

/// Maps the page, which makes the access possible.
fn map_it(irq: &mut IrqOff, address: VirtAddr, access: Access) -> Resolution {
    note(irq, address, access);
    let page = (address.as_u64() as usize - BASE) / PAGE_BYTES;
    match MAPPED.owned(irq).get() {
        Some(trial) => {
            trial.set(page, Map::Writable);
            trial::flush(page);
            Resolution::Retry
        }
        None => Resolution::Refused,
    }
}

/// A fault that is resolved is not seen by the copy: every page in turn, absent or read-only at first, one fault each, which says what was
/// tried and why it failed.
///
/// Planted: `irq_page_fault` pops `rdi` and `rsi` in the wrong order.
pub(super) fn resolved(_: &mut Bed) -> Result {
    let trial = trial()?;
    within(&trial, |irq| {
        // SAFETY: taken back below, before the mapping ends.
        MAPPED.owned(irq).set(Some(unsafe { NonNull::from(&trial).as_ref() }));
        let before = fault::set_resolver(irq, Some(map_it));
        let outcome = resolve_each(irq, &trial);
        fault::set_resolver(irq, before);
        MAPPED.owned(irq).set(None);
        outcome
    })
}

fn resolve_each(irq: &mut IrqOff, trial: &Trial) -> Result {
    let mut buffer = [0_u8; 256];
    for page in 1..PAGES {
        for (map, obstacle) in [(Map::Absent, Obstacle::Absent), (Map::ReadOnly, Obstacle::Protection)] {
            for bytes in [8, 40, 200] {
                let at = page * PAGE_BYTES - bytes / 2;
                let user = checked(at, bytes)?;
                trial.set(page - 1, Map::Writable);
                trial.set(page, map);
                trial::flush(page);
                FAULTS.owned(irq).set(0);
                fill(trial, at, at + bytes, pattern);
                let read = usercopy::copy_in(irq, user, &mut buffer[..bytes]);
                let faults = FAULTS.owned(irq).get();
                let expected = usize::from(map == Map::Absent);
                ensure!(read.is_ok() && faults == expected, "in, page {page}: {read:?}, {faults} faults");
                let wrong = (0..bytes).find(|&i| buffer[i] != pattern(at + i));
                ensure!(wrong.is_none(), "in, page {page}, {bytes} bytes: byte {wrong:?} is wrong");
                trial.set(page, map);
                trial::flush(page);
                let written = usercopy::clear(irq, user);
                ensure!(written.is_ok(), "clear, page {page}: {written:?}");
                let access = Access { kind: Kind::Write, mode: Mode::Kernel, obstacle };
                let last = LAST.owned(irq).get();
                let address = (BASE + page * PAGE_BYTES) as u64;
                let right = matches!(last, Some((at, found)) if at & !7 == address && found == access);
                ensure!(right, "clear, page {page}: {last:x?}, expected {access:?} at {address:#x}");
                closed()?;
            }
        }
    }
    Ok(())
}

/// The longest copy of the test below.
const HAMMERED: usize = PAGE_BYTES + 512;

/// One core unmaps a page and maps it again while the others copy over it: each copy is whole or ends exactly where the page begins.
///
/// Planted: no row covers `user_copy_movsb`, which ends the run with a report.
pub(super) fn unmapped(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    if all.len() < 2 {
        return Err(Verdict::Skipped("takes two cores"));
    }
    let trial = trial()?;
    trial.set_all(Map::Writable);
    fill(&trial, 0, 3 * PAGE_BYTES, pattern);
    let (finished, blame) = (AtomicUsize::new(0), Blame::new());
    let first = all.lowest();
    let gave_up = AtomicBool::new(false);
    bed.crew.run(&all, |held| {
        if Some(held.core()) == first {
            // ORDER: Acquire pairs with Release of the others' last step.
            while finished.load(Ordering::Acquire) + 1 < all.len() {
                trial.set(1, Map::Absent);
                core::hint::spin_loop();
                trial.set(1, Map::Writable);
                core::hint::spin_loop();
            }
            return;
        }
        blame.note(within(&trial, |irq| hammer(irq, &gave_up)));
        // ORDER: Release pairs with Acquire above.
        finished.fetch_add(1, Ordering::Release);
    });
    blame.verdict()
}

fn hammer(irq: &mut IrqOff, gave_up: &AtomicBool) -> Result {
    let user = checked(64, HAMMERED)?;
    let mut buffer = [0_u8; HAMMERED];
    let (mut whole, mut cut) = (0, 0);
    let deadline = Deadline::after_ms(5000);
    while whole < 200 || cut < 200 {
        trial::flush(1);
        match usercopy::copy_in(irq, user, &mut buffer) {
            Ok(()) => whole += 1,
            Err(UserFault { done }) if done == PAGE_BYTES - 64 => cut += 1,
            Err(fault) => return Err(failed(format_args!("{fault:?}: not at the border"))),
        }
        closed()?;
        // ORDER: Relaxed; only whether to go on.
        if deadline.is_over() || gave_up.load(Ordering::Relaxed) {
            // ORDER: Relaxed; as above.
            gave_up.store(true, Ordering::Relaxed);
            break;
        }
    }
    let wrong = (0..PAGE_BYTES - 64).find(|&i| buffer[i] != pattern(64 + i));
    ensure!(wrong.is_none(), "byte {wrong:?} of the first page is wrong");
    ensure!(whole > 0 && cut > 0, "{whole} copies were whole, {cut} cut short: they never met");
    Ok(())
}
