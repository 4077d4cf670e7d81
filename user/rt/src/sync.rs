//! Synchronisation between threads that share memory: what nobody contends for is one atomic instruction in user mode.
//!
//! Everything here is written against [`Futex`], which the kernel implements for programs and a fake for the host's loom models. Threads
//! that must wait sleep in the kernel, keyed by the address of a word.

mod barrier;
mod condvar;
mod mutex;
mod semaphore;

#[cfg(all(test, loom))]
mod models;

pub use barrier::Barrier;
pub use condvar::Condvar;
pub use mutex::{Guard, Mutex};
pub use perf::sync::{atomic, cell, hint};
pub use semaphore::Semaphore;

use atomic::AtomicU32;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Waited {
    /// Woken, or the word did not hold the expected value, or for no reason: look again.
    LookAgain,
    /// The deadline has passed.
    TimedOut,
}

/// Sleeping and waking by the address of a word.
pub trait Futex {
    /// Sleeps until woken or until the deadline (ticks of the clock, [`NEVER`](abi::task::NEVER) for none), if the word holds
    /// `expected`. Comparing and falling asleep are one step to whoever wakes.
    fn wait(&self, word: &AtomicU32, expected: u32, deadline: u64) -> Waited;

    /// Wakes at most so many that sleep on the word.
    fn wake(&self, word: &AtomicU32, count: u32);

    /// Wakes one that sleeps on a word, and lets all others sleep on `to` instead.
    fn wake_one_and_move(&self, word: &AtomicU32, to: &AtomicU32);
}

/// The kernel's futex.
#[cfg(target_os = "none")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Kernel;

#[cfg(target_os = "none")]
impl Futex for Kernel {
    fn wait(&self, word: &AtomicU32, expected: u32, deadline: u64) -> Waited {
        // SAFETY: the address is of an atomic word, which the kernel only compares.
        let answer = unsafe { crate::sys::futex_wait(address(word), u64::from(expected), deadline) };
        if answer == Err(abi::error::Error::TimedOut) { Waited::TimedOut } else { Waited::LookAgain }
    }

    fn wake(&self, word: &AtomicU32, count: u32) {
        // SAFETY: the address only names who sleeps.
        let _ = unsafe { crate::sys::futex_wake(address(word), u64::from(count)) };
    }

    fn wake_one_and_move(&self, word: &AtomicU32, to: &AtomicU32) {
        // SAFETY: the addresses only name who sleeps.
        let _ = unsafe { crate::sys::futex_requeue(address(word), address(to), u64::from(u32::MAX)) };
    }
}

#[cfg(target_os = "none")]
fn address(word: &AtomicU32) -> u64 {
    core::ptr::from_ref(word) as u64
}
