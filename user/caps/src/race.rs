//! Threads of several processes on the same families.
//!
//! The leading process has some roots, each with a thread that grants capabilities of its round to the processes and then revokes them,
//! again and again. When it has, it says in shared memory that the round is over. The workers, threads of the other processes, use what
//! they find on their process's board, derive of it, grant it and transfer it to each other, and delete it. A capability's badge
//! says of which root and round it is, and `cap_info` is what they use it for; it tells that to a place in shared memory.
//!
//! What must not be seen: a use that succeeds and began after the capability's round was over; and anything of such a round told to a
//! place that the leader has wiped since.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::task::Grant;
use alloc::format;
use alloc::vec::Vec;
use perf::prng::Prng;
use rt::handle::{Core, Owned, Process, Region, Typed};
use rt::memory;
use rt::process::{Builder, Image};
use rt::say;
use rt::start::Start;
use rt::sync::atomic::{AtomicU32, Ordering};
use rt::thread;
use rt::time::Deadline;

use crate::{Check, done, ensure};

/// Processes that work, roots, places on a process's board, threads of all processes at most.
const PROCESSES: usize = 3;
const ROOTS: usize = 2;
const PLACES: usize = 6;
const WORKERS: usize = 64;
/// Capabilities of a round, at most.
const GRANTS: u64 = 8;

/// Turns of a loop that a leader waits, at most; steps between two yields of a worker.
const WAIT: u64 = 4_000;
const TURNS: u64 = 64;

/// Words of the shared page.
const ENDED: usize = 0;
const BROKEN: usize = 1;
const OVER: usize = 16;
const PEERS: usize = 32;
const BOARDS: usize = 64;
const TOLD: usize = 512;

const _: () = assert!(BOARDS + PROCESSES * PLACES * 2 <= TOLD && TOLD + WORKERS * 4 <= 1024);

#[derive(Clone, Copy)]
struct Page(&'static [AtomicU32; 1024]);

impl Page {
    fn get(self, at: usize) -> u32 {
        // ORDER: SeqCst: who finds a round over has what came before it.
        self.0[at].load(Ordering::SeqCst)
    }

    fn set(self, at: usize, value: u32) {
        // ORDER: SeqCst, as in `get`.
        self.0[at].store(value, Ordering::SeqCst);
    }

    /// Counts.
    fn add(self, at: usize) {
        // ORDER: SeqCst, as in `get`.
        self.0[at].fetch_add(1, Ordering::SeqCst);
    }

    /// A handle, which may be one half of each of two: a capability says itself what it is.
    fn handle(self, at: usize) -> Handle {
        Handle::new(self.get(at), self.get(at + 1))
    }

    fn set_handle(self, at: usize, handle: Handle) {
        self.set(at, handle.index());
        self.set(at + 1, handle.generation());
    }

    fn place(process: usize, place: u64) -> usize {
        BOARDS + (process * PLACES + place as usize) * 2
    }

    /// Where a worker has told what it has found.
    fn told(self, worker: usize) -> &'static [AtomicU32; 4] {
        let at = TOLD + worker * 4;
        self.0[at..at + 4].as_array().expect("as long as it says")
    }

    /// How many rounds of each root are over.
    fn over(self) -> [u32; ROOTS] {
        core::array::from_fn(|root| self.get(OVER + root))
    }
}

/// Root and round, twice, so that halves of two badges are none.
fn badge(root: usize, round: u32) -> u64 {
    let low = (root as u32) << 28 | round;
    u64::from(!low) << 32 | u64::from(low)
}

fn of_badge(badge: u64) -> Option<(usize, u32)> {
    let low = badge as u32;
    let root = (low >> 28) as usize;
    ((badge >> 32) as u32 == !low && root < ROOTS).then_some((root, low & 0x0fff_ffff))
}

/// The leader's part.
pub(crate) fn lead(start: &Start) -> Check {
    let threads = start.number("threads", 1).clamp(1, (WORKERS / PROCESSES) as u64);
    let (count, seed) = (start.number("count", 1000), start.number("seed", 1));
    let region = done!(Region::create(1));
    let page = Page(done!(memory::words(*region)));
    let program = start.program("caps").ok_or(1_u64)?;
    let mut processes = Vec::new();
    for number in 0..PROCESSES {
        let words = format!("kind=worker\0number={number}\0threads={threads}\0count={count}\0seed={seed}\0");
        let grants = [Grant::whole(region.handle())];
        let builder = Builder::new(Image::Loaded(program)).name("worker").arguments(&words).grants(&grants);
        processes.push(done!(builder.create(start.process())));
    }
    // Each knows the others, by the same handles: those that come first after what it was given.
    for (number, process) in processes.iter().enumerate() {
        for (other, peer) in processes.iter().enumerate() {
            let handle = done!(process.grant(**peer, Rights::ALL, 0));
            let at = PEERS + other * 2;
            ensure!(number == 0 || page.handle(at) == handle);
            page.set_handle(at, handle);
        }
    }
    let core = start.cores().next().ok_or(2_u64)?;
    let peers: Vec<Process> = processes.iter().map(|process| **process).collect();
    let workers = PROCESSES as u32 * threads as u32;
    let mut leaders = Vec::new();
    for root in 0..ROOTS {
        let (own, peers) = (done!(core.derive(Rights::ALL, 0)), peers.clone());
        let random = Prng::stream(seed, 1000 + root as u32);
        let leader = Leader { page, root, own, peers, random, workers };
        leaders.push(done!(thread::spawn(move || leader.run())));
    }
    for process in &processes {
        done!(process.start());
    }
    for process in &processes {
        let status = done!(process.wait(Deadline::NEVER));
        ensure!(status.code == 0);
    }
    for leader in leaders {
        done!(leader.join())?;
    }
    ensure!(page.get(BROKEN) == 0);
    Ok(())
}

