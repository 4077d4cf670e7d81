//! Calls that do nothing, or nothing else.

use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope};
use rt::{sys, thread};

use super::Lab;

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
