//! Taking translations back from other cores: who is disturbed, and that nobody goes on with what has been taken.

use mm::PageSize;
use mm::tlb::{Batch, Counts, FLUSH_THRESHOLD, RANGES};
use percpu::mailbox::INBOX;
use percpu::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use percpu::{CoreId, CoreSet, Held, IrqOff};

use super::bed::{self, Blame, Deadline, Gate};
use super::{Bed, Result, Verdict, ensure};
use crate::arch::{ipi, tlb};
use crate::handmade::{Handmade, PAGES, Shown};
use crate::{cores, machine};

const ALONE: Verdict = Verdict::Skipped("needs a second core");
const NO_MEMORY: Verdict = Verdict::Skipped("not enough memory for an address space");
/// Shootdowns of a test that counts them.
const ROUNDS: u64 = 10;

/// The core that is the target where one is enough: as far away as can be.
fn partner() -> core::result::Result<CoreId, Verdict> {
    machine::topology().cores().rfind(|&core| core != machine::boot_core()).ok_or(ALONE)
}

/// How a core has been disturbed: interrupts taken, requests served.
fn disturbed(core: CoreId) -> (u64, u64) {
    (ipi::taken(core), tlb::counts(core).served)
}

/// Waits until the cores sleep, and have taken what interrupts are still on their way.
fn settle(cores: &CoreSet) -> Result {
    let asleep = || cores.iter().filter_map(|core| INBOX.of(core)).all(|inbox| !inbox.is_quiet());
    ensure!(bed::wait(asleep), "not all of {cores:?} go to sleep");
    (0..2_000).for_each(|_| core::hint::spin_loop());
    Ok(())
}

/// Points pages at their other frame and takes the old translations back, `rounds` times, from the boot core.
fn shoot(made: &Handmade, rounds: u64) {
    for round in 0..rounds {
        made.point(0, if round % 2 == 0 { Shown::New } else { Shown::Old });
        IrqOff::with(|irq| tlb::shootdown(irq, made.space(), &Handmade::batch(0, 1)));
    }
}

/// Runs `boot` on the boot core while `target`, with the space active and read, is busy with interrupts on; `turn` is run there between.
fn with_busy(
    bed: &mut Bed,
    made: &Handmade,
    targets: &CoreSet,
    turn: impl Fn() + Sync,
    boot: impl Fn(&mut Held<'_, 0>) + Sync,
) {
    let (ready, over) = (Gate::new(), AtomicBool::new(false));
    let count = targets.len() + 1;
    bed.crew.run(&targets.union(&CoreSet::one(machine::boot_core())), |held| {
        if held.core() == machine::boot_core() {
            if ready.pass(count) {
                boot(held);
            }
            // ORDER: Release pairs with Acquire below.
            return over.store(true, Ordering::Release);
        }
        made.activate(held);
        Handmade::read(0);
        if ready.pass(count) {
            let busy = || {
                turn();
                // ORDER: Acquire pairs with Release above.
                !over.load(Ordering::Acquire)
            };
            // SAFETY: a function that was sent to an idle core; nothing core-local is in use here.
            unsafe { cores::expose(held, busy) };
        }
    });
}

/// A shootdown interrupts the cores on which the space is current, each once, and no core that never ran it.
///
/// Planted: `Kicked::send` interrupts another core as well.
pub(super) fn targeted(bed: &mut Bed) -> Result {
    let target = partner()?;
    let made = Handmade::new().ok_or(NO_MEMORY)?;
    let pair = CoreSet::from_iter([target, machine::boot_core()]);
    let others = cores::all_online().difference(&pair);
    settle(&others)?;
    let before = others.iter().map(disturbed).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let blame = Blame::new();
    with_busy(
        bed,
        &made,
        &CoreSet::one(target),
        || (),
        |_| {
            let (taken, served) = disturbed(target);
            shoot(&made, ROUNDS);
            let now = disturbed(target);
            blame.note(counted(target, (now.0 - taken, now.1 - served), ROUNDS));
        },
    );
    let after = others.iter().map(disturbed).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    ensure!(
        after == before,
        "cores that never ran the space: (interrupts, requests) {before:?}, then {after:?}"
    );
    blame.verdict()
}

fn counted(core: CoreId, disturbed: (u64, u64), rounds: u64) -> Result {
    ensure!(
        disturbed == (rounds, rounds),
        "{core} was (interrupted, asked) {disturbed:?} times for {rounds} shootdowns"
    );
    Ok(())
}

/// How a core stops using a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// It idles with the space loaded.
    Rest,
    /// It goes to the kernel's own tables.
    Kernel,
    /// It goes to another space.
    Other,
}

