//! Tests messages at random, for the kernel's soak tests.
//!
//! `kind=walk`: random programs of message calls against a model (`walk`); the exit code is a digest of all outcomes, with its highest bit
//! set. `kind=kills`: servers and clients are killed in whatever state they are (`kills`). `kind=storm`: they are
//! moved and stopped while they talk (`storm`). `kind=bound`: a notification comes to a server that waits (`bound`). The exit code is 1 if something was not as it should be; the log says what.
#![no_std]
#![no_main]

extern crate alloc;

mod actor;
mod arch;
mod bound;
mod kills;
mod model;
mod page;
mod storm;
mod walk;

use alloc::string::String;

use abi::error::Error;
use rt::say;
use rt::start::Start;

rt::entry!(main);

/// What was not as it should be.
pub(crate) type Failure = String;

/// An error of the kernel's in a place where none should be.
pub(crate) fn unexpected(error: Error) -> Failure {
    alloc::format!("unexpected {}", error.name())
}

fn main(start: &Start) -> u64 {
    if let Some(work) = start.word("work") {
        return match work {
            "actor" => walk::other(start).unwrap_or(2),
            _ => kills::other(start),
        };
    }
    let outcome = match start.word("kind") {
        Some("walk") => walk::run(start),
        Some("kills") => kills::run(start),
        Some("bound") => bound::run(start),
        Some("storm") => storm::run(start),
        _ => Err(String::from("kind= walk, bound, kills or storm")),
    };
    outcome.unwrap_or_else(|why| {
        say!("peers: {why}");
        1
    })
}
