//! What a core counts, always: events, and how long system calls, switches and wakes take.
//!
//! | field of [`Here`] | writer | readers | ordering | line |
//! |---|---|---|---|---|
//! | all | the core, with interrupts off | any | Relaxed | counters two lines, histograms their own |
//!
//! A figure is one word that its core alone adds to, so adding is a plain instruction, and whoever reads sees every figure as it was at
//! some moment. Reading the clock twice costs more than a short system call may, so of these only one in [`SAMPLE_MEAN`] is timed.

use abi::debug::{BUCKETS, COUNTERS, Counter, Latencies, Metrics};
use percpu::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use percpu::{CoreId, IrqOff, core_local};
use perf::tally::{self, SAMPLE_MEAN};

use crate::arch::{ipi, tsc};

/// A number that only its core adds to.
#[repr(transparent)]
struct Figure(AtomicU64);

impl Figure {
    const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    #[inline(always)]
    fn add(&self, more: u64) {
        // ORDER: Relaxed: this core is the only writer.
        let before = self.0.load(Ordering::Relaxed);
        // ORDER: Relaxed: a figure says nothing about other memory.
        self.0.store(before.wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        // ORDER: Relaxed: as in `add`.
        self.0.load(Ordering::Relaxed)
    }
}

/// See `perf::tally`.
struct Buckets([Figure; BUCKETS]);

impl Buckets {
    const fn new() -> Self {
        Self([const { Figure::new(0) }; BUCKETS])
    }

    #[inline(always)]
    fn record(&self, ticks: u64) {
        self.0[tally::bucket(ticks)].add(1);
    }

    fn copy(&self, to: &mut Latencies) {
        to.buckets.iter_mut().zip(&self.0).for_each(|(slot, figure)| *slot = figure.get());
    }
}

#[repr(C, align(64))]
struct Here {
    /// By [`Counter`]. That of system calls runs ahead by `countdown`: it goes up only when one is timed.
    counters: [Figure; COUNTERS],
    /// System calls until one is timed.
    countdown: AtomicU32,
    /// What `countdown` started from.
    distance: AtomicU32,
    syscalls: Buckets,
    switches: Buckets,
    wakes: Buckets,
}

impl Here {
    const fn new() -> Self {
        let mut counters = [const { Figure::new(0) }; COUNTERS];
        counters[Counter::Syscalls as usize] = Figure::new(1);
        Self {
            counters,
            countdown: AtomicU32::new(1),
            distance: AtomicU32::new(SAMPLE_MEAN),
            syscalls: Buckets::new(),
            switches: Buckets::new(),
            wakes: Buckets::new(),
        }
    }

    /// Starts to time a system call, and says when the next one is to be.
    #[cold]
    #[inline(never)]
    fn time_one(&self) -> Start {
        // ORDER: Relaxed, all: this core is the only writer, and nothing follows from what others read.
        let distance = tally::next_distance(self.distance.load(Ordering::Relaxed));
        // ORDER: Relaxed; as above.
        self.distance.store(distance, Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        self.countdown.store(distance, Ordering::Relaxed);
        self.counters[Counter::Syscalls as usize].add(u64::from(distance));
        Start(tsc::now())
    }

    #[cold]
    #[inline(never)]
    fn end_of_one(&self, start: Start) {
        self.syscalls.record(tsc::now().wrapping_sub(start.0));
    }
}

core_local! {
    static HERE: Here = Here::new();
}

/// When a system call began, if it is one of those that are timed. Stays with the call when its thread changes cores.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct Start(u64);

impl Start {
    /// Of a call that is not timed.
    const UNTIMED: Self = Self(0);
}

/// Counts a system call, and begins to time it if it is its turn: two or three instructions if not.
#[inline(always)]
pub(crate) fn syscall_enter(irq: &IrqOff) -> Start {
    let here = HERE.local(irq);
    // ORDER: Relaxed: this core is the only writer.
    let left = here.countdown.load(Ordering::Relaxed).wrapping_sub(1);
    // ORDER: Relaxed; as above.
    here.countdown.store(left, Ordering::Relaxed);
    if left == 0 { here.time_one() } else { Start::UNTIMED }
}

/// Ends what [`syscall_enter`] began, on whatever core the thread is now.
#[inline(always)]
pub(crate) fn syscall_exit(irq: &IrqOff, start: Start) {
    if start.0 != Start::UNTIMED.0 {
        HERE.local(irq).end_of_one(start);
    }
}

/// Records how long a switch took.
#[inline(always)]
pub(crate) fn switched(irq: &IrqOff, ticks: u64) {
    HERE.local(irq).switches.record(ticks);
}

/// Records how long a thread that could run has waited until it ran.
#[inline(always)]
pub(crate) fn woken(irq: &IrqOff, ticks: u64) {
    HERE.local(irq).wakes.record(ticks);
}

/// Counts one. Not for system calls and interrupts from other cores, which are counted where they come in.
#[inline(always)]
pub(crate) fn count(irq: &IrqOff, counter: Counter) {
    add(irq, counter, 1);
}

/// As [`count`], several at once.
#[inline(always)]
pub(crate) fn add(irq: &IrqOff, counter: Counter, more: u64) {
    HERE.local(irq).counters[counter as usize].add(more);
}

/// Copies what a core has counted; `false` for a core without core-local data. From any core, in whatever state that one is.
pub(crate) fn read(core: CoreId, metrics: &mut Metrics) -> bool {
    let Some(here) = HERE.of(core) else { return false };
    metrics.version = Metrics::VERSION;
    metrics.core = u64::from(core.raw());
    metrics.now = tsc::now();
    metrics.syscalls_per_sample = u64::from(SAMPLE_MEAN);
    metrics.counters.iter_mut().zip(&here.counters).for_each(|(slot, figure)| *slot = figure.get());
    // ORDER: Relaxed: as in `syscall_enter`.
    let ahead = u64::from(here.countdown.load(Ordering::Relaxed));
    let syscalls = &mut metrics.counters[Counter::Syscalls as usize];
    *syscalls = syscalls.saturating_sub(ahead);
    metrics.counters[Counter::Ipis as usize] = ipi::taken(core);
    here.syscalls.copy(&mut metrics.syscalls);
    here.switches.copy(&mut metrics.switches);
    here.wakes.copy(&mut metrics.wakes);
    true
}
