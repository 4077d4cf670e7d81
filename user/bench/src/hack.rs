//! Many threads that send each other messages, after the benchmark `hackbench` (R. Russell, in the Linux Test Project): groups of senders
//! and receivers, where every sender sends to every receiver of its group.

use abi::boot::Lane;
use abi::task::NEVER;
use alloc::sync::Arc;
use alloc::vec::Vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::clock::Clock;
use perf::runner::Trouble;
use rt::handle::Result;
use rt::sync::atomic::{AtomicU32, Ordering};
use rt::sync::{Futex, Kernel, Mutex, Semaphore};
use rt::thread::{Builder, JoinHandle};
use rt::time::Tsc;

use super::share::Counted;
use super::{Lab, Meter, failed};

/// Senders of a group, and as many receivers.
const SIDE: usize = 4;
/// Messages from a sender to each receiver in a window.
const MESSAGES: usize = 8;
/// Words of a message: about the 100 bytes of the original.
const WORDS: usize = 12;
/// Messages that a receiver's queue holds.
const SLOTS: usize = 8;
/// Pages of a thread's stack.
const STACK: usize = 4;

/// Messages through queues.
pub(super) const HACK: Bench<Lab> = Bench {
    id: "sched.hack",
    version: 1,
    doc: "a message of 96 bytes through a queue in shared memory, while in so many groups 4 senders send to each of 4 receivers: all time over all messages",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    // As `sched.fair`: the emulator that runs one core at a time would say nothing for minutes.
    lanes: Lanes::NONE.with(Lane::Hw).with(Lane::Kvm).with(Lane::Icount),
    classes: &[Class::Scaling],
    batch: 1,
    cases: |lab, visit| {
        for groups in [1, 4, 10] {
            let messages = groups * (SIDE * SIDE * MESSAGES) as u64;
            let case = Case::new(Placement::scaling(lab.cores() as u32)).with("groups", Value::Num(groups));
            visit(case.batch(messages as u32));
        }
    },
    run: |lab, case, meter| {
        let groups = case.params.num("groups").unwrap_or(1) as usize;
        let hack = Hack::start(groups).map_err(failed)?;
        let before = Counted::now(lab);
        let mut round = 0;
        while meter.more() {
            round += 1;
            hack.prepare();
            let from = Tsc.start();
            hack.run(round);
            let to = Tsc.stop();
            meter.window(from, to);
        }
        Counted::now(lab).report_since(&before, meter);
        hack.verdict(round, meter)
    },
};

type Message = [u64; WORDS];

#[derive(Default)]
struct Ring {
    slots: [Message; SLOTS],
    /// Messages that were ever put in, and taken out.
    put: usize,
    taken: usize,
}

/// A receiver's queue.
struct Queue {
    ring: Mutex<Ring, Kernel>,
    filled: Semaphore<Kernel>,
    free: Semaphore<Kernel>,
}

impl Queue {
    fn new() -> Self {
        let (filled, free) = (Semaphore::new(0), Semaphore::new(SLOTS as u16));
        Self { ring: Mutex::new(Ring::default()), filled, free }
    }

    fn put(&self, message: &Message) {
        self.free.acquire();
        {
            let mut ring = self.ring.lock();
            let place = ring.put % SLOTS;
            ring.slots[place] = *message;
            ring.put += 1;
        }
        self.filled.release();
    }

    fn take(&self) -> Message {
        self.filled.acquire();
        let message = {
            let mut ring = self.ring.lock();
            let place = ring.taken % SLOTS;
            ring.taken += 1;
            ring.slots[place]
        };
        self.free.release();
        message
    }
}

/// What all threads share.
struct Shared {
    /// The round that runs, or [`OVER`]; the word that the threads wait on.
    round: AtomicU32,
    /// Threads that have work left in it.
    left: AtomicU32,
    /// The last round that has ended; the word that the main thread waits on.
    done: AtomicU32,
    /// Messages that arrived as they were sent.
    intact: AtomicU32,
    queues: Vec<Queue>,
}

const OVER: u32 = u32::MAX;

