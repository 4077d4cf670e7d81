//! The quantum arbiter: a server that hands out qubits as leases. **The qubits are simulated**: there is no quantum hardware behind this, and what is
//! measured is drawn from a pseudo-random generator. What is real is the arbitration: each qubit has one owner at a time, for no longer than its
//! coherence lasts, and the kernel ends what is over.
//!
//! With `work=serve` it is the server, with `work=client` a client of the test; with `help=1` it says what it is. Without, it runs the test: a server,
//! more clients than qubits, owners that stay too long. The exit code is 0, or the number of the check that failed; the log says why.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod backend;
mod checks;
mod client;
mod protocol;
mod server;

use rt::say;
use rt::start::Start;

rt::entry!(main);

/// What it says of itself.
const HELP: &[&str] = &[
    "arbiter: hands out qubits as leases with a deadline, the coherence of each",
    "arbiter: the backend is SIMULATED: no quantum hardware is used, outcomes are pseudo-random",
    "arbiter: requests: allocate, at once or waiting; measure; release and remaining coherence go through the lease itself",
    "arbiter: arguments: work=serve|client, qubits=N, coherence=MILLISECONDS, seed=N, rounds=N, help=1",
];

fn main(start: &Start) -> u64 {
    if start.word("help").is_some() {
        HELP.iter().for_each(|line| say!("{line}"));
        return 0;
    }
    match start.word("work") {
        Some("serve") => server::main(start),
        Some("client") => client::main(start),
        Some(_) => 90,
        None => checks::main(start),
    }
}
