//! Hands capabilities on and revokes them, for the kernel's tests.
//!
//! `kind=calls`: each call and its errors. `kind=race`: threads of several processes do it all at once (`race`). The exit code is 0, or the
//! line that has failed.
#![no_std]
#![no_main]

extern crate alloc;

mod calls;
mod race;

use rt::say;
use rt::start::Start;

rt::entry!(main);

/// The code of a usage that makes no sense: more than any line.
const USAGE: u64 = 10_000;

/// Ends the check with the line's number unless the condition holds.
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            rt::say!("caps: {}:{}: not so: {}", file!(), line!(), stringify!($condition));
            return Err(u64::from(line!()));
        }
    };
}

/// The value of a call that must succeed.
macro_rules! done {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => {
                rt::say!("caps: {}:{}: {error:?}: {}", file!(), line!(), stringify!($result));
                return Err(u64::from(line!()));
            }
        }
    };
}

pub(crate) use {done, ensure};

/// What a check returns: the line that has failed.
type Check = Result<(), u64>;

fn main(start: &Start) -> u64 {
    let check = match start.word("kind") {
        Some("calls") => calls::all(),
        Some("race") => race::lead(start),
        Some("worker") => race::work(start),
        _ => {
            say!("caps: kind= calls or race");
            Err(USAGE)
        }
    };
    check.err().unwrap_or(0)
}
