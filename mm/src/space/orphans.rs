//! Objects that nobody refers to any more, waiting for the steps in which they end.

use super::Progress;
use super::info::Way;
use super::memory::{Memory, Pool};
use super::object::Object;
use crate::id::{FrameId, Order};
use core::cell::Cell;

/// A core's orphans, for its [`Pool::orphan`]. They are linked by the words of their own frames, so that to take one over needs no memory.
#[derive(Debug)]
pub struct Orphans<M> {
    memory: M,
    /// The one that is being ended; the others behind it.
    first: Cell<Option<FrameId>>,
    /// How far it has come.
    at: Cell<usize>,
}

impl<M: Memory> Orphans<M> {
    /// None.
    pub const fn new(memory: M) -> Self {
        Self { memory, first: Cell::new(None), at: Cell::new(0) }
    }

    /// Whether there are none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }

    /// Takes one over: behind the first, which may have been begun.
    ///
    /// # Safety
    /// 1. `frame` is the own frame of an object of this memory to which no reference is left, and from now on it is these orphans' alone.
    pub unsafe fn add(&self, frame: FrameId) {
        let own = self.memory.info(frame);
        match self.first.get() {
            None => {
                own.set_stale(None, Order::FRAME, Way::Now);
                self.first.set(Some(frame));
            }
            Some(first) => {
                let first = self.memory.info(first);
                own.set_stale(first.stale().0, Order::FRAME, Way::Now);
                first.set_stale(Some(frame), Order::FRAME, Way::Now);
            }
        }
    }

    /// Does a step (some ten thousand instructions at most); `false` if there was nothing to do.
    pub fn step<P: Pool>(&self, pool: &mut P) -> bool {
        let Some(first) = self.first.get() else { return false };
        let own = self.memory.info(first);
        // Taken out meanwhile, so that the pool may add what goes with it.
        self.first.set(own.stale().0);
        let at = self.at.replace(0);
        // SAFETY: `add`, 1: no reference is left, and this is the only value made of the frame; it is forgotten or ends here.
        let object = unsafe { Object::from_frame(first, self.memory) };
        // SAFETY: no reference is left; `at` is what the step before said.
        if let Progress::More(at) = unsafe { object.destroy(pool, at) } {
            own.set_stale(self.first.get(), Order::FRAME, Way::Now);
            self.first.set(Some(first));
            self.at.set(at);
        }
        true
    }
}
