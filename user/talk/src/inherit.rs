//! Priority inheritance: a server works at the priority of whoever waits for it, and at its own afterwards.

use alloc::string::String;
use alloc::sync::Arc;

use abi::error::Error;
use abi::task::{CoreMask, SchedSpec, ThreadSpec, ThreadState};
use perf::clock::Nanos;
use rt::handle::{Endpoint, Thread};
use rt::ipc::{self, Message};
use rt::start::Start;
use rt::sync::atomic::{AtomicBool, Ordering};
use rt::thread::{Builder, JoinHandle};
use rt::time::{self, Deadline};

use crate::{Outcome, Test, ensure, unexpected};

pub(crate) const TESTS: &[Test] = &[
    ("inherit-waiting", |start| above_all(start, waiting)),
    ("inherit-inversion", |start| above_all(start, inversion)),
    ("inherit-other-core", |start| above_all(start, other_core)),
    ("inherit-nested", |start| above_all(start, nested)),
];

/// Priorities: who looks on, who calls, and who gets in the way.
const ABOVE: u64 = 250;
const CLIENT: u64 = 200;
const HOG: u64 = 100;

/// How long a server works on a message.
const WORK: Nanos = Nanos::from_millis(5);
/// How long a hog gets in the way if nobody stops it.
const HOGGING: Nanos = Nanos::from_millis(3000);

const fn urgent(priority: u64) -> SchedSpec {
    SchedSpec { class: SchedSpec::REAL_TIME, priority, budget: 0, period: 0, deadline: 0 }
}

/// Runs a test from the first core, above everything that it does.
fn above_all(start: &Start, test: fn(&Start) -> Outcome) -> Outcome {
    let own = start.thread();
    own.bind(&CoreMask::one(0)).and_then(|()| own.schedule(&urgent(ABOVE))).map_err(unexpected)?;
    let outcome = test(start);
    own.schedule(&SchedSpec::default()).and_then(|()| own.bind(&CoreMask::ALL)).map_err(unexpected)?;
    outcome
}

fn on(core: usize) -> Builder {
    Builder::default().cores(CoreMask::one(core)).flags(ThreadSpec::NO_FPU)
}

fn pause() {
    time::sleep(Deadline::after(Nanos::from_millis(2)));
}

fn work() {
    let until = Deadline::after(WORK);
    while !until.passed() {}
}

/// Works on `count` messages, answering calls; the first one is sent, so that it is nobody's time but the server's.
fn server(at: Endpoint, count: u64) -> Result<(), Error> {
    let mut message = at.receive(0)?;
    for number in 1..=count {
        work();
        let answered = ipc::reply(&message);
        if number > 1 {
            answered?;
        }
        if number < count {
            message = at.receive(0)?;
        }
    }
    Ok(())
}

type Handle<T> = JoinHandle<Result<T, Error>>;

/// A server that is at work on its first message, or will be as soon as it has the core.
fn busy(core: usize, at: Endpoint, count: u64) -> Result<Handle<()>, String> {
    let server = on(core).spawn(move || server(at, count)).map_err(unexpected)?;
    pause();
    at.send(&Message::EMPTY).map_err(unexpected)?;
    Ok(server)
}

/// A thread in the way until it is told to stop; whether it was.
fn hog(core: usize, stop: &Arc<AtomicBool>) -> Result<JoinHandle<bool>, String> {
    let stop = stop.clone();
    let spin = move || {
        let until = Deadline::after(HOGGING);
        // ORDER: Relaxed: the flag alone matters.
        while !stop.load(Ordering::Relaxed) {
            if until.passed() {
                return false;
            }
        }
        true
    };
    on(core).schedule(urgent(HOG)).spawn(spin).map_err(unexpected)
}

/// A client that stops the hog once it has its answer.
fn client(at: Endpoint, stop: &Arc<AtomicBool>) -> Result<Handle<()>, String> {
    let stop = stop.clone();
    let call = move || {
        let answer = at.call(Message::EMPTY);
        // ORDER: Relaxed: as above.
        stop.store(true, Ordering::Relaxed);
        answer.map(drop)
    };
    on(0).schedule(urgent(CLIENT)).spawn(call).map_err(unexpected)
}

fn join(handle: Handle<()>) -> Outcome {
    handle.join().map_err(unexpected)?.map_err(unexpected)
}

/// Looks until a thread has a priority.
fn await_priority(thread: Thread, fits: impl Fn(u64) -> bool) -> Outcome {
    let until = Deadline::after(HOGGING);
    loop {
        let seen = thread.info().map_err(unexpected)?.priority.into();
        if fits(seen) {
            return Ok(());
        }
        ensure!(!until.passed(), "it stays at {seen}");
        pause();
    }
}

/// Looks until a thread waits.
fn await_blocked(thread: Thread) -> Outcome {
    let until = Deadline::after(HOGGING);
    while thread.info().map_err(unexpected)?.state != ThreadState::Blocked as u32 {
        ensure!(!until.passed(), "it does not come to wait");
        pause();
    }
    Ok(())
}

