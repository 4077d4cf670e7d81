//! What can go wrong with frames, split by what the caller can do about it.

use core::fmt;

/// Why a frame operation was refused. Nothing has changed when one is returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FrameError {
    /// No block of this order is free where the request may look, and no core holds memory back. Free something.
    OutOfMemory,
    /// Nothing suitable is free in the open, but other cores hold reserved chunks. Let every core drain its cache and ask again.
    Held,
    /// The request names no node that has memory.
    NoNode,
    /// The frame is not managed here: a hole, reserved memory, or beyond the end.
    Foreign,
    /// The frame is free already.
    DoubleFree,
    /// An allocated block starts at this frame, but its order is another.
    WrongOrder,
    /// The frame lies inside an allocated block and does not start it, or is not aligned to the order.
    Interior,
    /// A memory range is empty, or overlaps another.
    BadRange,
    /// The memory map falls into more pieces than [`MAX_SPANS`](crate::frames::MAX_SPANS).
    TooManySpans,
    /// The memory given for metadata is smaller than [`Plan::metadata_bytes`](crate::frames::Plan::metadata_bytes) says.
    SmallMetadata,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "out of memory",
            Self::Held => "other cores hold the free memory; drain them and try again",
            Self::NoNode => "no node with memory in the request",
            Self::Foreign => "the frame is not managed by this allocator",
            Self::DoubleFree => "the frame is free already",
            Self::WrongOrder => "the block has another order",
            Self::Interior => "the frame does not start a block",
            Self::BadRange => "a memory range is empty or overlaps another",
            Self::TooManySpans => "the memory map has too many pieces",
            Self::SmallMetadata => "the metadata memory is too small",
        })
    }
}

impl core::error::Error for FrameError {}
