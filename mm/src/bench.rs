//! What the frame allocator's benchmark rows do, over anything that hands out frames: the kernel runs these bodies on its own
//! allocator, the native lane on ours and on its peers.
//!
//! A body is one timed window, or the preparation of one. Nothing here allocates: buffers are the caller's. One operation is one
//! get and one put, but for [`put_all`], where it is a put.

pub mod heap;

use crate::error::FrameError;
use crate::frames::{CoreCache, Frames, Request};
use crate::id::{FrameId, Order};
use perf::prng::Prng;

/// One core's way to an allocator.
pub trait FrameSource {
    /// Takes a block; nothing when memory is exhausted.
    fn get(&mut self, order: Order) -> Option<FrameId>;
    /// Gives a block back.
    fn put(&mut self, frame: FrameId, order: Order);
    /// Gives back whatever is kept privately.
    fn drain(&mut self) {}
}

/// Our allocator as one core sees it.
#[derive(Debug)]
pub struct Local<'a, 'm> {
    frames: &'a Frames<'m>,
    cache: CoreCache<'m>,
    request: Request,
    refused: Option<FrameError>,
}

impl<'a, 'm> Local<'a, 'm> {
    /// A core's view that asks as `request` says.
    #[must_use]
    pub const fn new(frames: &'a Frames<'m>, cache: CoreCache<'m>, request: Request) -> Self {
        Self { frames, cache, request, refused: None }
    }

    /// The last put that was refused: a broken allocator, or a broken benchmark.
    #[must_use]
    pub const fn refused(&self) -> Option<FrameError> {
        self.refused
    }

    /// Ends the view; the cache is not drained.
    #[must_use]
    pub fn into_cache(self) -> CoreCache<'m> {
        self.cache
    }
}

impl FrameSource for Local<'_, '_> {
    #[inline(always)]
    fn get(&mut self, order: Order) -> Option<FrameId> {
        self.frames.get_from(&mut self.cache, order, self.request).ok()
    }

    #[inline(always)]
    fn put(&mut self, frame: FrameId, order: Order) {
        if let Err(error) = self.frames.put(&mut self.cache, frame, order) {
            self.refused = Some(error);
        }
    }

    fn drain(&mut self) {
        self.frames.drain(&mut self.cache);
    }
}

/// One block taken and given back, `count` times. Says whether memory sufficed.
#[inline(always)]
pub fn pairs<S: FrameSource>(source: &mut S, order: Order, count: usize) -> bool {
    for _ in 0..count {
        let Some(frame) = source.get(order) else { return false };
        source.put(frame, order);
    }
    true
}

/// Fills `blocks`; returns how many memory sufficed for.
#[inline(always)]
pub fn get_all<S: FrameSource>(source: &mut S, order: Order, blocks: &mut [FrameId]) -> usize {
    for (index, block) in blocks.iter_mut().enumerate() {
        match source.get(order) {
            Some(frame) => *block = frame,
            None => return index,
        }
    }
    blocks.len()
}

/// Gives `blocks` back, first to last.
#[inline(always)]
pub fn put_all<S: FrameSource>(source: &mut S, order: Order, blocks: &[FrameId]) {
    for &block in blocks {
        source.put(block, order);
    }
}

/// As many blocks as fit, taken, and given back last to first. Says whether memory sufficed.
#[inline(always)]
pub fn burst<S: FrameSource>(source: &mut S, order: Order, blocks: &mut [FrameId]) -> bool {
    let got = get_all(source, order, blocks);
    for &block in blocks.iter().take(got).rev() {
        source.put(block, order);
    }
    got == blocks.len()
}

/// As many blocks as fit, taken, and given back in the same order. Says whether memory sufficed.
#[inline(always)]
pub fn bulk<S: FrameSource>(source: &mut S, order: Order, blocks: &mut [FrameId]) -> bool {
    let got = get_all(source, order, blocks);
    let taken = blocks.get(..got).unwrap_or_default();
    put_all(source, order, taken);
    got == blocks.len()
}

/// Gives a random half of `blocks` back and moves the rest to the front: memory full of holes. Returns how many are left.
pub fn punch<S: FrameSource>(source: &mut S, order: Order, blocks: &mut [FrameId], prng: &mut Prng) -> usize {
    let mut kept = 0;
    for index in 0..blocks.len() {
        if prng.bits() & 1 == 0 {
            source.put(blocks[index], order);
        } else {
            blocks.swap(kept, index);
            kept += 1;
        }
    }
    kept
}

/// A block of the live set of a random walk.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// Its first frame.
    pub frame: FrameId,
    /// Its order.
    pub order: Order,
}

