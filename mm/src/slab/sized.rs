//! Memory of any size: a row of caches up to a page, whole blocks of frames beyond.
//!
//! Sixteen classes, two for each doubling, so that at most a third is wasted. The caller names the layout when it frees, as with
//! Rust's allocators, so that neither side needs a search.

use super::home::{Home, Supply};
use super::magazine::Count;
use super::shape::{Links, Shape};
use super::stats::{Pool, Stats};
use super::{Pages, SlabError};
use crate::id::{FRAME_BYTES, Order};
use core::alloc::Layout;
use core::ptr::NonNull;
use percpu::sync::atomic::{AtomicUsize, Ordering};

/// Number of classes.
pub const CLASSES: usize = 16;
/// Bytes of the largest class.
pub const MAX_SMALL: usize = 4096;
/// The largest alignment that a class serves; more comes from whole blocks.
pub const MAX_ALIGN: usize = 64;

/// The step of the table of classes, and the size of the smallest.
const STEP: usize = 16;

const SIZES: [usize; CLASSES] =
    [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, MAX_SMALL];

/// The class for each size, in steps.
static TABLE: [u8; MAX_SMALL / STEP + 1] = {
    let mut table = [0; MAX_SMALL / STEP + 1];
    let (mut step, mut class) = (0, 0_u8);
    let mut size = 0;
    while step < table.len() {
        if step * STEP > SIZES[size] {
            size += 1;
            class += 1;
        }
        table[step] = class;
        step += 1;
    }
    table
};

/// The class that serves a layout.
#[inline(always)]
fn class(layout: Layout) -> Option<usize> {
    let align = layout.align();
    if align > MAX_ALIGN {
        return None;
    }
    // Every class is aligned to the smallest one's size, and a power of two to itself, up to the largest alignment.
    let size = if align > STEP { layout.size().max(align).next_power_of_two() } else { layout.size() };
    let step = size.wrapping_add(STEP - 1) / STEP;
    TABLE.get(step).map(|&class| usize::from(class) % CLASSES)
}

/// The order of the block that serves a layout, if one does.
fn block(layout: Layout) -> Option<Order> {
    Order::for_bytes(layout.size().max(layout.align()))
}

/// What the cores' parts have in common.
#[derive(Debug)]
pub struct Sizes<P> {
    pools: [Pool; CLASSES],
    /// The figures of whole blocks: they are rare, and cost a call of `P` each.
    blocks: Blocks,
    pages: P,
}

/// Figures of whole blocks.
#[derive(Debug)]
struct Blocks {
    taken: Total,
    given: Total,
}

/// A count of blocks and of their bytes, changed by any core.
#[derive(Debug)]
#[repr(align(64))]
struct Total {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

impl Total {
    const fn new() -> Self {
        Self { count: AtomicUsize::new(0), bytes: AtomicUsize::new(0) }
    }

    fn add(&self, bytes: usize) {
        // ORDER: Relaxed, here and below: figures; nothing is read by them.
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> (usize, usize) {
        // ORDER: Relaxed: as above.
        (self.count.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl<P: Pages> Sizes<P> {
    /// Memory of any size from `pages`.
    #[must_use]
    pub const fn new(pages: P) -> Self {
        let blocks = Blocks { taken: Total::new(), given: Total::new() };
        Self { pools: [const { Pool::new() }; CLASSES], blocks, pages }
    }

    /// The sum of the figures of all classes and cores, whole blocks included. Of those, the peak counts what is in use now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut total = Stats::default();
        self.pools.iter().for_each(|pool| total.add(pool.stats()));
        let ((count, bytes), (freed, freed_bytes)) = (self.blocks.taken.get(), self.blocks.given.get());
        let current = bytes.saturating_sub(freed_bytes);
        total.add(Stats {
            total_allocated: bytes,
            total_freed: freed_bytes,
            current_allocated: current,
            peak_allocated: current,
            allocation_count: count,
            free_count: freed,
            refused: 0,
            frames: current / FRAME_BYTES,
        });
        total
    }
}

/// One core's part. Not `Sync`: it belongs to its core.
#[derive(Debug)]
pub struct LocalSizes<'c, P> {
    homes: [Home; CLASSES],
    sizes: &'c Sizes<P>,
    /// Whether this part has entered: nothing can be had before.
    entered: Count,
}

/// The part itself, as in [`super::Local`].
impl<P: Pages> Supply for LocalSizes<'_, P> {
    fn take(&self, order: Order) -> Option<NonNull<u8>> {
        self.sizes.pages.take(order)
    }

    unsafe fn give(&self, start: NonNull<u8>, order: Order) {
        // SAFETY: the caller's obligation 1.
        unsafe { self.sizes.pages.give(start, order) }
    }

    unsafe fn build(&self, _: NonNull<u8>) {}

    unsafe fn ruin(&self, _: NonNull<u8>) {}
}

impl<'c, P: Pages> LocalSizes<'c, P> {
    /// A core's part that has not entered yet.
    #[must_use]
    pub const fn new(sizes: &'c Sizes<P>) -> Self {
        const fn home(class: usize) -> Home {
            let size = SIZES[class];
            let natural = 1 << size.trailing_zeros();
            let align = if natural < MAX_ALIGN { natural } else { MAX_ALIGN };
            Home::new(Shape::new(size, align, Links::Inside))
        }
        let homes = [
            home(0),
            home(1),
            home(2),
            home(3),
            home(4),
            home(5),
            home(6),
            home(7),
            home(8),
            home(9),
            home(10),
            home(11),
            home(12),
            home(13),
            home(14),
            home(15),
        ];
        Self { homes, sizes, entered: Count::new() }
    }

