//! Walks a core's queues and checks that S1 to S3 hold. For tests, the kernel's included; takes as long as there are threads.

use crate::dispatch::{Core, DEADLINE};
use crate::heap::{Heap, Part};
use crate::task::{Class, Entity, Kind, Place};

/// What is wrong with a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A link does not lead back.
    Links,
    /// The bitmap does not say which queues have members.
    Bitmap,
    /// A counter is not the number of what it counts.
    Count,
    /// A thread is not where it says it is (S2), or is current and queued (S1).
    Place,
    /// A thread is in the queue of another priority (S3), or in the wrong kind of queue.
    Priority,
    /// A heap's order or shape is broken.
    Heap,
}

impl<E: Entity> Core<E> {
    /// Checks the core.
    ///
    /// # Errors
    /// The first [`Flaw`] that is found.
    pub fn audit(&self) -> Result<(), Flaw> {
        let mut counts = [0; 4];
        for priority in 0..=u8::MAX {
            counts[usize::from(priority / 64)] += self.audit_queue(priority)?;
        }
        if !self.queue.counts_are(counts) {
            return Err(Flaw::Count);
        }
        let due = audit_heap(&self.deadlines, Place::Due, |e| {
            let task = e.task();
            task.class.get() == Class::Deadline && task.due.get() == task.stem.key.get()
        })?;
        if due != self.deadlines_len.get() {
            return Err(Flaw::Count);
        }
        audit_heap(&self.throttled, Place::Throttled, |e| e.task().left.get() == 0)?;
        walk(&self.timeouts, |_| Ok(()))?;
        self.audit_current()
    }

    fn audit_current(&self) -> Result<(), Flaw> {
        let Some(current) = self.current.get() else {
            return if self.urgency.get() == 0 { Ok(()) } else { Err(Flaw::Priority) };
        };
        let task = current.task();
        if task.place.get() != Place::Current {
            return Err(Flaw::Place);
        }
        let deadline = task.class.get() == Class::Deadline;
        let fits = task.priority() == self.urgency.get() && deadline == (self.urgency.get() == DEADLINE);
        if fits { Ok(()) } else { Err(Flaw::Priority) }
    }

    /// Members of one queue.
    fn audit_queue(&self, priority: u8) -> Result<u32, Flaw> {
        let (mut members, mut before) = (0, None);
        let mut at = self.queue.first(priority);
        if at.is_some() != self.queue.is_marked(priority) {
            return Err(Flaw::Bitmap);
        }
        while let Some(e) = at {
            let task = e.task();
            if task.links.prev.get() != before {
                return Err(Flaw::Links);
            }
            if task.place.get() != Place::Queued || self.current.get() == Some(e) {
                return Err(Flaw::Place);
            }
            let inherits = task.inherited.get() != 0;
            let fits = (task.kind.get() == Kind::Inheriting) == inherits && priority >= task.inherited.get();
            if self.queue_of(task) != priority || task.class.get() == Class::Deadline || !fits {
                return Err(Flaw::Priority);
            }
            members += 1;
            before = at;
            at = task.links.next.get();
        }
        if self.queue.last(priority) == before { Ok(members) } else { Err(Flaw::Links) }
    }
}

/// Members of a heap of runnable or throttled threads.
fn audit_heap<E: Entity, P: Part<E>>(
    heap: &Heap<E, P>,
    place: Place,
    fits: impl Fn(E) -> bool,
) -> Result<u64, Flaw> {
    let mut members = 0;
    walk(heap, |e| {
        members += 1;
        if e.task().place.get() != place {
            return Err(Flaw::Place);
        }
        if fits(e) { Ok(()) } else { Err(Flaw::Heap) }
    })?;
    Ok(members)
}

/// Visits all of a heap, parents before children, and checks order, ranks and parent links.
fn walk<E: Entity, P: Part<E>>(
    heap: &Heap<E, P>,
    mut visit: impl FnMut(E) -> Result<(), Flaw>,
) -> Result<(), Flaw> {
    let rank = |e: Option<E>| e.map_or(0, |e| P::stem(&e).rank.get());
    let mut at = heap.first();
    if at.is_some_and(|root| P::stem(&root).parent.get().is_some()) {
        return Err(Flaw::Links);
    }
    while let Some(e) = at {
        visit(e)?;
        let (left, right) = (P::links(&e).next.get(), P::links(&e).prev.get());
        for child in [left, right].into_iter().flatten() {
            let stem = P::stem(&child);
            if stem.parent.get() != Some(e) {
                return Err(Flaw::Links);
            }
            if stem.key.get() < P::stem(&e).key.get() {
                return Err(Flaw::Heap);
            }
        }
        if rank(left) < rank(right) || rank(Some(e)) != rank(right) + 1 {
            return Err(Flaw::Heap);
        }
        at = left.or(right).or_else(|| climb::<E, P>(e));
    }
    Ok(())
}

/// The next to visit after a leaf: the right child of the nearest ancestor that was left to the left.
fn climb<E: Entity, P: Part<E>>(leaf: E) -> Option<E> {
    let mut from = leaf;
    loop {
        let parent = P::stem(&from).parent.get()?;
        let right = P::links(&parent).prev.get();
        if right.is_some() && right != Some(from) {
            return right;
        }
        from = parent;
    }
}
