//! Where a new process has its image, its stack and its heap.
//!
//! All begin in the lower half of the user half, in one *arena* that starts at a random gibibyte: image and stack share page tables down to
//! level 2, since every table of a new process has to be cleared. With draws that are really random, that leaves 16 bits of uncertainty
//! about the arena and 17 about a small image in it (one less for each doubling of its alignment): 33 about an address in the image.
//! Who knows where the image is has 17 bits to guess about the stack, and 18 about the heap.

use super::{Placing, Plan};
use crate::virt::{PAGE_BYTES, PageId, PageRange, PageSize};

/// Pages of a gibibyte: what an entry of level 3 covers.
const UNIT: usize = PageSize::Giant.pages();
/// Pages in which a stack is placed, and a small image.
const WINDOW: usize = UNIT / 2;
/// Most pages of a stack.
pub const MAX_STACK: usize = WINDOW / 2;
/// Arenas begin in units below this one: half of the address space lies behind.
const ARENAS: usize = 1 << 16;
/// An image of fixed address that ends below this unit has its arena above it; another one below it.
const MIDDLE: usize = ARENAS / 2;
/// Units that are enough for the windows and the beginning of the heap.
const ARENA_UNITS: usize = 5;

/// Where things come. Below and above the stack a page is left for guards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The image's pages.
    pub image: PageRange,
    /// How many pages they have been moved up.
    moved: usize,
    /// The stack's pages.
    pub stack: PageRange,
    /// From here on nothing is mapped: to the end of the user half, or to an image of fixed address that lies above.
    pub heap: PageId,
}

impl Layout {
    /// How far the image has been moved, in bytes.
    #[must_use]
    #[inline]
    pub const fn slide(&self) -> usize {
        self.moved * PAGE_BYTES
    }

    /// Where a page of the image has come.
    #[must_use]
    #[inline]
    pub const fn moved(&self, page: PageId) -> PageId {
        PageId::new(page.number() + self.moved)
    }
}

impl Plan {
    /// Chooses places for the image and a stack of `stack` pages; `draw` gives a number below its argument, always 0 for no randomness.
    /// Nothing for a stack of no pages, or of more than [`MAX_STACK`].
    #[must_use]
    pub fn place(&self, stack: usize, mut draw: impl FnMut(usize) -> usize) -> Option<Layout> {
        if stack == 0 || stack > MAX_STACK {
            return None;
        }
        let (arena, window, moved) = match self.placing() {
            Placing::Movable => {
                let arena = (1 + draw(ARENAS - 1)) * UNIT;
                // I1: it ends at most `MAX_PAGES` from 0, so twice that is room enough.
                let end = self.first().number() + self.pages();
                let window = (2 * end).max(WINDOW);
                let places = (window - end) / self.align() + 1;
                (arena, window, arena + draw(places) * self.align())
            }
            Placing::Fixed => (self.arena_beside(&mut draw), 0, 0),
        };
        let stack_at = arena + window + 1 + draw(WINDOW - stack - 1);
        let heap = (arena + window + WINDOW).next_multiple_of(UNIT) + draw(UNIT);
        Some(Layout {
            image: PageRange::new(PageId::new(self.first().number() + moved), self.pages())?,
            moved,
            stack: PageRange::new(PageId::new(stack_at), stack)?,
            heap: PageId::new(heap),
        })
    }

    /// The arena's first page where the image lies fixed.
    fn arena_beside(&self, draw: &mut impl FnMut(usize) -> usize) -> usize {
        let above = (self.first().number() + self.pages()).div_ceil(UNIT);
        let unit = if above < MIDDLE { above + draw(ARENAS - above) } else { 1 + draw(MIDDLE - ARENA_UNITS) };
        unit * UNIT
    }
}
