//! The workers of a pool, and who of them runs.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::task::{NEVER, Upcall};

use super::{Back, Fiber};
use crate::handle::{self, Result};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Futex, Kernel, Mutex};
use crate::thread::{self, JoinHandle};
use crate::time::Deadline;

/// Most workers beyond those that are to run: how many fibers can be blocked in the kernel before others wait for them.
const SPARES: usize = 64;

/// What the word of a worker is that could not be watched: it ends without having begun.
const DISMISSED: u32 = u32::MAX;

/// What a worker does, as far as the pool knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Runs,
    /// Blocked in the kernel, by what its fiber does.
    Blocked,
    /// Waits for being needed.
    Parked,
}

struct Worker {
    doing: Doing,
    /// How often it was woken: the word that it parks on.
    woken: Arc<AtomicU32>,
}

struct State {
    ready: VecDeque<Box<Fiber>>,
    workers: Vec<Worker>,
    /// Numbers of those that are parked, the last one in first.
    parked: Vec<usize>,
    /// Those that run.
    running: usize,
    /// Fibers that have not ended.
    live: usize,
    closing: bool,
}

pub(super) struct Crew {
    state: Mutex<State, Kernel>,
    /// How many are to run.
    wanted: usize,
}

impl Crew {
    pub(super) fn new(wanted: usize) -> Self {
        let state = State {
            ready: VecDeque::new(),
            workers: Vec::new(),
            parked: Vec::new(),
            running: 0,
            live: 0,
            closing: false,
        };
        Self { state: Mutex::new(state), wanted }
    }

    /// Takes in a new fiber.
    pub(super) fn enter(&self, fiber: Box<Fiber>) {
        let mut state = self.state.lock();
        state.live += 1;
        self.put(&mut state, fiber);
    }

    /// Has the workers end when the last fiber has.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        state.release_if_over();
    }

    fn put(&self, state: &mut State, fiber: Box<Fiber>) {
        state.ready.push_back(fiber);
        if state.running < self.wanted {
            state.unpark();
        }
    }

    /// Makes the first workers, and then keeps as many running as are wanted. The watcher's own function.
    pub(super) fn watch(self: Arc<Self>) -> Result<()> {
        let mut threads = Vec::new();
        for _ in 0..self.wanted {
            threads.push(self.hire(threads.len())?);
        }
        let mut ended = 0;
        while ended < threads.len() {
            let upcall = handle::next_upcall(Deadline::NEVER)?;
            match upcall.event() {
                Upcall::BLOCKED
                    if self.note_blocked(upcall.badge() as usize) && threads.len() < self.wanted + SPARES =>
                {
                    // With no further worker, the others go on alone.
                    threads.extend(self.hire(threads.len()).ok());
                }
                Upcall::UNBLOCKED => self.state.lock().note_running(upcall.badge() as usize),
                Upcall::ENDED => ended += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// A watched thread has blocked. Gives whether a new worker is needed: one counted as running, and no spare one was there.
    fn note_blocked(&self, number: usize) -> bool {
        let mut state = self.state.lock();
        // A parked one is blocked as well, which was its own decision.
        let Some(worker) = state.workers.get_mut(number).filter(|worker| worker.doing == Doing::Runs) else {
            return false;
        };
        worker.doing = Doing::Blocked;
        state.running -= 1;
        !state.unpark()
    }

    /// Makes a worker. It is parked until it is watched, so that no blocking of its fibers goes unnoticed.
    fn hire(self: &Arc<Self>, number: usize) -> Result<JoinHandle<()>> {
        let woken = Arc::new(AtomicU32::new(0));
        let (crew, word) = (Arc::clone(self), Arc::clone(&woken));
        self.state.lock().workers.push(Worker { doing: Doing::Parked, woken });
        let spawned = thread::spawn(move || {
            if await_change(&word, 0) != DISMISSED {
                crew.work(number, &word);
            }
        });
        let watched = spawned.as_ref().map_err(|&error| error);
        let watched = watched.and_then(|thread| thread.thread().watch(number as u64));
        let mut state = self.state.lock();
        if watched.is_ok() {
            state.wake(number);
        } else if let Some(worker) = state.workers.pop() {
            // ORDER: Release pairs with Acquire in `await_change`.
            worker.woken.store(DISMISSED, Ordering::Release);
            Kernel.wake(&worker.woken, 1);
        }
        drop(state);
        // Who drops the thread of a dismissed worker waits for its end.
        watched.and(spawned)
    }

    /// A worker's function: runs fibers, one after the other.
    fn work(&self, number: usize, word: &AtomicU32) {
        let mut last = None;
        while let Some(mut fiber) = self.next(number, word, last.take()) {
            last = (fiber.run() == Back::Yielded).then_some(fiber);
            if last.is_none() {
                let mut state = self.state.lock();
                state.live -= 1;
                state.release_if_over();
            }
        }
    }

    /// The next fiber for a worker, which hands back one that has yielded; parks while there is none, or while others are enough.
    fn next(&self, number: usize, word: &AtomicU32, last: Option<Box<Fiber>>) -> Option<Box<Fiber>> {
        let mut state = self.state.lock();
        state.note_running(number);
        if let Some(fiber) = last {
            self.put(&mut state, fiber);
        }
        loop {
            if state.closing && state.live == 0 {
                state.running -= 1;
                return None;
            }
            if state.running <= self.wanted
                && let Some(fiber) = state.ready.pop_front()
            {
                return Some(fiber);
            }
            let seen = state.park(number);
            drop(state);
            await_change(word, seen);
            state = self.state.lock();
            // It may have blocked on the lock, and be noted so.
            state.note_running(number);
        }
    }
}

/// Sleeps until a worker's word has changed; gives what it is then.
fn await_change(word: &AtomicU32, seen: u32) -> u32 {
    loop {
        // ORDER: Acquire pairs with Release where it is changed; what has changed besides is read under the lock.
        let now = word.load(Ordering::Acquire);
        if now != seen {
            return now;
        }
        let _ = Kernel.wait(word, seen, NEVER);
    }
}

impl State {
    /// A worker that is noted as blocked runs, as it shows itself or the watcher hears, whoever is first.
    fn note_running(&mut self, number: usize) {
        if let Some(worker) = self.workers.get_mut(number).filter(|worker| worker.doing == Doing::Blocked) {
            worker.doing = Doing::Runs;
            self.running += 1;
        }
    }

    /// Notes a worker that runs as parked; gives the value of its word to sleep on.
    fn park(&mut self, number: usize) -> u32 {
        let Some(worker) = self.workers.get_mut(number) else { return 0 };
        worker.doing = Doing::Parked;
        self.running -= 1;
        self.parked.push(number);
        // ORDER: Relaxed; it is changed under the lock.
        worker.woken.load(Ordering::Relaxed)
    }

    /// Wakes a parked worker; gives whether there was one.
    fn unpark(&mut self) -> bool {
        self.parked.pop().map(|number| self.wake(number)).is_some()
    }

    /// Lets a worker run that has parked and was taken out of `parked` (F3), or is new.
    fn wake(&mut self, number: usize) {
        let Some(worker) = self.workers.get_mut(number) else { return };
        worker.doing = Doing::Runs;
        self.running += 1;
        // ORDER: Release pairs with Acquire in `await_change`.
        worker.woken.fetch_add(1, Ordering::Release);
        Kernel.wake(&worker.woken, 1);
    }

    /// Has all parked workers end, if there will be no more fibers.
    fn release_if_over(&mut self) {
        if self.closing && self.live == 0 {
            while self.unpark() {}
        }
    }
}
