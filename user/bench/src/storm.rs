//! Threads on many cores that do the same again and again and count it, and what that costs.

use abi::boot::Lane;
use alloc::sync::Arc;
use alloc::vec::Vec;
use perf::clock::{Clock, Nanos, Ticks};
use perf::runner::Trouble;
use rt::start::Start;
use rt::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::thread::{Builder, JoinHandle};
use rt::time::{self, Deadline, Tsc};

use super::{Lab, Meter};

/// The least number of windows.
const LEAST_WINDOWS: u64 = 100;
/// Windows where figures are exact: what a median needs. More say nothing more, and between address spaces each takes an emulator a tenth
/// of a second, as it forgets all translations with every change of space.
const EXACT_WINDOWS: u64 = 20;

/// The threads. They end when this goes.
pub(super) struct Storm {
    shared: Arc<Shared>,
    counts: Vec<Arc<Count>>,
    /// Joined when they go.
    threads: Vec<JoinHandle<()>>,
    /// The length of a window.
    window: Nanos,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// One of them could not do what it is to do.
    failed: AtomicBool,
}

/// What one thread has counted, in a line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Count(AtomicU64);

impl Storm {
    /// Nobody yet; windows of this length.
    pub(super) fn new(window: Nanos) -> Self {
        Self { shared: Arc::new(Shared::default()), counts: Vec::new(), threads: Vec::new(), window }
    }

    /// Adds a thread that calls `turn` until it is to stop, or `turn` answers `false`, which should not be.
    pub(super) fn add(
        &mut self,
        builder: Builder,
        mut turn: impl FnMut() -> bool + Send + 'static,
    ) -> rt::handle::Result<()> {
        let (shared, count) = (Arc::clone(&self.shared), Arc::new(Count::default()));
        self.counts.push(Arc::clone(&count));
        let work = move || {
            let mut turns = 0;
            // ORDER: Relaxed, all; a figure, and the wish to end.
            while !shared.stop.load(Ordering::Relaxed) {
                if !turn() {
                    return shared.failed.store(true, Ordering::Relaxed);
                }
                turns += 1;
                count.0.store(turns, Ordering::Relaxed);
            }
        };
        self.threads.push(builder.spawn(work)?);
        Ok(())
    }

    /// How often all of them have done it; `None` while one has not yet begun.
    fn turns(&self) -> Option<u64> {
        self.counts.iter().try_fold(0, |sum, count| {
            // ORDER: Relaxed; see `add`.
            let turns = count.0.load(Ordering::Relaxed);
            (turns > 0).then_some(sum + turns)
        })
    }

    /// Measures the time for each turn, `at_once` times what passes, while the main thread sleeps again and again, which is the only other
    /// work.
    pub(super) fn measure(&self, lab: &Lab, at_once: u64, meter: &mut Meter<'_>) -> Result<(), Trouble> {
        while self.turns().is_none() {
            self.rest()?;
        }
        let plan = meter.plan();
        let window = Start::get().timebase().ticks(self.window).count().max(1);
        let windows = match lab.lane {
            Lane::Icount => EXACT_WINDOWS,
            _ => {
                let fit = plan.budget.map_or(u64::MAX, |budget| budget.count() / window);
                fit.min(u64::from(plan.samples)).max(LEAST_WINDOWS)
            }
        };
        for _ in 0..windows {
            let before = self.turns().unwrap_or(0);
            let from = Tsc.start();
            self.rest()?;
            let took = Tsc.stop().since(from).unwrap_or_default();
            let turns = self.turns().unwrap_or(0) - before;
            let Some(turns) = u32::try_from(turns).ok().filter(|&turns| turns > 0) else {
                return Err(Trouble::Failed("nobody has done anything"));
            };
            meter.value(plan.scale.value(Ticks::new(took.count() * at_once), turns));
        }
        Ok(())
    }

    fn rest(&self) -> Result<(), Trouble> {
        time::sleep(Deadline::after(self.window));
        // ORDER: Relaxed; see `add`.
        let failed = self.shared.failed.load(Ordering::Relaxed);
        if failed { Err(Trouble::Failed("a thread could not go on")) } else { Ok(()) }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // ORDER: Relaxed; see `add`.
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.clear();
    }
}
