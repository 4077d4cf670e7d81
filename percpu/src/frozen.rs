//! A static that is filled once, in place, and only read from then on.
//!
//! For values too large to be built on a kernel stack, such as the [`Topology`](crate::topology::Topology).
//!
//! * Z1: the value is written only between `EMPTY` and `READY`, by the one caller that left `EMPTY`.
//!
//! | field | writer | readers | ordering | line |
//! |---|---|---|---|---|
//! | `state` | the filler | all | Release / Acquire | shared with the value's start, read-only once ready |
//! | `value` | the filler, before `READY` | all, after `READY` | by `state` | – |

use crate::const_fn;
use crate::sync::atomic::{AtomicU8, Ordering};
use core::cell::UnsafeCell;

const EMPTY: u8 = 0;
const FILLING: u8 = 1;
const READY: u8 = 2;

/// A value that one caller fills once and everybody reads afterwards.
#[derive(Debug)]
pub struct Frozen<T> {
    state: AtomicU8,
    value: UnsafeCell<T>,
}

// SAFETY: `state` orders the one writer before all readers (Z1); what is shared afterwards is `&T`.
unsafe impl<T: Send + Sync> Sync for Frozen<T> {}

impl<T> Frozen<T> {
    const_fn! {
        /// A value to be filled later; `blank` is never seen by readers.
        pub const fn new(blank: T) -> Self {
            Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(blank) }
        }
    }

    /// Fills the value in place and opens it to readers.
    ///
    /// # Panics
    /// When it has been filled before (Z1).
    pub fn fill(&self, f: impl FnOnce(&mut T)) -> &T {
        // ORDER: Relaxed: only decides who fills; nothing is read through it.
        let first = self.state.compare_exchange(EMPTY, FILLING, Ordering::Relaxed, Ordering::Relaxed);
        assert!(first.is_ok(), "Z1: a frozen value is filled once");
        // SAFETY: we alone have left EMPTY, and nobody reads before READY (Z1).
        f(unsafe { &mut *self.value.get() });
        // ORDER: Release pairs with Acquire in `try_get`.
        self.state.store(READY, Ordering::Release);
        self.get()
    }

    /// The value, if it has been filled.
    #[inline]
    pub fn try_get(&self) -> Option<&T> {
        // ORDER: Acquire pairs with Release in `fill`.
        if self.state.load(Ordering::Acquire) == READY {
            // SAFETY: after READY nobody writes (Z1).
            Some(unsafe { &*self.value.get() })
        } else {
            None
        }
    }

    /// The value.
    ///
    /// # Panics
    /// When it has not been filled.
    #[inline]
    pub fn get(&self) -> &T {
        self.try_get().expect("Z1: a frozen value is filled before it is read")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Frozen;

    #[test]
    fn is_read_after_it_is_filled() {
        let value = Frozen::new([0u8; 4]);
        assert_eq!(value.try_get(), None);
        assert_eq!(value.fill(|v| v[1] = 5), &[0, 5, 0, 0]);
        assert_eq!(value.get()[1], 5);
    }

    #[test]
    #[should_panic(expected = "Z1")]
    fn is_filled_once() {
        let value = Frozen::new(0);
        value.fill(|v| *v = 1);
        value.fill(|v| *v = 2);
    }
}
