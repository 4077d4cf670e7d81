//! Limits: which calls a process may make, and how many a second. They only ever tighten.
//!
//! A process without limits pays nothing: the threads of one that has them carry `extra::LIMITED`, and while one is loaded, the core's
//! countdown to the next call that is timed (`metrics`) stays at 1, so that every call takes the way past [`check`]; what was left of it
//! counts on beside. `user.S` looks at the filter itself, and calls [`rated`] if there is a rate.
//!
//! A child begins with its parent's filter, and its calls count against its parent's rates too, so that a family has no more than its
//! eldest. A call that is refused has no effect, but that a rate above the one that refuses may have counted it and taken that back.

use core::mem::offset_of;
use core::ptr::NonNull;

use abi::error::Error;
use abi::ipc::FIRST;
use abi::quota::{FILTER_WORDS, Limits as Asked};
use percpu::IrqOff;
use percpu::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use sched::rate::Rate;

use crate::arch::tsc;
use crate::arch::user::{HEAD, extra};
use crate::thread::ThreadRef;
use crate::{dispatch, machine, metrics, slabs};

/// A process's limits.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `calls` | who tightens | any core, `user.S` | Relaxed |
/// | `rated` | who tightens, under the lock of the process's list | any core, `user.S` | Relaxed |
/// | `refs` | any core | any core | Relaxed up, AcqRel down |
/// | `above` | nobody | any core | – |
#[repr(C, align(64))]
pub(crate) struct Limits {
    /// Bit `n % 64` of word `n / 64`: call `n` may be made.
    calls: [AtomicU64; FILTER_WORDS],
    /// 1 if a rate is to be looked at, here or above.
    rated: AtomicU32,
    refs: AtomicU32,
    /// The limits of an ancestor that has a rate: the nearest.
    above: Option<Counted>,
    all: Bucket,
    messages: Bucket,
}

/// Calls that passed lately, and how many may.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `word` | any core, by compare-exchange | any core | Relaxed |
/// | `interval`, `burst` | who tightens, under the lock of the process's list | any core | Relaxed |
struct Bucket {
    /// See [`Rate`].
    word: AtomicU64,
    /// 0: no limit.
    interval: AtomicU64,
    burst: AtomicU64,
}

impl Bucket {
    const fn new() -> Self {
        Self { word: AtomicU64::new(0), interval: AtomicU64::new(0), burst: AtomicU64::new(0) }
    }

    fn rate(&self) -> Option<Rate> {
        // ORDER: Relaxed: whoever reads this while it is tightened may see either of two limits, or a mixture, which is one, too.
        let interval = self.interval.load(Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        let burst = self.burst.load(Ordering::Relaxed);
        (interval != 0).then_some(Rate { interval, burst })
    }

    /// So many a second, if that is fewer than before; 0 changes nothing.
    fn tighten(&self, times: u64) {
        if times == 0 {
            return;
        }
        let new = Rate::per_second(times, machine::clock().0);
        if self.rate().is_none_or(|old| old.interval < new.interval) {
            // ORDER: Relaxed; as in `rate`.
            self.burst.store(new.burst, Ordering::Relaxed);
            // ORDER: Relaxed; as above.
            self.interval.store(new.interval, Ordering::Relaxed);
        }
    }

    fn take(&self, now: u64) -> bool {
        let Some(rate) = self.rate() else { return true };
        // ORDER: Relaxed, both: the word says nothing about other memory.
        let taken = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| rate.take(word, now));
        taken.is_ok()
    }

    /// Takes back a [`Bucket::take`] that was granted.
    fn put(&self) {
        let Some(rate) = self.rate() else { return };
        // ORDER: Relaxed, both; as in `take`.
        let _put = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Some(rate.put(word)));
    }
}

/// A counted reference.
pub(crate) struct Counted(NonNull<Limits>);

// SAFETY: limits are atomic words, and constant apart from them.
unsafe impl Send for Counted {}
// SAFETY: as above.
unsafe impl Sync for Counted {}

impl Counted {
    /// No limits yet, under somebody's whose process makes this one.
    pub(crate) fn new(irq: &IrqOff, parent: Option<&Limits>) -> Option<Self> {
        let memory = slabs::take::<Limits>(irq)?;
        let calls = core::array::from_fn(|word| {
            // ORDER: Relaxed: as for every reader.
            AtomicU64::new(parent.map_or(u64::MAX, |parent| parent.calls[word].load(Ordering::Relaxed)))
        });
        let above = parent.and_then(Limits::nearest_rated);
        let limits = Limits {
            calls,
            rated: AtomicU32::new(above.is_some().into()),
            refs: AtomicU32::new(1),
            above,
            all: Bucket::new(),
            messages: Bucket::new(),
        };
        // SAFETY: memory for one, which is ours.
        unsafe { memory.write(limits) };
        Some(Self(memory))
    }

    /// Where they are, for [`Counted::from_raw`].
    pub(crate) fn into_raw(self) -> *mut Limits {
        let at = self.0.as_ptr();
        core::mem::forget(self);
        at
    }

    /// Takes back what [`Counted::into_raw`] gave.
    ///
    /// # Safety
    /// 1. `at` comes from there, once.
    pub(crate) unsafe fn from_raw(at: *mut Limits) -> Option<Self> {
        NonNull::new(at).map(Self)
    }
}

impl core::ops::Deref for Counted {
    type Target = Limits;

