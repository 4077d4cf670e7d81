//! A lock-free set of chunk numbers that finds its lowest members in a few loads.
//!
//! A tree of bitmaps: one leaf bit per chunk, one upper bit per word below, up to a single word. A set leaf bit makes its upper
//! bits set, but for operations still under way: the operation that turns a word from zero sets the bit above, the one that turns
//! it to zero clears that bit and looks again. An upper bit may be set over an empty word; the search walks past it.
//!
//! The leaves decide: who clears a leaf bit that was set owns what it stands for.

use super::bits;
use super::order::{TOTAL, between};
use crate::id::WORD_ORDER;
use percpu::sync::atomic::{AtomicU64, Ordering};

const BITS: usize = u64::BITS as usize;
const MAX_DEPTH: usize = 5;

/// The words of every level, lowest level first, for `len` members; and how many levels.
const fn shape(len: usize) -> ([usize; MAX_DEPTH], usize) {
    let mut starts = [0; MAX_DEPTH];
    let mut words = len.div_ceil(BITS);
    let mut depth = 1;
    let mut end = words;
    while words > 1 && depth < MAX_DEPTH {
        words = words.div_ceil(BITS);
        starts[depth] = end;
        end += words;
        depth += 1;
    }
    (starts, depth)
}

/// The first leaf word at which an aligned run of `count` whole words can start, if leaf 0 begins with member `base`.
const fn first_group(base: usize, count: usize) -> usize {
    let word = base / BITS;
    word.next_multiple_of(count) - word
}

/// See the module comment. Members are numbers below the capacity.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `words` | any core | any core | [`TOTAL`]: see `order.rs` |
#[derive(Debug)]
pub(crate) struct Index<'m> {
    words: &'m [AtomicU64],
    starts: [usize; MAX_DEPTH],
    depth: usize,
}

impl<'m> Index<'m> {
    /// How many words [`Index::new`] needs for numbers below `len`.
    pub(crate) const fn words(len: usize) -> usize {
        let (mut level, mut total) = (len.div_ceil(BITS), 0);
        while level > 1 {
            total += level;
            level = level.div_ceil(BITS);
        }
        total + level
    }

    /// An empty set over zeroed words.
    pub(crate) fn new(words: &'m [AtomicU64], len: usize) -> Self {
        let (starts, depth) = shape(len);
        Self { words, starts, depth }
    }

