//! Bounded channels between two threads, of one process or two: a ring of items in memory that both have, and a bell for each to sleep on.
//!
//! One producer, one consumer. While neither sleeps nobody enters the kernel; who has to wait says so in the ring, and the other rings. The
//! ring is the well-known one with an index for each side (Lamport, "Proving the Correctness of Multiprocess Programs", 1977), each side
//! remembering the other's (Lee and others, "A Lock-Free, Cache-Efficient Multi-Core Synchronization Mechanism", 2009). Sleeping, for either:
//!
//! | who waits | who goes on |
//! |---|---|
//! | 1. says up to which index of the other's, and `WAITS` | 1. writes its index |
//! | 2. looks at the other's state and index; sleeps if it must | 2. looks at the other's state; if it `WAITS`, `AWAKE` and ring |
//!
//! CH1 Of two such pairs one comes first in the total order of SeqCst: so who waits sees the index, or who goes on sees `WAITS` (Dekker).
//! CH2 A side trusts nothing that it reads: its own index and place are its own, and an index of the other's that is not between what was
//! seen before and what is possible is an error. So whatever is in the memory, only the ring is touched, and at most its length taken.
//! CH3 An end writes `CLOSED` once, as its last state; who sees it sees all that was sent before.

mod ends;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub use ends::{Consumer, Producer};

use abi::error::Error;

/// Words of an item: a cache line.
pub const WORDS: usize = if cfg!(loom) { 2 } else { 8 };

/// What is sent.
pub type Item = [u64; WORDS];

type Result<T = ()> = core::result::Result<T, Error>;

/// How one end sleeps, and wakes the other.
pub trait Bell {
    /// Wakes the other end if it sleeps; else its next [`wait`](Self::wait) returns at once.
    ///
    /// # Errors
    /// What the kernel says; [`Error::PeerGone`] and [`Error::BadHandle`] mean that there is no other end any more.
    fn ring(&self) -> Result;

    /// Sleeps until the other end rings, or until a time in ticks of the clock; may return early.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; otherwise as [`ring`](Self::ring).
    fn wait(&self, deadline: u64) -> Result;
}

/// Two notifications, of which nothing else is made.
#[cfg(target_os = "none")]
#[derive(Clone, Copy, Debug)]
pub struct Bells {
    /// Where this end waits. Needs `RECEIVE`.
    pub own: crate::handle::Notification,
    /// Where the other one does. Needs `SEND`.
    pub peer: crate::handle::Notification,
}

#[cfg(target_os = "none")]
impl Bell for Bells {
    fn ring(&self) -> Result {
        self.peer.signal(1)
    }

    fn wait(&self, deadline: u64) -> Result {
        self.own.wait_until(crate::time::Deadline(deadline)).map(drop)
    }
}
