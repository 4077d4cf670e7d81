//! Tests banks, filters and rates: `only=` the beginning of tests' names, `exact=1` where time is counted in instructions. The exit code is 0, or
//! the number of the test that failed, from 1; the log says which, and why. Needs a bank.
//!
//! With `work=` it is a child of itself, which does what its parent wants to see (`work`).
#![no_std]
#![no_main]

extern crate alloc;

mod banks;
mod children;
mod filters;
mod rates;
mod work;

use alloc::string::String;

use abi::error::Error;
use rt::handle::Bank;
use rt::say;
use rt::start::Start;

rt::entry!(main);

/// How a test ends: what was not as it should be.
type Outcome<T = ()> = Result<T, String>;

/// Fails the test with a formatted reason unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err(alloc::format!($($why)*));
        }
    };
}

/// An error of the kernel's in a place where none should be.
fn unexpected(error: Error) -> String {
    alloc::format!("unexpected {}", error.name())
}

/// What a test works with.
struct Lab {
    start: Start,
    /// The machine's.
    bank: Bank,
    /// Whether time is counted in instructions.
    exact: bool,
}

/// A test, by its name.
type Test = (&'static str, fn(&Lab) -> Outcome);

const TESTS: &[Test] = &[
    ("bank.carve", banks::carve),
    ("bank.frames", banks::frames),
    ("bank.last_frame", banks::last_frame),
    ("bank.family", banks::family),
    ("bank.hog", banks::hog),
    ("bank.regions", banks::regions),
    ("bank.exhaustion", banks::exhaustion),
    ("bank.assign", banks::assign),
    ("filter.every_call", filters::every_call),
    ("filter.exits", filters::exits),
    ("filter.inherited", filters::inherited),
    ("filter.running", filters::running),
    ("rate.calls", rates::calls),
    ("rate.messages", rates::messages),
    ("rate.family", rates::family),
    ("rate.only_falls", rates::only_falls),
];

fn main(start: &Start) -> u64 {
    if let Some(name) = start.word("work") {
        return work::main(*start, name);
    }
    let Some(bank) = start.bank() else { return 100 };
    let lab = Lab { start: *start, bank, exact: start.number("exact", 0) != 0 };
    let only = start.word("only").unwrap_or("");
    for (number, (name, test)) in (1..).zip(TESTS).filter(|(_, (name, _))| name.starts_with(only)) {
        say!("quota: {name}");
        if let Err(why) = test(&lab) {
            say!("quota: {name}: {why}");
            return number;
        }
    }
    0
}
