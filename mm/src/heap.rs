//! The heap for cold paths: set-up, reports, anything whose size is not known and whose speed does not matter.
//!
//! The crate `talc` manages the memory (SFBdragon's boundary-tag allocator with binned free lists); this module feeds it arenas, blocks of
//! frames, and gives an arena back when nothing in it is in use. The first arena also holds `talc`'s own tables and stays. Hot paths use
//! frames and, later, slabs.
//!
//! * H1: an arena belongs to the heap from [`Backing::take`] to [`Backing::give`], and nobody else touches it.

use crate::id::Order;
use core::alloc::Layout;
use core::ptr::NonNull;
use talc::{OomHandler, Span, Talc};

/// Where arenas come from.
///
/// # Safety
/// 1. `take` returns memory of `order.frames()` frames that is readable, writable, page aligned and nobody else's until it is given back.
pub unsafe trait Backing {
    /// Takes a block; nothing when memory is exhausted.
    fn take(&mut self, order: Order) -> Option<NonNull<u8>>;
    /// Gives a block back.
    fn give(&mut self, start: NonNull<u8>, order: Order);
}

/// Order of the first arenas, unless an allocation needs a larger one: 64 KiB. Every eight arenas it grows by one, so that the heap can
/// reach 127 MiB.
const ARENA: usize = 4;
const ARENAS_PER_ORDER: usize = 8;
/// Arenas at most; an allocation beyond is refused.
pub const MAX_ARENAS: usize = 64;
/// What an allocation costs beyond its size and alignment in a fresh arena, and what the first arena's tables take, generously.
const OVERHEAD: usize = 2048;

#[derive(Clone, Copy, Debug)]
struct Arena {
    start: NonNull<u8>,
    order: Order,
    heap: Span,
}

/// The arenas, and where more come from.
#[derive(Debug)]
struct Growth<B> {
    backing: B,
    arenas: [Option<Arena>; MAX_ARENAS],
}

impl<B: Backing> OomHandler for Growth<B> {
    fn handle_oom(talc: &mut Talc<Self>, layout: Layout) -> Result<(), ()> {
        let bytes =
            layout.size().checked_add(layout.align()).and_then(|n| n.checked_add(OVERHEAD)).ok_or(())?;
        let least = Order::for_bytes(bytes).ok_or(())?;
        let place = talc.oom_handler.arenas.iter().position(Option::is_none).ok_or(())?;
        let usual = Order::new((ARENA + place / ARENAS_PER_ORDER) as u8).ok_or(())?;
        let order = least.max(usual);
        let start = talc.oom_handler.backing.take(order).ok_or(())?;
        let span = Span::from_base_size(start.as_ptr(), order.frames() * crate::id::FRAME_BYTES);
        // SAFETY: H1: the block is readable, writable and ours alone.
        match unsafe { talc.claim(span) } {
            Ok(heap) => talc.oom_handler.arenas[place] = Some(Arena { start, order, heap }),
            Err(()) => {
                talc.oom_handler.backing.give(start, order);
                return Err(());
            }
        }
        Ok(())
    }
}

/// A heap over arenas. Not a lock: the kernel puts it behind one.
#[derive(Debug)]
pub struct Heap<B: Backing>(Talc<Growth<B>>);

// SAFETY: the arenas' memory is the heap's alone (H1) and reachable from every core alike; access needs `&mut`.
unsafe impl<B: Backing + Send> Send for Heap<B> {}

impl<B: Backing> Heap<B> {
    /// A heap without arenas.
    #[must_use]
    pub const fn new(backing: B) -> Self {
        Self(Talc::new(Growth { backing, arenas: [None; MAX_ARENAS] }))
    }

