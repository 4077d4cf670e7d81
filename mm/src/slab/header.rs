//! What stands at the start of a slab, found from the address of any object in it.
//!
//! | field | writer | readers | ordering | line |
//! |---|---|---|---|---|
//! | `head` | the owner, before the first object leaves | any core that frees | by whatever hands the object over | 0 |
//! | `body` | the owner | the owner | – | 1 |
//! | links | who frees from another core, then the owner | the same | by the list of returns | behind |
//!
//! A bit of `bits` is set while its object is in the slab: neither in use, nor in the magazine, nor on its way home.

use super::home::Home;
use super::shape::{Links, Shape};
use super::stats::Pool;
use core::cell::Cell;
use core::ptr::{self, NonNull};
use percpu::sync::cell::UnsafeCell;

/// Words of the bitmap.
const WORDS: usize = 4;
/// Most objects of a slab.
pub(crate) const MOST: usize = WORDS * 64;
/// Bytes of the header.
pub(crate) const BYTES: usize = size_of::<Header>();

/// What other cores read.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Head {
    /// The owner's part of the cache.
    pub(crate) home: *const Home,
    /// The cache.
    pub(crate) pool: *const Pool,
}

/// The owner's part.
#[derive(Debug)]
#[repr(C, align(64))]
struct Body {
    next: Cell<Option<Slab>>,
    previous: Cell<Option<Slab>>,
    free: Cell<usize>,
    bits: [Cell<u64>; WORDS],
}

#[derive(Debug)]
#[repr(C)]
struct Header {
    head: Head,
    body: Body,
}

const _: () = assert!(BYTES == 128 && core::mem::offset_of!(Header, body) == 64);

/// The link of an object on its way home.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Link(UnsafeCell<*mut Link>);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Link>() == size_of::<usize>());

/// What a link of a table says while its object is not on its way home. No link is there.
fn at_home() -> *mut Link {
    ptr::without_provenance_mut(1)
}

impl Link {
    /// # Safety
    /// 1. Nobody else accesses the link now.
    pub(crate) unsafe fn set(&self, next: *mut Self) {
        // SAFETY: obligation 1.
        self.0.with_mut(|own| unsafe { *own = next });
    }

    /// # Safety
    /// 1. Nobody writes the link now.
    pub(crate) unsafe fn get(&self) -> *mut Self {
        // SAFETY: obligation 1.
        self.0.with(|own| unsafe { *own })
    }
}

/// A slab as its owner sees it.
///
/// * S1: a `Slab` stands for a live slab, and only the core that owns it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slab(NonNull<Header>);

/// The first bytes of the slab around an object, as any core may read them.
///
/// # Safety
/// 1. `object` lies in a slab of `!mask + 1` bytes that lives as long as the result is used.
#[inline(always)]
pub(crate) unsafe fn head_of<'a>(object: NonNull<u8>, mask: usize) -> &'a Head {
    let head = object.as_ptr().map_addr(|address| address & mask).cast::<Head>();
    // SAFETY: obligation 1; a slab starts with its head, which does not change while it lives.
    unsafe { &*head }
}

/// The link of the object with this number.
///
/// # Safety
/// 1. `slab` is the start of a live slab of this shape, `index` below its capacity.
/// 2. Objects with links inside are free.
pub(crate) unsafe fn link_of(slab: NonNull<u8>, shape: &Shape, index: usize) -> NonNull<Link> {
    // SAFETY: obligation 1: the offset is inside the slab.
    let link = unsafe { slab.add(shape.link(index)) }.cast::<Link>();
    if shape.links == Links::Inside {
        // SAFETY: obligation 2; `Shape::new` has made every object large and aligned enough.
        unsafe { link.write(Link(UnsafeCell::new(ptr::null_mut()))) };
    }
    link
}

/// Whether the object of a link is on its way home already. Links inside objects cannot tell.
///
/// # Safety
/// 1. The link is of this shape, and nobody else accesses it now.
pub(crate) unsafe fn is_travelling(link: &Link, shape: &Shape) -> bool {
    // SAFETY: obligation 1.
    shape.links == Links::Beside && unsafe { link.get() } != at_home()
}

/// Notes that the object of a link has come home.
///
/// # Safety
/// 1. The link is of this shape, and nobody else accesses it now.
pub(crate) unsafe fn arrive(link: &Link, shape: &Shape) {
    if shape.links == Links::Beside {
        // SAFETY: obligation 1.
        unsafe { link.set(at_home()) };
    }
}

