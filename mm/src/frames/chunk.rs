//! The bitmaps of one chunk, and what its reserving core does with them.
//!
//! Three bits per frame:
//!
//! | free | local | cont | the frame is |
//! |---|---|---|---|
//! | 0 | 0 | 0 | allocated, the first of its block |
//! | 0 | 0 | 1 | allocated, a later one of its block |
//! | 1 | 0 | any | free, in the open (`cont` is stale) |
//! | any | 1 | 0 | free, collected by the reserving core (`free` only for the moment of the collection) |
//! | 0 | 1 | 1 | a hole: not managed |
//!
//! | field | writer | readers | ordering |
//! |---|---|---|---|
//! | `free` | sets: any core that frees; clears: the reserving core | any core | Release / Acquire, `TOTAL` where `order.rs` says so |
//! | `local`, `cont` | the reserving core, plain stores | any core | see [`Word::verdict`] |
//!
//! A block that its core frees into a chunk it has itself reserved costs no locked operation, one that goes to another chunk costs
//! one. All allocation is by the reserving core: blocks of two and four words need no multi-word claim, so there is nothing to
//! roll back.

use super::bits::{self, Level};
use super::order::{TOTAL, between};
use crate::error::FrameError;
use crate::id::{WORD_FRAMES, WORD_ORDER, WORDS};
use percpu::sync::atomic::{AtomicU64, Ordering};

/// The three bits of 64 frames.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Word {
    pub(crate) free: AtomicU64,
    local: AtomicU64,
    cont: AtomicU64,
}

/// The bitmaps of one chunk: 192 bytes for 2 MiB.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Chunk {
    words: [Word; WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Chunk>() == 192);

impl Word {
    fn hole() -> Self {
        Self { free: AtomicU64::new(0), local: AtomicU64::new(u64::MAX), cont: AtomicU64::new(u64::MAX) }
    }

