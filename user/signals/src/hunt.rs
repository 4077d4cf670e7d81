//! A hunt for wakes that are lost and bits that come twice: signallers and waiters on all cores, each signaller going on only when its bit has
//! been counted. A lost wake shows as a wait that does not end in good time, which is the only reason for its deadline.

use abi::error::Error;
use alloc::sync::Arc;
use alloc::vec::Vec;
use perf::clock::Nanos;
use rt::handle::{Endpoint, Notification, Owned};
use rt::ipc::Message;
use rt::start::Start;
use rt::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::thread::{self, JoinHandle};
use rt::time::Deadline;

use abi::ipc::Tag;

use crate::{Outcome, Test, ensure, eventually, notification, on, patience, unexpected};

pub(crate) const TESTS: &[Test] = &[
    ("hunt-wait", |start| hunt(start, Waiters::Wait)),
    ("hunt-give-up", |start| hunt(start, Waiters::GiveUp)),
    ("hunt-bound", |start| hunt(start, Waiters::Bound)),
    ("hunt-kill", killing),
];

/// How those wait that count bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiters {
    /// For as long as it takes.
    Wait,
    /// For some microseconds, again and again.
    GiveUp,
    /// One of them receives at an endpoint, the others wait.
    Bound,
}

/// Bit by which waiters are asked to end.
const END: u64 = 1 << 63;

struct Shared {
    own: Owned<Notification>,
    door: Owned<Endpoint>,
    /// Tells a signaller that its bit has been counted.
    heard: Vec<Owned<Notification>>,
    counts: Vec<AtomicU64>,
}

impl Shared {
    fn new(signallers: usize) -> Outcome<Arc<Self>> {
        let mut heard = Vec::new();
        for _ in 0..signallers {
            heard.push(notification()?);
        }
        let counts = core::iter::repeat_with(AtomicU64::default).take(signallers).collect();
        let door = Endpoint::create().map_err(unexpected)?;
        Ok(Arc::new(Self { own: notification()?, door, heard, counts }))
    }

    /// Counts bits, and lets their signallers go on; `false` when the end has come.
    fn count(&self, bits: u64) -> bool {
        for (number, (heard, count)) in self.heard.iter().zip(&self.counts).enumerate() {
            if bits & 1 << number != 0 {
                // ORDER: Relaxed: read after the threads have ended.
                count.fetch_add(1, Ordering::Relaxed);
                let _ = heard.signal(1);
            }
        }
        if bits & END != 0 {
            // For the next.
            let _ = self.own.signal(END);
        }
        bits & END == 0
    }

    fn next(&self, waiters: Waiters, bound: bool) -> Result<u64, Error> {
        let soon = Deadline::after(Nanos::new(2000));
        if bound {
            let told = self.door.receive_until(0, soon)?;
            return Ok(if told.tag.has(Tag::SIGNAL) { told.badge } else { 0 });
        }
        self.own.wait_until(if waiters == Waiters::GiveUp { soon } else { Deadline::NEVER })
    }

    fn wait(&self, waiters: Waiters, bound: bool) -> Result<(), Error> {
        loop {
            match self.next(waiters, bound) {
                Ok(bits) if !self.count(bits) => return Ok(()),
                Ok(_) | Err(Error::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Signals a bit so often, each time after it has been counted; every third time to all.
    fn signal(&self, number: usize, rounds: u64) -> Result<u64, Error> {
        for round in 0..rounds {
            self.own.signal(1 << number)?;
            self.heard[number].wait_until(patience()).map_err(|_| Error::TimedOut)?;
            if round % 8 == 0 {
                // A message that crosses, for one who receives.
                let _ = self.door.try_send(&Message::EMPTY);
            }
        }
        Ok(rounds)
    }
}

fn hunt(start: &Start, waiters: Waiters) -> Outcome {
    let cores = start.raw().cores as usize;
    let signallers = cores.clamp(2, 6);
    let rounds = start.number("rounds", 400);
    let shared = Shared::new(signallers)?;
    let mut waiting: Vec<JoinHandle<Result<(), Error>>> = Vec::new();
    for number in 0..cores.clamp(2, 4) {
        let theirs = Arc::clone(&shared);
        let bound = waiters == Waiters::Bound && number == 0;
        let waiter = on(start, number).spawn(move || theirs.wait(waiters, bound)).map_err(unexpected)?;
        if bound {
            shared.own.bind(waiter.thread()).map_err(unexpected)?;
        }
        waiting.push(waiter);
    }
    let mut signalling = Vec::new();
    for number in 0..signallers {
        let theirs = Arc::clone(&shared);
        let work = move || theirs.signal(number, rounds);
        signalling.push(on(start, number + 1).spawn(work).map_err(unexpected)?);
    }
    for (number, signaller) in signalling.into_iter().enumerate() {
        let done = signaller.join().map_err(unexpected)?;
        ensure!(done == Ok(rounds), "signaller {number} has not been heard: {done:?}");
    }
    shared.own.signal(END).map_err(unexpected)?;
    for waiter in waiting {
        waiter.join().map_err(unexpected)?.map_err(unexpected)?;
    }
    for (number, count) in shared.counts.iter().enumerate() {
        // ORDER: Relaxed: the threads have ended.
        let count = count.load(Ordering::Relaxed);
        ensure!(count == rounds, "bit {number} was told {count} times of {rounds}");
    }
    Ok(())
}

/// Waiters are killed while they are signalled: nobody hangs, and the next is told. Not before they have begun: until then they use the heap, and
/// one that is killed there leaves it locked.
fn killing(start: &Start) -> Outcome {
    let own = notification()?;
    for round in 0..start.number("rounds", 400) / 4 {
        let waits = *own;
        let begun = Arc::new(AtomicBool::new(false));
        // The last to go is this thread's, so that the victim's end does not touch the heap.
        let begins = Arc::clone(&begun);
        let wait = move || {
            // ORDER: Relaxed: the flag alone matters.
            begins.store(true, Ordering::Relaxed);
            (0..round % 4).for_each(|_| thread::yield_now());
            waits.wait()
        };
        let victim = on(start, round as usize).spawn(wait).map_err(unexpected)?;
        // ORDER: Relaxed: as above.
        ensure!(eventually(|| begun.load(Ordering::Relaxed)), "round {round}: it does not begin");
        let signaller = on(start, round as usize + 1).spawn(move || waits.signal(1)).map_err(unexpected)?;
        victim.thread().kill(1).map_err(unexpected)?;
        signaller.join().map_err(unexpected)?.map_err(unexpected)?;
        victim.thread().join(patience()).map_err(unexpected)?;
        own.poll().map_err(unexpected)?;
        own.signal(2).map_err(unexpected)?;
        ensure!(own.wait_until(patience()).is_ok_and(|bits| bits & 2 != 0), "round {round}: nothing is told");
    }
    Ok(())
}