/// Who waits in the queue presses the server, and who gives up does so no more.
///
/// Planted: a thread that is scheduled in another way is not asked what it inherits.
fn waiting(_: &Start) -> Outcome {
    let endpoint = Endpoint::create().map_err(unexpected)?;
    let (at, go) = (*endpoint, Arc::new(AtomicBool::new(false)));
    let told = go.clone();
    let slow = move || -> Result<(), Error> {
        at.receive(0)?;
        // ORDER: Relaxed: the flag alone matters.
        while !told.load(Ordering::Relaxed) {
            pause();
        }
        let call = at.receive(0)?;
        ipc::reply(&call)?;
        at.receive(0).map(drop)
    };
    let server = on(0).spawn(slow).map_err(unexpected)?;
    pause();
    at.send(&Message::EMPTY).map_err(unexpected)?;
    await_priority(server.thread(), |seen| seen <= 5)?;
    let call = move |priority, patience| {
        let call = move || at.call_until(Message::EMPTY, patience).map(drop);
        on(0).schedule(urgent(priority)).spawn(call).map_err(unexpected)
    };
    // As urgent as all of them by itself for a while, and then not any more.
    server.thread().schedule(&urgent(CLIENT)).map_err(unexpected)?;
    let soon = Deadline::after(Nanos::from_millis(500));
    let (first, second) = (call(CLIENT, soon)?, call(CLIENT - 1, soon)?);
    let patient = call(CLIENT - 2, Deadline::NEVER)?;
    pause();
    server.thread().schedule(&SchedSpec::default()).map_err(unexpected)?;
    await_priority(server.thread(), |seen| seen == CLIENT)?;
    await_priority(server.thread(), |seen| seen == CLIENT - 2)?;
    for gone in [first, second] {
        let outcome = gone.join().map_err(unexpected)?;
        ensure!(outcome == Err(Error::TimedOut), "{outcome:?}");
    }
    // ORDER: Relaxed: as above.
    go.store(true, Ordering::Relaxed);
    join(patient)?;
    await_priority(server.thread(), |seen| seen <= 5)?;
    at.send(&Message::EMPTY).map_err(unexpected)?;
    join(server)
}

/// A server below the hog, a client above it: the client waits for the server's work, and not for the hog.
fn inversion(_: &Start) -> Outcome {
    in_the_way(0, 0)
}

/// The server, and the hog, are on another core than the client; it is idle when the client calls, or busy.
fn other_core(start: &Start) -> Outcome {
    if start.raw().cores < 2 {
        return Ok(());
    }
    in_the_way(1, 1)?;
    let endpoint = Endpoint::create().map_err(unexpected)?;
    let (at, stop) = (*endpoint, Arc::new(AtomicBool::new(false)));
    let server = on(1)
        .spawn(move || -> Result<(), Error> {
            let message = at.receive(0)?;
            work();
            ipc::reply(&message)
        })
        .map_err(unexpected)?;
    // Nobody is known to serve an endpoint who has not come there yet, and behind the hog it would not.
    await_blocked(server.thread())?;
    let hog = hog(1, &stop)?;
    pause();
    join(client(at, &stop)?)?;
    let stopped = hog.join().map_err(unexpected)?;
    ensure!(stopped, "the client waited for the hog");
    join(server)
}

fn in_the_way(server_core: usize, hog_core: usize) -> Outcome {
    let endpoint = Endpoint::create().map_err(unexpected)?;
    let (at, stop) = (*endpoint, Arc::new(AtomicBool::new(false)));
    let server = busy(server_core, at, 2)?;
    let hog = hog(hog_core, &stop)?;
    let client = client(at, &stop)?;
    join(client)?;
    let stopped = hog.join().map_err(unexpected)?;
    ensure!(stopped, "the client waited for the hog");
    join(server)
}

/// The server that is waited for waits itself, for one on another core that a hog is in the way of.
fn nested(start: &Start) -> Outcome {
    let core = usize::from(start.raw().cores > 1);
    let (front, back) = (Endpoint::create().map_err(unexpected)?, Endpoint::create().map_err(unexpected)?);
    let (at, behind, stop) = (*front, *back, Arc::new(AtomicBool::new(false)));
    let last = busy(core, behind, 3)?;
    // Asks the last one for each message.
    let middle = on(0)
        .spawn(move || -> Result<(), Error> {
            let first = at.receive(0)?;
            behind.call(first)?;
            let second = at.receive(0)?;
            behind.call(second)?;
            ipc::reply(&second)
        })
        .map_err(unexpected)?;
    pause();
    at.send(&Message::EMPTY).map_err(unexpected)?;
    pause();
    let hog = hog(core, &stop)?;
    join(client(at, &stop)?)?;
    let stopped = hog.join().map_err(unexpected)?;
    ensure!(stopped, "the client waited for the hog");
    join(middle)?;
    join(last)
}
