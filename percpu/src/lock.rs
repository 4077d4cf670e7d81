//! Spin locks with levels: taking them in the wrong order does not compile.
//!
//! * K1: a core takes locks in strictly rising levels. [`Lock::with`] turns a `Held<H>` into a `Held<L>` only if `L > H`.
//! * K2: every lock is taken with interrupts off ([`Held`] grows out of `&mut IrqOff`), so no handler can spin on a lock
//!   that its own core holds.
//! * K3: nobody waits for another core while holding a lock: waiting needs `&mut IrqOff`, which the `Held` borrows.
//!
//! The mutex underneath is `spin`'s ticket lock: fair, one fetch-add to enter, one store to leave. A queued lock would keep
//! the waiters' lines apart, but hot paths here take no shared lock at all, so its larger guard would buy nothing.
//!
//! Escape hatches: (1) [`Lock::force`], for the panic path; (2) a nested [`IrqOff::with`] starts a new chain at level 0.
//!
//! ```compile_fail,E0080
//! use percpu::{IrqOff, Lock};
//! static LOW: Lock<1, u32> = Lock::new(0);
//! static HIGH: Lock<2, u32> = Lock::new(0);
//! IrqOff::with(|irq| irq.locks(|held| HIGH.with(held, |_, held| LOW.with(held, |low, _| *low += 1))));
//! ```

use crate::pin::IrqOff;
use core::ops::Deref;
use spin::mutex::TicketMutex;

/// Proof of the highest lock level this core holds; `Held<0>` holds none.
#[derive(Debug)]
pub struct Held<'a, const L: u8>(&'a IrqOff);

impl IrqOff {
    /// Starts a chain of locks. While it lasts the `&mut IrqOff` is borrowed (K3).
    #[inline(always)]
    pub fn locks<R>(&mut self, f: impl FnOnce(&mut Held<'_, 0>) -> R) -> R {
        f(&mut Held(self))
    }
}

impl<const L: u8> Deref for Held<'_, L> {
    type Target = IrqOff;

    #[inline(always)]
    fn deref(&self) -> &IrqOff {
        self.0
    }
}

/// A value behind a ticket lock of level `L`.
#[derive(Debug)]
pub struct Lock<const L: u8, T> {
    inner: TicketMutex<T>,
}

impl<const L: u8, T> Lock<L, T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        const { assert!(L > 0, "K1: level 0 means no lock") };
        Self { inner: TicketMutex::new(value) }
    }

    /// Runs `f` with the lock held; `f` may go on to higher levels with the `Held<L>` it is given.
    #[inline]
    pub fn with<const H: u8, R>(
        &self,
        held: &mut Held<'_, H>,
        f: impl FnOnce(&mut T, &mut Held<'_, L>) -> R,
    ) -> R {
        const { assert!(L > H, "K1: lock order: only upwards") };
        let mut guard = self.inner.lock();
        f(&mut guard, &mut Held(held.0))
    }

    /// Like [`Lock::with`], but gives up (`None`) instead of waiting.
    #[inline]
    pub fn try_with<const H: u8, R>(
        &self,
        held: &mut Held<'_, H>,
        f: impl FnOnce(&mut T, &mut Held<'_, L>) -> R,
    ) -> Option<R> {
        const { assert!(L > H, "K1: lock order: only upwards") };
        let mut guard = self.inner.try_lock()?;
        Some(f(&mut guard, &mut Held(held.0)))
    }

    /// Direct access for whoever owns the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }

    /// Reaches the value without taking the lock: for the panic path.
    ///
    /// # Safety
    /// 1. Every other core has stopped for good, or never touches this lock again.
    /// 2. This core's own interrupted use of the value, if any, is never resumed.
    pub unsafe fn force<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: obligations 1 and 2 make this the only live reference.
        f(unsafe { &mut *self.inner.as_mut_ptr() })
    }
}

#[cfg(test)]
mod tests {
    use super::Lock;
    use crate::pin::IrqOff;
    use std::sync::Arc;
    use std::thread;
    use std::vec::Vec;

    #[test]
    fn levels_nest_upwards() {
        let low: Lock<1, u32> = Lock::new(1);
        let high: Lock<9, u32> = Lock::new(2);
        let sum =
            IrqOff::with(|irq| irq.locks(|held| low.with(held, |a, held| high.with(held, |b, _| *a + *b))));
        assert_eq!(sum, 3);
    }

    #[test]
    fn excludes_other_threads() {
        let lock = Arc::new(Lock::<1, u64>::new(0));
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    for _ in 0..200 {
                        IrqOff::with(|irq| irq.locks(|held| lock.with(held, |n, _| *n += 1)));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("worker does not panic");
        }
        let mut lock = Arc::into_inner(lock).expect("last owner");
        assert_eq!(*lock.get_mut(), 800);
    }

    #[test]
    fn try_with_reports_a_taken_lock() {
        let lock: Lock<1, u32> = Lock::new(1);
        IrqOff::with(|irq| {
            irq.locks(|held| {
                lock.with(held, |_, _| {
                    // A second chain on the same core: hatch 2, which only `try_with` survives.
                    let second = IrqOff::with(|irq| irq.locks(|held| lock.try_with(held, |_, _| ())));
                    assert_eq!(second, None);
                });
            });
        });
    }
}
