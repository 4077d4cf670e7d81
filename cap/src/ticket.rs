//! The lock of a family: fair, one word, for a few dozen instructions at a time.
//!
//! Fairness is part of the argument that a revocation gets on: the lock comes round to whoever waits, however many others there are.

use percpu::const_fn;
use percpu::sync::atomic::{AtomicU16, Ordering};
use percpu::sync::hint;

/// A ticket lock in four bytes, for up to 65,535 cores, with interrupts off as every lock of the kernel's. Nothing else is locked under it.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `next` | who comes | the same | Relaxed |
/// | `serving` | who leaves | who waits | Release / Acquire |
#[derive(Debug)]
#[repr(C)]
pub struct Ticket {
    next: AtomicU16,
    serving: AtomicU16,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Ticket>() == 4);

impl Ticket {
    const_fn! {
        /// Open.
        #[must_use]
        pub const fn new() -> Self {
            Self { next: AtomicU16::new(0), serving: AtomicU16::new(0) }
        }
    }

    /// Runs `f` with the lock held.
    #[inline(always)]
    pub(crate) fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        // ORDER: Relaxed: only numbers are handed out.
        let own = self.next.fetch_add(1, Ordering::Relaxed);
        // ORDER: Acquire pairs with Release below: what the one before has done is seen.
        while self.serving.load(Ordering::Acquire) != own {
            hint::spin_loop();
        }
        let result = f();
        // ORDER: Release pairs with Acquire above.
        self.serving.store(own.wrapping_add(1), Ordering::Release);
        result
    }
}

impl Default for Ticket {
    fn default() -> Self {
        Self::new()
    }
}
