//! Frame numbers, block orders, physical ranges and zones.
//!
//! A *frame* is 4 KiB of physical memory, a *block* of order k is 2^k frames that start at a multiple of 2^k, and a *chunk* is a
//! block of [`CHUNK_ORDER`]: 2 MiB, the unit in which the frame allocator hands memory to cores.

use core::fmt;

/// Bytes of one frame.
pub const FRAME_BYTES: usize = 4096;

/// Words of 64 frames in one chunk. Loom explores every interleaving, so its chunk is half as long: blocks of two words still exist.
pub(crate) const WORDS: usize = if cfg!(loom) { 4 } else { 8 };

/// Frames of one bitmap word.
pub(crate) const WORD_FRAMES: usize = 64;

/// The order of one bitmap word: 64 frames.
pub(crate) const WORD_ORDER: usize = 6;

/// Frames of one chunk: 512, which is 2 MiB.
pub const CHUNK_FRAMES: usize = WORDS * WORD_FRAMES;

/// The order of one chunk: 9.
pub const CHUNK_ORDER: Order = Order(CHUNK_FRAMES.trailing_zeros() as u8);

/// A physical frame number: physical address / 4096. Written `F0x1f`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct FrameId(usize);

impl FrameId {
    /// The frame with this number.
    #[must_use]
    #[inline]
    pub const fn new(number: usize) -> Self {
        Self(number)
    }

    /// The frame that holds this physical address.
    #[must_use]
    #[inline]
    pub const fn containing(address: u64) -> Self {
        Self((address / FRAME_BYTES as u64) as usize)
    }

    /// The frame number.
    #[must_use]
    #[inline]
    pub const fn number(self) -> usize {
        self.0
    }

    /// The physical address of the frame's first byte.
    #[must_use]
    #[inline]
    pub const fn address(self) -> u64 {
        self.0 as u64 * FRAME_BYTES as u64
    }

    /// The number of the chunk that holds the frame.
    #[inline]
    pub(crate) const fn chunk(self) -> usize {
        self.0 / CHUNK_FRAMES
    }

    /// The frame's word inside its chunk.
    #[inline]
    pub(crate) const fn word(self) -> usize {
        self.0 / WORD_FRAMES % WORDS
    }

    /// The frame's bit inside its word.
    #[inline]
    pub(crate) const fn bit(self) -> usize {
        self.0 % WORD_FRAMES
    }

    /// Whether a block of this order may start here.
    #[must_use]
    #[inline]
    pub const fn is_aligned(self, order: Order) -> bool {
        self.0 & (order.frames() - 1) == 0
    }
}

impl fmt::Debug for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "F{:#x}", self.0)
    }
}

/// The size of a block: 2^order frames. Written `O3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Order(u8);

impl Order {
    /// One frame, 4 KiB.
    pub const FRAME: Self = Self(0);
    /// Two frames, 8 KiB.
    pub const PAIR: Self = Self(1);
    /// 512 frames, 2 MiB.
    pub const HUGE: Self = Self(9);
    /// 2^18 frames, 1 GiB.
    pub const GIANT: Self = Self(18);
    /// The largest block that can be asked for: 64 GiB.
    pub const MAX: Self = Self(24);

    /// The order with this number, if it is not above [`Order::MAX`].
    #[must_use]
    #[inline]
    pub const fn new(order: u8) -> Option<Self> {
        if order <= Self::MAX.0 { Some(Self(order)) } else { None }
    }

    /// The smallest order whose block holds `bytes`, if there is one.
    #[must_use]
    pub const fn for_bytes(bytes: usize) -> Option<Self> {
        let frames = bytes.div_ceil(FRAME_BYTES);
        match frames.checked_next_power_of_two() {
            Some(power) if power.trailing_zeros() <= Self::MAX.0 as u32 => {
                Some(Self(power.trailing_zeros() as u8))
            }
            _ => None,
        }
    }

    /// The exponent.
    #[must_use]
    #[inline]
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The exponent as it is packed into states and records.
    #[must_use]
    #[inline]
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// Frames of one block.
    #[must_use]
    #[inline]
    pub const fn frames(self) -> usize {
        1 << self.0
    }

    /// Whether the block is smaller than a chunk.
    #[inline]
    pub(crate) const fn is_small(self) -> bool {
        self.0 < CHUNK_ORDER.0
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "O{}", self.0)
    }
}

/// Consecutive frames, the end not included. Written `F0x0..F0x10`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhysRange {
    /// The first frame.
    pub start: FrameId,
    /// The frame after the last.
    pub end: FrameId,
}

impl PhysRange {
    /// The frames from `start` up to, not including, `end`.
    #[must_use]
    pub const fn new(start: FrameId, end: FrameId) -> Self {
        Self { start, end }
    }

    /// The frames that lie wholly inside the bytes `start..end`.
    #[must_use]
    pub const fn inside(start: u64, end: u64) -> Self {
        let first = FrameId::containing(start.next_multiple_of(FRAME_BYTES as u64));
        Self { start: first, end: FrameId::containing(end) }
    }

    /// The frames that touch the bytes `start..end`.
    #[must_use]
    pub const fn covering(start: u64, end: u64) -> Self {
        let after = FrameId::containing(end.next_multiple_of(FRAME_BYTES as u64));
        Self { start: FrameId::containing(start), end: after }
    }

    /// How many frames.
    #[must_use]
    pub const fn frames(self) -> usize {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether there is no frame inside.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.frames() == 0
    }

    /// Whether the frame is inside.
    #[must_use]
    pub const fn contains(self, frame: FrameId) -> bool {
        self.start.0 <= frame.0 && frame.0 < self.end.0
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.start, self.end)
    }
}

/// Where in physical memory a block lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Zone {
    /// Below 16 MiB, for devices with 24 address lines. Given out only to those who ask for it.
    Dma,
    /// Everything else: small blocks from the bottom of a node, blocks of 2 MiB and more from [`Zone::Huge`] first.
    Normal,
    /// The upper part of a node, where small blocks go last; asking for it means this part and no other.
    Huge,
}

impl Zone {
    /// Every zone, lowest memory first.
    pub const ALL: [Self; 3] = [Self::Dma, Self::Normal, Self::Huge];
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{FrameId, Order, PhysRange};
    use std::format;

    #[test]
    fn debug_is_tagged() {
        assert_eq!(format!("{:?} {:?}", FrameId::new(0x1f), Order::HUGE), "F0x1f O9");
    }

    #[test]
    fn ranges_round_the_right_way() {
        assert_eq!(PhysRange::inside(1, 8193), PhysRange::new(FrameId::new(1), FrameId::new(2)));
        assert_eq!(PhysRange::covering(1, 8193), PhysRange::new(FrameId::new(0), FrameId::new(3)));
        assert!(PhysRange::inside(1, 4096).is_empty());
    }

    #[test]
    fn orders_cover_bytes() {
        assert_eq!(Order::for_bytes(1).map(Order::get), Some(0));
        assert_eq!(Order::for_bytes(4097).map(Order::get), Some(1));
        assert_eq!(Order::for_bytes(2 << 20), Some(Order::HUGE));
        assert_eq!(Order::for_bytes(usize::MAX), None);
    }
}
