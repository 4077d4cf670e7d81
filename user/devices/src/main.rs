//! A driver of the PC's oldest devices, which checks what the kernel promises to drivers: `only=` is the beginning of the names of the checks
//! that run, [`CHECKS`] has them all.
//!
//! Given by who starts it: all interrupt lines, all ports, all device registers, the debug interface, a capability for each core, and
//! `programs` in the environment. The exit code is 0, or 1 + the place in the table of the first check that failed. With `role=driver` it
//! is the driver that is killed instead.
#![no_std]
#![no_main]

extern crate alloc;

mod bell;
mod clock;
mod lines;
mod ports;
mod registers;
mod timer;

use core::fmt;

use abi::error::Error;
use perf::clock::Nanos;
use rt::handle::{Debug, Devices, Interrupts, Ports};
use rt::say;
use rt::start::Start;
use rt::time::{self, Deadline};

rt::entry!(main);

/// Why a check failed.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// A call was refused that should not have been.
    Call(Error),
    /// Something is not as it was promised.
    Check(&'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => write!(f, "a call was refused: {error}"),
            Self::Check(what) => write!(f, "not so: {what}"),
        }
    }
}

type Outcome<T = ()> = Result<T, Failure>;

/// What a check works with.
#[derive(Clone, Copy)]
struct Lab {
    start: Start,
    debug: Debug,
    interrupts: Interrupts,
    ports: Ports,
    devices: Devices,
}

impl Lab {
    fn new(start: Start) -> Option<Self> {
        Some(Self {
            start,
            debug: start.debug()?,
            interrupts: start.interrupts()?,
            ports: start.ports()?,
            devices: start.devices()?,
        })
    }

    fn cores(&self) -> usize {
        self.start.raw().cores as usize
    }
}

type Check = fn(&Lab) -> Outcome;

/// All checks.
const CHECKS: &[(&str, Check)] = &[
    ("ports.claims", ports::claims),
    ("ports.accesses", ports::accesses),
    ("ports.device", ports::device),
    ("registers.claims", registers::claims),
    ("registers.device", registers::device),
    ("lines.claims", lines::claims),
    ("lines.refusals", lines::refusals),
    ("lines.idle", lines::idle),
    ("lines.busy", lines::busy),
    ("lines.urgent", lines::urgent),
    ("lines.acknowledged", lines::acknowledged),
    ("lines.masked", lines::masked),
    ("lines.shared", lines::shared),
    ("lines.rebound", lines::rebound),
    ("lines.affinity", lines::affinity),
    ("lines.moving", lines::moving),
    ("lines.freed", lines::freed),
    ("lines.killed", lines::killed),
];

fn ensure(holds: bool, what: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::Check(what)) }
}

/// A call must be refused, for this reason.
fn refused<T>(result: Result<T, Error>, why: Error, what: &'static str) -> Outcome {
    ensure(result.err() == Some(why), what)
}

/// A time so many milliseconds from now.
fn after(millis: u64) -> Deadline {
    Deadline::after(Nanos::from_millis(millis))
}

/// Lets so many milliseconds pass.
fn pass(millis: u64) {
    time::sleep(after(millis));
}

fn main(start: &Start) -> u64 {
    let Some(lab) = Lab::new(*start) else { return 100 };
    if start.word("role") == Some("driver") {
        return lines::be_killed(&lab);
    }
    let only = start.word("only").unwrap_or("");
    let mut code = 0;
    for ((name, check), number) in CHECKS.iter().zip(1..).filter(|((name, _), _)| name.starts_with(only)) {
        if let Err(failure) = check(&lab) {
            say!("devices: {name}: {failure}");
            code = if code == 0 { number } else { code };
        }
    }
    code
}