/// A random walk over blocks of mixed orders: the live set, and the frames in it.
#[derive(Debug)]
pub struct Walk<'b> {
    live: &'b mut [Block],
    len: usize,
    frames: usize,
    /// Requests that were refused.
    pub refused: usize,
}

/// How often each order comes in a mixed walk: out of 64, most are single frames, as in any kernel.
const MIX: [(u8, u8); 7] = [(0, 40), (1, 8), (2, 5), (3, 5), (4, 3), (6, 2), (9, 1)];

/// A random order of the mix.
#[inline]
pub fn mixed_order(prng: &mut Prng) -> Order {
    let mut at = prng.bits() % 64;
    for (order, share) in MIX {
        let share = u64::from(share);
        if at < share {
            return Order::new(order).unwrap_or_default();
        }
        at -= share;
    }
    Order::FRAME
}

impl<'b> Walk<'b> {
    /// An empty live set over a buffer.
    pub fn new(buffer: &'b mut [Block]) -> Self {
        Self { live: buffer, len: 0, frames: 0, refused: 0 }
    }

    /// The walk whose live set is the first `len` blocks of a buffer. Its count of frames starts at 0: nothing is walked here,
    /// so that a timed window may begin with it.
    pub fn resume(buffer: &'b mut [Block], len: usize) -> Self {
        Self { live: buffer, len, frames: 0, refused: 0 }
    }

    /// Frames in the live set.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Takes a block into the live set; says whether there was one, and room for it.
    #[inline]
    pub fn grow<S: FrameSource>(&mut self, source: &mut S, order: Order) -> bool {
        let (Some(place), Some(frame)) = (self.live.get_mut(self.len), source.get(order)) else {
            self.refused += 1;
            return false;
        };
        *place = Block { frame, order };
        self.len += 1;
        self.frames = self.frames.wrapping_add(order.frames());
        true
    }

    /// Gives a random block of the live set back.
    #[inline]
    pub fn shrink<S: FrameSource>(&mut self, source: &mut S, prng: &mut Prng) -> Option<Order> {
        let last = self.len.checked_sub(1)?;
        let victim = prng.below(self.len as u64) as usize;
        let block = *self.live.get(victim)?;
        self.live.swap(victim, last);
        self.len = last;
        self.frames = self.frames.wrapping_sub(block.order.frames());
        source.put(block.frame, block.order);
        Some(block.order)
    }

    /// Grows to so many frames with mixed orders.
    pub fn fill<S: FrameSource>(&mut self, source: &mut S, frames: usize, prng: &mut Prng) {
        while self.frames < frames && self.grow(source, mixed_order(prng)) {}
    }

    /// Replaces random blocks by ones of the same order: the mix stays, the places change.
    #[inline]
    pub fn replace<S: FrameSource>(&mut self, source: &mut S, count: usize, prng: &mut Prng) {
        for _ in 0..count {
            if let Some(order) = self.shrink(source, prng) {
                self.grow(source, order);
            }
        }
    }

    /// Drifts between two fill levels, `steps` steps: up until the higher is reached, down until the lower is.
    pub fn drift<S: FrameSource>(
        &mut self,
        source: &mut S,
        (low, high): (usize, usize),
        steps: usize,
        prng: &mut Prng,
    ) {
        let mut up = true;
        for _ in 0..steps {
            up = if self.frames >= high { false } else { up || self.frames <= low };
            // Three steps in four go the way; the fourth goes back.
            if up == (prng.bits() & 3 != 0) {
                self.grow(source, mixed_order(prng));
            } else {
                self.shrink(source, prng);
            }
        }
    }

    /// Gives everything back.
    pub fn clear<S: FrameSource>(&mut self, source: &mut S) {
        for block in self.live.iter().take(self.len) {
            source.put(block.frame, block.order);
        }
        self.len = 0;
        self.frames = 0;
    }

    /// The live blocks.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        self.live.get(..self.len).unwrap_or_default()
    }
}

/// How many chunks of 2 MiB are wholly free, given the blocks in use: `used` has one entry per chunk of `first`…, for any allocator.
#[must_use]
pub fn whole_chunks(used: &mut [bool], first: FrameId, blocks: impl Iterator<Item = Block>) -> usize {
    used.fill(false);
    let base = first.number() / Order::HUGE.frames();
    for block in blocks {
        let start = block.frame.number() / Order::HUGE.frames();
        let end = (block.frame.number() + block.order.frames()).div_ceil(Order::HUGE.frames());
        for chunk in start..end {
            if let Some(flag) = chunk.checked_sub(base).and_then(|index| used.get_mut(index)) {
                *flag = true;
            }
        }
    }
    used.iter().filter(|&&flag| !flag).count()
}
