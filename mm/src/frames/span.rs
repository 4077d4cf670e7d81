//! A span: consecutive chunks of one node and one zone, with everything needed to hand them out.
//!
//! Invariants, cited by the tests' walker:
//! * **M1** Only the core that a chunk's state names as `Reserved` takes frames from it.
//! * **M2** A `Pooled` chunk of level l > 0 is on list l, but for an operation under way.
//! * **M3** A chunk's bit in the whole index is set iff it is `Unsplit` and not part of an allocated block.
//! * **M4** A chunk of which every frame is free is `Unsplit`, `Reserved` or `Held`, but for an operation under way.

use super::bits::Level;
use super::chunk::Chunk;
use super::index::Index;
use super::order::{TOTAL, between};
use super::state::State;
use crate::error::FrameError;
use crate::id::{CHUNK_FRAMES, CHUNK_ORDER, FrameId, Order, WORDS, Zone};
use percpu::sync::atomic::{AtomicU16, Ordering};
use percpu::{CoreId, NodeId};

/// How many unsuitable chunks of a list are looked at before the next list, where a level does not promise a block.
const PROBES: usize = 8;

/// Chunk numbers start at a multiple of this inside a span's indexes, so that runs inside a word are aligned in memory.
pub(crate) const BASE_CHUNKS: usize = 64;

/// See the module comment. Chunks are named by their offset from `base`.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `states` | any core, by the table in `state.rs` | any core | `TOTAL` |
/// | `whole`, `lists` | any core | any core | see `index.rs` |
/// | the rest | nobody after start | any core | – |
#[derive(Debug)]
pub(crate) struct Span<'m> {
    pub(crate) node: NodeId,
    pub(crate) zone: Zone,
    /// The chunk number that offset 0 stands for.
    pub(crate) base: usize,
    /// Offsets below this lie before the span.
    pub(crate) first: usize,
    /// Managed frames.
    pub(crate) frames: usize,
    /// Whether a core may keep a chunk reserved between two operations: not where chunks are scarce.
    pub(crate) keep: bool,
    pub(crate) chunks: &'m [Chunk],
    pub(crate) states: &'m [AtomicU16],
    pub(crate) whole: Index<'m>,
    pub(crate) lists: [Index<'m>; Level::LISTS],
}

impl<'m> Span<'m> {
    /// The offset of a chunk, if it lies in the span.
    #[inline(always)]
    pub(crate) fn offset(&self, chunk: usize) -> Option<usize> {
        let offset = chunk.wrapping_sub(self.base);
        if offset < self.states.len() && offset >= self.first { Some(offset) } else { None }
    }

    /// The first frame of the chunk at an offset.
    #[inline(always)]
    pub(crate) fn frame(&self, offset: usize) -> FrameId {
        FrameId::new((self.base + offset) * CHUNK_FRAMES)
    }

