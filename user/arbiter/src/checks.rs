//! The test: a server process, and more client processes than there are qubits.

use abi::cap::Rights;
use abi::error::Error;
use abi::task::{ExitStatus, Grant, ProcessSpec};
use alloc::format;
use alloc::vec::Vec;
use perf::clock::Nanos;
use rt::handle::{Endpoint, Owned, Process, Typed};
use rt::process::{Builder, Image};
use rt::say;
use rt::start::Start;
use rt::time::Deadline;

use crate::protocol::{CONTROL, Reply, Request};

const QUBITS: u64 = 2;
const CLIENTS: u64 = 5;
const ROUNDS: u64 = 4;

/// Which check failed.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// A call of the kernel's.
    Call = 1,
    /// A client.
    Client = 2,
    /// What the server counts.
    Figures = 3,
    /// The server's end.
    Server = 4,
    /// One who may not stop the server has.
    Stopped = 5,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        say!("arbiter: unexpected {}", error.name());
        Self::Call
    }
}

pub(crate) fn main(start: &Start) -> u64 {
    match run(start) {
        Ok(()) => 0,
        Err(failure) => {
            say!("arbiter: {failure:?}");
            failure as u64
        }
    }
}

fn spawn(start: &Start, words: &str, door: Grant) -> Result<Owned<Process>, Error> {
    let image = start.program("arbiter").ok_or(Error::BadArgument)?;
    let mut grants = Vec::from([door]);
    grants.extend(start.debug().map(|debug| Grant::whole(debug.handle())));
    let builder = Builder::new(Image::Loaded(image)).name("arbiter").arguments(words).grants(&grants);
    builder.flags(ProcessSpec::NO_FPU).spawn(start.process())
}

fn ended_well(process: &Process) -> Result<bool, Error> {
    let status = process.wait(Deadline::after(Nanos::from_millis(40_000)))?;
    Ok(status.reason == ExitStatus::EXITED && status.code == 0)
}

fn run(start: &Start) -> Result<(), Failure> {
    let door = Endpoint::create()?;
    let server =
        spawn(start, &format!("work=serve\0qubits={QUBITS}\0coherence=20\0"), Grant::whole(door.handle()))?;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let words = format!("work=client\0seed={number}\0rounds={ROUNDS}\0");
        let to = Grant { handle: door.handle(), rights: u64::from(Rights::SEND.0), badge: 0 };
        clients.push(spawn(start, &words, to)?);
    }
    for client in clients {
        if !ended_well(&client)? {
            return Err(Failure::Client);
        }
    }
    let report = door.call(Request::Report.with(0))?;
    let [given, expired, decohered, ..] = report.words;
    say!("arbiter: {given} leases, {expired} expired, {decohered} measurements too late");
    // Every other turn was overstayed.
    if given != CLIENTS * ROUNDS || expired < given / 2 || decohered < given {
        return Err(Failure::Figures);
    }
    if !Reply::Refused.is(&door.call(Request::Stop.with(0))?) {
        return Err(Failure::Stopped);
    }
    let control = door.derive(Rights::SEND, CONTROL)?;
    control.call(Request::Stop.with(0))?;
    if ended_well(&server)? { Ok(()) } else { Err(Failure::Server) }
}
