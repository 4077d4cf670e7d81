//! Pure functions over one bitmap word: aligned runs of ones, and how rich a word is.

use crate::id::WORD_ORDER;

/// Bit i is set where a block of the order may start.
const ALIGNED: [u64; WORD_ORDER + 1] = [
    u64::MAX,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
    1,
];

/// The lowest 2^order bits; the whole word from order 6 on.
#[inline(always)]
pub(crate) const fn mask(order: usize) -> u64 {
    if order >= WORD_ORDER { u64::MAX } else { (1 << (1 << order)) - 1 }
}

/// Bit i is set iff an aligned run of 2^order ones starts at i. Orders up to 6.
#[inline(always)]
pub(crate) const fn runs(word: u64, order: usize) -> u64 {
    let mut runs = word;
    let mut step = 0;
    while step < order {
        runs &= runs >> (1 << step);
        step += 1;
    }
    runs & ALIGNED[order]
}

/// Free frames in one word from which on its chunk is worth a reservation.
///
/// Reserving, collecting and releasing a chunk is some ten locked operations. Chunks with fewer holes are left alone while there
/// is anything better: that costs a few per cent of wholly free chunks, and saves most of the reservations.
const RIPE: u32 = 8;

/// The order of the shorter run that a level of its own stands for.
const EIGHT_ORDER: usize = 3;

/// How useful the free frames of a pooled chunk are; the chunk stands on the list of its level.
///
/// | level | meaning |
/// |---|---|
/// | 0 | nothing is free; on no list |
/// | 1 | poor: no word is ripe, that is, has [`RIPE`] free frames |
/// | 2 | a word is ripe |
/// | 3 | a ripe word has an aligned run of eight free frames |
/// | 4 | a word is wholly free |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Level(u8);

impl Level {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const POOR: Self = Self(1);
    pub(crate) const RICH: Self = Self(2);
    pub(crate) const EIGHT: Self = Self(3);
    pub(crate) const TOP: Self = Self(4);
    /// How many lists there are: one per level but `NONE`.
    pub(crate) const LISTS: usize = Self::TOP.0 as usize;

    /// The level with this number; numbers come from `raw`.
    pub(crate) const fn from_raw(raw: u8) -> Self {
        Self(raw)
    }

    pub(crate) const fn raw(self) -> u8 {
        self.0
    }

    /// The index of the level's list; `None` for level 0.
    pub(crate) fn list(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }

    /// The lowest level whose chunks are worth a look for a block of this order.
    pub(crate) const fn wanted(order: usize) -> Self {
        match order {
            0..=2 => Self::RICH,
            3..=5 => Self::EIGHT,
            _ => Self::TOP,
        }
    }

    /// Whether every chunk of this level has a free block of the order, but for an operation under way.
    pub(crate) const fn promises(self, order: usize) -> bool {
        match self {
            Self::TOP => order <= WORD_ORDER,
            Self::EIGHT => order <= EIGHT_ORDER,
            _ => order == 0,
        }
    }

    /// The next level up, if any.
    pub(crate) const fn up(self) -> Option<Self> {
        if self.0 < Self::TOP.0 { Some(Self(self.0 + 1)) } else { None }
    }

    /// The level that one word alone gives its chunk.
    pub(crate) const fn of(free: u64) -> Self {
        if free == 0 {
            return Self::NONE;
        }
        if free.count_ones() < RIPE {
            return Self::POOR;
        }
        match free {
            u64::MAX => Self::TOP,
            _ if runs(free, EIGHT_ORDER) != 0 => Self::EIGHT,
            _ => Self::RICH,
        }
    }

    /// Whether `free`, to which the block at `at` has just come, may lift a chunk of this level. Cheap, and right whenever a chunk is
    /// to leave levels 0 and 1; above, a run in a word that has only just become ripe may go unnoticed until the chunk is
    /// reserved the next time. Levels are for choosing well, not for finding at all.
    #[inline(always)]
    pub(crate) const fn may_grow(self, free: u64, at: usize) -> bool {
        match self {
            Self::NONE => true,
            Self::POOR => free.count_ones() >= RIPE,
            Self::EIGHT => free == u64::MAX,
            Self::TOP => false,
            _ => {
                let group = mask(EIGHT_ORDER) << (at & !((1 << EIGHT_ORDER) - 1));
                free & group == group
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Level, mask, runs};
    use proptest::{prop_assert, prop_assert_eq, proptest};

    fn naive_runs(word: u64, order: usize) -> u64 {
        let size = 1 << order;
        (0..64)
            .step_by(size)
            .filter(|at| (0..size).all(|i| word >> (at + i) & 1 == 1))
            .map(|at| 1u64 << at)
            .sum()
    }

    proptest! {
        #[test]
        fn runs_agree_with_a_loop(a: u64, b: u64, order in 0usize..=6) {
            for word in [a, a | b, a | b | a.rotate_left(7), u64::MAX, 0] {
                prop_assert_eq!(runs(word, order), naive_runs(word, order));
            }
        }

        #[test]
        fn growth_is_noticed(a: u64, b: u64, order in 0usize..=6, at in 0usize..64) {
            let at = at & !((1 << order) - 1);
            let block = mask(order) << at;
            for old in [a & !block, (a | b) & !block, !block] {
                let level = Level::of(old);
                let grows = level.may_grow(old | block, at);
                if level <= Level::POOR && Level::of(old | block) > level {
                    prop_assert!(grows, "{old:x} + {block:x} from {level:?}");
                }
                if level == Level::TOP {
                    prop_assert!(!grows);
                }
            }
        }
    }
}
