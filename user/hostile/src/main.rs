//! Tries what a program must not do, one thing each time it runs: `probe=` names it, `address=` is its operand where it takes one.
//!
//! A probe that must be stopped returns [`WENT_THROUGH`] if it is not. One that must survive returns 0, or the number of the check that
//! failed. Every probe says beside its name how it must end.
#![no_std]
#![no_main]

mod arch;
mod calls;
mod memory;

use rt::say;
use rt::start::Start;

rt::entry!(main);

/// The exit code of a probe that should have been stopped.
const WENT_THROUGH: u64 = 201;
/// The exit code of a probe that nobody knows.
const NO_SUCH_PROBE: u64 = 202;

/// One thing to try. Gets the operand, 0 if there is none.
type Try = fn(u64) -> u64;

fn main(start: &Start) -> u64 {
    let name = start.word("probe").unwrap_or("");
    let operand = start.number("address", 0);
    let probes = || arch::PROBES.into_iter().chain([memory::PROBES, calls::PROBES]).flatten();
    let Some((_, probe)) = probes().find(|(other, _)| *other == name) else {
        for (name, _) in probes() {
            say!("{name}");
        }
        return NO_SUCH_PROBE;
    };
    probe(operand)
}
