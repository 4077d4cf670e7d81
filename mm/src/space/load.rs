//! Loads: pages on their way from one place to another (`pass`).
//!
//! A load holds a page of each record that its entries name, so that none of the numbers comes to mean something else (O2).

use super::SpaceError;
use super::entry::{ENTRIES, Entry};
use super::lend::Lent;
use super::memory::Memory;
use crate::virt::PageId;
use core::mem::MaybeUninit;

/// Records that the entries of a load can name.
const RUNS: usize = 4;
/// Most leaves of a load, so that a step stays short.
pub(super) const LEAVES: usize = 128;
/// What a page costs, in leaves, whose content is copied.
pub(super) const COPY: usize = 20;
/// What entries of level 2 cost, in leaves: one that goes as it is; one with 512 words behind it.
pub(super) const BLOCK: usize = 8;
pub(super) const TABLE: usize = 256;

/// A record that entries of a load name, and how many pages they cover.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) record: usize,
    /// What it is in the other space.
    pub(super) twin: usize,
    pub(super) pages: usize,
}

/// Pages on their way. Made once for a pass, and emptied into a space, or by [`Space::discard`]; in the end [`Space::part`] takes it.
#[derive(Debug)]
pub struct Load<M: Memory> {
    pub(super) entries: [MaybeUninit<Entry>; ENTRIES],
    pub(super) len: usize,
    /// Entries that have been put where they go.
    pub(super) done: usize,
    /// Pages that each entry covers.
    pub(super) span: usize,
    /// The page of the first entry where it was taken.
    pub(super) first: PageId,
    pub(super) runs: [Run; RUNS],
    pub(super) used: usize,
    pub(super) cost: usize,
    /// The pair of records that was used last: a guess.
    pub(super) pair: (usize, usize),
    /// The object that takes over what is shared.
    pub(super) lent: Option<Lent<M>>,
}

impl<M: Memory> Load<M> {
    /// Nothing.
    #[must_use]
    #[inline(always)]
    pub const fn new() -> Self {
        Self {
            entries: [const { MaybeUninit::uninit() }; ENTRIES],
            len: 0,
            done: 0,
            span: 1,
            first: PageId::new(0),
            runs: [Run { record: 0, twin: 0, pages: 0 }; RUNS],
            used: 0,
            cost: 0,
            pair: (0, 0),
            lent: None,
        }
    }

    /// Pages that it has taken, whether they have been put somewhere or not.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.len * self.span
    }

    /// What taking it has cost, in leaves.
    #[must_use]
    pub const fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn begin(&mut self, first: PageId, span: usize) {
        debug_assert!(self.done == self.len && self.used == 0, "the load before has arrived");
        (self.first, self.span, self.len, self.done, self.cost) = (first, span, 0, 0, 0);
    }

    #[inline(always)]
    pub(super) fn push(&mut self, entry: Entry, cost: usize) {
        if let Some(place) = self.entries.get_mut(self.len) {
            place.write(entry);
            self.len += 1;
            self.cost += cost;
        }
    }

    /// Room for the entries of a load that is still empty.
    #[inline(always)]
    pub(super) fn room(&mut self) -> &mut [MaybeUninit<Entry>; ENTRIES] {
        debug_assert!(self.len == 0, "nothing has been taken yet");
        &mut self.entries
    }

    /// The first `count` entries have been written into [`Load::room`].
    ///
    /// # Safety
    /// 1. They have.
    #[inline(always)]
    pub(super) unsafe fn filled(&mut self, count: usize) {
        self.len = count;
        self.cost = count;
    }

    /// Whether an entry of the object that takes pages over finds room.
    pub(super) fn has_lent_room(&self) -> bool {
        let runs = self.runs.get(..self.used).unwrap_or_default();
        let own = self.lent.as_ref().map_or(0, Lent::record);
        self.used < RUNS || runs.iter().any(|run| run.record == own)
    }

    /// The entries that are still to be put somewhere.
    pub(super) fn rest(&self) -> &[Entry] {
        let rest = self.entries.get(self.done..self.len).unwrap_or_default();
        // SAFETY: `push` has written the first `len`.
        unsafe { rest.assume_init_ref() }
    }

    /// The page where the first was taken that has not been put anywhere.
    #[must_use]
    pub const fn page(&self) -> PageId {
        PageId::new(self.first.number() + self.done * self.span)
    }

    pub(super) fn runs(&mut self) -> &mut [Run] {
        self.runs.get_mut(..self.used).unwrap_or_default()
    }

    pub(super) fn twin_of(&mut self, record: usize) -> Option<&mut Run> {
        self.runs().iter_mut().find(|run| run.record == record)
    }
}

impl<M: Memory> Default for Load<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// Why no more is taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Short {
    /// This would go wrong.
    Error(SpaceError),
    /// The load is full.
    Full,
    /// An object is needed that takes pages over.
    Lend,
}

impl From<SpaceError> for Short {
    fn from(error: SpaceError) -> Self {
        Self::Error(error)
    }
}
