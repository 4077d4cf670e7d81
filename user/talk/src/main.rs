//! Tests messages and channels: `only=` a test, `rounds=`, `seed=`. The exit code is 0, or the number of the test that failed, from 1; the log says which, and
//! why.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod basics;
mod channels;
mod inherit;
mod order;
mod passed;

use alloc::string::String;

use rt::say;
use rt::start::Start;

rt::entry!(main);

/// How a test ends: what was not as it should be.
pub(crate) type Outcome = Result<(), String>;

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
pub(crate) fn unexpected(error: abi::error::Error) -> String {
    alloc::format!("unexpected {}", error.name())
}

/// A test, by its name.
pub(crate) type Test = (&'static str, fn(&Start) -> Outcome);

const TESTS: [&[Test]; 3] = [basics::TESTS, channels::TESTS, inherit::TESTS];

fn main(start: &Start) -> u64 {
    if let Some(work) = start.word("work") {
        return basics::work(start, work);
    }
    let only = start.word("only");
    for (number, (name, test)) in (1..).zip(TESTS.into_iter().flatten()) {
        if only.is_some_and(|only| only != *name) {
            continue;
        }
        if let Err(why) = test(start) {
            say!("talk: {name}: {why}");
            return number;
        }
    }
    0
}
