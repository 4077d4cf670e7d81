//! Passes pages between processes and resolves faults of others, for the kernel's tests.
//!
//! `kind=pass`: pages moved, shared and copied, and what is refused. `kind=fault`: page faults and exceptions as messages. `kind=many`: much
//! at once. `only=` a check, `seed=`. Other kinds are the other process of a check. The exit code is 0, or the number of the check that
//! failed, from 1; the log says which, and why.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod client;
mod fault;
mod many;
mod pass;
mod scene;

use alloc::string::String;

use rt::say;
use rt::start::Start;

rt::entry!(main);

/// How a check ends: what was not as it should be.
type Outcome = Result<(), String>;

/// A check.
type Check = (&'static str, fn(&Start) -> Outcome);

/// Fails the check with a formatted reason unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err(alloc::format!("{}: {}", line!(), format_args!($($why)*)));
        }
    };
}

/// The value of a call that must succeed.
macro_rules! done {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Err(alloc::format!("{}: {error:?}: {}", line!(), stringify!($result))),
        }
    };
}

pub(crate) use {done, ensure};

/// The code of a usage that makes no sense: more than any check's number.
const USAGE: u64 = 10_000;

fn main(start: &Start) -> u64 {
    match start.word("kind") {
        Some("pass") => run(start, pass::CHECKS),
        Some("fault") => run(start, fault::CHECKS),
        Some("many") => run(start, many::CHECKS),
        Some("client") => client::run(start),
        _ => {
            say!("pages: kind= pass, fault or many");
            USAGE
        }
    }
}

fn run(start: &Start, checks: &[Check]) -> u64 {
    let only = start.word("only");
    for (number, (name, check)) in (1..).zip(checks) {
        if only.is_some_and(|only| only != *name) {
            continue;
        }
        if let Err(why) = check(start) {
            say!("pages: {name}: {why}");
            return number;
        }
    }
    0
}
