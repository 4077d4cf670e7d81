//! Who runs on a core, decided without hardware: the kernel tells what happens and when, this crate answers who runs next.
//!
//! * [`Core`]: one core's run queue, classes, budgets and timeouts. Plain memory of its owner; other cores ask through the mailbox.
//! * [`Task`]: the part of a thread that belongs to the scheduler; [`Entity`] is the reference by which a thread is known.
//! * [`Heap`]: what is due, the earliest first; the kernel's own timers use it too.
//! * [`Tunables`]: quanta and bounds.
//! * [`balance`]: who takes threads from whom, as pure functions over what cores show of themselves.
//! * [`rate`]: how often a process may call.
//!
//! Bands, the most urgent first: deadlines (earliest first, admitted by density), real time (priorities 64 to 255, first in first out),
//! normal (a feedback queue of five levels, priorities 1 to 5). Times are ticks of one clock that the caller reads; S1–S4 are in `dispatch`.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod assembly;
mod audit;
pub mod balance;
mod budget;
mod dispatch;
mod feedback;
mod heap;
mod inherit;
mod queue;
pub mod rate;
mod task;
mod tunables;

pub use crate::audit::Flaw;
pub use crate::dispatch::{Core, Decision, PeriodEnd, Ready, Stop};
pub use crate::heap::{Heap, Part};
pub use crate::task::{Class, Entity, Links, Stem, Task};
pub use crate::tunables::Tunables;

/// A time that never comes.
pub const NEVER: u64 = abi::task::NEVER;

/// Levels of the feedback queue.
pub const LEVELS: usize = 5;