impl Shared {
    /// Does `work` in every round.
    fn take_part(&self, work: impl Fn(&Self)) {
        let mut seen = 0;
        loop {
            // ORDER: Acquire pairs with Release in `Hack::run`.
            while self.round.load(Ordering::Acquire) == seen {
                let _ = Kernel.wait(&self.round, seen, NEVER);
            }
            // ORDER: Relaxed; read above.
            seen = self.round.load(Ordering::Relaxed);
            if seen == OVER {
                return;
            }
            work(self);
            // ORDER: AcqRel pairs with itself: the last one has seen the others' work.
            if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                // ORDER: Release pairs with Acquire in `Hack::run`.
                self.done.store(seen, Ordering::Release);
                Kernel.wake(&self.done, 1);
            }
        }
    }

    fn group(&self, group: usize) -> impl Iterator<Item = &Queue> {
        self.queues.iter().skip(group * SIDE).take(SIDE)
    }

    fn send(&self, group: usize) {
        for number in 0..MESSAGES as u64 {
            self.group(group).for_each(|queue| queue.put(&[number; WORDS]));
        }
    }

    fn receive(&self, number: usize) {
        let Some(queue) = self.queues.get(number) else { return };
        let whole =
            |message: &Message| message.iter().all(|&word| word == message[0] && word < MESSAGES as u64);
        let intact = (0..SIDE * MESSAGES).filter(|_| whole(&queue.take())).count();
        // ORDER: Relaxed; published by `left`.
        self.intact.fetch_add(intact as u32, Ordering::Relaxed);
    }
}

/// All groups. The threads end when this goes.
struct Hack {
    shared: Arc<Shared>,
    /// Joined when they go.
    threads: Vec<JoinHandle<()>>,
}

impl Hack {
    fn start(groups: usize) -> Result<Self> {
        let queues = core::iter::repeat_with(Queue::new).take(groups * SIDE).collect();
        let (round, left) = (AtomicU32::new(0), AtomicU32::new(0));
        let (done, intact) = (AtomicU32::new(0), AtomicU32::new(0));
        let shared = Arc::new(Shared { round, left, done, intact, queues });
        let mut hack = Self { shared, threads: Vec::new() };
        let builder = Builder::default().stack(STACK);
        for number in 0..groups * SIDE {
            let shared = Arc::clone(&hack.shared);
            let send = move || shared.take_part(|all| all.send(number / SIDE));
            hack.threads.push(builder.spawn(send)?);
            let shared = Arc::clone(&hack.shared);
            let receive = move || shared.take_part(|all| all.receive(number));
            hack.threads.push(builder.spawn(receive)?);
        }
        Ok(hack)
    }

    fn prepare(&self) {
        // ORDER: Relaxed; published by the next round.
        self.shared.left.store(self.threads.len() as u32, Ordering::Relaxed);
    }

    fn run(&self, round: u32) {
        // ORDER: Release pairs with Acquire in `take_part`.
        self.shared.round.store(round, Ordering::Release);
        Kernel.wake(&self.shared.round, u32::MAX);
        // ORDER: Acquire pairs with Release in `take_part`.
        while self.shared.done.load(Ordering::Acquire) != round {
            let _ = Kernel.wait(&self.shared.done, round - 1, NEVER);
        }
    }

    /// Whether every message has arrived.
    fn verdict(&self, rounds: u32, meter: &Meter<'_>) -> core::result::Result<(), Trouble> {
        // ORDER: Relaxed; the end of the last round published it.
        let intact = self.shared.intact.load(Ordering::Relaxed);
        let sent = rounds.wrapping_mul(meter.batch());
        if intact == sent { Ok(()) } else { Err(Trouble::Failed("messages were lost or damaged")) }
    }
}

impl Drop for Hack {
    fn drop(&mut self) {
        // ORDER: Relaxed; only asks to end. Dropping the handles waits.
        self.shared.round.store(OVER, Ordering::Relaxed);
        Kernel.wake(&self.shared.round, u32::MAX);
    }
}
