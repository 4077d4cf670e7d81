//! Slabs: objects of one size, from memory of the core that uses them (Bonwick, "The Slab Allocator", USENIX 1994, and Bonwick
//! and Adams, "Magazines and Vmem", USENIX 2001).
//!
//! A [`Cache`] has one [`Local`] on each core: a magazine of objects, and slabs, aligned blocks of frames with a header. Taking and
//! giving back on one's own core is a push or a pop in the magazine: no atomic operation, no line of another core. An object that
//! is freed elsewhere goes home with one compare-exchange, and its owner collects all such objects with one exchange. Objects are
//! built when their slab is, and are given back as they were built. [`Sizes`] serves any size from a row of caches.
//!
//! **Wrong frees.** [`Local::free`] refuses an object of another cache or none (`Foreign`), and on a core other than its owner also what
//! is no object (`Interior`) and what is on its way home already (`DoubleFree`; not in [`Sizes`]). A second free of one's own object is found
//! only when it leaves the magazine, and counted in [`Stats::refused`]; taken out again before that, it has two users.
//! Invariants S1–S4: `slab/header.rs`, `slab/returns.rs`, `slab/home.rs`.

mod header;
mod home;
mod magazine;
#[cfg(all(test, loom))]
mod models;
mod returns;
mod shape;
#[cfg(not(loom))]
mod sized;
mod stats;

pub use shape::MAX_BYTES;
#[cfg(not(loom))]
pub use sized::{CLASSES, LocalSizes, MAX_ALIGN, MAX_SMALL, Sizes};
pub use stats::Stats;

use crate::bank::Bank;
use crate::id::{FRAME_BYTES, Order};
use core::fmt;
use core::ptr::NonNull;
use home::{Home, Supply};
use percpu::const_fn;
use shape::{Links, Shape};
use stats::Pool;

/// Where slabs come from.
///
/// # Safety
/// 1. `take` returns `order.frames()` frames, aligned to their size, readable, writable and nobody else's until they are given back.
pub unsafe trait Pages {
    /// Takes a block near the calling core; nothing when memory is exhausted.
    fn take(&self, order: Order) -> Option<NonNull<u8>>;

    /// Gives a block back.
    ///
    /// # Safety
    /// 1. `start` came from [`Pages::take`] with this order; nobody uses it any more.
    unsafe fn give(&self, start: NonNull<u8>, order: Order);
}

/// Pages that are charged to a bank.
#[derive(Debug)]
pub struct Banked<'b, P> {
    pages: P,
    bank: &'b Bank<'b>,
}

impl<'b, P: Pages> Banked<'b, P> {
    /// Charges what comes from `pages` to `bank`.
    pub const fn new(pages: P, bank: &'b Bank<'b>) -> Self {
        Self { pages, bank }
    }
}

// SAFETY: the memory is that of `pages`.
unsafe impl<P: Pages> Pages for Banked<'_, P> {
    fn take(&self, order: Order) -> Option<NonNull<u8>> {
        let bytes = order.frames() * FRAME_BYTES;
        self.bank.charge(bytes).ok()?;
        let block = self.pages.take(order);
        if block.is_none() {
            self.bank.refund(bytes).expect("Q2: what was charged can be refunded");
        }
        block
    }

    unsafe fn give(&self, start: NonNull<u8>, order: Order) {
        // SAFETY: the caller's obligation 1.
        unsafe { self.pages.give(start, order) };
        self.bank.refund(order.frames() * FRAME_BYTES).expect("Q2: what was charged can be refunded");
    }
}

/// Why an operation was refused. Nothing has changed when one is returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SlabError {
    /// No free object, and no memory for more.
    OutOfMemory,
    /// The core has not entered the cache.
    NotEntered,
    /// The object is not one of this cache.
    Foreign,
    /// No object starts at this address.
    Interior,
    /// The object has been freed already.
    DoubleFree,
}

