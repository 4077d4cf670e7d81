//! What a core counts, always: events, and how long system calls, switches and wakes take.
//!
//! | field of [`Here`] | writer | readers | ordering | line |
//! |---|---|---|---|---|
//! | all | the core, with interrupts off | any | Relaxed | counters three lines, histograms their own |
//!
//! A figure is one word that its core alone adds to, so adding is a plain instruction, and whoever reads sees every figure as it was at
//! some moment. Reading the clock twice costs more than a short system call may, so of these only one in [`SAMPLE_MEAN`] is timed: `user.S`
//! counts down to it, two instructions, and takes the way through [`watch_call`] and [`watched_call`] then; for every call while they are
//! traced.

use core::mem::offset_of;

use abi::debug::{BUCKETS, COUNTERS, Counter, Latencies, Metrics, TraceEvents};
use percpu::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use percpu::{CoreId, IrqOff, core_local};
use perf::tally::{self, SAMPLE_MEAN};
use perf::trace::Event;

use crate::arch::user::HEAD;
use crate::arch::{ipi, tsc};
use crate::trace;

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

/// What a core has counted.
#[repr(C, align(64))]
pub(crate) struct Here {
    /// By [`Counter`]. That of system calls runs ahead by `countdown`: it goes up only when one is timed.
    counters: [Figure; COUNTERS],
    /// System calls until one is timed.
    countdown: AtomicU32,
    /// Wakes until one is timed.
    wakes_left: AtomicU32,
    /// What `countdown` started from.
    distance: AtomicU32,
    /// Calls until one is timed, while all of them are checked (`limits`) and `countdown` stays at 1; 0 otherwise.
    aside: AtomicU32,
    syscalls: Buckets,
    switches: Buckets,
    wakes: Buckets,
}

impl Here {
    /// Where `message.S` counts.
    pub(crate) const FAST_MESSAGES: usize =
        offset_of!(Self, counters) + Counter::FastMessages as usize * size_of::<Figure>();

    /// As `FAST_MESSAGES`.
    pub(crate) const WAKES_LOCAL: usize =
        offset_of!(Self, counters) + Counter::WakesLocal as usize * size_of::<Figure>();
    /// As `FAST_MESSAGES`.
    pub(crate) const WAKES_LEFT: usize = offset_of!(Self, wakes_left);

    /// Where `user.S` counts down.
    pub(crate) const COUNTDOWN: usize = offset_of!(Self, countdown);
    /// Where it does for calls that are checked.
    pub(crate) const ASIDE: usize = offset_of!(Self, aside);

    const fn new() -> Self {
        let mut counters = [const { Figure::new(0) }; COUNTERS];
        counters[Counter::Syscalls as usize] = Figure::new(1);
        Self {
            counters,
            countdown: AtomicU32::new(1),
            wakes_left: AtomicU32::new(WAKES_PER_SAMPLE),
            distance: AtomicU32::new(SAMPLE_MEAN),
            aside: AtomicU32::new(0),
            syscalls: Buckets::new(),
            switches: Buckets::new(),
            wakes: Buckets::new(),
        }
    }

    /// What counts calls down.
    fn counting(&self, irq: &IrqOff) -> &AtomicU32 {
        if HEAD.owned(irq).is_limited() { &self.aside } else { &self.countdown }
    }

    /// Says how many calls ahead the next one is that is timed.
    fn set_countdown(&self, irq: &IrqOff, calls: u32) {
        // ORDER: Relaxed: this core is the only writer, and nothing follows from what others read.
        self.counting(irq).store(calls, Ordering::Relaxed);
        self.counters[Counter::Syscalls as usize].add(u64::from(calls));
    }

    /// Draws the distance to the next call that is timed.
    fn draw(&self, irq: &IrqOff) {
        // ORDER: Relaxed, both: as above.
        let distance = tally::next_distance(self.distance.load(Ordering::Relaxed));
        // ORDER: Relaxed; as above.
        self.distance.store(distance, Ordering::Relaxed);
        self.set_countdown(irq, distance);
    }
}

core_local! {
    /// What this core has counted.
    pub(crate) static HERE: Here = Here::new();
}

