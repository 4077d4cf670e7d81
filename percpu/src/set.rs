//! Sets of cores and of nodes: fixed bitmaps, cheap to walk by part.
//!
//! Cores of one node (and of one interrupt cluster) have neighbouring ids, see [`crate::topology`], so a part of a set is a
//! word-wise intersection and walking it touches only the words that have members.

use crate::CACHE_LINE;
use crate::const_fn;
use crate::id::{CoreId, MAX_CORES, MAX_NODES, NodeId};
use crate::sync::atomic::{AtomicU64, Ordering};
use core::fmt;

const BITS: usize = u64::BITS as usize;

/// Words of a [`CoreSet`].
pub const WORDS: usize = MAX_CORES / BITS;

/// Words that hold the cores `0..cores`; at least one.
const fn words_of(cores: usize) -> usize {
    if cores <= BITS {
        1
    } else if cores >= MAX_CORES {
        WORDS
    } else {
        cores.div_ceil(BITS)
    }
}

const fn place(core: CoreId) -> (usize, u64) {
    (core.index() / BITS, 1 << (core.index() % BITS))
}

/// A set of cores.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct CoreSet {
    words: [u64; WORDS],
}

const _: () = assert!(size_of::<CoreSet>() == MAX_CORES / 8 && align_of::<CoreSet>() == CACHE_LINE);

impl CoreSet {
    /// No core.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// The set of one core.
    #[must_use]
    pub const fn one(core: CoreId) -> Self {
        let mut set = Self::EMPTY;
        set.insert(core);
        set
    }

    /// The cores `0..count`; `count` is cut off at [`MAX_CORES`].
    #[must_use]
    pub const fn first(count: usize) -> Self {
        let mut set = Self::EMPTY;
        let mut word = 0;
        while word < WORDS {
            let left = count.saturating_sub(word * BITS);
            set.words[word] = if left >= BITS { u64::MAX } else { (1 << left) - 1 };
            word += 1;
        }
        set
    }

    /// Adds a core.
    #[inline]
    pub const fn insert(&mut self, core: CoreId) {
        let (word, bit) = place(core);
        self.words[word] |= bit;
    }

    /// Takes a core out.
    #[inline]
    pub const fn remove(&mut self, core: CoreId) {
        let (word, bit) = place(core);
        self.words[word] &= !bit;
    }

    /// Whether the core is a member.
    #[must_use]
    #[inline]
    pub const fn contains(&self, core: CoreId) -> bool {
        let (word, bit) = place(core);
        self.words[word] & bit != 0
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// The members of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    /// The members that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self { words: core::array::from_fn(|i| f(self.words[i], other.words[i])) }
    }

    /// The member with the lowest id.
    #[must_use]
    pub fn lowest(&self) -> Option<CoreId> {
        self.iter().next()
    }

    /// The members in ascending order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        Iter { words: &self.words, mask: None, at: 0, rest: self.words[0] }
    }

    /// The members among the cores `0..cores` in ascending order: looks at their words only.
    #[must_use]
    #[inline(always)]
    pub fn iter_first(&self, cores: usize) -> Iter<'_> {
        Iter { words: &self.words[..words_of(cores)], mask: None, at: 0, rest: self.words[0] }
    }

    /// Takes out whatever is in the words of the cores `0..cores`.
    #[inline(always)]
    pub fn clear_first(&mut self, cores: usize) {
        self.words[..words_of(cores)].fill(0);
    }

    /// The members that are also in `part` (a node, a cluster), in ascending order, without building a set.
    #[must_use]
    pub fn iter_in<'a>(&'a self, part: &'a Self) -> Iter<'a> {
        let rest = self.words[0] & part.words[0];
        Iter { words: &self.words, mask: Some(&part.words), at: 0, rest }
    }

    /// The bitmap, core 0 in the lowest bit.
    #[must_use]
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.words
    }
}

impl Default for CoreSet {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for CoreSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Extend<CoreId> for CoreSet {
    fn extend<I: IntoIterator<Item = CoreId>>(&mut self, cores: I) {
        for core in cores {
            self.insert(core);
        }
    }
}

impl FromIterator<CoreId> for CoreSet {
    fn from_iter<I: IntoIterator<Item = CoreId>>(cores: I) -> Self {
        let mut set = Self::EMPTY;
        set.extend(cores);
        set
    }
}

/// Walks a [`CoreSet`], or its part inside another set, in ascending order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    words: &'a [u64],
    mask: Option<&'a [u64; WORDS]>,
    at: usize,
    rest: u64,
}

