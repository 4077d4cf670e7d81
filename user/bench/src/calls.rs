//! Calls that do nothing, or nothing else.

use abi::quota::Limits;
use abi::syscall::Syscall;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Run, Scope};
use perf::runner::Trouble;
use rt::{sys, thread};

use super::{Lab, Meter, failed};

/// Entering the kernel and coming back.
pub(super) const NULL: Bench<Lab> = Bench {
    id: "sys.null",
    version: 1,
    doc: "the null call, from user mode to user mode, with its stub",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 64,
    cases: |lab, visit| visit(Case::new(lab.alone())),
    run: |_, _, meter| {
        meter.ops(&mut (), |()| {
            // SAFETY: no address is passed.
            let _ = unsafe { sys::null() };
        });
        Ok(())
    },
};

/// Yielding in vain.
pub(super) const YIELD: Bench<Lab> = Bench {
    id: "sched.yield",
    version: 1,
    doc: "a yield with nothing else to run on the core",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 32,
    cases: |lab, visit| visit(Case::new(lab.alone())),
    run: |_, _, meter| {
        meter.ops(&mut (), |()| thread::yield_now());
        Ok(())
    },
};

/// What the rows of processes with limits have in common. They run last: limits stay.
const fn limited(id: &'static str, doc: &'static str, run: Run<Lab>) -> Bench<Lab> {
    Bench {
        id,
        version: 1,
        doc,
        quantity: Quantity::Time,
        direction: Direction::Smaller,
        scope: Scope::RoundTrip,
        lanes: Lanes::GUEST,
        classes: &[Class::SelfCore],
        batch: 64,
        cases: |lab, visit| visit(Case::new(lab.alone())),
        run,
    }
}

/// With a filter.
pub(super) const FILTERED: Bench<Lab> = limited(
    "sys.filtered",
    "the null call, from a process that may not make some other call",
    |lab, _, meter| {
        let mut limits = Limits::NONE;
        limits.calls[0] &= !(1 << Syscall::PeriodEnd as u64);
        null(lab, &limits, meter)
    },
);

/// With a rate.
pub(super) const RATED: Bench<Lab> = limited(
    "sys.rated",
    "the null call, from a process with a rate that is never reached",
    |lab, _, meter| null(lab, &Limits { calls_per_second: 1_000_000_000_000, ..Limits::NONE }, meter),
);

fn null(lab: &Lab, limits: &Limits, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    lab.start.process().limit(limits).map_err(failed)?;
    meter.ops(&mut (), |()| {
        // SAFETY: no address is passed.
        let _ = unsafe { sys::null() };
    });
    Ok(())
}
