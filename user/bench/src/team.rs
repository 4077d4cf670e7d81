//! Threads in the background: those that only use time, and one that is woken again and again.

use abi::task::{CoreMask, NEVER, SchedSpec, ThreadState};
use alloc::sync::Arc;
use alloc::vec::Vec;
use perf::clock::{Clock, Nanos, Ticks};
use perf::runner::Trouble;
use rt::handle::{Result, Thread};
use rt::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use rt::sync::{Futex, Kernel};
use rt::thread::{Builder, JoinHandle};
use rt::time::{self, Deadline, Tsc};

use super::{failed, place};

/// Turns of a loop between two looks at a word that others write.
const TURNS: u32 = 256;
/// For how long a core is left alone after it was asked something, so that it can fall asleep.
pub(super) const SETTLE: Nanos = Nanos::new(20_000);

/// Uses time, without telling the CPU or an emulator that it does nothing, until the condition holds.
pub(super) fn burn(until: &dyn Fn() -> bool) {
    while !until() {
        (0..TURNS).for_each(|turn| {
            core::hint::black_box(turn);
        });
    }
}

/// Uses time until the condition holds, and tells so.
pub(super) fn spin(until: &dyn Fn() -> bool) {
    while !until() {
        core::hint::spin_loop();
    }
}

/// Threads of the normal class that use all the time they get. They end when this goes.
pub(super) struct Hogs {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    /// Starts so many on the measuring core.
    pub(super) fn start(count: usize) -> Result<Self> {
        Self::wait(place::HERE, count, burn)
    }

    /// Starts one on another core, that waits as [`spin`] does: an emulator that runs one core at a time goes on with the others at once.
    pub(super) fn elsewhere(core: usize) -> Result<Self> {
        Self::wait(core, 1, spin)
    }

    fn wait(core: usize, count: usize, wait: fn(&dyn Fn() -> bool)) -> Result<Self> {
        let mut hogs = Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
        for _ in 0..count {
            let stop = Arc::clone(&hogs.stop);
            // ORDER: Relaxed; only asks to end.
            let work = move || wait(&|| stop.load(Ordering::Relaxed));
            hogs.threads.push(Builder::default().cores(CoreMask::one(core)).spawn(work)?);
        }
        Ok(hogs)
    }

    /// The threads.
    pub(super) fn threads(&self) -> impl Iterator<Item = Thread> {
        self.threads.iter().map(JoinHandle::thread)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        // ORDER: Relaxed; see `start`. Dropping the handles waits.
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What the waking thread and the woken one share.
#[derive(Default)]
struct Bell {
    /// The number of the newest ring, or [`OVER`]; the word that is waited on.
    rung: AtomicU32,
    /// The number of the newest ring that was heard.
    heard: AtomicU32,
    /// When that was.
    at: AtomicU64,
}

const OVER: u32 = u32::MAX;

impl Bell {
    fn listen(&self) {
        let mut seen = 0;
        loop {
            let _ = Kernel.wait(&self.rung, seen, NEVER);
            let at = Tsc.stop();
            // ORDER: Relaxed; says nothing about other memory.
            match self.rung.load(Ordering::Relaxed) {
                OVER => return,
                same if same == seen => {}
                newer => {
                    seen = newer;
                    // ORDER: Relaxed; published by `heard`.
                    self.at.store(at.count(), Ordering::Relaxed);
                    // ORDER: Release pairs with Acquire in `Listener::heard`.
                    self.heard.store(newer, Ordering::Release);
                }
            }
        }
    }
}

/// A thread that waits on a word, and notes when it has been woken. It ends when this goes.
pub(super) struct Listener {
    bell: Arc<Bell>,
    rings: u32,
    thread: JoinHandle<()>,
}

impl Listener {
    /// Starts one on a core; returns when it waits.
    pub(super) fn start(core: usize, schedule: Option<SchedSpec>) -> core::result::Result<Self, Trouble> {
        let bell = Arc::new(Bell::default());
        let theirs = Arc::clone(&bell);
        let builder = Builder::default().cores(CoreMask::one(core));
        let builder = schedule.map_or(builder, |spec| builder.schedule(spec));
        let thread = builder.spawn(move || theirs.listen()).map_err(failed)?;
        let listener = Self { bell, rings: 0, thread };
        listener.await_asleep()?;
        Ok(listener)
    }

    /// The thread.
    pub(super) fn thread(&self) -> Thread {
        self.thread.thread()
    }

    /// Waits until it has heard everything and waits again, and its core has had time to go on with something else.
    pub(super) fn await_asleep(&self) -> core::result::Result<(), Trouble> {
        while !self.heard() || self.thread().info().map_err(failed)?.state != ThreadState::Blocked as u32 {
            time::sleep(Deadline::after(SETTLE));
        }
        time::sleep(Deadline::after(SETTLE));
        Ok(())
    }

    /// Makes the next call of [`wake`](Self::wake) one that is to be heard.
    pub(super) fn prepare(&mut self) {
        self.rings += 1;
        // ORDER: Relaxed; the wake orders it before what the woken thread does.
        self.bell.rung.store(self.rings, Ordering::Relaxed);
    }

    /// Wakes it: the call alone.
    #[inline(always)]
    pub(super) fn wake(&self) {
        Kernel.wake(&self.bell.rung, 1);
    }

    /// Whether it has heard the last ring.
    pub(super) fn heard(&self) -> bool {
        // ORDER: Acquire pairs with Release in `Bell::listen`.
        self.bell.heard.load(Ordering::Acquire) == self.rings
    }

    /// When it heard it.
    pub(super) fn at(&self) -> Ticks {
        // ORDER: Relaxed; `heard` was seen before.
        Ticks::new(self.bell.at.load(Ordering::Relaxed))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // ORDER: Relaxed; see `prepare`. Dropping the handle waits.
        self.bell.rung.store(OVER, Ordering::Relaxed);
        self.wake();
    }
}
