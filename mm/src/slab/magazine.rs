//! The objects that a core has at hand: a stack of addresses in its own memory.
//!
//! | field | writer | readers | ordering | line |
//! |---|---|---|---|---|
//! | counters | the owner | any core, for statistics | Relaxed | 0 |
//! | `limit`, `mask` | the owner, once | the owner | – | 0 |
//! | `items` | the owner | the owner | – | from 1 on |

use core::cell::Cell;
use core::ptr::NonNull;
use percpu::const_fn;
use percpu::sync::atomic::{AtomicUsize, Ordering};

/// Most objects in a magazine. Loom explores every interleaving, so its magazines are short.
pub(crate) const MOST: usize = if cfg!(loom) { 2 } else { 128 };
/// Fewest.
pub(crate) const LEAST: usize = if cfg!(loom) { 2 } else { 8 };

/// What a full magazine gives back at once.
pub(crate) const HALF: usize = MOST.div_ceil(2);

/// A number that its owner changes and others may look at.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self(AtomicUsize::new(0))
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> usize {
        // ORDER: Relaxed: for the owner it is its own last store; others take it as a figure and follow nothing by it.
        self.0.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set(&self, value: usize) {
        // ORDER: Relaxed: as in `get`.
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, by the owner: no locked operation.
    #[inline(always)]
    pub(crate) fn add(&self, value: usize) {
        self.set(self.get().wrapping_add(value));
    }
}

/// The magazine of one core.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Magazine {
    /// Objects in it.
    len: Count,
    /// Objects handed out.
    pub(crate) allocations: Count,
    /// Objects that may be in it; 0 until its owner has entered.
    limit: Cell<usize>,
    /// What makes a slab's address from an object's.
    pub(crate) mask: Cell<usize>,
    /// Objects that are in no slab: in the magazine, in use, or on their way home.
    pub(crate) out: Count,
    /// The most that were in use whenever the magazine ran empty.
    pub(crate) peak: Count,
    /// Frees that were refused.
    pub(crate) refused: Count,
    /// Slabs.
    pub(crate) slabs: Count,
    items: [Cell<NonNull<u8>>; MOST],
}

#[cfg(not(loom))]
const _: () = assert!(core::mem::offset_of!(Magazine, items) == percpu::CACHE_LINE);

impl Magazine {
    const_fn! {
        /// An empty one without room.
        pub(crate) const fn new() -> Self {
            Self {
                len: Count::new(),
                allocations: Count::new(),
                limit: Cell::new(0),
                mask: Cell::new(usize::MAX),
                out: Count::new(),
                peak: Count::new(),
                refused: Count::new(),
                slabs: Count::new(),
                items: [const { Cell::new(NonNull::dangling()) }; MOST],
            }
        }
    }

    /// Makes room.
    pub(crate) fn open(&self, limit: usize, mask: usize) {
        self.mask.set(mask);
        self.limit.set(limit.min(MOST));
    }

    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.get()
    }

    /// Objects in use, those on their way home included.
    pub(crate) fn in_use(&self) -> usize {
        self.out.get().saturating_sub(self.len.get())
    }

    /// Hands the top object out.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<NonNull<u8>> {
        // An empty magazine's wraps round, beyond the items: one comparison for both.
        let top = self.len.get().wrapping_sub(1);
        let object = self.items.get(top)?.get();
        self.len.set(top);
        self.allocations.add(1);
        Some(object)
    }

    /// Puts an object on top; says whether there was room.
    #[inline(always)]
    pub(crate) fn push(&self, object: NonNull<u8>) -> bool {
        let len = self.len.get();
        if len >= self.limit.get() {
            return false;
        }
        // SAFETY: `open` keeps the limit at or below the number of items.
        let item = unsafe { self.items.get_unchecked(len) };
        item.set(object);
        self.len.set(len + 1);
        true
    }

    /// Opens `count` places on top; `place` numbers them from the top down. The caller fills them before the next `pop`.
    pub(crate) fn grow(&self, count: usize) -> impl FnMut(NonNull<u8>) {
        let end = (self.len.get() + count).min(MOST);
        self.len.set(end);
        let mut places = self.items.get(..end).unwrap_or_default().iter().rev();
        move |object| {
            if let Some(place) = places.next() {
                place.set(object);
            }
        }
    }

    /// Takes the oldest objects out, up to `count` and [`HALF`].
    pub(crate) fn cut(&self, count: usize) -> Cut {
        let len = self.len.get();
        let count = count.min(len).min(HALF);
        let cut = Cut { objects: core::array::from_fn(|at| self.items[at].get()), count };
        for (to, from) in self.items.iter().zip(self.items.get(count..len).unwrap_or_default()) {
            to.set(from.get());
        }
        self.len.set(len - count);
        cut
    }
}

/// Objects that were taken out.
#[derive(Debug)]
pub(crate) struct Cut {
    objects: [NonNull<u8>; HALF],
    count: usize,
}

impl Cut {
    pub(crate) fn objects(&self) -> &[NonNull<u8>] {
        self.objects.get(..self.count).unwrap_or_default()
    }
}
