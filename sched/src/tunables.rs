//! What can be tuned: quanta, boost, rotation and the bound of what deadlines are promised, in ticks.

use crate::LEVELS;

/// Longest quantum, so that sums of a few do not overflow.
const MAX_QUANTUM: u64 = 1 << 60;

/// What can be tuned, for one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunables {
    /// Ticks that a normal thread may use at each level before it sinks to the next; at the last level they only repeat.
    pub quanta: [u64; LEVELS],
    /// Ticks after which every normal thread is lifted to the first level.
    pub boost: u64,
    /// Bound of how unequal the shares of equal threads become: with `n` others waiting, a turn is at most `rotation / n` ticks (the
    /// divisor rounded up to a power of two), but not less than the first quantum.
    pub rotation: u64,
    /// Parts per million of the core's time that deadlines may be promised.
    pub promise: u64,
    /// The least budget that a thread can have, so that budgets cannot flood the core with timer interrupts.
    pub least_budget: u64,
}

impl Tunables {
    /// The usual values for a clock of so many ticks per millisecond: quanta of 1, 5, 20, 50 and 100 ms, a boost every second, shares of
    /// equal threads that differ by 40 ms at most, 95 % for deadlines, budgets from 10 µs.
    #[must_use]
    pub const fn at(ticks_per_ms: u64) -> Self {
        let ms = ticks_per_ms;
        Self {
            quanta: [
                ms,
                ms.saturating_mul(5),
                ms.saturating_mul(20),
                ms.saturating_mul(50),
                ms.saturating_mul(100),
            ],
            boost: ms.saturating_mul(1000),
            rotation: ms.saturating_mul(40),
            promise: 950_000,
            least_budget: ms / 100,
        }
        .mended()
    }

    /// The nearest values that make sense: nothing is zero or overflows, and no more than everything is promised.
    #[must_use]
    pub(crate) const fn mended(mut self) -> Self {
        let mut level = 0;
        while level < LEVELS {
            self.quanta[level] =
                if self.quanta[level] > MAX_QUANTUM { MAX_QUANTUM } else { at_least_one(self.quanta[level]) };
            level += 1;
        }
        self.boost = at_least_one(self.boost);
        self.least_budget = at_least_one(self.least_budget);
        if self.promise > 1_000_000 {
            self.promise = 1_000_000;
        }
        self
    }
}

const fn at_least_one(ticks: u64) -> u64 {
    if ticks == 0 { 1 } else { ticks }
}
