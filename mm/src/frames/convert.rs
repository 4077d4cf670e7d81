//! A block of a whole chunk becomes single frames, and single frames become one block: for the pages of address spaces, which are
//! mapped large and unmapped small, or the other way round.
//!
//! Both change the state of a chunk whose every frame belongs to the caller, so nobody else has a reason to touch it, but for
//! the core that has it reserved, and for frees that are long over but still see to the chunk's list (`Span::lift`, `promote`).

use super::cache::{CoreCache, Slot};
use super::span::Span;
use super::state::State;
use super::{Chunk, Frames};
use crate::error::FrameError;
use crate::id::{CHUNK_ORDER, FrameId, WORDS};

impl<'m> Frames<'m> {
    /// Makes an allocated block of [`Order::HUGE`](crate::Order::HUGE), which the caller owns, into 512 allocated blocks of
    /// [`Order::FRAME`](crate::Order::FRAME), each of which goes back on its own.
    ///
    /// # Errors
    /// As [`Frames::put`] of that block; nothing has changed then.
    pub fn split(&self, cache: &mut CoreCache<'m>, frame: FrameId) -> Result<(), FrameError> {
        self.split_keeping(cache, frame, &[u64::MAX; WORDS])
    }

    /// As [`Frames::split`], but gives back at once every frame whose bit in `keep` is 0: frame i of the block is bit i % 64 of word i / 64.
    ///
    /// # Errors
    /// As [`Frames::split`].
    pub fn split_keeping(
        &self,
        cache: &mut CoreCache<'m>,
        frame: FrameId,
        keep: &[u64; WORDS],
    ) -> Result<(), FrameError> {
        let (_, span, offset) = self.chunk_at(cache, frame)?;
        if span.split_huge(offset, keep) { Ok(()) } else { Err(span.blame(offset, frame)) }
    }

    /// Makes 512 allocated blocks of [`Order::FRAME`](crate::Order::FRAME) that fill the chunk at `frame`, and that the caller
    /// owns, into one allocated block of [`Order::HUGE`](crate::Order::HUGE).
    ///
    /// # Errors
    /// The chunk is as before. For a frame that is not allocated on its own: [`FrameError::DoubleFree`] if it is free,
    /// [`FrameError::WrongOrder`] if it is part of a longer block, [`FrameError::Foreign`] if it is not managed.
    /// [`FrameError::Interior`] if no chunk starts at `frame`. [`FrameError::Held`] if another core has the chunk reserved: let it
    /// drain its cache and ask again.
    pub fn merge(&self, cache: &mut CoreCache<'m>, frame: FrameId) -> Result<(), FrameError> {
        let (_, span, offset) = self.chunk_at(cache, frame)?;
        if !span.state(offset).is_split() {
            return Err(span.blame(offset, frame));
        }
        // Before the chunk is reserved: a failing attempt must not hide its free frames from the others.
        check(span.chunk(offset))?;
        if let Some(slot) = cache.slots.iter_mut().find(|slot| slot.chunk == frame.chunk()) {
            *slot = Slot::EMPTY;
        } else if !span.reserve(offset, cache.core) {
            return Err(refusal(span, offset, frame));
        } else if let Err(error) = check(span.chunk(offset)) {
            // Only a free of a frame that is not its caller's own can have come between.
            span.release(offset);
            return Err(error);
        }
        span.set_huge(offset, CHUNK_ORDER);
        Ok(())
    }

    /// The chunk that starts at a frame.
    fn chunk_at(
        &self,
        cache: &mut CoreCache<'m>,
        frame: FrameId,
    ) -> Result<(usize, &'m Span<'m>, usize), FrameError> {
        if !frame.is_aligned(CHUNK_ORDER) {
            return Err(FrameError::Interior);
        }
        let found = self.locate(cache.span, frame.chunk()).ok_or(FrameError::Foreign)?;
        cache.span = found.0;
        Ok(found)
    }
}

/// Whether every frame of a split chunk is a block of its own, and what the first is that is not. For frames that the caller owns it is
/// exact whoever has the chunk reserved: the stores that handed them out happened before (see `Word::verdict`).
fn check(chunk: &Chunk) -> Result<(), FrameError> {
    match chunk.first_not_single() {
        None => Ok(()),
        Some((index, at)) => Err(match chunk.blame(index, at) {
            FrameError::Interior => FrameError::WrongOrder,
            error => error,
        }),
    }
}

/// Why a chunk could not be reserved.
#[cold]
fn refusal(span: &Span<'_>, offset: usize, frame: FrameId) -> FrameError {
    match span.state(offset) {
        // Pooled only by now: it was reserved a moment ago, by a free that moves it between lists if by nobody else.
        State::Reserved(_) | State::Pooled(_) => FrameError::Held,
        _ => span.blame(offset, frame),
    }
}
