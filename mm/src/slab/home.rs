//! One core's part of a cache: its magazine, its slabs, the list on which others send its objects home. Knows no types.
//!
//! A refill takes half a magazine from slabs that are partly used, fills up from spare slabs, and asks for a new one last; a
//! full magazine gives its older half back. A slab whose objects are all in it becomes a spare or goes back to its node.
//!
//! * S3: a home that has entered stays where it is: slabs and other cores point at it.
//! * S4: a slab is on the list of partly used ones iff some of its objects are in it and some out; it is given back only when all are in.
//!
//! What the caller brings (`Supply`) may come back into the same home: no count and no list is half changed while it is called, and a slab
//! whose run has not ended has objects out still.

use super::SlabError;
use super::header::{self, Head, List, Slab};
use super::magazine::Magazine;
use super::returns::Returns;
use super::shape::Shape;
use super::stats::{Pool, Stats};
use crate::id::Order;
use core::cell::Cell;
use core::ptr::{self, NonNull};
use percpu::const_fn;
use percpu::sync::atomic::{AtomicPtr, Ordering};

/// Where slabs come from, and what makes objects.
pub(crate) trait Supply {
    /// A block that is aligned to its size and nobody else's.
    fn take(&self, order: Order) -> Option<NonNull<u8>>;

    /// # Safety
    /// 1. `start` came from `take` with this order, and is given back once, unused.
    unsafe fn give(&self, start: NonNull<u8>, order: Order);

    /// # Safety
    /// 1. `at` has room for one object of the cache.
    unsafe fn build(&self, at: NonNull<u8>);

    /// # Safety
    /// 1. `at` holds an object that `build` made and that nobody uses any more.
    unsafe fn ruin(&self, at: NonNull<u8>);
}

/// See the module comment.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Home {
    /// Line 0: the only one that other cores write.
    returns: Returns,
    /// From line 1 on, the owner's.
    magazine: Magazine,
    shape: Shape,
    pool: Cell<*const Pool>,
    /// The next home of the cache; written once, before it can be found.
    pub(super) next: AtomicPtr<Home>,
    partial: List,
    spares: List,
    /// How many spares there are, and how many may be.
    spare_count: Cell<usize>,
    keep: Cell<usize>,
}

/// Objects that go into one slab one after the other: most do, and the slab is counted and moved once for all.
#[derive(Debug, Default)]
struct Run {
    slab: Option<Slab>,
    objects: usize,
}

/// Bytes of spares that a core keeps in one cache at most, one slab in any case. It may keep one slab more each time that it had to ask
/// for one: whoever uses much in waves neither builds nor gives back slabs in every one. [`Home::drain`] starts anew.
const SPARE_BYTES: usize = 512 << 10;

#[cfg(not(loom))]
const _: () = assert!(core::mem::offset_of!(Home, magazine) == percpu::CACHE_LINE);

impl Home {
    const_fn! {
        /// A home that has not entered: nothing can be had from it.
        pub(crate) const fn new(shape: Shape) -> Self {
            Self {
                returns: Returns::new(),
                magazine: Magazine::new(),
                shape,
                pool: Cell::new(ptr::null()),
                next: AtomicPtr::new(ptr::null_mut()),
                partial: List::new(),
                spares: List::new(),
                spare_count: Cell::new(0),
                keep: Cell::new(1),
            }
        }
    }

    /// Makes the home one of the pool's. A second time changes nothing.
    ///
    /// # Safety
    /// 1. The home stays where it is as long as the pool or an object of it is used (S3), and the pool as long as the home.
    pub(crate) unsafe fn enter(&self, pool: &Pool) {
        if self.pool.get().is_null() {
            self.pool.set(pool);
            // SAFETY: obligation 1; once, by the check above.
            unsafe { pool.admit(self) };
            self.magazine.open(self.shape.limit(), self.shape.mask());
        }
    }

    /// An object.
    #[inline(always)]
    pub(crate) fn take(&self, supply: &dyn Supply) -> Result<NonNull<u8>, SlabError> {
        match self.magazine.pop() {
            Some(object) => Ok(object),
            None => self.take_slow(supply),
        }
    }