    /// Enters. Before that, nothing can be had.
    ///
    /// # Safety
    /// 1. This part stays where it is as long as the sizes, or memory that came from here, are used.
    pub unsafe fn enter(&self) {
        for (home, pool) in self.homes.iter().zip(&self.sizes.pools) {
            // SAFETY: obligation 1; the sizes are borrowed for longer than this lives.
            unsafe { home.enter(pool) };
        }
        self.entered.set(1);
    }

    /// Memory for a layout.
    ///
    /// # Errors
    /// [`SlabError::OutOfMemory`], also for what no block can hold; [`SlabError::NotEntered`].
    #[inline(always)]
    pub fn allocate(&self, layout: Layout) -> Result<NonNull<u8>, SlabError> {
        match class(layout) {
            Some(class) => self.homes[class].take(self),
            None => self.allocate_block(layout),
        }
    }

    /// Gives memory back that [`LocalSizes::allocate`] of any core has given for this layout.
    ///
    /// # Errors
    /// [`SlabError::Foreign`], [`SlabError::Interior`]: some breaches of obligation 1 are noticed, as long as the memory is readable.
    ///
    /// # Safety
    /// 1. The memory came from there with this layout, is given back once, and nobody uses it any more.
    #[inline(always)]
    pub unsafe fn free(&self, start: NonNull<u8>, layout: Layout) -> Result<(), SlabError> {
        match class(layout) {
            // SAFETY: obligation 1: the same layout leads to the same class.
            Some(class) => unsafe { self.homes[class].give(start, self) },
            // SAFETY: obligation 1.
            None => unsafe { self.free_block(start, layout) },
        }
    }

    #[cold]
    #[inline(never)]
    fn allocate_block(&self, layout: Layout) -> Result<NonNull<u8>, SlabError> {
        if self.entered.get() == 0 {
            return Err(SlabError::NotEntered);
        }
        let order = block(layout).ok_or(SlabError::OutOfMemory)?;
        let start = self.sizes.pages.take(order).ok_or(SlabError::OutOfMemory)?;
        self.sizes.blocks.taken.add(order.frames() * FRAME_BYTES);
        Ok(start)
    }

    /// # Safety
    /// 1. As [`LocalSizes::free`], for a layout that no class serves.
    #[cold]
    #[inline(never)]
    unsafe fn free_block(&self, start: NonNull<u8>, layout: Layout) -> Result<(), SlabError> {
        let order = block(layout).ok_or(SlabError::Foreign)?;
        // SAFETY: obligation 1: `allocate_block` has taken it with the same order.
        unsafe { self.sizes.pages.give(start, order) };
        self.sizes.blocks.given.add(order.frames() * FRAME_BYTES);
        Ok(())
    }

    /// Takes back what other cores have freed; returns how many pieces.
    pub fn collect(&self) -> usize {
        self.homes.iter().map(|home| home.collect(self)).sum()
    }

    /// Gives back whatever this core keeps without need. What is in use stays.
    pub fn drain(&self) {
        self.homes.iter().for_each(|home| home.drain(self));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{CLASSES, MAX_ALIGN, MAX_SMALL, SIZES, block, class};
    use core::alloc::Layout;

    #[test]
    fn every_layout_has_room_and_alignment() {
        for align in [1, 2, 4, 8, 16, 32, 64] {
            for size in 0..=MAX_SMALL {
                let layout = Layout::from_size_align(size, align).expect("small");
                let class = class(layout).expect("served");
                assert!(SIZES[class] >= size && SIZES[class].is_multiple_of(align), "{layout:?}: {class}");
                if class > 0 && align <= 16 {
                    assert!(SIZES[class - 1] < size, "{layout:?}: a smaller class would do");
                }
            }
        }
        assert!(SIZES.windows(2).all(|pair| pair[0] < pair[1]) && SIZES.len() == CLASSES);
    }

    #[test]
    fn the_rest_comes_in_blocks() {
        let layout = |size, align| Layout::from_size_align(size, align).expect("fits");
        assert_eq!(class(layout(MAX_SMALL + 1, 8)), None);
        assert_eq!(class(layout(8, 2 * MAX_ALIGN)), None);
        assert_eq!(block(layout(1, 8192)).map(|order| order.get()), Some(1));
        assert_eq!(block(layout(4097, 1)).map(|order| order.get()), Some(1));
        assert_eq!(block(layout(isize::MAX as usize - 64, 1)), None);
    }
}
