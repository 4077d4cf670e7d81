//! Measures ours and a peer in turn, window by window, on one thread or several at once.
//!
//! Windows of the two alternate, so that whatever else the machine does hits both alike. Each thread is pinned, has its own
//! way into each arena, and waits for the others before each window.

use super::peers::{Arena, Peer, Visit};
use super::work::{Setup, State, Window};
use mm::bench::FrameSource;
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

/// One contestant on one thread, waiting for its next window.
trait Player {
    fn window(&mut self) -> Option<Window>;
}

struct Seat<'a, S: FrameSource> {
    source: &'a mut S,
    state: State,
}

impl<S: FrameSource> Player for Seat<'_, S> {
    fn window(&mut self) -> Option<Window> {
        self.state.window(self.source)
    }
}

struct Common<'a> {
    arenas: &'a [Arena],
    setup: Setup,
    gate: Gate,
    amount: Amount,
    results: Mutex<Vec<Samples>>,
    stop: AtomicUsize,
}

/// Enters the arenas one after the other, then plays.
struct Entry<'a, 'c> {
    common: &'c Common<'c>,
    thread: u16,
    players: Vec<Box<dyn Player + 'a>>,
}

impl Visit<()> for Entry<'_, '_> {
    fn visit<S: FrameSource>(self, source: &mut S) {
        let Entry { common, thread, mut players } = self;
        let state = State::new(common.setup, thread, source);
        players.push(Box::new(Seat { source, state }));
        let common: &Common<'_> = common;
        match common.arenas.get(players.len()) {
            Some(arena) => arena.enter(thread, Entry { common, thread, players }),
            None => play(common, thread, &mut players),
        }
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
                    samples.push(common.setup.picoseconds(length.saturating_sub(common.amount.overhead)));
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
pub fn run(
    contestants: &[Peer],
    setup: Setup,
    threads: u16,
    amount: Amount,
    cpus: &[usize],
) -> Option<Vec<Samples>> {
    let arenas: Vec<Arena> = contestants.iter().map(|&peer| Arena::new(peer, setup.frames)).collect();
    let gate =
        Gate { threads: usize::from(threads), arrived: AtomicUsize::new(0), failed: AtomicUsize::new(0) };
    let common = Common {
        arenas: &arenas,
        setup: Setup { threads, ..setup },
        gate,
        amount,
        results: Mutex::new(vec![Samples::new(); contestants.len()]),
        stop: AtomicUsize::new(0),
    };
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let common = &common;
            let cpu = cpus.get(usize::from(thread)).copied();
            scope.spawn(move || {
                cpu.map(super::pin);
                let entry = Entry { common, thread, players: Vec::new() };
                if let Some(arena) = common.arenas.first() {
                    arena.enter(thread, entry);
                }
            });
        }
    });
    // ORDER: Relaxed: the threads have been joined.
    let failed = common.gate.failed.load(Ordering::Relaxed) != 0;
    let results = common.results.into_inner().ok()?;
    (!failed).then_some(results)
}