impl Iterator for Iter<'_> {
    type Item = CoreId;

    #[inline]
    fn next(&mut self) -> Option<CoreId> {
        while self.rest == 0 {
            self.at += 1;
            let word = *self.words.get(self.at)?;
            self.rest = self.mask.map_or(word, |mask| word & mask[self.at]);
        }
        let bit = self.rest.trailing_zeros() as usize;
        self.rest &= self.rest - 1;
        CoreId::from_index(self.at * BITS + bit)
    }
}

/// A set of cores that any core may change: who caches an address space, who is online.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `words` | any core, its own bit as a rule | any core | as stated per method | two lines, cores 0–511 and 512–1023 |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct AtomicCoreSet {
    words: [AtomicU64; WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<AtomicCoreSet>() == size_of::<CoreSet>());

impl AtomicCoreSet {
    const_fn! {
        /// No core.
        #[must_use]
        pub const fn new() -> Self {
            #[cfg(not(loom))]
            return Self { words: [const { AtomicU64::new(0) }; WORDS] };
            #[cfg(loom)]
            return Self { words: core::array::from_fn(|_| AtomicU64::new(0)) };
        }
    }

    /// Adds a core; says whether it was new.
    #[inline]
    pub fn insert(&self, core: CoreId) -> bool {
        let (word, bit) = place(core);
        // ORDER: AcqRel: Release pairs with Acquire in `contains` and `snapshot` (who sees the core sees what it did before);
        // Acquire pairs with Release in `remove`. A caller that needs store-load order adds its own fence.
        self.words[word].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Takes a core out; says whether it was in.
    #[inline]
    pub fn remove(&self, core: CoreId) -> bool {
        let (word, bit) = place(core);
        // ORDER: AcqRel: Release pairs with Acquire in `contains` and `snapshot` (who misses the core sees what it did
        // before leaving); Acquire pairs with Release in `insert`.
        self.words[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Whether the core is a member.
    #[must_use]
    #[inline]
    pub fn contains(&self, core: CoreId) -> bool {
        let (word, bit) = place(core);
        // ORDER: Acquire pairs with Release in `insert` and `remove`.
        self.words[word].load(Ordering::Acquire) & bit != 0
    }

    /// A copy, word by word: each word is exact at its own moment, the whole at none.
    #[must_use]
    pub fn snapshot(&self) -> CoreSet {
        // ORDER: Acquire pairs with Release in `insert` and `remove`.
        CoreSet { words: core::array::from_fn(|i| self.words[i].load(Ordering::Acquire)) }
    }

    /// The members among the cores `0..cores` (all of the last word are taken for such), in ascending order, without a copy: each word is
    /// read when the walk comes to it.
    #[inline(always)]
    pub fn members(&self, cores: usize) -> Members<'_> {
        Members { words: self.words[..words_of(cores)].iter(), base: 0, rest: 0, left_out: None }
    }

    /// As [`members`](Self::members), without one of them.
    #[inline(always)]
    pub fn members_but(&self, left_out: CoreId, cores: usize) -> Members<'_> {
        Members { left_out: Some(left_out), ..self.members(cores) }
    }
}

/// Walks an [`AtomicCoreSet`] in ascending order; it may change meanwhile.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    words: core::slice::Iter<'a, AtomicU64>,
    /// Where the word after the one in hand begins.
    base: usize,
    rest: u64,
    left_out: Option<CoreId>,
}

impl Iterator for Members<'_> {
    type Item = CoreId;

    #[inline(always)]
    fn next(&mut self) -> Option<CoreId> {
        while self.rest == 0 {
            // ORDER: SeqCst: an acquire load, pairing with Release in `insert` and `remove`, that also takes its place in the total
            // order after a SeqCst access of the walker: a core that has published itself before its own SeqCst fence is seen.
            self.rest = self.words.next()?.load(Ordering::SeqCst);
            if let Some(core) = self.left_out
                && core.index() / BITS * BITS == self.base
            {
                self.rest &= !place(core).1;
            }
            self.base += BITS;
        }
        let bit = self.rest.trailing_zeros() as usize;
        self.rest &= self.rest - 1;
        CoreId::from_index(self.base - BITS + bit)
    }
}

impl Default for AtomicCoreSet {
    fn default() -> Self {
        Self::new()
    }
}

/// A set of nodes, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct NodeSet(u64);

const _: () = assert!(MAX_NODES == BITS);

