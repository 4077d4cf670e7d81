//! What a cache has handed out, counted by each core for itself and added up when asked for.

use super::home::Home;
use core::ptr::{self, NonNull};
use percpu::const_fn;
use percpu::sync::atomic::{AtomicPtr, Ordering};

/// Figures of a cache. Exact while no core uses it; an object that was freed on another core counts as allocated until its
/// owner collects it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Bytes handed out since the start, in objects of the cache's size.
    pub total_allocated: usize,
    /// Bytes given back since the start.
    pub total_freed: usize,
    /// Bytes in use.
    pub current_allocated: usize,
    /// The sum of the cores' peaks. A core's peak is the most bytes in use that it saw whenever its magazine ran empty, or when
    /// it was asked: it may miss less than one magazine.
    pub peak_allocated: usize,
    /// Objects handed out since the start.
    pub allocation_count: usize,
    /// Objects given back since the start.
    pub free_count: usize,
    /// Frees that were refused, or found out later to have been wrong.
    pub refused: usize,
    /// Frames of slabs.
    pub frames: usize,
}

impl Stats {
    pub(super) fn add(&mut self, other: Self) {
        self.total_allocated = self.total_allocated.wrapping_add(other.total_allocated);
        self.total_freed = self.total_freed.wrapping_add(other.total_freed);
        self.current_allocated += other.current_allocated;
        self.peak_allocated += other.peak_allocated;
        self.allocation_count = self.allocation_count.wrapping_add(other.allocation_count);
        self.free_count = self.free_count.wrapping_add(other.free_count);
        self.refused += other.refused;
        self.frames += other.frames;
    }
}

/// The homes of one cache: a list that only grows.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `first` | each core once, when it enters | any core | Release / Acquire |
#[derive(Debug)]
pub(crate) struct Pool {
    first: AtomicPtr<Home>,
}

impl Pool {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self { first: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Takes a home into the list.
    ///
    /// # Safety
    /// 1. The home is in no list and stays where it is as long as the pool is used (S3).
    pub(super) unsafe fn admit(&self, home: &Home) {
        let new = ptr::from_ref(home).cast_mut();
        // ORDER: Relaxed: a guess, which the exchange below verifies.
        let mut seen = self.first.load(Ordering::Relaxed);
        loop {
            // ORDER: Relaxed: published by the exchange below.
            home.next.store(seen, Ordering::Relaxed);
            // ORDER: Release pairs with Acquire in `stats`: who finds the home sees it whole. Relaxed on failure: another guess.
            match self.first.compare_exchange_weak(seen, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// The sum over all cores.
    pub(crate) fn stats(&self) -> Stats {
        let mut total = Stats::default();
        // ORDER: Acquire pairs with Release in `admit`; older homes are in the same release sequence.
        let mut at = self.first.load(Ordering::Acquire);
        while let Some(home) = NonNull::new(at) {
            // SAFETY: homes are admitted with the promise to stay.
            let (stats, next) = unsafe { Home::stats_of(home) };
            total.add(stats);
            at = next;
        }
        total
    }
}
