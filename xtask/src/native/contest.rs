//! Measures ours and a peer in turn, window by window, on one thread or several at once.
//!
//! Windows of the two alternate, so that whatever else the machine does hits both alike. Each thread is pinned, has its own
//! way into each arena, and waits for the others before each window.

use percpu::sync::atomic::{AtomicUsize, Ordering};
use percpu::sync::hint;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Windows of each contestant.
    pub windows: u32,
    /// Windows before those.
    pub warm_up: u32,
    /// When to stop early.
    pub budget: Duration,
    /// What an empty window costs.
    pub overhead: Duration,
}

/// Picoseconds per operation, one entry per window and thread.
pub type Samples = Vec<u64>;

/// A barrier that spins, then yields: threads leave it within some ten nanoseconds of each other if each has its core.
struct Gate {
    threads: usize,
    arrived: AtomicUsize,
    failed: AtomicUsize,
}

/// Spins before a waiting thread lets others run.
const SPINS: u32 = 20_000;

impl Gate {
    fn wait(&self, round: usize) {
        // ORDER: AcqRel: each arrival publishes the thread's work before it, and the last one's wait has seen all of them.
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0;
        // ORDER: Acquire pairs with Release of the arrivals.
        while self.arrived.load(Ordering::Acquire) < (round + 1) * self.threads {
            spins += 1;
            if spins < SPINS {
                hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// What a window gave.
#[derive(Clone, Copy, Debug)]
pub enum Window {
    /// A measurement.
    Sample(Duration),
    /// The first half of one.
    Part,
}

/// One contestant on one thread, waiting for its next window.
pub trait Player {
    /// Plays one window; nothing if memory ran out.
    fn window(&mut self) -> Option<Window>;
}

/// What goes on while a player sits.
pub type Then<'t> = Box<dyn for<'p> FnOnce(Box<dyn Player + 'p>) + 't>;

/// An allocator with its arena, and what is done with it; shared by the threads.
pub trait Contestant: Sync {
    /// Prepares this thread's player and calls `then` with it.
    fn sit(&self, thread: u16, then: Then<'_>);
}

/// What is measured.
pub struct Match {
    /// Ours first, if there are two.
    pub contestants: Vec<Box<dyn Contestant>>,
    /// Operations of one thread in one window.
    pub operations: usize,
    /// Threads at work at once.
    pub threads: u16,
}

impl Match {
    /// Time per operation.
    fn picoseconds(&self, length: Duration) -> u64 {
        let operations = self.operations.max(1) as u128;
        u64::try_from(length.as_nanos() * 1_000 / operations).unwrap_or(u64::MAX)
    }
}

struct Common<'a> {
    game: &'a Match,
    gate: Gate,
    amount: Amount,
    results: Mutex<Vec<Samples>>,
    stop: AtomicUsize,
}

/// Takes this thread's seats one after the other, then plays.
fn seat(common: &Common<'_>, thread: u16, mut players: Vec<Box<dyn Player + '_>>) {
    match common.game.contestants.get(players.len()) {
        Some(contestant) => contestant.sit(
            thread,
            Box::new(move |player| {
                let mut all: Vec<Box<dyn Player + '_>> = players;
                all.push(player);
                seat(common, thread, all);
            }),
        ),
        None => play(common, thread, &mut players),
    }
}

fn play(common: &Common<'_>, thread: u16, players: &mut [Box<dyn Player + '_>]) {
    let mut samples = vec![Samples::new(); players.len()];
    let began = Instant::now();
    let mut round = 0;
    for window in 0..common.amount.warm_up + common.amount.windows {
        for (player, samples) in players.iter_mut().zip(&mut samples) {
            common.gate.wait(round);
            round += 1;
            match player.window() {
                Some(Window::Sample(length)) if window >= common.amount.warm_up => {
                    samples.push(common.game.picoseconds(length.saturating_sub(common.amount.overhead)));
                }
                Some(_) => {}
                // ORDER: Relaxed: read after the threads have been joined.
                None => common.gate.failed.store(1, Ordering::Relaxed),
            }
        }
        if thread == 0 && began.elapsed() > common.amount.budget {
            // ORDER: Relaxed: the gate below orders it before the others' read.
            common.stop.store(1, Ordering::Relaxed);
        }
        common.gate.wait(round);
        round += 1;
        // ORDER: Relaxed: ordered by the gate.
        if common.stop.load(Ordering::Relaxed) != 0 {
            break;
        }
    }
    let mut results = common.results.lock().expect("N: no thread panics while it holds the results");
    for (all, own) in results.iter_mut().zip(samples) {
        all.extend(own);
    }
}

/// Measures the contestants; `None` if memory ran out, which would make the figures mean something else.
#[must_use]
pub fn run(game: &Match, amount: Amount, cpus: &[usize]) -> Option<Vec<Samples>> {
    let gate = Gate {
        threads: usize::from(game.threads),
        arrived: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
    };
    let results = Mutex::new(vec![Samples::new(); game.contestants.len()]);
    let common = Common { game, gate, amount, results, stop: AtomicUsize::new(0) };
    std::thread::scope(|scope| {
        for thread in 0..game.threads {
            let common = &common;
            let cpu = cpus.get(usize::from(thread)).copied();
            scope.spawn(move || {
                cpu.map(super::pin);
                seat(common, thread, Vec::new());
            });
        }
    });
    // ORDER: Relaxed: the threads have been joined.
    let failed = common.gate.failed.load(Ordering::Relaxed) != 0;
    let results = common.results.into_inner().ok()?;
    (!failed).then_some(results)
}