/// A core that has run the space and does not use it now is not disturbed, and sees what has changed when it uses it again.
///
/// Planted: `resume` does not compare generations.
pub(super) fn switched_away(_: &mut Bed) -> Result {
    let target = partner()?;
    let (made, other) = Handmade::new().zip(Handmade::new()).ok_or(NO_MEMORY)?;
    for leave in [Leave::Rest, Leave::Kernel, Leave::Other] {
        one_absence((&made, &other), target, leave)?;
    }
    IrqOff::with(|irq| tlb::forget(irq, made.space()));
    let left = made.space().cores().snapshot();
    ensure!(left.is_empty(), "{left:?} have not forgotten the space");
    Ok(())
}

fn one_absence((made, other): (&Handmade, &Handmade), target: CoreId, leave: Leave) -> Result {
    made.point(0, Shown::Old);
    IrqOff::with(|irq| tlb::shootdown(irq, made.space(), &Handmade::batch(0, 1)));
    let blame = Blame::new();
    cores::call(target, |held| {
        made.activate(held);
        blame.note(shows(target, 0, Shown::Old, Handmade::read(0)));
        match leave {
            Leave::Rest => tlb::rest(held),
            Leave::Kernel => tlb::deactivate(held),
            Leave::Other => other.activate(held),
        }
    });
    settle(&CoreSet::one(target))?;
    let (taken, served) = disturbed(target);
    shoot(made, ROUNDS + 1);
    let now = disturbed(target);
    blame.note(counted(target, (now.0 - taken, now.1 - served), 0));
    cores::call(target, |held| {
        match leave {
            Leave::Rest => tlb::resume(held),
            Leave::Kernel | Leave::Other => made.activate(held),
        }
        blame.note(shows(target, 0, Shown::New, Handmade::read(0)));
        tlb::deactivate(held);
    });
    blame.verdict()
}

fn shows(core: CoreId, page: usize, wanted: Shown, found: u64) -> Result {
    ensure!(found == wanted as u64, "{core} reads {found:#x} in page {page}, which shows {wanted:?}");
    Ok(())
}

/// Busy cores that read a page go on with its new frame from the moment at which the shootdown returns.
///
/// Planted: `answer` does not invalidate; the feature `early-ack`.
pub(super) fn busy(bed: &mut Bed) -> Result {
    partner()?;
    let made = Handmade::new().ok_or(NO_MEMORY)?;
    let others = cores::all_online().difference(&CoreSet::one(machine::boot_core()));
    let blame = Blame::new();
    // Pages below it have been taken back. Readers see the last of them, and hold the next one's translation.
    let limit = AtomicUsize::new(0);
    let last = Deadline::after_ms(600);
    let turn = || {
        // ORDER: Acquire pairs with Release below.
        let limit = limit.load(Ordering::Acquire);
        if let Some(page) = limit.checked_sub(1) {
            blame.note(shows(cores::current(), page, Shown::New, Handmade::read(page)));
        }
        Handmade::read(limit.min(PAGES - 1));
    };
    with_busy(bed, &made, &others, turn, |_| {
        for page in 0..PAGES {
            (0..20).for_each(|_| core::hint::spin_loop());
            made.point(page, Shown::New);
            IrqOff::with(|irq| tlb::shootdown(irq, made.space(), &Handmade::batch(page, 1)));
            // ORDER: Release pairs with Acquire above.
            limit.store(page + 1, Ordering::Release);
            if last.is_over() {
                break;
            }
        }
    });
    blame.verdict()
}

/// Shootdowns of each core in the storm, at most.
const STORM: usize = 100;
const STORM_MS: u64 = 600;

/// All cores take pages back from each other at the same time: it ends, each sees its own change, and every request was answered once.
///
/// Planted: an initiator does not invalidate on its own core. That it ends is also a loom model, which has seen more.
pub(super) fn storm(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let made = Handmade::new().ok_or(NO_MEMORY)?;
    let sum =
        || all.iter().map(tlb::counts).fold((0, 0), |sum, c: Counts| (sum.0 + c.messages, sum.1 + c.served));
    let before = sum();
    let (gate, blame) = (Gate::new(), Blame::new());
    let deadline = Deadline::after_ms(STORM_MS);
    bed.crew.run(&all, |held| {
        made.activate(held);
        if !gate.pass(all.len()) {
            return blame.note(Err(super::failed(format_args!("the cores did not meet"))));
        }
        let page = held.core().index() % PAGES;
        for round in 0..STORM {
            let shown = if round % 2 == 0 { Shown::New } else { Shown::Old };
            // Cores beyond the number of pages share one and see each other's changes.
            let alone = all.len() <= PAGES;
            made.point(page, shown);
            IrqOff::with(|irq| tlb::shootdown(irq, made.space(), &Handmade::batch(page, 1)));
            if alone {
                blame.note(shows(held.core(), page, shown, Handmade::read(page)));
            }
            if deadline.is_over() {
                break;
            }
        }
    });
    let after = sum();
    let (sent, served) = (after.0 - before.0, after.1 - before.1);
    ensure!(sent == served, "{sent} requests were sent, {served} answered");
    blame.verdict()
}

