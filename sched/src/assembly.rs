//! What assembly has to know to queue a real-time thread as [`Core::ready`] does where that decides to go on: behind its equals, with the same
//! steps.
//!
//! The queues lie at `FIFOS` in the core, [`FIFO`] bytes each, with `FIRST` and `LAST`; the bitmap at `WORDS`, 64 priorities a word; the number
//! of members that a word covers at `COUNTS`, four bytes each.

use core::mem::offset_of;

use crate::dispatch::Core;
use crate::queue::{Fifo, Queue};
use crate::task::{Kind, Links, Place, Task};

/// What [`Task::KIND`] says of a real-time thread without budget that inherits nothing.
pub const REAL_TIME: u8 = Kind::RealTime as u8;
/// What [`Task::PLACE`] says of a thread in a queue.
pub const QUEUED: u8 = Place::Queued as u8;
/// Bytes of a queue.
pub const FIFO: usize = size_of::<Fifo<&'static u64>>();

impl<E> Core<E> {
    /// The current thread, or 0.
    pub const CURRENT: usize = offset_of!(Self, current);
    /// Its priority, four bytes.
    pub const URGENCY: usize = offset_of!(Self, urgency);
    /// See the module.
    pub const FIRST: usize = offset_of!(Self, queue) + Queue::<E>::FIFOS + offset_of!(Fifo<E>, first);
    /// See the module.
    pub const LAST: usize = offset_of!(Self, queue) + Queue::<E>::FIFOS + offset_of!(Fifo<E>, last);
    /// See the module.
    pub const WORDS: usize = offset_of!(Self, queue) + Queue::<E>::WORDS;
    /// See the module.
    pub const COUNTS: usize = offset_of!(Self, queue) + Queue::<E>::COUNTS;
}

impl<E> Task<E> {
    /// The next one in its queue, or 0.
    pub const NEXT: usize = offset_of!(Self, links) + offset_of!(Links<E>, next);
    /// The one before in its queue, or 0.
    pub const PREV: usize = offset_of!(Self, links) + offset_of!(Links<E>, prev);
    /// What it used of its turn: 0 for one that is queued behind its equals.
    pub const TURN: usize = offset_of!(Self, turn);
    /// How it is queued, one byte.
    pub const KIND: usize = offset_of!(Self, kind);
    /// Its queue, one byte.
    pub const PRIORITY: usize = offset_of!(Self, priority);
    /// Where it is, one byte.
    pub const PLACE: usize = offset_of!(Self, place);
}
