//! Delays, collected.

use alloc::vec::Vec;

/// Delays in ticks.
#[derive(Debug, Default)]
pub(super) struct Delays(Vec<u64>);

impl Delays {
    /// Notes one.
    pub(super) fn note(&mut self, ticks: u64) {
        self.0.push(ticks);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The longest; as long as can be if there is none.
    pub(super) fn worst(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(u64::MAX)
    }

    /// The one in the middle; as long as can be if there is none.
    pub(super) fn median(&mut self) -> u64 {
        self.0.sort_unstable();
        self.0.get(self.0.len() / 2).copied().unwrap_or(u64::MAX)
    }
}