/// A batch of more pages, or more ranges, than are listed drops everything, on a core that holds every page; a short one does not.
///
/// Planted: `add` ignores a range that it has no room for; the feature `early-ack`.
pub(super) fn overflow(bed: &mut Bed) -> Result {
    let target = partner()?;
    let made = Handmade::new().ok_or(NO_MEMORY)?;
    let mut scattered = Batch::new();
    (0..=RANGES).for_each(|range| scattered.add(Handmade::range(range * 2, 1), PageSize::Small));
    let long = Handmade::batch(0, FLUSH_THRESHOLD + 1);
    let short = Handmade::batch(0, FLUSH_THRESHOLD);
    let mut shown = Shown::Old;
    for (batch, wanted) in [(&scattered, (1, 0)), (&long, (1, 0)), (&short, (0, FLUSH_THRESHOLD as u64))] {
        shown = if shown == Shown::Old { Shown::New } else { Shown::Old };
        one_overflow(bed, (&made, target), (batch, shown), wanted)?;
    }
    Ok(())
}

fn one_overflow(
    bed: &mut Bed,
    (made, target): (&Handmade, CoreId),
    (batch, shown): (&Batch, Shown),
    wanted: (u64, u64),
) -> Result {
    /// Pages that are in every batch.
    const COMMON: core::ops::Range<usize> = 0..1;
    let (asked, blame) = (AtomicBool::new(false), Blame::new());
    let looked = AtomicBool::new(false);
    let turn = || {
        // ORDER: Acquire pairs with Release below.
        let now = asked.load(Ordering::Acquire);
        for page in COMMON {
            let found = Handmade::read(page);
            if now {
                blame.note(shows(target, page, shown, found));
                // ORDER: Release pairs with Acquire below.
                looked.store(true, Ordering::Release);
            }
        }
    };
    with_busy(bed, made, &CoreSet::one(target), turn, |_| {
        let before = tlb::counts(target);
        (0..PAGES).for_each(|page| made.point(page, shown));
        IrqOff::with(|irq| tlb::shootdown(irq, made.space(), batch));
        // ORDER: Release pairs with Acquire above.
        asked.store(true, Ordering::Release);
        let after = tlb::counts(target);
        let found = (after.flushes - before.flushes, after.pages - before.pages);
        blame.note(dropped(batch, found, wanted));
        // ORDER: Acquire pairs with Release above.
        if !bed::wait(|| looked.load(Ordering::Acquire)) {
            blame.note(Err(super::failed(format_args!("{target} stopped reading"))));
        }
    });
    blame.verdict()
}

fn dropped(batch: &Batch, found: (u64, u64), wanted: (u64, u64)) -> Result {
    ensure!(found == wanted, "{batch:?}: (flushes, pages) {found:?} instead of {wanted:?}");
    Ok(())
}

/// When tables go, a core that idles on the space is asked once, leaves it, and is not disturbed again.
///
/// Planted: `answer` does not leave the space.
pub(super) fn freed_tables(_: &mut Bed) -> Result {
    let target = partner()?;
    let made = Handmade::new().ok_or(NO_MEMORY)?;
    cores::call(target, |held| {
        made.activate(held);
        Handmade::read(0);
    });
    settle(&CoreSet::one(target))?;
    let before = disturbed(target);
    for _ in 0..ROUNDS {
        let mut batch = Handmade::batch(0, 1);
        batch.tables_freed();
        IrqOff::with(|irq| tlb::shootdown(irq, made.space(), &batch));
        settle(&CoreSet::one(target))?;
    }
    let after = disturbed(target);
    let current = AtomicBool::new(true);
    cores::call(target, |held| {
        // ORDER: Relaxed; the end of the call publishes it.
        current.store(tlb::is_current(held, made.space()), Ordering::Relaxed);
    });
    counted(target, (after.0 - before.0, after.1 - before.1), 1)?;
    ensure!(!current.into_inner(), "{target} still has the tables loaded that were freed");
    Ok(())
}
