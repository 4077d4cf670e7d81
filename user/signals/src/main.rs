//! Tests notifications and what signals them: `only=` a test, `rounds=`, `seed=`. The exit code is 0, or the number of the test that failed, from
//! 1; the log says which, and why.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod basics;
mod bound;
mod hunt;
mod timed;

use alloc::string::String;

use abi::task::{CoreMask, ThreadSpec};
use perf::clock::Nanos;
use rt::handle::{Notification, Owned};
use rt::say;
use rt::start::Start;
use rt::thread::Builder;
use rt::time::{self, Deadline};

rt::entry!(main);

/// How a test ends: what was not as it should be.
pub(crate) type Outcome<T = ()> = Result<T, String>;

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

/// A test by its name.
pub(crate) type Test = (&'static str, fn(&Start) -> Outcome);

const TESTS: &[&[Test]] = &[basics::TESTS, bound::TESTS, timed::TESTS, hunt::TESTS];

fn main(start: &Start) -> u64 {
    let only = start.word("only");
    for (number, (name, test)) in (1..).zip(TESTS.iter().flat_map(|tests| tests.iter())) {
        if only.is_some_and(|only| only != *name) {
            continue;
        }
        say!("signals: {name}");
        if let Err(why) = test(start) {
            say!("signals: {name}: {why}");
            return number;
        }
    }
    0
}

/// A thread on a core of this process.
pub(crate) fn on(start: &Start, core: usize) -> Builder {
    let core = core % start.raw().cores as usize;
    Builder::default().cores(CoreMask::one(core)).flags(ThreadSpec::NO_FPU)
}

/// A notification.
pub(crate) fn notification() -> Outcome<Owned<Notification>> {
    Notification::create().map_err(unexpected)
}

/// So many milliseconds from now.
pub(crate) fn after(millis: u64) -> Deadline {
    Deadline::after(Nanos::from_millis(millis))
}

/// When whatever must happen has not happened: long enough for any emulator on any busy host.
pub(crate) fn patience() -> Deadline {
    after(20_000)
}

/// Sleeps until a condition holds; `false` if it does not in good time.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let end = patience();
    while !holds() {
        if end.passed() {
            return false;
        }
        time::sleep(after(1));
    }
    true
}