    fn leaves(&self) -> &'m [AtomicU64] {
        let end = if self.depth > 1 { self.starts[1] } else { self.words.len() };
        &self.words[..end]
    }

    /// Adds a member.
    pub(crate) fn set(&self, member: usize) {
        let (word, bit) = (member / BITS, 1 << (member % BITS));
        if self.words[word].load(TOTAL) & bit == 0 && self.words[word].fetch_or(bit, TOTAL) == 0 {
            self.mark(0, word);
        }
    }

    /// Adds members of one leaf word.
    pub(crate) fn set_bits(&self, word: usize, bits: u64) {
        if bits != 0 && self.words[word].fetch_or(bits, TOTAL) == 0 {
            self.mark(0, word);
        }
    }

    /// Adds the aligned run of 2^order members at `member`, in whole words above order 6.
    pub(crate) fn set_run(&self, member: usize, order: usize) -> u64 {
        let first = member / BITS;
        let mask = bits::mask(order) << (member % BITS);
        let count = 1 << order.saturating_sub(WORD_ORDER);
        let mut twice = 0;
        for word in first..first + count {
            let old = self.words[word].fetch_or(mask, TOTAL);
            twice |= old & mask;
            if old == 0 {
                self.mark(0, word);
            }
        }
        twice
    }

    /// Sets the bits above word `at` of a level; the word has just become non-zero.
    fn mark(&self, level: usize, at: usize) {
        let mut at = at;
        for level in level + 1..self.depth {
            let upper = &self.words[self.starts[level] + at / BITS];
            let bit = 1 << (at % BITS);
            between();
            if upper.load(TOTAL) & bit != 0 || upper.fetch_or(bit, TOTAL) != 0 {
                return;
            }
            at /= BITS;
        }
    }

    /// Clears the bits above a leaf word that has just become zero, and looks again.
    fn unmark(&self, word: usize) {
        let mut at = word;
        for level in 1..self.depth {
            let below = &self.words[self.starts[level - 1] + at];
            let upper = &self.words[self.starts[level] + at / BITS];
            let bit = 1 << (at % BITS);
            let left = upper.fetch_and(!bit, TOTAL) & !bit;
            between();
            if below.load(TOTAL) != 0 {
                // Somebody filled the word again and may have found our bit still set.
                if upper.fetch_or(bit, TOTAL) == 0 {
                    self.mark(level, at / BITS);
                }
                return;
            }
            if left != 0 {
                return;
            }
            at /= BITS;
        }
    }

    /// Takes a member out; says whether this call did it.
    pub(crate) fn clear(&self, member: usize) -> bool {
        let (word, bit) = (member / BITS, 1 << (member % BITS));
        let old = self.words[word].fetch_and(!bit, TOTAL);
        if old == bit {
            self.unmark(word);
        }
        old & bit != 0
    }

    /// Whether the number is a member.
    pub(crate) fn contains(&self, member: usize) -> bool {
        self.words[member / BITS].load(TOTAL) >> (member % BITS) & 1 == 1
    }

    /// How many members there are, each word at its own moment.
    pub(crate) fn len(&self) -> usize {
        // ORDER: Relaxed: a statistic.
        self.leaves().iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// How many aligned runs of 2^order members there are; `base` as in [`Index::take_run`].
    pub(crate) fn count_runs(&self, order: usize, base: usize) -> usize {
        // ORDER: Relaxed: a statistic.
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        if order <= WORD_ORDER {
            let count = |word| bits::runs(read(word), order).count_ones() as usize;
            return self.leaves().iter().map(count).sum();
        }
        let count = 1 << (order - WORD_ORDER);
        let aligned = self.leaves().get(first_group(base, count)..).unwrap_or_default();
        let groups = aligned.chunks_exact(count);
        groups.filter(|group| group.iter().all(|word| read(word) == u64::MAX)).count()
    }

    /// The lowest member that is at least `from`.
    #[inline]
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        self.next_at(0, from)
    }

    fn next_at(&self, level: usize, from: usize) -> Option<usize> {
        let end = if level + 1 < self.depth { self.starts[level + 1] } else { self.words.len() };
        let words = &self.words[self.starts[level]..end];
        let mut at = from / BITS;
        let mut mask = u64::MAX << (from % BITS);
        loop {
            let found = words.get(at)?.load(TOTAL) & mask;
            if found != 0 {
                return Some(at * BITS + found.trailing_zeros() as usize);
            }
            mask = u64::MAX;
            at += 1;
            if level + 1 < self.depth {
                at = self.next_at(level + 1, at)?;
            }
        }
    }

    /// Takes the lowest member.
    pub(crate) fn take(&self) -> Option<usize> {
        let mut from = 0;
        loop {
            let member = self.next(from)?;
            if self.clear(member) {
                return Some(member);
            }
            from = member;
        }
    }

    /// Takes up to `most` members of one leaf word, the first that is not empty from member `from` on. Returns the first
    /// member of the word and the members as a bitmap. A word that somebody else is changing at the same moment is passed
    /// over, so that cores drift apart to words of their own.
    pub(crate) fn take_some(&self, from: usize, most: usize) -> Option<(usize, u64)> {
        let mut from = from;
        loop {
            let word = self.next(from)? / BITS;
            // ORDER: `TOTAL`, as in `clear`.
            let old = self.words[word].load(TOTAL);
            let mut left = old;
            for _ in 0..most {
                left &= left.wrapping_sub(1);
            }
            // ORDER: `TOTAL`, as in `clear`, for several members at once. Relaxed on failure: the word is passed over.
            if old != 0 && self.words[word].compare_exchange(old, left, TOTAL, Ordering::Relaxed).is_ok() {
                if left == 0 {
                    self.unmark(word);
                }
                return Some((word * BITS, old & !left));
            }
            from = (word + 1) * BITS;
        }
    }

    /// Takes the lowest run of 2^order members that is aligned after `base`, a multiple of 64, is added to its number.
    pub(crate) fn take_run(&self, order: usize, base: usize) -> Option<usize> {
        match order {
            0 => self.take(),
            1..=WORD_ORDER => self.take_in_word(order),
            _ => self.take_words(order, base),
        }
    }

    fn take_in_word(&self, order: usize) -> Option<usize> {
        let mut from = 0;
        loop {
            let word = self.next(from)? / BITS;
            if let Some(at) = self.claim_run(word, order) {
                return Some(word * BITS + at);
            }
            from = (word + 1) * BITS;
        }
    }

    /// Takes the lowest aligned run of one leaf word.
    fn claim_run(&self, word: usize, order: usize) -> Option<usize> {
        let without = |old: u64| {
            let starts = bits::runs(old, order);
            (starts != 0).then(|| old & !(bits::mask(order) << starts.trailing_zeros()))
        };
        let old = self.words[word].fetch_update(TOTAL, TOTAL, without).ok()?;
        let at = bits::runs(old, order).trailing_zeros() as usize;
        if old == bits::mask(order) << at {
            self.unmark(word);
        }
        Some(at)
    }

    /// Claims whole words one by one. What has been claimed is this call's own, so giving it back is a plain `set`.
    fn take_words(&self, order: usize, base: usize) -> Option<usize> {
        let count = 1 << (order - WORD_ORDER);
        let leaves = self.leaves();
        let mut first = first_group(base, count);
        while let Some(group) = leaves.get(first..first + count) {
            let full = |word: &AtomicU64| word.load(TOTAL) == u64::MAX;
            let claim = |word: &AtomicU64| word.compare_exchange(u64::MAX, 0, TOTAL, TOTAL).is_ok();
            if group.iter().all(full) {
                let claimed = group.iter().take_while(|word| claim(word)).count();
                if claimed == count {
                    (first..first + count).for_each(|word| self.unmark(word));
                    return Some(first * BITS);
                }
                (first..first + claimed).for_each(|word| {
                    self.set_run(word * BITS, WORD_ORDER);
                });
            }
            first += count;
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{BITS, Index};
    use percpu::sync::atomic::AtomicU64;

    /// An index whose numbers start at any multiple of 64, as a span's do, still gives runs that are aligned in memory.
    #[test]
    fn runs_of_whole_words_are_aligned_with_their_base() {
        const WORDS: usize = 32;
        for base in (0..40).map(|word| word * BITS) {
            for order in 7..=10 {
                let words = [const { AtomicU64::new(0) }; WORDS + 1];
                let index = Index::new(&words, WORDS * BITS);
                (0..WORDS * BITS).for_each(|member| index.set(member));
                let expected = (base..base + WORDS * BITS)
                    .filter(|at| at.is_multiple_of(1 << order) && at + (1 << order) <= base + WORDS * BITS)
                    .count();
                assert_eq!(index.count_runs(order, base), expected, "base {base}, order {order}");
                for _ in 0..expected {
                    let at = index.take_run(order, base).expect("counted above");
                    assert!((base + at).is_multiple_of(1 << order), "base {base}, order {order}: {at}");
                }
                assert_eq!(index.take_run(order, base), None);
            }
        }
    }
}
