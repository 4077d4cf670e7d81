//! Notifications: signalling, waiting, broadcasting.
//!
//! Who waits is more urgent than who signals, so a signal on one core is a switch to it, and its next wait a switch back. It notes the clock on
//! both sides of its wait, in a page that both see.

use abi::task::ThreadSpec;
use alloc::vec;
use alloc::vec::Vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::clock::{Clock, Nanos, Ticks};
use perf::hist::DEFAULT_COUNTS;
use perf::runner::Trouble;
use rt::handle::{Notification, Owned, Region, Typed};
use rt::memory;
use rt::sync::atomic::{AtomicU32, Ordering};
use rt::thread::{Builder, JoinHandle};
use rt::time::{self, Deadline, Tsc};

use super::partner::Partner;
use super::{Lab, Meter, failed, place};

/// What a partner of these rows does.
pub(super) const WORK: &str = "answer";

const SAME: &str = "same";
const OTHER: &str = "other";
/// Bit by which one who waits is asked to end.
const END: u64 = 2;

/// Words of the page: when the wait returned, and when the next began.
const WOKEN: usize = 1;
const WAITS: usize = 2;

/// A signal.
pub(super) const SIGNAL: Bench<Lab> = Bench {
    id: "ntfn.signal",
    version: 1,
    doc: "a signal: the call if nobody waits or who does is on another core; if who waits is more urgent, until it has returned from its wait",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore, Class::Smt, Class::Llc, Class::Node, Class::Remote],
    batch: 1,
    cases: |lab, visit| {
        visit(Case::new(lab.alone()).with("waiter", Value::Word("none")));
        for space in [SAME, OTHER] {
            let case = Case::new(lab.alone()).with("waiter", Value::Word("higher"));
            visit(case.with("space", Value::Word(space)));
        }
        for (class, core) in lab.partners() {
            let placement = Placement::pair(class, lab.site(place::HERE), lab.site(core));
            visit(Case::new(placement).with("waiter", Value::Word(class.word())));
        }
    },
    run: |lab, case, meter| match case.params.word("waiter") {
        Some("none") => to_nobody(meter),
        Some("higher") => beside(lab, case, Part::Signal, meter),
        _ => to_another_core(case, meter),
    },
};

/// A wait that blocks.
pub(super) const WAIT: Bench<Lab> = Bench {
    id: "ntfn.wait",
    doc: "a wait that blocks, until the next thread of the core is back in user mode",
    classes: &[Class::SelfCore],
    cases: |lab, visit| {
        for space in [SAME, OTHER] {
            visit(Case::new(lab.alone()).with("space", Value::Word(space)));
        }
    },
    run: |lab, case, meter| beside(lab, case, Part::Wait, meter),
    ..SIGNAL
};

/// A broadcast.
pub(super) const BROADCAST: Bench<Lab> = Bench {
    id: "ntfn.bcast",
    doc: "a broadcast to so many more urgent threads of this core, until all have run and wait again",
    classes: &[Class::SelfCore],
    cases: |lab, visit| {
        for waiters in [1, 4, 16] {
            visit(Case::new(lab.alone()).with("waiters", Value::Num(waiters)));
        }
    },
    run: |_, case, meter| to_all(case.params.num("waiters").unwrap_or(1) as usize, meter),
    ..SIGNAL
};

fn notification() -> Result<Owned<Notification>, Trouble> {
    Notification::create().map_err(failed)
}

fn to_nobody(meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let bell = notification()?;
    let own = *bell;
    let fine = |result: rt::handle::Result<()>| result.is_ok();
    let mut all = true;
    meter.windows(&mut all, |_| {}, |all| *all &= fine(own.signal(1)), |all| *all &= own.poll() == Ok(1));
    if all { Ok(()) } else { Err(Trouble::Failed("the bit was not set")) }
}

/// Waits again and again, and notes when. Ends by [`END`], or with its process.
pub(super) fn answer(own: Notification, words: &[AtomicU32]) -> Option<()> {
    let [_, woken, waits, ..] = words else { return None };
    const { assert!(WOKEN == 1 && WAITS == 2) };
    loop {
        // ORDER: Relaxed, both: read on the same core, after a switch.
        waits.store(Tsc.start().count() as u32, Ordering::Relaxed);
        if own.wait().ok()? & END != 0 {
            return Some(());
        }
        // ORDER: Relaxed: as above.
        woken.store(Tsc.stop().count() as u32, Ordering::Relaxed);
    }
}

/// What is measured of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Signal,
    Wait,
}