impl fmt::Display for SlabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "out of memory",
            Self::NotEntered => "the core has not entered the cache",
            Self::Foreign => "the object is not one of this cache",
            Self::Interior => "no object starts at this address",
            Self::DoubleFree => "the object is free already",
        })
    }
}

impl core::error::Error for SlabError {}

/// Objects of one type: what the cores' parts have in common.
#[derive(Debug)]
pub struct Cache<T, P> {
    pool: Pool,
    pages: P,
    make: fn() -> T,
}

impl<T, P: Pages> Cache<T, P> {
    const_fn! {
        /// A cache of objects as `make` makes them, in memory from `pages`.
        #[must_use]
        pub const fn new(pages: P, make: fn() -> T) -> Self {
            Self { pool: Pool::new(), pages, make }
        }
    }

    /// The sum of the figures of all cores.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.pool.stats()
    }

    /// Where its memory comes from.
    pub const fn pages(&self) -> &P {
        &self.pages
    }
}

/// One core's part of a cache. Not `Sync`: it belongs to its core.
#[derive(Debug)]
pub struct Local<'c, T, P> {
    home: Home,
    cache: &'c Cache<T, P>,
}

/// The part itself, and not its cache: the fast paths then need not load the cache's address.
impl<T, P: Pages> Supply for Local<'_, T, P> {
    fn take(&self, order: Order) -> Option<NonNull<u8>> {
        self.cache.pages.take(order)
    }

    unsafe fn give(&self, start: NonNull<u8>, order: Order) {
        // SAFETY: the caller's obligation 1.
        unsafe { self.cache.pages.give(start, order) }
    }

    unsafe fn build(&self, at: NonNull<u8>) {
        // SAFETY: obligation 1; the shape has T's alignment.
        unsafe { at.cast::<T>().write((self.cache.make)()) }
    }

    unsafe fn ruin(&self, at: NonNull<u8>) {
        // SAFETY: obligation 1.
        unsafe { at.cast::<T>().drop_in_place() }
    }
}

impl<'c, T: Send, P: Pages> Local<'c, T, P> {
    const SHAPE: Shape = Shape::new(size_of::<T>(), align_of::<T>(), Links::Beside);

    const_fn! {
        /// A core's part that has not entered yet.
        #[must_use]
        pub const fn new(cache: &'c Cache<T, P>) -> Self {
            Self { home: Home::new(Self::SHAPE), cache }
        }
    }

    /// Enters the cache. Before that, nothing can be had.
    ///
    /// # Safety
    /// 1. This part stays where it is as long as the cache, or an object that came from here, is used.
    pub unsafe fn enter(&self) {
        // SAFETY: obligation 1; the cache is borrowed for longer than this lives.
        unsafe { self.home.enter(&self.cache.pool) };
    }

    /// An object, as `make` makes them or as it was given back.
    ///
    /// # Errors
    /// [`SlabError::OutOfMemory`]; [`SlabError::NotEntered`].
    #[inline(always)]
    pub fn allocate(&self) -> Result<NonNull<T>, SlabError> {
        self.home.take(self).map(NonNull::cast)
    }

    /// Gives an object back, in the state in which `make` makes them. It may have come from another core's part.
    ///
    /// # Errors
    /// See the module comment: some breaches of obligation 1 are noticed, as long as the memory is readable.
    ///
    /// # Safety
    /// 1. The object came from [`Local::allocate`] of this cache, on any core, and is given back once. Nobody uses it any more.
    #[inline(always)]
    pub unsafe fn free(&self, object: NonNull<T>) -> Result<(), SlabError> {
        // SAFETY: obligation 1.
        unsafe { self.home.give(object.cast(), self) }
    }

    /// Takes back what other cores have freed; returns how many objects.
    pub fn collect(&self) -> usize {
        self.home.collect(self)
    }

    /// Gives back whatever this core keeps without need. What is in use stays.
    pub fn drain(&self) {
        self.home.drain(self);
    }

    /// Objects of one slab.
    #[must_use]
    pub const fn per_slab() -> usize {
        Self::SHAPE.capacity
    }
}
