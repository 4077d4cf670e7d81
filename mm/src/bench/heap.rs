//! What the rows of slabs and heaps do, over anything that hands out memory.
//!
//! One operation is one take and one give. The first word of what is taken is written, as whoever asks for memory does.

use core::alloc::Layout;
use core::ptr::NonNull;
use perf::prng::Prng;

/// One core's way to memory.
///
/// # Safety
/// 1. `take` returns memory for the layout that is nobody else's until it is given back.
pub unsafe trait HeapSource {
    /// Takes memory; nothing when it is exhausted.
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// Gives memory back.
    ///
    /// # Safety
    /// 1. `at` came from `take` with this layout, of this source or of another core's to the same memory, and is given back once.
    unsafe fn give(&mut self, at: NonNull<u8>, layout: Layout);
}

/// Memory that was taken and is given back once: no copy can be made.
#[derive(Debug)]
pub struct Piece {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: whoever has the piece has its memory alone.
unsafe impl Send for Piece {}

#[inline(always)]
fn take<S: HeapSource>(source: &mut S, layout: Layout) -> Option<Piece> {
    let at = source.take(layout)?;
    if layout.size() >= size_of::<u64>() && layout.align() >= align_of::<u64>() {
        // SAFETY: large and aligned enough, and just handed out. Volatile, so that it is done although nobody reads it.
        unsafe { at.cast::<u64>().write_volatile(0) };
    }
    Some(Piece { at, layout })
}

#[inline(always)]
fn give<S: HeapSource>(source: &mut S, piece: Piece) {
    // SAFETY: a piece is what `take` returned, and is gone with this; the source is of the same memory (`Pieces::new`).
    unsafe { source.give(piece.at, piece.layout) };
}

/// One piece taken and given back, `count` times. Says whether memory sufficed.
#[inline(always)]
pub fn pairs<S: HeapSource>(source: &mut S, layout: Layout, count: usize) -> bool {
    for _ in 0..count {
        let Some(piece) = take(source, layout) else { return false };
        give(source, piece);
    }
    true
}

/// Pieces that are in use, in a buffer of fixed length.
#[derive(Debug)]
pub struct Pieces<'b> {
    buffer: &'b mut [Option<Piece>],
    len: usize,
}

impl<'b> Pieces<'b> {
    /// The pieces that a former body left at the start of a buffer, and room for as many as the buffer holds.
    ///
    /// # Safety
    /// 1. Pieces of this buffer are given to sources of the memory that they came from.
    pub unsafe fn new(buffer: &'b mut [Option<Piece>], len: usize) -> Self {
        Self { len: len.min(buffer.len()), buffer }
    }

    /// How many are in use.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes as many as there is room for; says whether memory sufficed.
    #[inline(always)]
    pub fn fill<S: HeapSource>(&mut self, source: &mut S, layout: Layout) -> bool {
        while let Some(place) = self.buffer.get_mut(self.len) {
            *place = take(source, layout);
            if place.is_none() {
                return false;
            }
            self.len += 1;
        }
        true
    }

    /// Gives all back, last to first.
    #[inline(always)]
    pub fn clear<S: HeapSource>(&mut self, source: &mut S) {
        for piece in self.buffer.iter_mut().take(self.len).rev() {
            if let Some(piece) = piece.take() {
                give(source, piece);
            }
        }
        self.len = 0;
    }

    /// Gives all back, first to last.
    #[inline(always)]
    pub fn clear_in_order<S: HeapSource>(&mut self, source: &mut S) {
        for piece in self.buffer.iter_mut().take(self.len) {
            if let Some(piece) = piece.take() {
                give(source, piece);
            }
        }
        self.len = 0;
    }

    /// Replaces pieces as the script says. Says whether memory sufficed.
    #[inline(always)]
    pub fn replace<S: HeapSource>(&mut self, source: &mut S, script: &[Change]) -> bool {
        for change in script {
            let Some(place) = self.buffer.get_mut(change.place) else { continue };
            if let Some(piece) = place.take() {
                give(source, piece);
            }
            *place = take(source, change.layout);
            if place.is_none() {
                return false;
            }
        }
        self.len = self.buffer.len();
        true
    }
}

/// One replacement: which piece, and by what.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    place: usize,
    layout: Layout,
}

/// The smallest and the largest size of a mix, as powers of two.
const MIX: (u64, u64) = (4, 11);
/// Their alignment.
const ALIGN: usize = 8;

impl Change {
    /// A replacement of any of `places` pieces by one of 8 to 2,048 bytes: each doubling is as likely as the others.
    #[must_use]
    pub fn random(places: usize, prng: &mut Prng) -> Self {
        let place = usize::try_from(prng.below(places as u64)).unwrap_or(0);
        let power = 1_u64 << (MIX.0 + prng.below(MIX.1 - MIX.0 + 1));
        let bytes = usize::try_from(power - prng.below(power / 2)).unwrap_or(ALIGN);
        let layout = Layout::from_size_align(bytes, ALIGN).unwrap_or(Layout::new::<u64>());
        Self { place, layout }
    }
}