/// A system call whose turn it is begins; called by `user.S`. Gives the time, for [`watched_call`], which does not come for a call that
/// gives the core up.
pub(crate) extern "C" fn watch_call(number: u64, argument: u64) -> u64 {
    // SAFETY: `user.S` calls this with interrupts off and an empty stack: no other witness is in use.
    let irq = unsafe { IrqOff::assume() };
    let here = HERE.local(&irq);
    if trace::enabled(&irq, TraceEvents::SYSCALL) {
        here.set_countdown(&irq, 1);
        trace::event(&irq, Event::SyscallEnter, number, argument, 0);
    } else {
        here.draw(&irq);
    }
    tsc::now()
}

/// It ends, still on the same core; called by `user.S`.
pub(crate) extern "C" fn watched_call(number: u64, start: u64, status: u64) {
    // SAFETY: as in `watch_call`; the handler's witness has gone with it.
    let irq = unsafe { IrqOff::assume() };
    if trace::enabled(&irq, TraceEvents::SYSCALL) {
        // What tracing costs is no part of the figures.
        trace::event(&irq, Event::SyscallExit, number, status, 0);
    } else {
        HERE.local(&irq).syscalls.record(tsc::now().wrapping_sub(start));
    }
}

/// Has this core's next system call take the way through [`watch_call`]: whether they are traced has changed.
pub(crate) fn watch_next_call(irq: &IrqOff) {
    let here = HERE.local(irq);
    // ORDER: Relaxed: this core is the only writer.
    let skipped = here.counting(irq).swap(1, Ordering::Relaxed) - 1;
    here.counters[Counter::Syscalls as usize].add(u64::from(skipped).wrapping_neg());
}

/// From now on every call comes by [`watch_call`]'s door, and those that are not timed turn away from it.
pub(crate) fn set_countdown_aside(irq: &IrqOff) {
    let here = HERE.local(irq);
    // ORDER: Relaxed, both: this core is the only writer.
    let left = here.countdown.swap(1, Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    here.aside.store(left, Ordering::Relaxed);
}

/// Ends what [`set_countdown_aside`] began.
pub(crate) fn restore_countdown(irq: &IrqOff) {
    let here = HERE.local(irq);
    // ORDER: Relaxed, both: this core is the only writer.
    let left = here.aside.swap(0, Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    here.countdown.store(left, Ordering::Relaxed);
}

/// A call that passes a message is about to be checked.
pub(crate) fn keep_countdown(irq: &IrqOff) {
    // ORDER: Relaxed: this core is the only writer.
    HERE.local(irq).countdown.store(1, Ordering::Relaxed);
}

/// Counts a call that passes a message and was granted, as `user.S` does it for others; says whether it is timed.
pub(crate) fn limited_call(irq: &IrqOff) -> bool {
    let here = HERE.local(irq);
    // ORDER: Relaxed, both: this core is the only writer.
    let left = here.aside.load(Ordering::Relaxed) - 1;
    // ORDER: Relaxed; as above.
    here.aside.store(left, Ordering::Relaxed);
    left == 0
}

/// Counts a system call that does nothing, as `user.S` does it.
pub(crate) fn pretend_call(irq: &IrqOff) {
    let here = HERE.local(irq);
    // ORDER: Relaxed: this core is the only writer.
    let left = here.countdown.load(Ordering::Relaxed) - 1;
    // ORDER: Relaxed; as above.
    here.countdown.store(left, Ordering::Relaxed);
    if left == 0 {
        watched_call(0, watch_call(0, 0), 0);
    }
}

/// Of so many wakes one is timed: reading the clock and going over the slow switch cost more than the wake.
pub(crate) const WAKES_PER_SAMPLE: u32 = 16;

/// Whether the wake at hand is to be timed.
#[inline(always)]
pub(crate) fn times_wake(irq: &IrqOff) -> bool {
    let here = HERE.local(irq);
    // ORDER: Relaxed: this core is the only writer.
    let left = here.wakes_left.load(Ordering::Relaxed) - 1;
    // ORDER: Relaxed; as above.
    here.wakes_left.store(if left == 0 { WAKES_PER_SAMPLE } else { left }, Ordering::Relaxed);
    left == 0
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
    let aside = here.aside.load(Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    let ahead = u64::from(if aside != 0 { aside } else { here.countdown.load(Ordering::Relaxed) });
    let syscalls = &mut metrics.counters[Counter::Syscalls as usize];
    *syscalls = syscalls.saturating_sub(ahead);
    metrics.counters[Counter::Ipis as usize] = ipi::taken(core);
    here.syscalls.copy(&mut metrics.syscalls);
    here.switches.copy(&mut metrics.switches);
    here.wakes.copy(&mut metrics.wakes);
    true
}