    /// Takes memory for a layout; nothing when memory is exhausted, the arenas are, or the layout has size 0.
    pub fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() == 0 {
            return None;
        }
        // SAFETY: the size is not 0.
        unsafe { self.0.malloc(layout) }.ok()
    }

    /// Gives memory back, and with it every arena that has become empty.
    ///
    /// # Safety
    /// 1. `start` came from [`Heap::allocate`] of this heap with this layout and is given back once.
    pub unsafe fn free(&mut self, start: NonNull<u8>, layout: Layout) {
        // SAFETY: obligation 1.
        unsafe { self.0.free(start, layout) };
        self.trim(start);
    }

    /// Arenas in use.
    #[must_use]
    pub fn arenas(&self) -> usize {
        self.0.oom_handler.arenas.iter().flatten().count()
    }

    /// Gives the arena around `freed` back if nothing in it is in use. The first one holds tables and always has something.
    fn trim(&mut self, freed: NonNull<u8>) {
        let holds = |arena: &Option<Arena>| arena.is_some_and(|arena| arena.heap.contains(freed.as_ptr()));
        let Some(place) = self.0.oom_handler.arenas.iter().position(holds) else { return };
        let Some(arena) = self.0.oom_handler.arenas[place] else { return };
        // SAFETY: `heap` is what `claim` returned and was not changed since.
        let used = unsafe { self.0.get_allocated_span(arena.heap) };
        if !used.is_empty() {
            return;
        }
        // SAFETY: as above; an empty span contains nothing in use.
        let rest = unsafe { self.0.truncate(arena.heap, Span::empty()) };
        debug_assert!(rest.is_empty(), "H1: an arena without allocations goes whole");
        self.0.oom_handler.arenas[place] = None;
        self.0.oom_handler.backing.give(arena.start, arena.order);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Backing, Heap, MAX_ARENAS};
    use crate::id::{FRAME_BYTES, Order};
    use core::alloc::Layout;
    use core::ptr::NonNull;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use std::alloc;
    use std::vec::Vec;

    /// Blocks from the host's allocator, a limited number of them.
    struct Host {
        left: usize,
        out: usize,
    }

    fn layout(order: Order) -> Layout {
        Layout::from_size_align(order.frames() * FRAME_BYTES, FRAME_BYTES).expect("a block has a layout")
    }

    // SAFETY: the host's allocator gives memory with just these properties.
    unsafe impl Backing for Host {
        fn take(&mut self, order: Order) -> Option<NonNull<u8>> {
            self.left = self.left.checked_sub(1)?;
            self.out += 1;
            // SAFETY: a block is not empty.
            NonNull::new(unsafe { alloc::alloc(layout(order)) })
        }

        fn give(&mut self, start: NonNull<u8>, order: Order) {
            self.left += 1;
            self.out -= 1;
            // SAFETY: taken above with the same layout.
            unsafe { alloc::dealloc(start.as_ptr(), layout(order)) };
        }
    }

    fn bytes(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a size has a layout")
    }

    #[test]
    fn grows_and_gives_empty_arenas_back() {
        let mut heap = Heap::new(Host { left: 8, out: 0 });
        let blocks: Vec<_> = (0..6).map(|_| heap.allocate(bytes(60_000)).expect("room")).collect();
        assert!(heap.arenas() > 1);
        for block in blocks {
            // SAFETY: taken above, given back once.
            unsafe { heap.free(block, bytes(60_000)) };
        }
        assert_eq!((heap.arenas(), heap.0.oom_handler.backing.out), (1, 1), "only the tables' arena stays");
    }

    #[test]
    fn exhaustion_is_an_answer() {
        let mut heap = Heap::new(Host { left: 1, out: 0 });
        assert!(heap.allocate(bytes(1 << 40)).is_none());
        assert!(heap.allocate(bytes(0)).is_none());
        let first = heap.allocate(bytes(40_000)).expect("one arena");
        assert!(heap.allocate(bytes(40_000)).is_none());
        // SAFETY: taken above, given back once.
        unsafe { heap.free(first, bytes(40_000)) };
        assert!(heap.allocate(bytes(40_000)).is_some());
    }

    proptest! {
        /// Live blocks never overlap, and keep what was written to them.
        #[test]
        fn blocks_are_disjoint(steps in proptest::collection::vec((any::<u16>(), 1_usize..9_000), 1..200)) {
            let mut heap = Heap::new(Host { left: MAX_ARENAS, out: 0 });
            let mut live: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
            for (choice, size) in steps {
                if choice % 3 == 0 && !live.is_empty() {
                    let (at, size, mark) = live.swap_remove(usize::from(choice) % live.len());
                    // SAFETY: a live block of `size` bytes.
                    let content = unsafe { core::slice::from_raw_parts(at.as_ptr(), size) };
                    prop_assert!(content.iter().all(|&byte| byte == mark));
                    // SAFETY: live, hence given back once.
                    unsafe { heap.free(at, bytes(size)) };
                } else if let Some(at) = heap.allocate(bytes(size)) {
                    let mark = (choice % 251) as u8;
                    // SAFETY: `size` bytes that were just handed out.
                    unsafe { at.write_bytes(mark, size) };
                    live.push((at, size, mark));
                }
            }
            for (at, size, _) in live {
                // SAFETY: live, hence given back once.
                unsafe { heap.free(at, bytes(size)) };
            }
            prop_assert_eq!(heap.arenas() <= 1, true);
        }
    }
}
