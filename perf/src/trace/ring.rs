//! The ring of one core.

use core::cell::Cell;

use super::TraceRecord;

/// The newest records of one core, in memory that is lent to it. Not `Sync`: its core alone uses it.
///
/// Records are numbered from 0 in the order in which they came; record `n` lies at `n` modulo the capacity.
#[derive(Debug)]
pub struct Ring<'m> {
    /// As many cells as a power of two, or none.
    cells: Cell<&'m [Cell<TraceRecord>]>,
    /// Number of the next record.
    next: Cell<u64>,
    /// Number of the first record that has not been taken.
    untaken: Cell<u64>,
}

/// What [`Ring::take`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Number of the first record that was taken; numbers go up by one.
    pub first: u64,
    /// How many were taken.
    pub count: usize,
    /// How many before them were overwritten without having been taken.
    pub lost: u64,
}

impl Default for Ring<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'m> Ring<'m> {
    /// A ring without memory, which keeps nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { cells: Cell::new(&[]), next: Cell::new(0), untaken: Cell::new(0) }
    }

    /// Gives the ring its memory, of which it uses a power of two of records. What it held is gone.
    pub fn lend(&self, memory: &'m [Cell<TraceRecord>]) {
        let length = memory.len().checked_ilog2().map_or(0, |log| 1 << log);
        self.cells.set(memory.get(..length).unwrap_or_default());
        self.untaken.set(self.next.get());
    }

    /// How many records it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.cells.get().len()
    }

    /// Keeps a record, in place of the oldest if there is no room. Nothing happens in a ring without memory.
    #[inline]
    pub fn record(&self, record: TraceRecord) {
        let next = self.next.get();
        let cells = self.cells.get();
        // Without cells the mask is all ones, and no index is in range.
        let Some(cell) = cells.get(next as usize & cells.len().wrapping_sub(1)) else { return };
        cell.set(record);
        self.next.set(next + 1);
    }

    /// Takes the oldest records that were not taken before, as many as there are and `out` has room for.
    pub fn take(&self, out: &mut [TraceRecord]) -> Taken {
        let cells = self.cells.get();
        let next = self.next.get();
        let oldest = next.saturating_sub(cells.len() as u64);
        let first = self.untaken.get().max(oldest);
        let lost = first - self.untaken.get();
        let mut count = 0;
        for (slot, number) in out.iter_mut().zip(first..next) {
            let Some(cell) = cells.get(number as usize & (cells.len() - 1)) else { break };
            *slot = cell.get();
            count += 1;
        }
        self.untaken.set(first + count as u64);
        Taken { first, count, lost }
    }
}
