//! The way home of objects that were freed on other cores.
//!
//! Treiber's stack ("Systems Programming: Coping with Parallelism", IBM RJ 5118, 1986), pushed to by anybody with one
//! compare-exchange and taken as a whole by the owner with one exchange, so that ABA cannot matter: nobody pops a single link.
//!
//! * S2: a link on the list belongs to the list, and its slab lives: the slab counts the object as out until the owner has it.

use super::header::Link;
use core::ptr::{self, NonNull};
use percpu::const_fn;
use percpu::sync::atomic::{AtomicPtr, Ordering};

/// The list.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `top` | who frees, by compare-exchange; the owner, by exchange | the owner | Release / Acquire | its own |
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Returns {
    top: AtomicPtr<Link>,
}

impl Returns {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self { top: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Adds a link: one atomic operation.
    ///
    /// # Safety
    /// 1. The link's object is out, and the caller's alone until now (S2).
    #[inline]
    pub(crate) unsafe fn push(&self, link: NonNull<Link>) {
        // ORDER: Relaxed: a guess, which the exchange below verifies.
        let mut seen = self.top.load(Ordering::Relaxed);
        loop {
            // SAFETY: obligation 1: its slab lives.
            let own = unsafe { link.as_ref() };
            // SAFETY: obligation 1: nobody else knows it yet.
            unsafe { own.set(seen) };
            // ORDER: Release pairs with Acquire in `take`: the owner sees the link, and whatever we did with the object. Pushes in
            // between are exchanges and continue the release sequence. Relaxed on failure: only another guess.
            match self.top.compare_exchange_weak(seen, link.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether nothing has come.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // ORDER: Relaxed: a hint; what is missed now is found next time.
        self.top.load(Ordering::Relaxed).is_null()
    }

    /// Takes the whole list, newest first. The owner calls it.
    pub(crate) fn take(&self) -> *mut Link {
        // ORDER: Acquire pairs with Release in `push`. Nothing is published by emptying.
        self.top.swap(ptr::null_mut(), Ordering::Acquire)
    }
}