/// With one that waits on this core, in this space or another.
fn beside(lab: &Lab, case: &Case, part: Part, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let bell = notification()?;
    let own = *bell;
    if case.params.word("space") == Some(OTHER) {
        let flags = abi::task::ProcessSpec::NO_FPU;
        let (_partner, words) = Partner::given(lab, WORK, place::HERE, flags, &[own.handle()])?;
        return measure(own, words, part, meter);
    }
    let region = Region::create(1).map_err(failed)?;
    let words = memory::words(*region).map_err(failed)?;
    let waiter = more_urgent().spawn(move || answer(own, words)).map_err(failed)?;
    let result = measure(own, words, part, meter);
    own.signal(END).map_err(failed)?;
    waiter.join().map_err(failed)?;
    result
}

fn more_urgent() -> Builder {
    place::peer(place::HERE).schedule(place::FIRST).flags(ThreadSpec::NO_FPU)
}

/// The time whose low half was noted, soon after another.
fn noted(from: Ticks, word: &AtomicU32) -> Ticks {
    // ORDER: Relaxed: written on the same core, before a switch.
    let low = word.load(Ordering::Relaxed);
    Ticks::new(from.count() + u64::from(low.wrapping_sub(from.count() as u32)))
}

/// Signals on a thread without vector registers, while the main thread sleeps.
fn measure(own: Notification, words: &[AtomicU32], part: Part, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let (plan, mut counts) = (meter.plan(), vec![0; DEFAULT_COUNTS]);
    let work = |counts| {
        let mut meter = Meter::new(Tsc, plan, counts)?;
        let mut in_order = true;
        while meter.more() {
            let from = Tsc.start();
            in_order &= own.signal(1).is_ok();
            let to = Tsc.stop();
            let (woken, waits) = (noted(from, &words[WOKEN]), noted(from, &words[WAITS]));
            in_order &= from < woken && woken < waits && waits < to;
            match part {
                Part::Signal => meter.window(from, woken),
                Part::Wait => meter.window(waits, to),
            }
        }
        Ok((meter.close().0, in_order))
    };
    let builder = place::peer(place::HERE).flags(ThreadSpec::NO_FPU);
    let counts = counts.as_mut_slice();
    let ended = |thread: rt::handle::Thread| thread.join(Deadline::NEVER);
    let (result, _) = builder.both(move || work(counts), ended).map_err(failed)?;
    let (tally, in_order) = result.map_err(Trouble::Refused)?;
    if !in_order {
        return Err(Trouble::Failed("a signal did not switch to the one who waits and back"));
    }
    meter.tally().absorb(&tally);
    Ok(())
}

/// What it costs who signals a thread that waits on another core.
fn to_another_core(case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let core = case.placement.target.map_or(place::HERE, |site| site.core as usize);
    let (bell, back) = (notification()?, notification()?);
    let (own, answers) = (*bell, *back);
    let work = move || {
        while own.wait().is_ok_and(|bits| bits & END == 0) && answers.signal(1).is_ok() {}
    };
    let waiter = place::peer(core).flags(ThreadSpec::NO_FPU).spawn(work).map_err(failed)?;
    let asleep =
        || waiter.thread().info().is_ok_and(|info| info.state == abi::task::ThreadState::Blocked as u32);
    while meter.more() {
        while !asleep() {
            time::sleep(Deadline::after(Nanos::new(20_000)));
        }
        let from = Tsc.start();
        own.signal(1).map_err(failed)?;
        let to = Tsc.stop();
        meter.window(from, to);
        answers.wait().map_err(failed)?;
    }
    own.signal(END).map_err(failed)?;
    waiter.join().map_err(failed)
}

fn to_all(count: usize, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let bell = notification()?;
    let own = *bell;
    let mut waiters: Vec<JoinHandle<()>> = Vec::new();
    for _ in 0..count {
        let work = move || while own.wait().is_ok_and(|bits| bits & END == 0) {};
        waiters.push(more_urgent().spawn(work).map_err(failed)?);
    }
    let (plan, mut counts) = (meter.plan(), vec![0; DEFAULT_COUNTS]);
    let work = |counts| {
        let mut meter = Meter::new(Tsc, plan, counts)?;
        let mut all = true;
        let told = |all: &mut bool| *all &= own.broadcast(1) == Ok(count as u64);
        meter.windows(&mut all, |_| {}, told, |_| {});
        Ok((meter.close().0, all))
    };
    let counts = counts.as_mut_slice();
    let ended = |thread: rt::handle::Thread| thread.join(Deadline::NEVER);
    let builder = place::peer(place::HERE).flags(ThreadSpec::NO_FPU);
    let (result, _) = builder.both(move || work(counts), ended).map_err(failed)?;
    let (tally, all) = result.map_err(Trouble::Refused)?;
    own.broadcast(END).map_err(failed)?;
    drop(waiters);
    if !all {
        return Err(Trouble::Failed("a broadcast did not find all waiting"));
    }
    meter.tally().absorb(&tally);
    Ok(())
}
