//! Tests the runtime's synchronisation on the machine, where threads really sleep in the kernel: `threads=`, `rounds=`, `only=`. The exit
//! code is 0, or the number of the test that failed, from 1; the log says which.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod fibers;
mod tests;

use rt::say;
use rt::start::Start;

rt::entry!(main);

/// How much a test is to do.
#[derive(Clone, Copy)]
struct Effort {
    threads: u32,
    rounds: u64,
}

/// A test: whether all was as it should be.
type Test = fn(Effort) -> bool;

fn main(start: &Start) -> u64 {
    let threads = start.number("threads", start.raw().cores.clamp(2, 64) * 2) as u32;
    let effort = Effort { threads, rounds: start.number("rounds", 2_000) };
    let only = start.word("only");
    for (number, (name, test)) in (1..).zip(tests::TESTS) {
        if only.is_some_and(|only| only != *name) {
            continue;
        }
        if !test(effort) {
            say!("sync: {name} failed with {threads} threads");
            return number;
        }
    }
    0
}
