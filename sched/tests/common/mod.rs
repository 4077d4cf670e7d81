//! Threads for tests.

use sched::{Entity, Task};
use std::fmt;

/// A thread of a test; lives until the test program ends, because references to it are plain.
pub(crate) struct Thread {
    pub(crate) id: usize,
    task: Task<Ref>,
}

#[derive(Clone, Copy)]
pub(crate) struct Ref(&'static Thread);

impl Ref {
    pub(crate) fn new(id: usize) -> Self {
        Self(Box::leak(Box::new(Thread { id, task: Task::new() })))
    }

    pub(crate) fn id(self) -> usize {
        self.0.id
    }
}

impl PartialEq for Ref {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Ref {}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.0.id)
    }
}

impl Entity for Ref {
    fn task(&self) -> &Task<Self> {
        &self.0.task
    }
}