impl Slab {
    /// Makes a slab of this memory, with every object in it.
    ///
    /// # Safety
    /// 1. `start` is the first byte of `shape.bytes()` writable bytes, aligned to as many, that are the caller's alone.
    /// 2. The caller is the core of `head.home`.
    pub(crate) unsafe fn make(start: NonNull<u8>, shape: &Shape, head: Head) -> Self {
        let bits = |word: usize| match shape.capacity.saturating_sub(word * 64) {
            0 => 0,
            count @ 1..64 => (1 << count) - 1,
            _ => u64::MAX,
        };
        let body = Body {
            next: Cell::new(None),
            previous: Cell::new(None),
            free: Cell::new(shape.capacity),
            bits: core::array::from_fn(|word| Cell::new(bits(word))),
        };
        let header = start.cast::<Header>();
        // SAFETY: obligation 1.
        unsafe { header.write(Header { head, body }) };
        if shape.links == Links::Beside {
            for index in 0..shape.capacity {
                // SAFETY: obligation 1; a shape's links lie inside its slab.
                let link = unsafe { start.add(shape.link(index)) }.cast::<Link>();
                // SAFETY: as above.
                unsafe { link.write(Link(UnsafeCell::new(at_home()))) };
            }
        }
        Self(header)
    }

    /// The slab around an object.
    ///
    /// # Safety
    /// 1. `object` lies in a live slab of `!mask + 1` bytes that the calling core owns (S1).
    pub(crate) unsafe fn around(object: NonNull<u8>, mask: usize) -> Self {
        let start = object.as_ptr().map_addr(|address| address & mask).cast();
        // SAFETY: obligation 1: memory that a core owns does not start at address 0.
        Self(unsafe { NonNull::new_unchecked(start) })
    }

    /// Its first byte.
    pub(crate) const fn start(self) -> NonNull<u8> {
        self.0.cast()
    }

    fn body(&self) -> &Body {
        // SAFETY: S1: the header is there, and no other core touches its second line.
        let body = unsafe { &raw const (*self.0.as_ptr()).body };
        // SAFETY: as above.
        unsafe { &*body }
    }

    /// Objects in the slab.
    pub(crate) fn free(self) -> usize {
        self.body().free.get()
    }

    /// Puts an object back, not counted yet; says whether it was out.
    #[inline(always)]
    pub(crate) fn put(self, index: usize) -> bool {
        let body = self.body();
        let (Some(word), bit) = (body.bits.get(index / 64), 1 << (index % 64)) else { return false };
        let bits = word.get();
        if bits & bit != 0 {
            return false;
        }
        word.set(bits | bit);
        true
    }

    /// Counts objects that were put back; returns how many there were before.
    pub(crate) fn count(self, objects: usize) -> usize {
        let before = self.body().free.get();
        self.body().free.set(before + objects);
        before
    }

    /// Takes up to `count` objects, lowest first; calls `each` with the number of each.
    #[inline]
    pub(crate) fn take(self, count: usize, mut each: impl FnMut(usize)) {
        let body = self.body();
        let mut left = count;
        for (place, word) in body.bits.iter().enumerate() {
            let mut bits = word.get();
            while bits != 0 && left > 0 {
                each(place * 64 + lowest(bits));
                bits &= bits - 1;
                left -= 1;
            }
            word.set(bits);
        }
        body.free.set(body.free.get() - (count - left));
    }
}

/// The number of the lowest bit that is set.
#[inline(always)]
const fn lowest(bits: u64) -> usize {
    bits.trailing_zeros() as usize
}

/// A list of slabs, linked through their headers. A slab is on one list at most.
#[derive(Debug)]
pub(crate) struct List {
    first: Cell<Option<Slab>>,
    last: Cell<Option<Slab>>,
}

impl List {
    pub(crate) const fn new() -> Self {
        Self { first: Cell::new(None), last: Cell::new(None) }
    }

    pub(crate) fn first(&self) -> Option<Slab> {
        self.first.get()
    }

    pub(crate) fn last(&self) -> Option<Slab> {
        self.last.get()
    }

    /// Adds a slab that is on no list, at the end: what is at the front is used up first, so that the rest can empty.
    pub(crate) fn add(&self, slab: Slab) {
        slab.body().next.set(None);
        slab.body().previous.set(self.last.get());
        match self.last.replace(Some(slab)) {
            Some(last) => last.body().next.set(Some(slab)),
            None => self.first.set(Some(slab)),
        }
    }

    /// Takes a slab out that is on this list.
    pub(crate) fn remove(&self, slab: Slab) {
        let (previous, next) = (slab.body().previous.take(), slab.body().next.take());
        match previous {
            Some(previous) => previous.body().next.set(next),
            None => self.first.set(next),
        }
        match next {
            Some(next) => next.body().previous.set(previous),
            None => self.last.set(previous),
        }
    }
}
