//! A client of the test: takes a qubit, measures, and gives it back or stays too long, which it must not get away with.

use abi::error::Error;
use abi::quota::LeaseInfo;
use alloc::format;
use alloc::string::String;
use rt::handle::{Endpoint, Lease, Owned};
use rt::ipc::Message;
use rt::say;
use rt::start::Start;
use rt::time::{self, Deadline};

use crate::protocol::{Reply, Request};

type Outcome<T = ()> = Result<T, String>;

macro_rules! ensure {
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err(format!($($why)*));
        }
    };
}

fn unexpected(error: Error) -> String {
    format!("unexpected {}", error.name())
}

/// What a client has while its turn lasts.
struct Turn {
    lease: Owned<Lease>,
    place: Owned<Endpoint>,
    until: Deadline,
}

pub(crate) fn main(start: &Start) -> u64 {
    let Some(&door) = start.handles().first() else { return 91 };
    let seed = start.number("seed", 1);
    for round in 0..start.number("rounds", 5) {
        if let Err(why) = turn(Endpoint(door), seed + round) {
            say!("arbiter: client {seed}, round {round}: {why}");
            return round + 1;
        }
    }
    0
}

/// Asks for a qubit, waiting for one.
fn allocate(door: Endpoint) -> Outcome<Turn> {
    let request: Message = Request::Allocate.with(1).accepting(2);
    let answer = door.call(request).map_err(unexpected)?;
    ensure!(Reply::Done.is(&answer), "no qubit: {answer:x?}");
    let mut caps = answer.caps();
    let (Some(lease), Some(place)) = (caps.next(), caps.next()) else {
        return Err(format!("no capabilities: {answer:x?}"));
    };
    let until = Deadline(answer.words[1]);
    Ok(Turn { lease: Owned::new(Lease(lease)), place: Owned::new(Endpoint(place)), until })
}

fn turn(door: Endpoint, number: u64) -> Outcome {
    let turn = allocate(door)?;
    // On a slow machine the coherence may be over by now: then the rest must say so.
    match turn.lease.info() {
        Ok(info) => during(&turn, info)?,
        Err(error) => ensure!(error == Error::BadHandle && turn.until.passed(), "the lease is {error:?}"),
    }
    if number.is_multiple_of(2) {
        match turn.lease.release() {
            Ok(()) => {}
            Err(error) => ensure!(error == Error::BadHandle && turn.until.passed(), "the release: {error:?}"),
        }
    } else {
        time::sleep(turn.until);
        ensure!(turn.until.passed(), "it slept too short");
    }
    over(&turn)
}

/// What holds while the turn lasts, if it does.
fn during(turn: &Turn, info: LeaseInfo) -> Outcome {
    ensure!(info.held == 1 && info.deadline == turn.until.0, "the lease says {info:?}");
    ensure!(info.quality >= 990_000, "the fidelity is {}", info.quality);
    let answer = turn.place.call(Request::Measure.with(0)).map_err(unexpected)?;
    let measured = Reply::Done.is(&answer) && answer.words[0] <= 1;
    let late = Reply::Decohered.is(&answer) && turn.until.passed();
    ensure!(measured || late, "the measurement: {answer:x?}");
    match turn.lease.info() {
        Ok(later) => ensure!(later.remaining <= info.remaining, "the coherence grows"),
        Err(error) => ensure!(error == Error::BadHandle && turn.until.passed(), "the lease is {error:?}"),
    }
    Ok(())
}

/// What holds after the turn: nothing can be done with what is left of it.
fn over(turn: &Turn) -> Outcome {
    let answer = turn.place.call(Request::Measure.with(0)).map_err(unexpected)?;
    ensure!(Reply::Decohered.is(&answer), "a measurement after the end: {answer:x?}");
    let (info, release) = (turn.lease.info(), turn.lease.release());
    ensure!(info == Err(Error::BadHandle), "the lease after its end: {info:?}");
    ensure!(release == Err(Error::BadHandle), "a release after the end: {release:?}");
    Ok(())
}
