//! What one core holds: reserved chunks and a magazine of free ones. Plain memory, touched by its owner only.
//!
//! A core keeps at most [`SLOTS`] chunks reserved and [`MAGAZINE`] free chunks in its magazine, so it pins less than
//! `SLOTS + MAGAZINE` × 2 MiB = 34 MiB, and nothing at all on a node with fewer than 64 MiB per core. [`Frames::drain`](super::Frames::drain) gives everything back.

use super::chunk::{Chunk, Word};
use crate::id::{CHUNK_FRAMES, FrameId, Order, WORD_FRAMES, WORD_ORDER, WORDS};
use percpu::{CoreId, NodeId};

/// Reserved chunks on the home node, one per class of orders: 0, 1–2, 3–5, 6–8.
pub(crate) const CLASSES: usize = 4;
/// Reserved chunks for requests that name other nodes or zones.
pub(crate) const AWAY: usize = 4;
/// The slot of the chunk into which this core frees a run of blocks.
pub(crate) const ADOPTED: usize = CLASSES + AWAY;
/// Chunks that one core may have reserved.
pub const SLOTS: usize = CLASSES + AWAY + 1;
/// Free chunks that one core may keep for blocks of order 9.
pub const MAGAZINE: usize = 8;
/// How many of them are fetched or given back at once: one locked operation on a shared line for all.
pub(crate) const ROUND: usize = MAGAZINE / 2;
/// After so many frees in a row into one chunk the core reserves it, and the rest cost no locked operation.
pub(crate) const ADOPT_AFTER: u32 = 4;

/// The class of a small order.
#[inline(always)]
pub(crate) const fn class(order: usize) -> usize {
    match order {
        0 => 0,
        1 | 2 => 1,
        3..=5 => 2,
        _ => 3,
    }
}

/// One reserved chunk, or none, and the word of it that is in use.
///
/// The word is kept as a reference beside its number: a put that matches the number then works on an address that does not depend
/// on the frame, so that consecutive operations overlap in the CPU.
#[derive(Debug)]
pub(crate) struct Slot<'m> {
    /// The word that blocks are taken from and given to.
    word: Option<&'m Word>,
    /// The number of that word: frame number / 64; `usize::MAX` for none, which is no word of any frame.
    number: usize,
    /// The chunk's bitmaps.
    pub(crate) words: Option<&'m Chunk>,
    /// The chunk's number; `usize::MAX` for none.
    pub(crate) chunk: usize,
    /// The index of the chunk's span.
    pub(crate) span: usize,
}

impl<'m> Slot<'m> {
    pub(crate) const EMPTY: Self =
        Self { word: None, number: usize::MAX, words: None, chunk: usize::MAX, span: 0 };

    /// A slot with a chunk that has just been reserved.
    pub(crate) fn new(words: &'m Chunk, chunk: usize, span: usize) -> Self {
        Self { word: Some(words.word(0)), number: chunk * WORDS, words: Some(words), chunk, span }
    }

    /// Makes this word of the chunk the one in use.
    #[inline]
    fn turn_to(&mut self, index: usize) {
        self.word = self.words.map(|chunk| chunk.word(index));
        self.number = self.chunk * WORDS + index;
    }

    /// Takes a block from the word in use: the fast path.
    #[inline(always)]
    pub(crate) fn take_here(&self, order: usize) -> Option<FrameId> {
        let word = self.word?;
        let at = match order {
            0 => word.take_frame()?,
            1..=WORD_ORDER => word.take_block(order)?,
            _ => return None,
        };
        Some(FrameId::new(self.number * WORD_FRAMES + at))
    }

    /// Takes a block from anywhere in the chunk.
    #[inline(never)]
    pub(crate) fn take(&mut self, order: usize) -> Option<FrameId> {
        let index = self.words?.take(order, self.number % WORDS)?;
        self.turn_to(index / WORD_FRAMES);
        Some(FrameId::new(self.chunk * CHUNK_FRAMES + index))
    }

    /// Puts a block back if it lies in the word in use and was allocated so: the fast path.
    #[inline(always)]
    pub(crate) fn give_here(&self, frame: FrameId, order: usize) -> bool {
        order < WORD_ORDER
            && self.number == frame.number() / WORD_FRAMES
            && self.word.is_some_and(|word| word.give(frame.bit(), order))
    }

    /// Puts a block of this chunk back; says whether it was allocated so.
    pub(crate) fn give(&mut self, frame: FrameId, order: Order) -> bool {
        let given = self.words.is_some_and(|chunk| chunk.give(frame.word(), frame.bit(), order.get()));
        if given {
            self.turn_to(frame.word());
        }
        given
    }

    /// Whether every frame of the word in use is free and collected.
    #[inline(always)]
    pub(crate) fn is_full_here(&self) -> bool {
        self.word.is_some_and(|word| word.mine() == u64::MAX)
    }
}

/// One core's part of the allocator. Its owner passes it to every call.
///
/// Dropping it without [`Frames::drain`](super::Frames::drain) leaves its chunks reserved for ever.
#[derive(Debug)]
pub struct CoreCache<'m> {
    pub(crate) slots: [Slot<'m>; SLOTS],
    /// Chunk numbers of free order-9 blocks, with the index of the span.
    pub(crate) magazine: [(usize, usize); MAGAZINE],
    pub(crate) stocked: usize,
    /// Where in the index of whole chunks the last ones were found: the span, and the offset.
    pub(crate) source: (usize, usize),
    /// The span of the last block freed: most frees hit it again.
    pub(crate) span: usize,
    /// The chunk of the last block freed into the open, and how often in a row.
    pub(crate) last: usize,
    pub(crate) repeats: u32,
    /// The turn of the interleave policy.
    pub(crate) turn: usize,
    pub(crate) core: CoreId,
    pub(crate) home: NodeId,
}

impl CoreCache<'_> {
    /// The empty cache of a core on its home node.
    #[must_use]
    pub const fn new(core: CoreId, home: NodeId) -> Self {
        Self {
            slots: [const { Slot::EMPTY }; SLOTS],
            magazine: [(usize::MAX, 0); MAGAZINE],
            stocked: 0,
            source: (usize::MAX, 0),
            span: 0,
            last: usize::MAX,
            repeats: 0,
            turn: 0,
            core,
            home,
        }
    }

    /// The core that owns the cache.
    #[must_use]
    pub const fn core(&self) -> CoreId {
        self.core
    }

    /// The node that the cache allocates from first.
    #[must_use]
    pub const fn home(&self) -> NodeId {
        self.home
    }

    /// How many chunks this core holds back, reserved or in its magazine.
    #[must_use]
    pub fn held_chunks(&self) -> usize {
        self.stocked + self.slots.iter().filter(|slot| slot.words.is_some()).count()
    }
}
