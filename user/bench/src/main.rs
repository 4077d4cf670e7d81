//! Measures what the kernel offers, from user mode: the table and the runner are those of `perf`, as in the kernel's own bench mode.
//!
//! Given by who starts it: the words of the kernel command line as arguments, a region of one page that records go through (`perf::channel`),
//! `partner.CLASS=CORE` for cores near and far, a capability for each core, and `programs` in the environment (see `rt::start`). The exit
//! code is 0, or one of [`Failure`]. With `partner=` it is the other process of a case instead.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod calls;
mod caps;
mod chan;
mod crowd;
mod faults;
mod hack;
mod ipc;
mod irq;
mod leases;
mod life;
mod locks;
mod pager;
mod partner;
mod pass;
mod place;
mod share;
mod signals;
mod storm;
mod switch;
mod team;
mod timer;
mod wake;

use alloc::string::String;
use alloc::vec;

use abi::boot::{Lane, Params};
use perf::bench::{Bench, Context};
use perf::channel::Sender;
use perf::clock::Nanos;
use perf::record::{Record, Sink};
use perf::runner::{self, Settings, Trouble};
use rt::say;
use rt::start::Start;
use rt::sync::{Futex, Kernel};
use rt::time::{Deadline, Tsc};

rt::entry!(main);

/// Why nothing was measured.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// An argument is no word of the command line.
    Arguments = 1,
    /// There is no region, or it cannot be mapped.
    Channel = 2,
    /// A case's other process got no work that it knows, or cannot do it.
    Partner = 3,
    /// The main thread cannot be bound to its core, or not be given its priority.
    Schedule = 4,
}

/// What a row works with.
struct Lab {
    start: Start,
    lane: Lane,
}

impl Context for Lab {
    type Clock = Tsc;

    fn clock(&self) -> Tsc {
        Tsc
    }
}

/// What a row measures with.
type Meter<'a> = runner::Meter<'a, Tsc>;

/// All rows, in the order in which they run.
const TABLE: &[Bench<Lab>] = &[
    calls::NULL,
    calls::YIELD,
    caps::DERIVE,
    caps::DELETE,
    caps::GRANT,
    caps::TRANSFER,
    caps::REVOKE,
    caps::REVOKE_MANY,
    switch::SWITCH,
    switch::SCALE,
    life::THREAD_LIFE,
    life::THREAD_CREATE,
    life::THREAD_JOIN,
    life::THREAD_DESTROY,
    life::PROCESS_LIFE,
    life::PROCESS_CREATE,
    life::PROCESS_DESTROY,
    locks::MUTEX,
    locks::SEMAPHORE,
    locks::CONDITION,
    wake::LATENCY,
    wake::SEND,
    ipc::ROUND_TRIP,
    ipc::CALL,
    ipc::REPLY,
    ipc::SLOW,
    ipc::CROSS_CORE,
    ipc::PAIRS,
    ipc::FAN_IN,
    ipc::THROUGHPUT,
    chan::PASS,
    signals::SIGNAL,
    signals::WAIT,
    signals::BROADCAST,
    leases::ALLOCATE,
    leases::RELEASE,
    leases::EXPIRE,
    timer::JITTER,
    irq::USER,
    faults::FAULT,
    pager::PAGER,
    pass::TRANSFER,
    share::FAIR,
    share::STEAL,
    hack::HACK,
    // Nothing behind these: this process has limits from then on.
    calls::FILTERED,
    calls::RATED,
];

/// A call of the kernel's failed: the case has.
fn failed(error: abi::error::Error) -> Trouble {
    Trouble::Failed(error.words())
}

fn main(start: &Start) -> u64 {
    if let Some(work) = start.word("partner") {
        return partner::run(*start, work);
    }
    match run(*start) {
        Ok(()) => 0,
        Err(failure) => {
            say!("bench: {failure:?}");
            failure as u64
        }
    }
}

fn run(start: Start) -> Result<(), Failure> {
    let mut line = String::new();
    for word in start.arguments().filter(|word| !word.starts_with(place::PARTNER)) {
        line.push_str(word);
        line.push(' ');
    }
    let params = Params::parse(&line).map_err(|_| Failure::Arguments)?;
    let region = start.regions().next().ok_or(Failure::Channel)?;
    let channel = rt::memory::channel(region).map_err(|_| Failure::Channel)?;
    // The kernel may forget to wake us when it has made room: then we look again.
    let mut sender = Sender::new(channel, |word, seen| {
        let _ = Kernel.wait(word, seen, Deadline::after(Nanos::from_millis(2)).0);
    });
    let settings = Settings::new(&params, start.timebase());
    let mut lab = Lab { start, lane: params.lane };
    place::settle(start).map_err(|_| Failure::Schedule)?;
    let done = if params.samples == Some(0) {
        runner::list(TABLE, &lab, &settings, &mut sender)
    } else {
        let mut counts = vec![0; perf::hist::DEFAULT_COUNTS];
        runner::run(TABLE, &mut lab, &settings, &mut counts, &mut sender)
    };
    sender.send(&Record::Done(done));
    sender.close();
    Ok(())
}
