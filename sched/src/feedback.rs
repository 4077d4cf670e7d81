//! The feedback queue: normal threads sink by what they use and rise by what they leave.
//!
//! What a thread has used is one position on a line: the quanta of the levels above its own, and what is gone of its own. Running moves it
//! down, however the time is cut into pieces, so that giving the core up just before the end gains nothing. Waiting moves it up, an eighth
//! as fast: a thread that needs less than a ninth of the core stays at the first level. Every so often all are lifted there (boost).
//!
//! Equal threads take turns that are shorter than the quanta, the shorter the more of them wait: that, and not the quantum, bounds how
//! far their shares differ. A boost leaves turns and order alone, so that it costs no one its share.

use crate::dispatch::Core;
use crate::task::{Class, Entity, Kind, Task};
use crate::{LEVELS, NEVER};

/// Priority of the first level; each further level has the one below.
pub(crate) const TOP: u8 = LEVELS as u8;
/// Of a turn: that it is over, whatever its length.
pub(crate) const OVER: u64 = u64::MAX;
/// How many ticks of waiting give one tick back, as a shift.
const EARN_SHIFT: u32 = 3;

const fn priority_of(level: u8) -> u8 {
    TOP - level
}

impl<E: Entity> Core<E> {
    fn quantum(&self, level: u8) -> u64 {
        self.quanta[usize::from(level) & 7].get()
    }

    /// Whether `task` is a normal thread, and there was a boost since it was last looked at.
    #[inline]
    pub(crate) fn is_stale(&self, task: &Task<E>) -> bool {
        task.generation.get() != self.generation.get()
            && match task.kind.get() {
                Kind::Normal => true,
                Kind::Inheriting => task.class.get() == Class::Normal,
                Kind::RealTime | Kind::Limited | Kind::Deadline => false,
            }
    }

    /// Lifts a normal thread to the first level if there was a boost since it was last looked at.
    #[inline]
    pub(crate) fn refresh(&self, task: &Task<E>) {
        if self.is_stale(task) {
            self.lift(task);
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn lift(&self, task: &Task<E>) {
        task.generation.set(self.generation.get());
        self.place_at(task, 0, self.quantum(0));
    }

    fn place_at(&self, task: &Task<E>, level: u8, left: u64) {
        task.level.set(level);
        task.priority.set(priority_of(level));
        task.left.set(left);
    }

    /// The queue that a queued thread is in (S3).
    pub(crate) fn queue_of(&self, task: &Task<E>) -> u8 {
        if task.kind.get() == Kind::Inheriting {
            return self.inherited_queue(task);
        }
        if self.is_stale(task) { TOP } else { task.priority.get() }
    }

    /// What a normal thread has left after it has waited.
    #[inline]
    fn after_wait(&self, task: &Task<E>, now: u64) -> u64 {
        // Cannot overflow: a quantum is at most 2^60 (`Tunables::mended`), and what is earned less than 2^61.
        task.left.get().wrapping_add(now.saturating_sub(task.stopped.get()) >> EARN_SHIFT)
    }

    /// Gives a normal thread back a part of the time that it has waited; `false`, and nothing is done, if that would lift it (`rise`).
    #[inline]
    pub(crate) fn earn(&self, task: &Task<E>, now: u64) -> bool {
        let (level, left) = (task.level.get(), self.after_wait(task, now));
        let quantum = self.quantum(level);
        if left > quantum && level > 0 {
            return false;
        }
        task.left.set(left.min(quantum));
        true
    }

    /// Carries what a normal thread has left beyond its level's quantum over to the levels above.
    pub(crate) fn rise(&self, task: &Task<E>, now: u64) {
        let (mut level, mut left) = (task.level.get(), self.after_wait(task, now));
        while level > 0 && left > self.quantum(level) {
            left -= self.quantum(level);
            level -= 1;
        }
        self.place_at(task, level, left.min(self.quantum(level)));
    }

    /// A normal thread has used its quantum: it goes behind all others of the next level, or of the last.
    pub(crate) fn sink(&self, task: &Task<E>) {
        let level = (task.level.get() + 1).min(TOP - 1);
        self.place_at(task, level, self.quantum(level));
        if self.takes_turns(task) {
            task.turn.set(OVER);
        }
    }

    /// Whether a thread takes turns with its equals, as those of the normal band do.
    #[inline]
    pub(crate) fn takes_turns(&self, task: &Task<E>) -> bool {
        match task.kind.get() {
            Kind::Normal => true,
            Kind::Inheriting => self.inherited_queue(task) <= TOP,
            Kind::RealTime | Kind::Limited | Kind::Deadline => false,
        }
    }

    /// How long a thread's turn is, as things stand.
    #[inline]
    pub(crate) fn turn_of(&self, task: &Task<E>) -> u64 {
        // The others are first in, first out; only a yield ends a turn.
        if self.takes_turns(task) { self.turn_length() } else { OVER }
    }

    /// How long a turn in the normal band is.
    #[inline]
    fn turn_length(&self) -> u64 {
        let others = self.queue.normal().max(1);
        let shift = u32::BITS - (others - 1).leading_zeros();
        self.tunables.get().rotation.checked_shr(shift).unwrap_or(0).max(self.quantum(0))
    }

    /// When the current thread, a normal one, has to be looked at. Without others that could run in its place, never.
    pub(crate) fn feedback_event(&self, task: &Task<E>) -> u64 {
        if self.queue.normal() == 0 {
            return NEVER;
        }
        let mut left = task.left.get();
        if self.has_equal() {
            left = left.min(self.turn_length().saturating_sub(task.turn.get()));
        }
        self.since.get().saturating_add(left).min(self.boost.get())
    }

    /// Lifts all normal threads to the first level, in O(levels): queues are joined, and who was in them is told by the generation.
    pub(crate) fn boost(&self, now: u64) {
        self.boost.set(now.saturating_add(self.tunables.get().boost));
        self.generation.set(self.generation.get().wrapping_add(1));
        for priority in (1..TOP).rev() {
            self.queue.splice(priority, TOP);
        }
        let Some(e) = self.current.get() else { return };
        let task = e.task();
        if task.class.get() == Class::Normal {
            self.lift(task);
            self.urgency.set(task.priority());
        }
    }
}
