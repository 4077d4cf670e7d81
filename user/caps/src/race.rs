//! Threads of several processes on the same families, each on a core of its own where there are enough.
//!
//! The leading process has some roots. Its leaders grant capabilities of a root's next round to the processes and revoke those of its
//! last one, one root after another; when they have, they say in shared memory that the round is over. The workers, threads of the other
//! processes (`worker`), use what they find on their process's board, derive of it, grant it and transfer it to each other, and delete it.
//! A capability's badge says of which root and round it is, and `cap_info` is what they use it for; it tells that to a place in
//! shared memory.
//!
//! What must not be seen: a use that succeeds and began after the capability's round was over; and anything of such a round told to a
//! place that the leader has wiped since.
//!
//! Rounds are short, so that revocations meet as many operations as they can; while one root is revoked, there are capabilities of the
//! others. Nobody computes for long without a hint that it waits, at which an emulator with one thread goes on to the next core.

mod worker;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::task::{CoreMask, Grant};
use alloc::format;
use alloc::vec::Vec;
use perf::prng::Prng;
use rt::handle::{Core, Owned, Process, Region, Result, Typed};
use rt::memory;
use rt::process::{Builder, Image};
use rt::say;
use rt::start::Start;
use rt::sync::atomic::{AtomicU32, Ordering};
use rt::thread::{self, JoinHandle};
use rt::time::Deadline;

use crate::{Check, done, ensure};

pub(crate) use worker::work;

/// Processes that work, places on a process's board, workers of all at most.
const PROCESSES: usize = 3;
const PLACES: usize = 6;
const WORKERS: usize = 64;
/// Roots of a leader, of all leaders at most, and capabilities of a round.
const OWN_ROOTS: usize = 3;
const ROOTS: usize = 15;
const GRANTS: u64 = 4;
/// Turns of a loop that a leader waits, at most.
const WAIT: u64 = 256;
/// Rounds of a leader at least.
const ROUNDS: u32 = 20;

/// Words of the shared page: something has gone wrong; the leaders have had enough; rounds of each root that are over; by which handles the
/// processes know each other; their boards; what each worker has done ([`Tally`]); where each worker is told what it has found.
const BROKEN: usize = 0;
const ENOUGH: usize = 1;
const OVER: usize = 16;
const PEERS: usize = 32;
const BOARDS: usize = 64;
const DONE: usize = 128;
const TOLD: usize = 512;

const _: () = assert!(
    OVER + ROOTS <= PEERS
        && PEERS + PROCESSES * PROCESSES * 2 <= BOARDS
        && BOARDS + PROCESSES * PLACES * 2 <= DONE
        && DONE + WORKERS * 4 <= TOLD
        && TOLD + WORKERS * 4 <= 1024
);

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

    /// A handle, which may be one half of each of two: a capability says itself what it is.
    fn handle(self, at: usize) -> Handle {
        Handle::new(self.get(at), self.get(at + 1))
    }

    fn set_handle(self, at: usize, handle: Handle) {
        self.set(at, handle.index());
        self.set(at + 1, handle.generation());
    }

    /// The handle by which one process knows another.
    const fn peer(process: usize, other: usize) -> usize {
        PEERS + (process * PROCESSES + other) * 2
    }

    fn place(process: usize, place: u64) -> usize {
        BOARDS + (process * PLACES + place as usize) * 2
    }

    /// Where a worker has told what it has found.
    fn told(self, worker: usize) -> &'static [AtomicU32; 4] {
        let at = TOLD + worker * 4;
        self.0[at..at + 4].as_array().expect("as long as it says")
    }

    fn tally(self, worker: usize) -> Tally {
        let word = |word| u64::from(self.get(DONE + worker * 4 + word));
        Tally { uses: word(0), vain: word(1), passes: word(2), late: word(3) }
    }

    fn set_tally(self, worker: usize, Tally { uses, vain, passes, late }: Tally) {
        let words = [uses, vain, passes, late];
        (0..).zip(words).for_each(|(word, count)| self.set(DONE + worker * 4 + word, count as u32));
    }

    /// How many rounds of each root are over.
    fn over(self) -> [u32; ROOTS] {
        core::array::from_fn(|root| self.get(OVER + root))
    }
}

