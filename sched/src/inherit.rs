//! Priority inheritance: who works for somebody more urgent is queued as that one would be, until told otherwise.
//!
//! Only the place in the queues is inherited. Quantum, level and budget stay the thread's own, and are used up: a normal thread sinks meanwhile
//! and feels it afterwards, one whose budget is used up waits for its next period whoever waits for it, since what it was given is what others
//! were promised that it takes. So is a deadline: only budgets run in that band, so what is inherited from one is the highest priority below
//! it, and a thread with a deadline has nothing to inherit.
//! After L. Sha, R. Rajkumar, J. Lehoczky, "Priority Inheritance Protocols" (IEEE Transactions on Computers 39(9), 1990).

use crate::Ready;
use crate::dispatch::{Core, Decision};
use crate::feedback::TOP;
use crate::task::{Class, Entity, Kind, Place, Task};

impl<E> Task<E> {
    fn set_inherited(&self, inherited: u8) {
        self.inherited.set(inherited);
        self.show_kind();
    }

    /// Has the queues treat the thread as one of its class, or as one that inherits.
    pub(crate) fn show_kind(&self) {
        let class = self.class.get();
        let inherits = self.inherited.get() != 0 && class != Class::Deadline;
        self.kind.set(if inherits { Kind::Inheriting } else { class.kind() });
    }
}

impl<E: Entity> Core<E> {
    /// From now on `e`, which lives here, is at least as urgent as `urgency`, a priority as [`Task::priority`] tells it; 0 if it does not
    /// inherit any more. What it inherited before is forgotten. A queued thread that becomes more urgent goes behind its new equals, one that
    /// becomes less urgent before them.
    pub fn inherit(&self, e: E, urgency: u32, now: u64) -> Decision {
        let task = e.task();
        let inherited = u8::try_from(urgency).unwrap_or(u8::MAX);
        if task.inherited.get() == inherited {
            return Decision::Keep;
        }
        match task.place.get() {
            Place::Current => {
                task.set_inherited(inherited);
                self.urgency.set(task.priority());
                self.tick(now)
            }
            Place::Queued => self.requeue_inheriting(e, inherited),
            Place::Nowhere | Place::Due | Place::Throttled => {
                task.set_inherited(inherited);
                Decision::Keep
            }
        }
    }

    fn requeue_inheriting(&self, e: E, inherited: u8) -> Decision {
        let task = e.task();
        let before = self.queue_of(task);
        self.remove(e);
        task.set_inherited(inherited);
        let priority = self.queue_of(task);
        if priority > before {
            self.enqueue_last(e, priority);
        } else {
            task.place.set(Place::Queued);
            self.queue.push_first(e, priority);
        }
        self.against(u32::from(priority))
    }

    /// The queue of one that inherits.
    pub(crate) fn inherited_queue(&self, task: &Task<E>) -> u8 {
        let own = if self.is_stale(task) { TOP } else { task.priority.get() };
        own.max(task.inherited.get())
    }

    /// `ready` for one that inherits.
    pub(crate) fn ready_inheriting(&self, e: E, now: u64, why: Ready) -> Decision {
        let task = e.task();
        match task.class.get() {
            Class::Limited => return self.ready_budgeted(e, now),
            Class::Normal if self.is_stale(task) => self.lift(task),
            Class::Normal if why == Ready::Woken => self.rise(task, now),
            _ => {}
        }
        let priority = self.queue_of(task);
        self.enqueue_last(e, priority);
        self.against(u32::from(priority))
    }
}
