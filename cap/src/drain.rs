//! Emptying the table of a process that ends.

use crate::LEAF_SLOTS;
use crate::change::Gone;
use crate::memory::{LeafAt, Memory};
use crate::table::{self, Table};
use crate::word::{Head, SlotId};
use core::ptr;
use percpu::sync::atomic::Ordering;

/// How far draining has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a table that is not drained owns references and leaves"]
pub enum Drained {
    /// There is more to do.
    More,
    /// The table is empty, has no leaves, and stays so.
    Done,
}

impl<M: Memory> Table<M> {
    /// Closes the table: nothing is put in any more, except what has already claimed a slot. Lookups and deletions go on.
    pub fn close(&self) {
        // ORDER: Relaxed: continues the release sequence of the exchanges in `replace`, as every exchange does.
        self.counters.head.fetch_or(Head::CLOSED, Ordering::Relaxed);
    }

    /// Closes the table and empties it, in up to `steps` steps: one looks at a slot, or gives back a leaf. `sink` gets the references.
    ///
    /// Other threads may still use the table, and may drain it too. While one is between claiming a slot and filling it, there is more to do.
    pub fn drain(&self, steps: usize, mut sink: impl FnMut(Gone)) -> Drained {
        self.close();
        for _ in 0..steps {
            // ORDER: Acquire pairs with Release in `replace`: once the count is 0, whoever changed a slot is done with it.
            if Head(self.counters.head.load(Ordering::Acquire)).live() != 0 {
                self.take_next().into_iter().for_each(&mut sink);
            } else if !self.give_back_last() {
                return Drained::Done;
            }
        }
        Drained::More
    }

    fn take_next(&self) -> Option<Gone> {
        // ORDER: Relaxed: only numbers; whoever misses a slot comes by again while the count is not 0.
        let fresh = self.counters.fresh.load(Ordering::Relaxed);
        // ORDER: Relaxed: as above.
        let at = self.counters.cursor.fetch_add(1, Ordering::Relaxed);
        let id = SlotId::new(at % fresh);
        self.delete(id.handle(self.slot_at(id).meta().generation())).ok()
    }

    /// Gives back the last leaf; false if there is none. Nobody changes slots any more.
    fn give_back_last(&self) -> bool {
        // ORDER: Relaxed: no inserter changes it any more; drainers agree by the exchange below.
        let fresh = self.counters.fresh.load(Ordering::Relaxed);
        if fresh <= 1 {
            return false;
        }
        let number = (fresh - 1) / LEAF_SLOTS;
        let rest = (number * LEAF_SLOTS).max(1);
        // ORDER: Relaxed: decides who gives this leaf back; nothing is read by it.
        if self.counters.fresh.compare_exchange(fresh, rest, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let empty = table::empty();
            // ORDER: AcqRel: Acquire pairs with Release in `place`; Release: lookups that find the empty leaf do not go back to this one.
            let leaf = self.root_entry(number).swap(empty, Ordering::AcqRel);
            if !ptr::eq(leaf, empty) {
                self.memory.give_back(LeafAt::new(leaf));
            }
        }
        true
    }
}
