//! A mutex of one word with three states, after Drepper, "Futexes Are Tricky" (2011), section 5, "mutex2".
//!
//! `FREE` → `HELD` by compare-and-swap when nobody contends; who has to wait makes it `CONTENDED` and sleeps; an unlock that finds
//! `CONTENDED` wakes one. Who has slept locks as `CONTENDED`, because others may sleep still: at worst one wake-up too many.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use abi::task::NEVER;

use super::Futex;
use super::atomic::{AtomicU32, Ordering};
use super::cell::UnsafeCell;
use super::hint;

/// Nobody holds it.
const FREE: u32 = 0;
/// Held, and nobody sleeps.
const HELD: u32 = 1;
/// Held, and somebody may sleep.
const CONTENDED: u32 = 2;

/// Looks at a held mutex before sleeping: about what two system calls cost, in which a short critical section ends.
const SPINS: u32 = if cfg!(loom) { 1 } else { 64 };

/// Mutual exclusion around a value (R2).
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `state` | who locks and unlocks | the same, and the kernel when one sleeps | Acquire on the way in, Release on the way out |
/// | `value` | the holder | the holder | by `state` |
pub struct Mutex<T, F: Futex> {
    state: AtomicU32,
    futex: F,
    value: UnsafeCell<T>,
}

// SAFETY: R2: the value is reached through a guard only, and `state` lets one guard exist, with Acquire and Release between two.
unsafe impl<T: Send, F: Futex + Sync> Sync for Mutex<T, F> {}
// SAFETY: it owns the value and a word.
unsafe impl<T: Send, F: Futex + Send> Send for Mutex<T, F> {}

impl<T, F: Futex> Mutex<T, F> {
    perf::const_fn! {
        /// A free mutex.
        pub const fn with(value: T, futex: F) -> Self {
            Self { state: AtomicU32::new(FREE), futex, value: UnsafeCell::new(value) }
        }
    }

    /// Waits until nobody else holds it.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T, F> {
        if !self.try_take() {
            self.lock_slowly();
        }
        Guard::taken(self)
    }

    /// Takes it if nobody holds it.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T, F>> {
        self.try_take().then_some(Guard::taken(self))
    }

    #[inline]
    fn try_take(&self) -> bool {
        // ORDER: Acquire pairs with Release in `unlock`: the last holder's writes are seen. A failure reads nothing.
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn lock_slowly(&self) {
        for _ in 0..SPINS {
            // ORDER: Relaxed; only a hint whether to try.
            match self.state.load(Ordering::Relaxed) {
                FREE if self.try_take() => return,
                CONTENDED => break,
                _ => hint::spin_loop(),
            }
        }
        self.lock_contended();
    }

    /// Locks as one who knows of sleepers: whoever was moved here by a condition variable must be woken by the next unlock.
    pub(super) fn lock_contended(&self) {
        // ORDER: Acquire pairs with Release in `unlock`, as in `try_take`.
        while self.state.swap(CONTENDED, Ordering::Acquire) != FREE {
            let _ = self.futex.wait(&self.state, CONTENDED, NEVER);
        }
    }

    #[inline]
    fn unlock(&self) {
        // ORDER: Release pairs with Acquire in `try_take` and `lock_contended`.
        if self.state.swap(FREE, Ordering::Release) == CONTENDED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        self.futex.wake(&self.state, 1);
    }

    /// The word that others sleep on.
    pub(super) fn word(&self) -> &AtomicU32 {
        &self.state
    }
}

#[cfg(target_os = "none")]
impl<T> Mutex<T, super::Kernel> {
    /// A free mutex.
    pub const fn new(value: T) -> Self {
        Self::with(value, super::Kernel)
    }
}

impl<T, F: Futex> fmt::Debug for Mutex<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// Shows that a mutex is held; frees it when it goes. Stays on its thread: another one could not say that it is the holder.
#[must_use]
pub struct Guard<'m, T, F: Futex> {
    mutex: &'m Mutex<T, F>,
    here: PhantomData<*mut ()>,
}

// SAFETY: sharing a guard shares the value.
unsafe impl<T: Sync, F: Futex + Sync> Sync for Guard<'_, T, F> {}

impl<'m, T, F: Futex> Guard<'m, T, F> {
    /// The guard of a mutex that the caller has just locked.
    pub(super) fn taken(mutex: &'m Mutex<T, F>) -> Self {
        Self { mutex, here: PhantomData }
    }

    /// The mutex.
    pub(super) fn mutex(&self) -> &'m Mutex<T, F> {
        self.mutex
    }
}

impl<T, F: Futex> fmt::Debug for Guard<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl<T, F: Futex> Deref for Guard<'_, T, F> {
    type Target = T;

    fn deref(&self) -> &T {
        self.mutex.value.with(|value| {
            // SAFETY: R2: this guard is the only one.
            unsafe { &*value }
        })
    }
}

impl<T, F: Futex> DerefMut for Guard<'_, T, F> {
    fn deref_mut(&mut self) -> &mut T {
        self.mutex.value.with_mut(|value| {
            // SAFETY: R2: this guard is the only one, and borrowed exclusively.
            unsafe { &mut *value }
        })
    }
}

impl<T, F: Futex> Drop for Guard<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.unlock();
    }
}