    /// The bitmaps of the chunk at an offset.
    #[inline(always)]
    pub(crate) fn chunk(&self, offset: usize) -> &'m Chunk {
        &self.chunks[offset - self.first]
    }

    #[inline(always)]
    pub(crate) fn state(&self, offset: usize) -> State {
        // ORDER: `TOTAL`, rows 1 and 2 of the table in `order.rs`; as Acquire it pairs with Release of whoever set the state.
        State::unpack(self.states[offset].load(TOTAL))
    }

    fn change(&self, offset: usize, from: State, to: State) -> bool {
        self.states[offset].compare_exchange(from.pack(), to.pack(), TOTAL, TOTAL).is_ok()
    }

    fn set_state(&self, offset: usize, to: State) {
        self.states[offset].swap(to.pack(), TOTAL);
    }

    /// Reserves a pooled chunk.
    pub(crate) fn reserve(&self, offset: usize, core: CoreId) -> bool {
        while let State::Pooled(level) = self.state(offset) {
            if self.change(offset, State::Pooled(level), State::Reserved(core)) {
                if let Some(list) = level.list() {
                    self.lists[list].clear(offset);
                }
                return true;
            }
        }
        false
    }

    /// Gives a reserved chunk back: to the whole index if all of it is free, to the pool otherwise.
    pub(crate) fn release(&self, offset: usize) {
        let chunk = self.chunk(offset);
        if chunk.is_whole() {
            self.set_state(offset, State::Unsplit);
            self.whole.set(offset);
        } else {
            let level = chunk.publish();
            self.pool(offset, level);
        }
    }

    /// Publishes `Pooled`, and looks again for frames that came while the chunk was still reserved.
    fn pool(&self, offset: usize, level: Level) {
        self.set_state(offset, State::Pooled(level));
        if let Some(list) = level.list() {
            self.lists[list].set(offset);
        }
        between();
        let now = self.chunk(offset).level();
        if now > level {
            self.lift(offset);
        }
        if now == Level::TOP && self.chunk(offset).is_open() {
            self.promote(offset);
        }
    }

    /// Raises the published level of a pooled chunk to what its frames are worth.
    #[cold]
    fn lift(&self, offset: usize) {
        while let State::Pooled(old) = self.state(offset) {
            let new = self.chunk(offset).level();
            if new <= old {
                return;
            }
            if self.change(offset, State::Pooled(old), State::Pooled(new)) {
                if let Some(list) = new.list() {
                    self.lists[list].set(offset);
                }
                if let Some(list) = old.list() {
                    self.unlist(list, offset);
                }
                return;
            }
        }
    }

    /// Takes a chunk off a list where it no longer belongs, and looks again.
    #[cold]
    fn unlist(&self, list: usize, offset: usize) {
        self.lists[list].clear(offset);
        between();
        if matches!(self.state(offset), State::Pooled(level) if level.list() == Some(list)) {
            self.lists[list].set(offset);
        }
    }

    /// Moves a pooled chunk whose frames are all free to the whole index.
    #[cold]
    fn promote(&self, offset: usize) {
        // Reserving it makes sure that nobody takes a frame meanwhile. The core id only matters to readers of a dump.
        if self.reserve(offset, CoreId::new(0)) {
            self.release(offset);
        }
    }

    /// Frees a small block into the open.
    #[inline]
    pub(crate) fn put_shared(&self, offset: usize, frame: FrameId, order: Order) -> Result<(), FrameError> {
        if !self.state(offset).is_split() {
            return Err(self.blame(offset, frame));
        }
        let chunk = self.chunk(offset);
        let Some(word) = chunk.give_open(frame.word(), frame.bit(), order.get()) else {
            return Err(self.blame(offset, frame));
        };
        if let State::Pooled(level) = self.state(offset)
            && level.may_grow(word, frame.bit())
        {
            self.lift(offset);
        }
        if word == u64::MAX && chunk.is_open() {
            self.promote(offset);
        }
        Ok(())
    }

    /// Why the frame may not be freed.
    #[cold]
    pub(crate) fn blame(&self, offset: usize, frame: FrameId) -> FrameError {
        match self.state(offset) {
            State::Absent => FrameError::Foreign,
            State::Held => FrameError::DoubleFree,
            State::Unsplit if self.whole.contains(offset) => FrameError::DoubleFree,
            State::Unsplit => FrameError::Interior,
            State::Huge(_) if frame.is_aligned(CHUNK_ORDER) => FrameError::WrongOrder,
            State::Huge(_) => FrameError::Interior,
            State::Reserved(_) | State::Pooled(_) => self.chunk(offset).blame(frame.word(), frame.bit()),
        }
    }

    /// Reserves a chunk that has a free block of the order: the fullest and lowest that is worth it, then a whole one, then any.
    pub(crate) fn find(&self, order: usize, core: CoreId) -> Option<usize> {
        let wanted = Level::wanted(order);
        let mut level = Some(wanted);
        while let Some(at) = level {
            if let Some(offset) = self.find_on(at, order, core) {
                return Some(offset);
            }
            level = at.up();
        }
        self.split(core).or_else(|| self.find_on(Level::POOR, order, core))
    }

    fn find_on(&self, level: Level, order: usize, core: CoreId) -> Option<usize> {
        let list = level.list()?;
        let mut from = 0;
        let mut misses = 0;
        while let Some(offset) = self.lists[list].next(from) {
            if self.state(offset) != State::Pooled(level) {
                self.unlist(list, offset);
            } else if !level.promises(order) && !self.chunk(offset).has(order) {
                misses += 1;
                if misses == PROBES {
                    return None;
                }
            } else if self.reserve(offset, core) {
                return Some(offset);
            }
            from = offset + 1;
        }
        None
    }

    /// Reserves the lowest whole chunk, to be split.
    fn split(&self, core: CoreId) -> Option<usize> {
        let offset = self.whole.take()?;
        self.chunk(offset).split();
        self.set_state(offset, State::Reserved(core));
        Some(offset)
    }

    /// As `find`, but looks at every chunk. For the moment before memory is declared exhausted.
    #[cold]
    pub(crate) fn find_anywhere(&self, order: usize, core: CoreId) -> Option<usize> {
        let split = (self.first..self.states.len()).find(|&offset| {
            matches!(self.state(offset), State::Pooled(_))
                && self.chunk(offset).has(order)
                && self.reserve(offset, core)
        });
        split.or_else(|| self.split(core))
    }

    /// Whether a chunk is held by some core.
    #[cold]
    pub(crate) fn is_held(&self) -> bool {
        (self.first..self.states.len()).any(|at| matches!(self.state(at), State::Reserved(_) | State::Held))
    }

    /// Takes a block of a chunk or more.
    pub(crate) fn take_huge(&self, order: Order) -> Option<FrameId> {
        let offset = self.whole.take_run(order.get() - CHUNK_ORDER.get(), self.base)?;
        self.set_huge(offset, order);
        Some(self.frame(offset))
    }

    /// Marks a chunk that this core holds as the head of an allocated block.
    #[inline(always)]
    pub(crate) fn set_huge(&self, offset: usize, order: Order) {
        // ORDER: Release: pairs with Acquire in `state`; the chunk is the caller's alone until it hands the block on.
        self.states[offset].store(State::Huge(order).pack(), Ordering::Release);
    }

    /// Marks the head of an allocated block of one chunk as held in a magazine; says whether it was that.
    #[inline(always)]
    pub(crate) fn hold(&self, offset: usize) -> bool {
        // ORDER: Acquire and Release: only the owner of the block comes here, so load and store need not be one operation; a second
        // free that comes after the first reads this store.
        let allocated = self.states[offset].load(Ordering::Acquire) == State::Huge(CHUNK_ORDER).pack();
        if allocated {
            self.states[offset].store(State::Held.pack(), Ordering::Release);
        }
        allocated
    }

    /// Marks a chunk that this core has taken from the whole index as held in a magazine.
    pub(crate) fn set_held(&self, offset: usize) {
        // ORDER: Release: as in `set_huge`.
        self.states[offset].store(State::Held.pack(), Ordering::Release);
    }

    /// Puts held chunks of one index word back into the whole index.
    pub(crate) fn unhold(&self, offsets: impl Iterator<Item = usize>) {
        let (mut word, mut bits) = (0, 0);
        for offset in offsets {
            self.set_state(offset, State::Unsplit);
            word = offset / BASE_CHUNKS;
            bits |= 1 << (offset % BASE_CHUNKS);
        }
        self.whole.set_bits(word, bits);
    }

    /// Makes an allocated block of one chunk into single frames in a pooled chunk, those of `keep` allocated and the others free; says whether
    /// it was that. While the words are written nobody looks at them: the state is `Held`, and in no magazine.
    pub(crate) fn split_huge(&self, offset: usize, keep: &[u64; WORDS]) -> bool {
        let ours = self.change(offset, State::Huge(CHUNK_ORDER), State::Held);
        if ours {
            let chunk = self.chunk(offset);
            chunk.allot(keep);
            self.pool(offset, chunk.level());
        }
        ours
    }

    /// Frees a block of a chunk or more.
    pub(crate) fn put_huge(&self, offset: usize, frame: FrameId, order: Order) -> Result<(), FrameError> {
        if !self.change(offset, State::Huge(order), State::Unsplit) {
            return Err(self.blame(offset, frame));
        }
        let twice = self.whole.set_run(offset, order.get() - CHUNK_ORDER.get());
        debug_assert!(twice == 0, "M3: a chunk of an allocated block is not in the whole index");
        Ok(())
    }

    /// Checks M2 to M4 while nothing happens.
    #[cfg(test)]
    #[cfg_attr(not(loom), expect(dead_code, reason = "only the models can stop every core"))]
    pub(crate) fn walk(&self) {
        for offset in self.first..self.states.len() {
            let state = self.state(offset);
            if let State::Pooled(level) = state {
                let open = self.chunk(offset).level();
                assert!(
                    level > Level::NONE || open == Level::NONE,
                    "M2: {offset} has free frames and no list"
                );
                assert!(
                    level.list().is_none_or(|list| self.lists[list].contains(offset)),
                    "M2: {offset} is on its list"
                );
                assert!(!self.chunk(offset).is_open(), "M4: {offset} is whole");
            }
            assert!(!self.whole.contains(offset) || state == State::Unsplit, "M3: {offset} is {state:?}");
        }
    }
}
