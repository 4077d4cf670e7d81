//! Messages between threads: who waits where, and who may end whose wait. Decides without hardware; what a thread is, and how messages
//! are copied, is the kernel's ([`Party`]).
//!
//! * [`Queue`]: the threads that wait at an endpoint or a notification. With one receiver waiting it is one word, which one exchange takes.
//! * [`Notification`]: bits to wait for (IN1, IN2).
//! * [`ReplySlot`]: the caller that somebody has to answer, once.
//! * [`Link`]: where a thread waits, so that its own core can take it out again.
//!
//! * IQ1: of all who want to take a party out of where it waits exactly one succeeds; that one decides how its wait ends.
//! * IQ2: a party's `at` names the queue or slot from before it can be found there until after it was taken out; whoever takes it writes
//!   `at`, before whatever it waited in can go, or it runs again. So a core that has read the `at` of a party that waits may look there until
//!   it leaves the kernel; that of one that does not wait is of the past.
//! * IQ3: a queue holds receivers or senders, never both: a sender that finds a receiver takes it, and the other way round.
//! * IR1: a slot holds a caller that waits for it, and no other slot or queue does; answering and giving up take it out, once.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod link;
mod notification;
mod queue;
mod reply;
mod withdraw;

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod scene;
#[cfg(all(test, not(loom)))]
mod tests;

pub use link::{At, Link, Party, Word};
pub use notification::{Notification, Parked};
pub use queue::{Guard, Kind, Queue};
pub use reply::{Aborted, ReplySlot};
pub use withdraw::Withdrawn;