impl NodeSet {
    /// No node.
    pub const EMPTY: Self = Self(0);

    /// The set of one node.
    #[must_use]
    pub const fn one(node: NodeId) -> Self {
        Self(1 << node.index())
    }

    /// Adds a node.
    pub const fn insert(&mut self, node: NodeId) {
        self.0 |= 1 << node.index();
    }

    /// Takes a node out.
    pub const fn remove(&mut self, node: NodeId) {
        self.0 &= !(1 << node.index());
    }

    /// Whether the node is a member.
    #[must_use]
    pub const fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node.index()) != 0
    }

    /// The number of members.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is no member.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The bitmap, node 0 in the lowest bit.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set with this bitmap.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let node = NodeId::from_index(rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(node)
        })
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut set = Self::EMPTY;
        for node in nodes {
            set.insert(node);
        }
        set
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{AtomicCoreSet, CoreSet, NodeSet};
    use crate::id::{CoreId, MAX_CORES, NodeId};
    use proptest::collection::btree_set;
    use proptest::{prop_assert_eq, proptest};
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn set(cores: &BTreeSet<u16>) -> CoreSet {
        cores.iter().map(|&core| CoreId::new(core)).collect()
    }

    fn raw(set: &CoreSet) -> BTreeSet<u16> {
        set.iter().map(CoreId::raw).collect()
    }

    proptest! {
        #[test]
        fn agrees_with_a_tree(a in btree_set(0u16..1024, 0..60), b in btree_set(0u16..1024, 0..60)) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(raw(&x), a.clone());
            prop_assert_eq!(x.len(), a.len());
            prop_assert_eq!(x.is_empty(), a.is_empty());
            prop_assert_eq!(x.lowest().map(CoreId::raw), a.first().copied());
            prop_assert_eq!(raw(&x.union(&y)), a.union(&b).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(raw(&x.difference(&y)), a.difference(&b).copied().collect::<BTreeSet<_>>());
            let both: BTreeSet<u16> = a.intersection(&b).copied().collect();
            prop_assert_eq!(raw(&x.intersection(&y)), both.clone());
            prop_assert_eq!(x.iter_in(&y).map(CoreId::raw).collect::<BTreeSet<_>>(), both);
        }

        #[test]
        fn first_is_a_prefix(count in 0usize..1100) {
            let ids: Vec<usize> = CoreSet::first(count).iter().map(CoreId::index).collect();
            prop_assert_eq!(ids, (0..count.min(MAX_CORES)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn remove_takes_one_member() {
        let mut set = CoreSet::first(130);
        set.remove(CoreId::new(64));
        assert!(!set.contains(CoreId::new(64)) && set.len() == 129);
    }

    #[test]
    fn atomic_set_reports_changes() {
        let set = AtomicCoreSet::new();
        assert!(set.insert(CoreId::new(700)));
        assert!(!set.insert(CoreId::new(700)));
        assert!(set.contains(CoreId::new(700)));
        assert_eq!(set.snapshot(), CoreSet::one(CoreId::new(700)));
        assert!(set.remove(CoreId::new(700)));
        assert!(!set.remove(CoreId::new(700)));
    }

    #[test]
    fn members_are_walked_up_to_the_last_core() {
        let set = AtomicCoreSet::new();
        let ids = [0, 63, 64, 700, 1023];
        ids.iter().for_each(|&id| assert!(set.insert(CoreId::new(id))));
        let walked = |cores| set.members(cores).map(CoreId::raw).collect::<Vec<_>>();
        assert_eq!(walked(MAX_CORES), ids);
        assert_eq!(walked(64), ids[..2]);
        assert_eq!(walked(65), ids[..3]);
        let but =
            |core, cores| set.members_but(CoreId::new(core), cores).map(CoreId::raw).collect::<Vec<_>>();
        assert_eq!(but(64, MAX_CORES), [0, 63, 700, 1023]);
        assert_eq!(but(0, 64), [63]);
        assert_eq!(but(5, 64), [0, 63]);
        let mut copy = set.snapshot();
        assert_eq!(copy.iter_first(65).count(), 3);
        copy.clear_first(65);
        assert_eq!(copy.iter().map(CoreId::raw).collect::<Vec<_>>(), [700, 1023]);
    }

    #[test]
    fn nodes_are_walked_in_order() {
        let set: NodeSet = [NodeId::new(63), NodeId::new(0)].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [NodeId::new(0), NodeId::new(63)]);
    }
}
