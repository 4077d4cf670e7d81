//! Threads that never stop by themselves.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::task::CoreMask;
use rt::handle::Thread;
use rt::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::thread::{Builder, JoinHandle};

use super::{HERE, Outcome};

/// Whether threads are to go on, and how far they have come.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    turns: AtomicU64,
}

impl Shared {
    /// Whether the threads are to end.
    pub(super) fn stopped(&self) -> bool {
        // ORDER: Relaxed; the flag alone matters.
        self.stop.load(Ordering::Relaxed)
    }

    /// Turns that the thread has done.
    pub(super) fn turns(&self) -> u64 {
        // ORDER: Relaxed; a count.
        self.turns.load(Ordering::Relaxed)
    }
}

/// A thread that is told when to end. It is when this goes, whatever went wrong before.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread.
    pub(super) fn start(builder: Builder, work: impl FnOnce(&Shared) + Send + 'static) -> Outcome<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let handle = builder.stack(4).spawn(move || work(&own))?;
        Ok(Self { shared, handle: Some(handle) })
    }

    /// Starts a thread that uses all the time it can get.
    pub(super) fn hog(builder: Builder) -> Outcome<Self> {
        Self::start(builder, |shared| {
            while !shared.stopped() {
                // ORDER: Relaxed, both: this thread alone counts.
                let turns = shared.turns.load(Ordering::Relaxed);
                // ORDER: Relaxed; as above.
                shared.turns.store(turns + 1, Ordering::Relaxed);
            }
        })
    }

    /// Its thread.
    pub(super) fn thread(&self) -> Thread {
        self.handle.as_ref().map_or(Thread(abi::cap::Handle::NONE), JoinHandle::thread)
    }

    /// What it shows.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // ORDER: Relaxed; the flag alone matters.
        self.shared.stop.store(true, Ordering::Relaxed);
        // Its handle waits for its end.
        drop(self.handle.take());
    }
}

/// Threads that run on the usual core alone.
pub(super) fn here() -> Builder {
    Builder::default().cores(CoreMask::one(HERE))
}

/// So many hogs on the usual core.
pub(super) fn hogs(count: usize) -> Outcome<Vec<Worker>> {
    (0..count).map(|_| Worker::hog(here())).collect()
}

/// Ticks that each has run.
pub(super) fn ticks(workers: &[Worker]) -> Outcome<Vec<u64>> {
    let ticks = |worker: &Worker| Ok(worker.thread().info()?.ticks);
    workers.iter().map(ticks).collect()
}

/// Ticks that each runs while time passes.
pub(super) fn ticks_during(workers: &[Worker], pass: impl FnOnce() -> Outcome) -> Outcome<Vec<u64>> {
    let before = ticks(workers)?;
    pass()?;
    let after = ticks(workers)?;
    Ok(after.into_iter().zip(before).map(|(after, before)| after - before).collect())
}