    /// Gives an object back.
    ///
    /// # Safety
    /// 1. It came from `take` of a home of the same pool, and is given back once, as it was.
    #[inline(always)]
    pub(crate) unsafe fn give(&self, object: NonNull<u8>, supply: &dyn Supply) -> Result<(), SlabError> {
        // SAFETY: obligation 1: the object keeps its slab alive.
        let head = unsafe { header::head_of(object, self.magazine.mask.get()) };
        if !ptr::eq(head.home, self) {
            // SAFETY: obligation 1.
            return unsafe { self.send(object, head) };
        }
        if !self.magazine.push(object) {
            self.give_slow(object, supply);
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn take_slow(&self, supply: &dyn Supply) -> Result<NonNull<u8>, SlabError> {
        if self.pool.get().is_null() {
            return Err(SlabError::NotEntered);
        }
        self.collect(supply);
        self.magazine.peak.set(self.magazine.peak.get().max(self.magazine.in_use()));
        if self.partial.first().is_none() && self.spares.first().is_none() {
            self.grow(supply)?;
        }
        self.load();
        self.magazine.pop().ok_or(SlabError::OutOfMemory)
    }

    #[cold]
    #[inline(never)]
    fn give_slow(&self, object: NonNull<u8>, supply: &dyn Supply) {
        loop {
            self.spill(supply);
            if self.magazine.push(object) {
                return;
            }
        }
    }

    /// Sends an object home that belongs to another core.
    ///
    /// # Safety
    /// 1. As [`Home::give`]; `head` is its slab's.
    #[inline(never)]
    unsafe fn send(&self, object: NonNull<u8>, head: &Head) -> Result<(), SlabError> {
        let pool = self.pool.get();
        if pool.is_null() || !ptr::eq(head.pool, pool) {
            return self.refuse(SlabError::Foreign);
        }
        let slab = NonNull::from(head).cast::<u8>();
        let offset = object.addr().get() - slab.addr().get();
        let Some(index) = self.shape.index(offset) else { return self.refuse(SlabError::Interior) };
        // SAFETY: as `object`, which the pool handed out, points into the slab, so may this.
        let slab = unsafe { object.sub(offset) };
        // SAFETY: the object is free now, and its slab lives until its owner has it back (S2).
        let link = unsafe { header::link_of(slab, &self.shape, index) };
        // SAFETY: as above.
        let own = unsafe { link.as_ref() };
        // SAFETY: nobody else accesses the link of an object that is ours.
        if unsafe { header::is_travelling(own, &self.shape) } {
            return self.refuse(SlabError::DoubleFree);
        }
        // SAFETY: S3: the home of a slab of this pool is there; only its list is touched.
        let returns = unsafe { &(*head.home).returns };
        // SAFETY: obligation 1: the object is ours to give.
        unsafe { returns.push(link) };
        Ok(())
    }

    fn refuse(&self, error: SlabError) -> Result<(), SlabError> {
        self.magazine.refused.add(1);
        Err(error)
    }

    /// Puts into their slabs what others have sent home; returns how many objects.
    pub(crate) fn collect(&self, supply: &dyn Supply) -> usize {
        // Only a hint. Loom explores no other order of two loads and a store behind them, so its models go without.
        if !cfg!(loom) && self.returns.is_empty() {
            return 0;
        }
        let (mut at, mut count) = (self.returns.take(), 0);
        let mut run = Run::default();
        while let Some(link) = NonNull::new(at) {
            // SAFETY: the object is out until its slab has counted it, so its slab lives (S2).
            let own = unsafe { link.as_ref() };
            // SAFETY: taken off the list, it is ours alone.
            at = unsafe { own.get() };
            // SAFETY: as above.
            unsafe { header::arrive(own, &self.shape) };
            // SAFETY: links of our slabs are sent to us only (S1).
            let slab = unsafe { Slab::around(link.cast(), self.shape.mask()) };
            let index = self.shape.linked(link.addr().get() - slab.start().addr().get());
            if !self.put(&mut run, slab, index, supply) {
                // The object was sent twice: what follows on the list is a circle.
                break;
            }
            count += 1;
        }
        self.settle(run, supply);
        count
    }

    /// Puts an object into its slab, without counting it before the run ends; says whether it was out.
    #[inline(always)]
    fn put(&self, run: &mut Run, slab: Slab, index: Option<usize>, supply: &dyn Supply) -> bool {
        if run.slab != Some(slab) {
            let ended = core::mem::replace(run, Run { slab: Some(slab), objects: 0 });
            self.settle(ended, supply);
        }
        let fine = index.is_some_and(|index| slab.put(index));
        if fine {
            run.objects += 1;
        } else {
            self.magazine.refused.add(1);
        }
        fine
    }

    /// Counts what was put into a slab; the slab moves to where it belongs now (S4).
    fn settle(&self, run: Run, supply: &dyn Supply) {
        let Some(slab) = run.slab.filter(|_| run.objects > 0) else { return };
        self.magazine.out.set(self.magazine.out.get() - run.objects);
        let before = slab.count(run.objects);
        if before + run.objects == self.shape.capacity {
            if before > 0 {
                self.partial.remove(slab);
            }
            self.retire(slab, supply);
        } else if before == 0 {
            self.partial.add(slab);
        }
    }

    /// Gives the oldest objects of the magazine to their slabs, up to half a magazine.
    fn spill(&self, supply: &dyn Supply) {
        let mut run = Run::default();
        for &object in self.magazine.cut(self.magazine.limit().div_ceil(2)).objects() {
            // SAFETY: what is in the magazine is ours and out (S1).
            let slab = unsafe { Slab::around(object, self.shape.mask()) };
            let index = self.shape.index(object.addr().get() - slab.start().addr().get());
            self.put(&mut run, slab, index, supply);
        }
        self.settle(run, supply);
    }

    /// Fills half the magazine from slabs.
    fn load(&self) {
        let want = self.magazine.limit().div_ceil(2);
        while self.magazine.len() < want {
            if self.partial.first().is_none()
                && let Some(spare) = self.take_spare()
            {
                self.partial.add(spare);
            }
            let Some(slab) = self.partial.first() else { return };
            let count = slab.free().min(want - self.magazine.len());
            let mut place = self.magazine.grow(count);
            slab.take(count, |index| {
                // SAFETY: an object of the slab.
                place(unsafe { slab.start().add(self.shape.offset(index)) });
            });
            self.magazine.out.add(count);
            if slab.free() == 0 {
                self.partial.remove(slab);
            }
        }
    }

    /// Makes one more slab.
    fn grow(&self, supply: &dyn Supply) -> Result<(), SlabError> {
        let start = supply.take(self.shape.order).ok_or(SlabError::OutOfMemory)?;
        debug_assert!(start.addr().get() & !self.shape.mask() == 0, "S1: a slab is aligned to its size");
        let head = Head { home: self, pool: self.pool.get() };
        // SAFETY: `take` gives memory of this size, aligned so, that is ours alone; and it is our home.
        let slab = unsafe { Slab::make(start, &self.shape, head) };
        self.each(slab, |object| {
            // SAFETY: the shape has room for an object there.
            unsafe { supply.build(object) };
        });
        self.magazine.slabs.add(1);
        if self.keep.get() * self.shape.bytes() < SPARE_BYTES {
            self.keep.set(self.keep.get() + 1);
        }
        self.retire(slab, supply);
        Ok(())
    }

    fn each(&self, slab: Slab, mut f: impl FnMut(NonNull<u8>)) {
        for index in 0..self.shape.capacity {
            // SAFETY: an object of the slab.
            f(unsafe { slab.start().add(self.shape.offset(index)) });
        }
    }

    /// Keeps a slab with all its objects as a spare, or gives it back.
    fn retire(&self, slab: Slab, supply: &dyn Supply) {
        if self.spare_count.get() < self.keep.get() {
            self.spares.add(slab);
            self.spare_count.set(self.spare_count.get() + 1);
        } else {
            self.release(slab, supply);
        }
    }

    fn take_spare(&self) -> Option<Slab> {
        // The last one that was added: its lines are the warmest.
        let spare = self.spares.last()?;
        self.spares.remove(spare);
        self.spare_count.set(self.spare_count.get() - 1);
        Some(spare)
    }

    /// Gives a slab back that has all its objects and is on no list.
    fn release(&self, slab: Slab, supply: &dyn Supply) {
        self.magazine.slabs.set(self.magazine.slabs.get() - 1);
        self.each(slab, |object| {
            // SAFETY: `grow` built it, and it is in its slab: nobody has it.
            unsafe { supply.ruin(object) };
        });
        // SAFETY: `grow` took it; no object of it is out, so nobody can come to it any more (S4).
        unsafe { supply.give(slab.start(), self.shape.order) };
    }

    /// Gives back what this core does not need: returns, magazine, spares.
    pub(crate) fn drain(&self, supply: &dyn Supply) {
        self.collect(supply);
        while self.magazine.len() > 0 {
            self.spill(supply);
        }
        self.keep.set(1);
        while let Some(spare) = self.take_spare() {
            self.release(spare, supply);
        }
    }

    /// The figures of this home.
    pub(super) fn stats(&self) -> Stats {
        let (count, in_use) = (self.magazine.allocations.get(), self.magazine.in_use());
        let freed = count.saturating_sub(in_use);
        let bytes = |objects: usize| objects.wrapping_mul(self.shape.size);
        Stats {
            total_allocated: bytes(count),
            total_freed: bytes(freed),
            current_allocated: bytes(in_use),
            peak_allocated: bytes(self.magazine.peak.get().max(in_use)),
            allocation_count: count,
            free_count: freed,
            refused: self.magazine.refused.get(),
            frames: self.magazine.slabs.get() * self.shape.order.frames(),
        }
    }

    /// The figures of the home at an address.
    ///
    /// # Safety
    /// 1. A home is there that has entered (S3).
    pub(super) unsafe fn stats_of(home: NonNull<Self>) -> (Stats, *mut Self) {
        // SAFETY: obligation 1. Others than the owner read its atomics and what does not change; the cells are not touched.
        let home = unsafe { home.as_ref() };
        // ORDER: Relaxed: written before the home was linked into the list by which the caller has found it (`Pool::admit`).
        (home.stats(), home.next.load(Ordering::Relaxed))
    }
}