    #[inline(always)]
    fn local(&self) -> u64 {
        // ORDER: Relaxed: for the reserving core it is its own last store. For others see `verdict`.
        self.local.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn cont(&self) -> u64 {
        // ORDER: Relaxed: as `local`.
        self.cont.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_local(&self, local: u64) {
        // ORDER: Relaxed: plain memory of the reserving core; hand-over to the next one is by the chunk's state.
        self.local.store(local, Ordering::Relaxed);
    }

    #[inline(always)]
    fn set_cont(&self, cont: u64) {
        // ORDER: Relaxed: as `set_local`.
        self.cont.store(cont, Ordering::Relaxed);
    }

    #[inline(always)]
    fn open_frames(&self) -> u64 {
        // ORDER: Acquire pairs with Release in `collect` and `publish`, see `verdict`.
        self.free.load(Ordering::Acquire)
    }

    /// The collected free frames; only the reserving core asks.
    #[inline(always)]
    pub(crate) fn mine(&self) -> u64 {
        self.local() & !self.cont()
    }

    /// Every free frame, collected or not; holes are never in `free`.
    #[inline]
    pub(crate) fn usable(&self) -> u64 {
        // ORDER: Acquire pairs with Release in `put_shared`: a frame's last user is done with it before we hand it out.
        self.mine() | self.free.load(Ordering::Acquire)
    }

    /// Takes the lowest collected frame.
    #[inline(always)]
    pub(crate) fn take_frame(&self) -> Option<usize> {
        let local = self.local();
        let mine = local & !self.cont();
        if mine == 0 {
            return None;
        }
        self.set_local(local ^ (mine & mine.wrapping_neg()));
        Some(mine.trailing_zeros() as usize)
    }

    /// Takes the lowest collected block of an order up to 6.
    #[inline(always)]
    pub(crate) fn take_block(&self, order: usize) -> Option<usize> {
        let (local, cont) = (self.local(), self.cont());
        let starts = bits::runs(local & !cont, order);
        if starts == 0 {
            return None;
        }
        let at = starts.trailing_zeros() as usize;
        let (mask, later) = pattern(at, order);
        self.set_local(local & !mask);
        if later != 0 {
            self.set_cont(cont | later);
        }
        Some(at)
    }

    /// Moves what others have freed into the collected set. Only the reserving core calls it.
    #[inline]
    pub(crate) fn collect(&self) {
        // ORDER: Acquire pairs with Release in `put_shared`, as in `usable`.
        let free = self.free.load(Ordering::Acquire);
        if free != 0 {
            self.set_cont(self.cont() & !free);
            // ORDER: Release pairs with Acquire of the read-modify-write in `put_shared`: a second free of these frames finds them
            // in `free`, or else has read from the exchange below and finds them here.
            self.local.store(self.local() | free, Ordering::Release);
            // ORDER: AcqRel: Release for the line above; Acquire because bits set meanwhile stay, and are read next time.
            self.free.fetch_and(!free, Ordering::AcqRel);
        }
    }

    /// Moves the collected set back into the open; returns what is free there now. Only the reserving core calls it.
    fn publish(&self) -> u64 {
        let mine = self.mine();
        if mine == 0 {
            // ORDER: Acquire pairs with Release in `put_shared`.
            return self.free.load(Ordering::Acquire);
        }
        // ORDER: AcqRel: Release hands our writes to the next reserving core's Acquire in `collect`; a second free that reads from
        // this sees the bit here.
        let open = self.free.fetch_or(mine, Ordering::AcqRel) | mine;
        self.set_local(self.local() & !mine);
        open
    }

    /// Whether the block of `mask` may be freed: allocated, and with this pattern of `cont` bits.
    ///
    /// Cores other than the reserving one read its plain stores here. For a block that is allocated to the caller they are exact:
    /// the stores that handed the block out happened before the caller had it. Anything stale is about neighbours' frames, and
    /// of those only the next one's `cont` counts, which is 0 whether that frame is free or heads a block.
    #[inline(always)]
    fn verdict(&self, mask: u64, cont: u64) -> Option<u64> {
        // Read first: a second free that comes after the first finds the frame here, or reads what a collection has left and then
        // finds it in `local`.
        let open = self.open_frames();
        let (local, now) = (self.local(), self.cont());
        let next = mask << 1 & !mask;
        if (open | local) & mask | (now & mask ^ cont) | now & !local & next == 0 { Some(open) } else { None }
    }

    /// Puts the frames of `mask` back into the collected set. Only the reserving core calls it.
    #[inline(always)]
    fn keep(&self, mask: u64, cont: u64) {
        self.set_local(self.local() | mask);
        if cont != 0 {
            self.set_cont(self.cont() & !mask);
        }
    }

    /// Puts a block of an order below 6 back for the reserving core; says whether it was allocated so.
    #[inline(always)]
    pub(crate) fn give(&self, at: usize, order: usize) -> bool {
        let (mask, cont) = pattern(at, order);
        let fine = self.verdict(mask, cont).is_some();
        if fine {
            self.keep(mask, cont);
        }
        fine
    }

    /// Puts the frames of `mask` back into the open. Returns the word after it, nothing if a frame was there already: a second
    /// free that raced with the first. `seen` is what the word was a moment ago.
    #[inline(always)]
    fn open(&self, mask: u64, seen: u64) -> Option<u64> {
        let mut old = seen;
        // A `fetch_or` whose result is used is this loop too, with one more load.
        loop {
            // ORDER: `TOTAL`, rows 1 and 4 of the table in `order.rs`; as Release it pairs with Acquire in `collect`. Relaxed on
            // failure: the value is only compared.
            match self.free.compare_exchange_weak(old, old | mask, TOTAL, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
        between();
        if old & mask == 0 { Some(old | mask) } else { None }
    }
}

/// The part of a block in one word, and the `cont` bits it has when allocated.
#[inline(always)]
const fn pattern(at: usize, order: usize) -> (u64, u64) {
    let mask = bits::mask(order) << at;
    (mask, mask & (mask << 1))
}

impl Chunk {
    /// A chunk without a managed frame.
    pub(crate) fn holes() -> Self {
        Self { words: core::array::from_fn(|_| Word::hole()) }
    }

    /// Makes frames of one word manageable, before any core runs.
    pub(crate) fn add(&self, word: usize, mask: u64) {
        let word = &self.words[word];
        // ORDER: Relaxed: one thread builds the allocator; sharing it publishes.
        word.free.fetch_or(mask, Ordering::Relaxed);
        word.set_local(word.local() & !mask);
        word.set_cont(word.cont() & !mask);
    }

    /// Makes free frames of one word allocated ones, each by itself, before any core runs. Holes stay holes.
    pub(crate) fn hand_out(&self, word: usize, mask: u64) {
        // ORDER: Relaxed: as in `add`.
        self.words[word].free.fetch_and(!mask, Ordering::Relaxed);
    }

    /// Frames that are no holes, before any core runs.
    pub(crate) fn managed(&self) -> usize {
        self.words.iter().map(|word| (!(word.local() & word.cont())).count_ones() as usize).sum()
    }

    /// Makes frames of one word holes, before any core runs.
    pub(crate) fn exclude(&self, word: usize, mask: u64) {
        let word = &self.words[word];
        // ORDER: Relaxed: as in `add`.
        word.free.fetch_and(!mask, Ordering::Relaxed);
        word.set_local(word.local() | mask);
        word.set_cont(word.cont() | mask);
    }

    /// Makes every frame a collected free one: the chunk has just come out of the whole index.
    pub(crate) fn split(&self) {
        for word in &self.words {
            word.set_cont(0);
            word.set_local(u64::MAX);
            // ORDER: Relaxed: nobody else touches the words of an unsplit chunk.
            word.free.store(0, Ordering::Relaxed);
        }
    }

    /// Makes every frame of `keep` an allocated block of its own, and the others free ones in the open: the chunk was one allocated block.
    pub(crate) fn allot(&self, keep: &[u64; WORDS]) {
        for (word, keep) in self.words.iter().zip(keep) {
            word.set_cont(0);
            word.set_local(0);
            // ORDER: Relaxed: as in `split`; the chunk's state publishes it.
            word.free.store(!keep, Ordering::Relaxed);
        }
    }

    /// The first frame that is not an allocated block of its own, by word and bit.
    pub(crate) fn first_not_single(&self) -> Option<(usize, usize)> {
        self.words.iter().enumerate().find_map(|(index, word)| {
            let other = word.open_frames() | word.local() | word.cont();
            (other != 0).then(|| (index, other.trailing_zeros() as usize))
        })
    }

    /// The word with this index; the index is cut to the chunk.
    #[inline(always)]
    pub(crate) fn word(&self, index: usize) -> &Word {
        &self.words[index % WORDS]
    }

    /// Takes a block for the reserving core, starting the search at word `from`. Returns the frame's index in the chunk.
    pub(crate) fn take(&self, order: usize, from: usize) -> Option<usize> {
        if order > WORD_ORDER {
            return self.take_words(order);
        }
        for step in 0..WORDS {
            let index = (from + step) % WORDS;
            let word = &self.words[index];
            if bits::runs(word.usable(), order) != 0 {
                word.collect();
                if let Some(at) = word.take_block(order) {
                    return Some(index * WORD_FRAMES + at);
                }
            }
        }
        None
    }

    fn take_words(&self, order: usize) -> Option<usize> {
        let count = 1 << (order - WORD_ORDER);
        let first = (0..WORDS).step_by(count).find(|&first| self.is_free(first, count))?;
        for index in first..first + count {
            let word = &self.words[index];
            word.collect();
            word.set_local(0);
            word.set_cont(if index == first { !1 } else { u64::MAX });
        }
        Some(first * WORD_FRAMES)
    }

    fn is_free(&self, first: usize, count: usize) -> bool {
        self.words[first..first + count].iter().all(|word| word.usable() == u64::MAX)
    }

    /// Whether a block of the order can be taken once the chunk is reserved.
    pub(crate) fn has(&self, order: usize) -> bool {
        if order > WORD_ORDER {
            let count = 1 << (order - WORD_ORDER);
            return (0..WORDS).step_by(count).any(|first| self.is_free(first, count));
        }
        self.words.iter().any(|word| bits::runs(word.usable(), order) != 0)
    }

    /// Whether the block that starts at bit `at` of word `index` is allocated with exactly this order; if so, the frames of that
    /// word in the open.
    #[inline(always)]
    fn allocated(&self, index: usize, at: usize, order: usize) -> Option<u64> {
        let (mask, cont) = pattern(at, order);
        let first = self.word(index).verdict(mask, cont)?;
        if order < WORD_ORDER || self.rest_allocated(index, order) { Some(first) } else { None }
    }

    /// The same for the words of a block after its first, and for the word after the block.
    #[inline(never)]
    fn rest_allocated(&self, index: usize, order: usize) -> bool {
        let count = 1 << (order - WORD_ORDER);
        let rest = self.words[index + 1..index + count]
            .iter()
            .all(|word| word.verdict(u64::MAX, u64::MAX).is_some());
        // A free frame's `cont` may be stale, for the word after the block need not have been collected together with it. If its
        // frame is no longer in the open, a collection has cleared `cont` before; hence this order of reading.
        rest && self
            .words
            .get(index + count)
            .is_none_or(|next| next.open_frames() & 1 != 0 || next.cont() & !next.local() & 1 == 0)
    }

    /// Puts a block back for the reserving core; says whether it was allocated so.
    #[inline]
    pub(crate) fn give(&self, index: usize, at: usize, order: usize) -> bool {
        if self.allocated(index, at, order).is_none() {
            return false;
        }
        if order <= WORD_ORDER {
            let (mask, cont) = pattern(at, order);
            self.word(index).keep(mask, cont);
        } else {
            let count = 1 << (order - WORD_ORDER);
            self.words[index..index + count].iter().for_each(|word| word.keep(u64::MAX, u64::MAX));
        }
        true
    }

    /// Puts a block back into the open; returns its last word as it is then, nothing if the block may not be freed.
    #[inline(always)]
    pub(crate) fn give_open(&self, index: usize, at: usize, order: usize) -> Option<u64> {
        let seen = self.allocated(index, at, order)?;
        if order <= WORD_ORDER {
            return self.word(index).open(bits::mask(order) << at, seen);
        }
        let count = 1 << (order - WORD_ORDER);
        // The head goes last: who is given its word anew, and frees it, looks at the word after it (`rest_allocated`), and must
        // find that one free.
        self.words[index..index + count].iter().rev().try_fold(0, |_, word| word.open(u64::MAX, 0))
    }

    /// Moves every collected frame into the open, for the reserving core, and says how rich the chunk is then.
    pub(crate) fn publish(&self) -> Level {
        self.words.iter().map(|word| Level::of(word.publish())).fold(Level::NONE, Level::max)
    }

    /// How rich the frames in the open make the chunk.
    pub(crate) fn level(&self) -> Level {
        // ORDER: `TOTAL`, row 1 of the table in `order.rs`.
        self.words.iter().map(|word| Level::of(word.free.load(TOTAL))).fold(Level::NONE, Level::max)
    }

    /// Whether every frame is free in the open.
    pub(crate) fn is_open(&self) -> bool {
        // ORDER: `TOTAL`, row 4 of the table in `order.rs`.
        self.words.iter().all(|word| word.free.load(TOTAL) == u64::MAX)
    }

    /// Whether every frame is free, collected or not; only the reserving core asks.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_free(0, WORDS)
    }

    /// Free frames: in the open, and collected.
    pub(crate) fn count(&self) -> (usize, usize) {
        let (mut open, mut mine) = (0, 0);
        for word in &self.words {
            // ORDER: Relaxed: a statistic.
            let free = word.free.load(Ordering::Relaxed);
            open += free.count_ones() as usize;
            mine += (word.mine() & !free).count_ones() as usize;
        }
        (open, mine)
    }

    /// Why a block of a split chunk may not be freed.
    #[cold]
    pub(crate) fn blame(&self, index: usize, at: usize) -> FrameError {
        let word = self.word(index);
        let bit = 1 << at;
        let (local, cont) = (word.local() & bit, word.cont() & bit);
        // ORDER: Relaxed: only the choice among errors depends on it.
        let open = word.free.load(Ordering::Relaxed) & bit;
        match (open | local, cont) {
            (0, 0) => FrameError::WrongOrder,
            (0, _) => FrameError::Interior,
            (_, 0) => FrameError::DoubleFree,
            _ if local != 0 && open == 0 => FrameError::Foreign,
            _ => FrameError::DoubleFree,
        }
    }
}