    fn deref(&self) -> &Limits {
        // SAFETY: the count keeps them.
        unsafe { self.0.as_ref() }
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        // ORDER: Relaxed: our own count keeps them meanwhile.
        self.refs.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut at = self.0;
        loop {
            // SAFETY: the count that is given up here keeps them until then.
            let limits = unsafe { at.as_ref() };
            // ORDER: AcqRel: Release: our use comes before the end; Acquire: everybody's does, for whoever ends them.
            if limits.refs.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            // SAFETY: that was the last count.
            let Limits { above, .. } = unsafe { at.read() };
            IrqOff::with(|irq| slabs::give(irq, at));
            // Not by its own end: processes may have made processes as deep as they like.
            let Some(above) = above else { return };
            at = above.0;
            core::mem::forget(above);
        }
    }
}

impl Limits {
    /// Where `user.S` finds the filter.
    pub(crate) const CALLS: usize = offset_of!(Self, calls);
    /// Where `user.S` finds whether there is a rate.
    pub(crate) const RATED: usize = offset_of!(Self, rated);

    /// Tightens them. Under the lock of the process's list.
    pub(crate) fn tighten(&self, asked: &Asked) {
        for (word, &allowed) in self.calls.iter().zip(&asked.calls) {
            // ORDER: Relaxed: whoever calls at this moment may do so before or after; the caller sees to the rest (`Process::limit`).
            word.fetch_and(allowed, Ordering::Relaxed);
        }
        self.all.tighten(asked.calls_per_second);
        self.messages.tighten(asked.messages_per_second);
        if self.has_rate() {
            // ORDER: Relaxed; as above.
            self.rated.store(1, Ordering::Relaxed);
        }
    }

    fn has_rate(&self) -> bool {
        self.all.rate().or(self.messages.rate()).is_some()
    }

    /// These limits, if they have a rate, or the nearest above that have.
    fn nearest_rated(&self) -> Option<Counted> {
        if self.has_rate() {
            // SAFETY: whoever has a reference keeps them while this is cloned, and the value is forgotten.
            let own = core::mem::ManuallyDrop::new(Counted(NonNull::from_ref(self)));
            return Some(Counted::clone(&own));
        }
        self.above.clone()
    }

    fn allows(&self, number: u64) -> bool {
        let Some(word) = self.calls.get(number as usize / 64) else { return true };
        // ORDER: Relaxed: as in `tighten`.
        word.load(Ordering::Relaxed) >> (number % 64) & 1 != 0
    }

    /// Counts a call, here and above; `false`, and nothing, if a limit is reached.
    fn count(&self, number: u64) -> bool {
        let now = tsc::now();
        let is_message = number >= FIRST;
        let mut at = Some(self);
        while let Some(limits) = at {
            if !limits.count_one(is_message, now) {
                self.take_back(is_message, limits);
                return false;
            }
            at = limits.above.as_deref();
        }
        true
    }

    fn count_one(&self, is_message: bool, now: u64) -> bool {
        if is_message && !self.messages.take(now) {
            return false;
        }
        let granted = self.all.take(now);
        if !granted && is_message {
            self.messages.put();
        }
        granted
    }

    /// Takes back what has been counted below `end`.
    #[cold]
    fn take_back(&self, is_message: bool, end: &Self) {
        let mut at = Some(self);
        while let Some(limits) = at.filter(|&limits| !core::ptr::eq(limits, end)) {
            limits.all.put();
            if is_message {
                limits.messages.put();
            }
            at = limits.above.as_deref();
        }
    }
}

/// Whether the current thread may make a call now, which is counted if so. For numbers of no call, too: they are counted.
///
/// # Errors
/// [`Error::Filtered`], [`Error::TooMany`]: the call has no effect.
pub(crate) fn check(_: &IrqOff, thread: ThreadRef, number: u64) -> Result<(), Error> {
    let Some(limits) = thread.process().limits() else { return Ok(()) };
    if !limits.allows(number) {
        return Err(Error::Filtered);
    }
    // ORDER: Relaxed: as in `tighten`.
    if limits.rated.load(Ordering::Relaxed) != 0 && !limits.count(number) {
        return Err(Error::TooMany);
    }
    Ok(())
}

/// Counts a call that the filter lets through and that a rate limits; called by `user.S`. A status: 0, or why not.
pub(crate) extern "C" fn rated(number: u64) -> u64 {
    // SAFETY: `user.S` calls this with interrupts off and an empty stack: no other witness is in use.
    let irq = unsafe { IrqOff::assume() };
    let granted = dispatch::current(&irq).process().limits().is_none_or(|limits| limits.count(number));
    if granted { 0 } else { Error::TooMany as u64 }
}

/// Has every call of a thread that is being loaded checked, if it has limits, and none otherwise.
pub(crate) fn load(irq: &IrqOff, thread: ThreadRef) {
    let limited = thread.extras.get() & extra::LIMITED != 0;
    let limits = if limited { thread.process().limits() } else { None };
    let head = HEAD.owned(irq);
    let before = head.set_limits(limits.map_or(core::ptr::null(), core::ptr::from_ref));
    if before.is_null() == limits.is_none() {
        return;
    }
    head.set_extra(extra::LIMITED, limits.is_some());
    match limits {
        Some(_) => metrics::set_countdown_aside(irq),
        None => metrics::restore_countdown(irq),
    }
}