struct Leader {
    page: Page,
    root: usize,
    own: Owned<Core>,
    peers: Vec<Process>,
    random: Prng,
    workers: u32,
}

/// Lets the others do something. A leader that has no core for itself gives it away instead.
fn wait(turns: u64) {
    if Start::get().raw().cores == 1 {
        return thread::yield_now();
    }
    (0..turns).for_each(|_| core::hint::spin_loop());
}

impl Leader {
    fn run(mut self) -> Check {
        let (mut round, mut revoked) = (0, 0);
        while self.page.get(ENDED) < self.workers {
            self.hand_out(round)?;
            wait(self.random.below(WAIT));
            revoked += done!(self.own.revoke());
            round += 1;
            self.page.set(OVER + self.root, round);
            self.wipe();
            wait(self.random.below(WAIT));
            ensure!(self.is_wiped(round));
        }
        say!("caps: {round} rounds of root {}, {revoked} capabilities revoked", self.root);
        Ok(())
    }

    fn hand_out(&mut self, round: u32) -> Check {
        for _ in 0..=self.random.below(GRANTS) {
            let to = self.random.below(PROCESSES as u64) as usize;
            match self.peers[to].grant(*self.own, Rights::ALL, badge(self.root, round)) {
                Ok(handle) => {
                    self.page.set_handle(Page::place(to, self.random.below(PLACES as u64)), handle);
                }
                // Some workers have ended.
                Err(Error::WrongState) => {}
                Err(error) => done!(Err(error)),
            }
        }
        Ok(())
    }

    /// Overwrites whatever was told.
    fn wipe(&self) {
        for worker in 0..self.workers as usize {
            (2..4).for_each(|word| self.page.set(TOLD + worker * 4 + word, 0));
        }
    }

    /// Nothing of a round that is over was told since.
    fn is_wiped(&self, over: u32) -> bool {
        (0..self.workers as usize).all(|worker| {
            let at = TOLD + worker * 4;
            let told = u64::from(self.page.get(at + 3)) << 32 | u64::from(self.page.get(at + 2));
            of_badge(told).is_none_or(|(root, round)| root != self.root || round >= over)
        })
    }
}

/// A worker's part.
pub(crate) fn work(start: &Start) -> Check {
    let (number, threads) = (start.number("number", 0) as usize, start.number("threads", 1) as usize);
    let (count, seed) = (start.number("count", 1), start.number("seed", 1));
    let region = start.regions().next().ok_or(3_u64)?;
    let page = Page(done!(memory::words(region)));
    let mut workers = Vec::new();
    for one in 0..threads {
        let place = number * threads + one;
        let mut worker =
            Worker { page, number, place, random: Prng::stream(seed, place as u32), uses: 0, vain: 0 };
        workers.push(done!(thread::spawn(move || worker.run(count))));
    }
    for worker in workers {
        done!(worker.join())?;
    }
    Ok(())
}

struct Worker {
    page: Page,
    /// Of its process.
    number: usize,
    /// Of all.
    place: usize,
    random: Prng,
    uses: u64,
    vain: u64,
}

impl Worker {
    fn run(&mut self, count: u64) -> Check {
        let result = (0..count).try_for_each(|_| self.step());
        say!("caps: worker {}: {} uses, {} in vain", self.place, self.uses, self.vain);
        if result.is_err() {
            self.page.add(BROKEN);
        }
        self.page.add(ENDED);
        result
    }

    fn known(&mut self) -> Core {
        Core(self.page.handle(Page::place(self.number, self.random.below(PLACES as u64))))
    }

    fn show(&mut self, process: usize, handle: Handle) {
        self.page.set_handle(Page::place(process, self.random.below(PLACES as u64)), handle);
    }

    /// Another process, or its own.
    fn peer(&mut self) -> (usize, Process) {
        let number = self.random.below(PROCESSES as u64) as usize;
        (number, Process(self.page.handle(PEERS + number * 2)))
    }

    fn step(&mut self) -> Check {
        let known = self.known();
        if self.random.below(TURNS) == 0 {
            thread::yield_now();
        }
        let kind = self.random.below(16);
        if kind < 7 {
            return self.use_it(known);
        }
        // Only what is a leader's.
        let Ok(about) = known.about() else { return Ok(()) };
        if of_badge(about.badge).is_none() {
            return Ok(());
        }
        let (number, peer) = self.peer();
        let result = match kind {
            7..10 => known.derive(Rights::ALL, about.badge).map(|new| (self.number, new.keep().handle())),
            10..12 => peer.grant(known, Rights::ALL, about.badge).map(|handle| (number, handle)),
            12..15 => peer.transfer(known).map(|handle| (number, handle)),
            _ => {
                drop(Owned::new(known));
                return Ok(());
            }
        };
        match result {
            Ok((process, handle)) => self.show(process, handle),
            // Gone meanwhile; full; ended.
            Err(Error::BadHandle | Error::NoSlot | Error::WrongState) => {}
            Err(error) => done!(Err(error)),
        }
        Ok(())
    }

    fn use_it(&mut self, known: Core) -> Check {
        let over = self.page.over();
        let told = self.page.told(self.place);
        self.uses += 1;
        let found = known.about_in(told);
        self.vain += u64::from(found.is_err());
        if found.is_ok() {
            // ORDER: Relaxed, both: this thread's call has written them; if somebody has wiped them meanwhile, they say nothing.
            let (low, high) = (told[2].load(Ordering::Relaxed), told[3].load(Ordering::Relaxed));
            if let Some((root, round)) = of_badge(u64::from(high) << 32 | u64::from(low)) {
                ensure!(round >= over[root]);
            }
        }
        Ok(())
    }
}
