//! A condition variable: a counter of notifications to sleep on, and a count of those who may sleep, so that notifying nobody stays in
//! user mode.

use abi::task::NEVER;

use super::atomic::{AtomicPtr, AtomicU32, Ordering};
use super::mutex::Guard;
use super::{Futex, Waited};

/// Waiting for what a mutex protects to change. One condition variable belongs to one mutex.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `sequence` | who notifies | who waits, and the kernel | by the mutex, and by the kernel's comparison |
/// | `waiters` | who waits, holding the mutex on the way in | who notifies | by the mutex |
/// | `mutex` | who waits, holding the mutex | who notifies all | by the mutex |
#[derive(Debug)]
pub struct Condvar<F: Futex> {
    sequence: AtomicU32,
    waiters: AtomicU32,
    /// The word of the mutex, for moving sleepers there.
    mutex: AtomicPtr<AtomicU32>,
    futex: F,
}

impl<F: Futex> Condvar<F> {
    perf::const_fn! {
        /// A condition variable that nobody waits for.
        pub const fn with(futex: F) -> Self {
            Self {
                sequence: AtomicU32::new(0),
                waiters: AtomicU32::new(0),
                mutex: AtomicPtr::new(core::ptr::null_mut()),
                futex,
            }
        }
    }

    /// Frees the mutex, waits for a notification, takes the mutex again. May return for no reason: wait in a loop around the condition.
    pub fn wait<'m, T, G: Futex>(&self, guard: Guard<'m, T, G>) -> Guard<'m, T, G> {
        self.wait_until(guard, NEVER).0
    }

    /// As [`wait`](Self::wait), but not beyond a time in ticks of the clock.
    pub fn wait_until<'m, T, G: Futex>(
        &self,
        guard: Guard<'m, T, G>,
        deadline: u64,
    ) -> (Guard<'m, T, G>, Waited) {
        let mutex = guard.mutex();
        // ORDER: Relaxed; written under the mutex, and read by one who has held it since, or whom it does not concern.
        self.mutex.store(core::ptr::from_ref(mutex.word()).cast_mut(), Ordering::Relaxed);
        // ORDER: Relaxed; the mutex orders it before every change of the condition that this waiter has to be told of.
        self.waiters.fetch_add(1, Ordering::Relaxed);
        // ORDER: Relaxed; likewise. A notification after the mutex is freed changes it, which the kernel's comparison notices.
        let seen = self.sequence.load(Ordering::Relaxed);
        drop(guard);
        let waited = self.futex.wait(&self.sequence, seen, deadline);
        // ORDER: Relaxed; too high a count costs a call, and this waiter does not need to be told any more.
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        mutex.lock_contended();
        (Guard::taken(mutex), waited)
    }

    /// Wakes one that waits. The condition has to have been changed under the mutex.
    #[inline]
    pub fn notify_one(&self) {
        if self.somebody() {
            self.futex.wake(&self.sequence, 1);
        }
    }

    /// Wakes all that wait: one now, and the others as the mutex comes free, since only one could go on anyway.
    #[inline]
    pub fn notify_all(&self) {
        if self.somebody() {
            self.move_all();
        }
    }

    #[inline]
    fn somebody(&self) -> bool {
        // ORDER: Relaxed; see `wait_until`.
        if self.waiters.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // ORDER: Relaxed; who has read the old value compares in the kernel, which the wake-up that follows enters too.
        self.sequence.fetch_add(1, Ordering::Relaxed);
        true
    }

    #[cold]
    fn move_all(&self) {
        // ORDER: Relaxed; see `wait_until`: it was set before the count that was just read as not 0.
        let mutex = self.mutex.load(Ordering::Relaxed);
        // SAFETY: the pointer is of the mutex that waiters hold borrowed while they count.
        if let Some(word) = unsafe { mutex.as_ref() } {
            self.futex.wake_one_and_move(&self.sequence, word);
        }
    }
}

#[cfg(target_os = "none")]
impl Condvar<super::Kernel> {
    /// A condition variable that nobody waits for.
    pub const fn new() -> Self {
        Self::with(super::Kernel)
    }
}

#[cfg(target_os = "none")]
impl Default for Condvar<super::Kernel> {
    fn default() -> Self {
        Self::new()
    }
}