/// Operations, and how many of the uses and of the others were refused because the capability had gone.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    uses: u64,
    vain: u64,
    passes: u64,
    late: u64,
}

impl Tally {
    fn count(self) -> u64 {
        self.uses + self.passes
    }

    fn with(self, other: Self) -> Self {
        Self {
            uses: self.uses + other.uses,
            vain: self.vain + other.vain,
            passes: self.passes + other.passes,
            late: self.late + other.late,
        }
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

/// Who runs where: leaders on the first cores, workers on the others.
#[derive(Clone, Copy)]
struct Plan {
    cores: usize,
    leaders: usize,
    workers: usize,
}

impl Plan {
    fn new(cores: usize) -> Self {
        let leaders = (cores / 4).clamp(1, ROOTS / OWN_ROOTS);
        Self { cores, leaders, workers: cores.saturating_sub(leaders).clamp(PROCESSES, WORKERS) }
    }

    fn of(start: &Start) -> Self {
        Self::new(start.raw().cores as usize)
    }

    /// The core of a worker.
    fn core(self, worker: usize) -> usize {
        let others = self.cores.saturating_sub(self.leaders);
        if others == 0 { 0 } else { self.leaders + worker % others }
    }

    /// Lets others go on, on this core and elsewhere.
    fn rest(self, turns: u64) {
        if self.cores <= PROCESSES {
            thread::yield_now();
        }
        (0..=turns).for_each(|_| core::hint::spin_loop());
    }
}

/// A thread that runs on one core.
fn spawn(core: usize, work: impl FnOnce() -> Check + Send + 'static) -> Result<JoinHandle<Check>> {
    thread::Builder::default().cores(CoreMask::one(core)).spawn(work)
}

/// The leading process's part.
pub(crate) fn lead(start: &Start) -> Check {
    let (count, seed) = (start.number("count", 1000), start.number("seed", 1));
    let plan = Plan::of(start);
    let region = done!(Region::create(1));
    let page = Page(done!(memory::words(*region)));
    let program = start.program("caps").ok_or(1_u64)?;
    let mut processes = Vec::new();
    for number in 0..PROCESSES {
        let words = format!("kind=worker\0number={number}\0seed={seed}\0");
        let grants = [Grant::whole(region.handle())];
        let builder = Builder::new(Image::Loaded(program)).name("worker").arguments(&words).grants(&grants);
        processes.push(done!(builder.create(start.process())));
    }
    // They wait for something to be on their boards; and must have begun to be given each other.
    for process in &processes {
        done!(process.start());
    }
    introduce(page, &processes).inspect_err(|_| page.set(BROKEN, 1))?;
    let core = start.cores().next().ok_or(2_u64)?;
    let peers: Vec<Process> = processes.iter().map(|process| **process).collect();
    let mut leaders = Vec::new();
    for leader in 0..plan.leaders {
        let roots = leader * OWN_ROOTS..(leader + 1) * OWN_ROOTS;
        let own = done!(roots.map(|root| Root::new(root, core)).collect::<Result<_>>());
        let random = Prng::stream(seed, (WORKERS + leader) as u32);
        let mut leader = Leader { page, plan, own, peers: peers.clone(), random, count, operations: 0 };
        leaders.push(done!(spawn(leader.core(), move || leader.run())));
    }
    for leader in leaders {
        done!(leader.join())?;
    }
    for process in &processes {
        let status = done!(process.wait(Deadline::NEVER));
        ensure!(status.code == 0);
    }
    let tally = (0..plan.workers).map(|worker| page.tally(worker)).fold(Tally::default(), Tally::with);
    let Tally { uses, vain, passes, late } = tally;
    say!("caps: {uses} uses, {vain} of them in vain, and {passes} others, {late} of them too late");
    ensure!(page.get(BROKEN) == 0 && uses > vain && passes > late);
    Ok(())
}

/// Makes the processes known to each other.
fn introduce(page: Page, processes: &[Owned<Process>]) -> Check {
    for (number, process) in processes.iter().enumerate() {
        for (other, peer) in processes.iter().enumerate() {
            page.set_handle(Page::peer(number, other), done!(process.grant(**peer, Rights::ALL, 0)));
        }
    }
    Ok(())
}

/// What a leader revokes.
struct Root {
    number: usize,
    own: Owned<Core>,
    round: u32,
}

impl Root {
    fn new(number: usize, core: Core) -> Result<Self> {
        Ok(Self { number, own: core.derive(Rights::ALL, 0)?, round: 0 })
    }
}

struct Leader {
    page: Page,
    plan: Plan,
    own: Vec<Root>,
    peers: Vec<Process>,
    random: Prng,
    /// Operations of all workers that are enough.
    count: u64,
    /// Its own.
    operations: u64,
}

impl Leader {
    fn core(&self) -> usize {
        self.own[0].number / OWN_ROOTS
    }

    fn run(&mut self) -> Check {
        let result = self.rounds();
        // One that has failed ends the race for all.
        self.page.set(if result.is_ok() { ENOUGH } else { BROKEN }, 1);
        result
    }

    fn rounds(&mut self) -> Check {
        let (mut rounds, mut revoked) = (0, 0);
        while rounds < ROUNDS || !self.is_enough() {
            if self.page.get(BROKEN) != 0 {
                break;
            }
            let one = self.random.below(self.own.len() as u64) as usize;
            revoked += self.round(one)?;
            rounds += 1;
        }
        let operations = self.operations;
        say!("caps: core {}: {rounds} rounds, {revoked} revoked, {operations} operations", self.core());
        Ok(())
    }

    fn is_enough(&self) -> bool {
        let workers = (0..self.plan.workers).map(|worker| self.page.tally(worker).count());
        self.page.get(ENOUGH) != 0 || workers.sum::<u64>() >= self.count
    }

    /// Ends the round of a root and begins the next.
    fn round(&mut self, one: usize) -> core::result::Result<u64, u64> {
        let revoked = done!(self.own[one].own.revoke());
        let root = &mut self.own[one];
        root.round += 1;
        let (number, round) = (root.number, root.round);
        self.page.set(OVER + number, round);
        self.wipe();
        self.plan.rest(self.random.below(WAIT));
        ensure!(self.is_wiped(number, round));
        self.hand_out(one)?;
        self.plan.rest(self.random.below(WAIT));
        Ok(revoked)
    }

    fn hand_out(&mut self, one: usize) -> Check {
        let root = &self.own[one];
        let badge = badge(root.number, root.round);
        let grants = 1 + self.random.below(GRANTS);
        self.operations += 1 + grants;
        for _ in 0..grants {
            let to = self.random.below(PROCESSES as u64) as usize;
            match self.peers[to].grant(*root.own, Rights::ALL, badge) {
                Ok(handle) => {
                    self.page.set_handle(Page::place(to, self.random.below(PLACES as u64)), handle);
                }
                // The other leader has had enough, or has failed.
                Err(Error::WrongState) => {}
                Err(error) => done!(Err(error)),
            }
        }
        Ok(())
    }

    /// Overwrites whatever was told.
    fn wipe(&self) {
        for worker in 0..self.plan.workers {
            (2..4).for_each(|word| self.page.set(TOLD + worker * 4 + word, 0));
        }
    }

    /// Nothing of a round that is over was told since.
    fn is_wiped(&self, number: usize, over: u32) -> bool {
        (0..self.plan.workers).all(|worker| {
            let at = TOLD + worker * 4;
            let told = u64::from(self.page.get(at + 3)) << 32 | u64::from(self.page.get(at + 2));
            of_badge(told).is_none_or(|(root, round)| root != number || round >= over)
        })
    }
}
