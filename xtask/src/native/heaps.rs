//! The heaps that are measured: our slabs, and heaps of the registry, each over 64 MiB.
//!
//! Heaps for kernels are single-threaded data structures; a kernel would put them behind a lock, and so does this module, with a
//! plain spin lock, the cheapest there is. `mimalloc` is one for processes: it has the operating system below it, and thread-local
//! storage. `floor` is no heap for a kernel: lists of each thread, by powers of two, over memory that is never given back, without any
//! check. It marks what is attainable.
//!
//! This module calls foreign allocators, whose interfaces are unsafe; the rest of the tool has no unsafe code, but for the memory of
//! capability tables.

use super::peers;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::NonNull;
use mm::bench::heap::HeapSource;
use mm::frames::{CoreCache, Frames};
use mm::slab::{Cache, Local, LocalSizes, Pages, Sizes};
use mm::{FrameId, Order};
use percpu::{CoreId, NodeId};
use rlsf::Tlsf;
use spin::mutex::SpinMutex;
use std::alloc;
use std::sync::Arc;

/// Bytes of an arena.
const BYTES: usize = 64 << 20;
/// Threads that may enter.
const THREADS: usize = 2;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heap {
    /// `mm::slab`.
    Ours,
    /// Crate `talc`.
    Talc,
    /// Crate `linked_list_allocator`.
    LinkedList,
    /// Crate `slab_allocator_rs`.
    SlabAllocator,
    /// Crate `rlsf`.
    Rlsf,
    /// Crate `mimalloc`.
    Mimalloc,
    /// See the module comment.
    Floor,
}

impl Heap {
    /// Every heap, ours first.
    pub const ALL: [Self; 7] = [
        Self::Ours,
        Self::Talc,
        Self::LinkedList,
        Self::SlabAllocator,
        Self::Rlsf,
        Self::Mimalloc,
        Self::Floor,
    ];

    /// The word of the `peer` parameter; ours has none.
    #[must_use]
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::Ours => None,
            Self::Talc => Some("talc"),
            Self::LinkedList => Some("linked_list_allocator"),
            Self::SlabAllocator => Some("slab_allocator_rs"),
            Self::Rlsf => Some("rlsf"),
            Self::Mimalloc => Some("mimalloc"),
            Self::Floor => Some("floor"),
        }
    }

    /// The heap of a parameter.
    #[must_use]
    pub fn of(word: Option<&str>) -> Option<Self> {
        Self::ALL.into_iter().find(|heap| heap.word() == word)
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Objects {
    /// Objects of one size, a constant in a kernel. Ours serves them from a cache of their own.
    Of(usize),
    /// Any size.
    Any,
}

/// What is done with a source; one instance of the code for each heap, so that nothing is called through a pointer.
pub trait Visit {
    /// Does it.
    fn visit<S: HeapSource>(self, source: &mut S);
}

/// Memory of the process, zeroed by the operating system when it is first touched.
struct Region(NonNull<u8>);

// SAFETY: only an address; who uses which part is the business of the heap above.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    const LAYOUT: Layout = match Layout::from_size_align(BYTES, 2 << 20) {
        Ok(layout) => layout,
        Err(_) => panic!("64 MiB are a layout"),
    };

    fn new() -> Self {
        // SAFETY: the size is not 0.
        let start = unsafe { alloc::alloc_zeroed(Self::LAYOUT) };
        Self(NonNull::new(start).expect("the host has 64 MiB"))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: taken in `new` with the same layout; whoever held a part of it has ended with the arena.
        unsafe { alloc::dealloc(self.0.as_ptr(), Self::LAYOUT) };
    }
}

thread_local! {
    /// Which of the contest's threads this is.
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

/// Our own frames below our slabs, with a cache for each thread; its lock is never contended, and stands for the kernel's core-local data.
struct OurFrames {
    region: Region,
    frames: Frames<'static>,
    caches: [SpinMutex<CoreCache<'static>>; THREADS],
}

#[derive(Clone)]
struct Shared(Arc<OurFrames>);

// SAFETY: a block of frames is the taker's alone until it is put back; it lies in the region, which is aligned to 2 MiB, as is the first
// frame's number, so that blocks of up to 512 frames are aligned.
unsafe impl Pages for Shared {
    fn take(&self, order: Order) -> Option<NonNull<u8>> {
        let mut cache = self.0.caches[THREAD.get()].lock();
        let frame = self.0.frames.get(&mut cache, order).ok()?;
        // SAFETY: the frames are numbered from `BASE` through the region.
        Some(unsafe { self.0.region.0.add((frame.number() - peers::BASE) * mm::id::FRAME_BYTES) })
    }

    unsafe fn give(&self, start: NonNull<u8>, order: Order) {
        let mut cache = self.0.caches[THREAD.get()].lock();
        let offset = start.addr().get() - self.0.region.0.addr().get();
        let frame = FrameId::new(peers::BASE + offset / mm::id::FRAME_BYTES);
        self.0.frames.put(&mut cache, frame, order).expect("a slab goes back as it came");
    }
}

/// Our caches of the sizes that are measured, and for all others.
pub struct Ours {
    small: Cache<[u64; 8], Shared>,
    middle: Cache<[u64; 32], Shared>,
    large: Cache<[u64; 128], Shared>,
    sizes: Sizes<Shared>,
}

impl Ours {
    fn new() -> Self {
        let cache = |core| SpinMutex::new(CoreCache::new(CoreId::new(core), NodeId::new(0)));
        let frames = peers::ours(BYTES / mm::id::FRAME_BYTES);
        let shared =
            Shared(Arc::new(OurFrames { region: Region::new(), frames, caches: [cache(0), cache(1)] }));
        Self {
            small: Cache::new(shared.clone(), || [0; 8]),
            middle: Cache::new(shared.clone(), || [0; 32]),
            large: Cache::new(shared.clone(), || [0; 128]),
            sizes: Sizes::new(shared),
        }
    }
}

/// A heap over an arena, shared by threads.
pub enum Arena {
    /// Ours.
    Ours(Box<Ours>),
    /// Crate `talc`.
    Talc(Locked<talc::Talc<talc::ErrOnOom>>),
    /// Crate `linked_list_allocator`.
    LinkedList(Locked<linked_list_allocator::Heap>),
    /// Crate `slab_allocator_rs`.
    SlabAllocator(Box<Locked<slab_allocator_rs::Heap>>),
    /// Crate `rlsf`.
    Rlsf(Box<Locked<Rlsf>>),
    /// Crate `mimalloc`: the process's.
    Mimalloc,
    /// See the module comment.
    Floor(Floor),
}

type Rlsf = Tlsf<'static, u32, u32, 28, 32>;

/// A heap behind a lock, and its memory. The heap is dropped first.
pub struct Locked<H> {
    heap: SpinMutex<H>,
    _region: Region,
}

// SAFETY: the heap's memory is its own (`_region`) and reachable from every thread alike; access is by the lock.
unsafe impl<H> Sync for Locked<H> {}
// SAFETY: as above.
unsafe impl<H> Send for Locked<H> {}

impl<H> Locked<H> {
    fn new(make: impl FnOnce(NonNull<u8>) -> H) -> Self {
        let region = Region::new();
        Self { heap: SpinMutex::new(make(region.0)), _region: region }
    }
}

fn talc(start: NonNull<u8>) -> talc::Talc<talc::ErrOnOom> {
    let mut heap = talc::Talc::new(talc::ErrOnOom);
    // SAFETY: the region is the heap's alone.
    unsafe { heap.claim(talc::Span::from_base_size(start.as_ptr(), BYTES)) }.expect("64 MiB are an arena");
    heap
}

fn rlsf(start: NonNull<u8>) -> Rlsf {
    let mut heap = Rlsf::new();
    // SAFETY: the region is the heap's alone.
    unsafe { heap.insert_free_block_ptr(NonNull::slice_from_raw_parts(start, BYTES)) }
        .expect("64 MiB are a pool");
    heap
}

/// Memory that the threads share in halves.
pub struct Floor(Region);

impl Arena {
    /// A fresh arena.
    #[must_use]
    pub fn new(heap: Heap) -> Self {
        match heap {
            Heap::Ours => Self::Ours(Box::new(Ours::new())),
            Heap::Talc => Self::Talc(Locked::new(talc)),
            // SAFETY: the region is the heap's alone, and lives as long.
            Heap::LinkedList => Self::LinkedList(Locked::new(|start| unsafe {
                linked_list_allocator::Heap::new(start.as_ptr(), BYTES)
            })),
            // SAFETY: as above.
            Heap::SlabAllocator => Self::SlabAllocator(Box::new(Locked::new(|start| unsafe {
                slab_allocator_rs::Heap::new(start.as_ptr().expose_provenance(), BYTES)
            }))),
            Heap::Rlsf => Self::Rlsf(Box::new(Locked::new(rlsf))),
            Heap::Mimalloc => Self::Mimalloc,
            Heap::Floor => Self::Floor(Floor(Region::new())),
        }
    }

    /// Calls `f` with one thread's way to the arena.
    pub fn enter(&self, thread: u16, objects: Objects, f: impl Visit) {
        let thread = usize::from(thread);
        THREAD.set(thread);
        match self {
            Self::Ours(ours) => ours.enter(objects, f),
            Self::Talc(heap) => f.visit(&mut { heap }),
            Self::LinkedList(heap) => f.visit(&mut { heap }),
            Self::SlabAllocator(heap) => f.visit(&mut { &**heap }),
            Self::Rlsf(heap) => f.visit(&mut &**heap),
            Self::Mimalloc => f.visit(&mut Mi),
            Self::Floor(floor) => f.visit(&mut Lists::new(floor, thread)),
        }
    }
}

impl Ours {
    fn enter(&self, objects: Objects, f: impl Visit) {
        match objects {
            Objects::Of(64) => of_cache(&self.small, f),
            Objects::Of(256) => of_cache(&self.middle, f),
            Objects::Of(1024) => of_cache(&self.large, f),
            Objects::Of(_) | Objects::Any => {
                let part = Box::leak(Box::new(LocalSizes::new(&self.sizes)));
                // SAFETY: leaked, since the other thread may look at it later than this one; the process is short-lived.
                unsafe { part.enter() };
                f.visit(&mut Sized { part });
                assert_eq!(self.sizes.stats().refused, 0, "memory was refused that had been handed out");
            }
        }
    }
}

fn of_cache<T: Send>(cache: &Cache<T, Shared>, f: impl Visit) {
    let part = Box::leak(Box::new(Local::new(cache)));
    // SAFETY: leaked, since the other thread may look at it later than this one; the process is short-lived.
    unsafe { part.enter() };
    f.visit(&mut Typed { part });
    assert_eq!(cache.stats().refused, 0, "an object was refused that had been handed out");
}

struct Typed<'a, 'c, T> {
    part: &'a Local<'c, T, Shared>,
}

// SAFETY: the memory is the cache's; callers ask for layouts of its objects only (`Objects::Of`).
unsafe impl<T: Send> HeapSource for Typed<'_, '_, T> {
    #[inline(always)]
    fn take(&mut self, _: Layout) -> Option<NonNull<u8>> {
        self.part.allocate().ok().map(NonNull::cast)
    }

    #[inline(always)]
    unsafe fn give(&mut self, at: NonNull<u8>, _: Layout) {
        // SAFETY: the caller's obligation 1. A refusal is counted, and looked at in the end.
        let _ = unsafe { self.part.free(at.cast()) };
    }
}

struct Sized<'a, 'c> {
    part: &'a LocalSizes<'c, Shared>,
}

// SAFETY: the memory is that of the sizes.
unsafe impl HeapSource for Sized<'_, '_> {
    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.part.allocate(layout).ok()
    }

    #[inline(always)]
    unsafe fn give(&mut self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's obligation 1. A refusal is counted, and looked at in the end.
        let _ = unsafe { self.part.free(at, layout) };
    }
}

// SAFETY: the crate hands out memory of its arena, disjoint and aligned as asked.
unsafe impl HeapSource for &Locked<talc::Talc<talc::ErrOnOom>> {
    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no row asks for nothing.
        unsafe { self.heap.lock().malloc(layout) }.ok()
    }

    #[inline(always)]
    unsafe fn give(&mut self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's obligation 1.
        unsafe { self.heap.lock().free(at, layout) };
    }
}

// SAFETY: as above.
unsafe impl HeapSource for &Locked<linked_list_allocator::Heap> {
    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.heap.lock().allocate_first_fit(layout).ok()
    }

    #[inline(always)]
    unsafe fn give(&mut self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's obligation 1.
        unsafe { self.heap.lock().deallocate(at, layout) };
    }
}

// SAFETY: as above.
unsafe impl HeapSource for &Locked<slab_allocator_rs::Heap> {
    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.heap.lock().allocate(layout).ok()
    }

    #[inline(always)]
    unsafe fn give(&mut self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's obligation 1.
        unsafe { self.heap.lock().deallocate(at, layout) };
    }
}

// SAFETY: as above.
unsafe impl HeapSource for &Locked<Rlsf> {
    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.heap.lock().allocate(layout)
    }

    #[inline(always)]
    unsafe fn give(&mut self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's obligation 1.
        unsafe { self.heap.lock().deallocate(at, layout.align()) };
    }
}

struct Mi;

// SAFETY: a global allocator's memory is its taker's alone.
unsafe impl HeapSource for Mi {
    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no row asks for nothing.
        NonNull::new(unsafe { mimalloc::MiMalloc.alloc(layout) })
    }

    #[inline(always)]
    unsafe fn give(&mut self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's obligation 1.
        unsafe { mimalloc::MiMalloc.dealloc(at.as_ptr(), layout) };
    }
}

/// Classes of the floor: powers of two.
const POWERS: usize = 16;

struct Lists {
    /// The first free piece of each class; a piece's first word is the next one.
    first: [*mut u8; POWERS],
    rest: NonNull<u8>,
    left: usize,
}

impl Lists {
    fn new(floor: &Floor, thread: usize) -> Self {
        let half = BYTES / THREADS;
        // SAFETY: within the region, whose parts belong to one thread each.
        let rest = unsafe { floor.0.0.add(half * thread) };
        Self { first: [core::ptr::null_mut(); POWERS], rest, left: half }
    }

    #[inline(always)]
    fn class(layout: Layout) -> usize {
        let size = layout.size().max(layout.align()).max(size_of::<usize>());
        usize::try_from(size.next_power_of_two().trailing_zeros()).unwrap_or(0) % POWERS
    }

    #[cold]
    fn cut(&mut self, class: usize) -> Option<NonNull<u8>> {
        let bytes = 1 << class;
        self.left = self.left.checked_sub(bytes)?;
        // SAFETY: so much is left.
        Some(unsafe { self.rest.add(self.left) })
    }
}

// SAFETY: pieces are cut once and then on one list or with one taker.
unsafe impl HeapSource for Lists {
    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let class = Self::class(layout);
        let Some(piece) = NonNull::new(self.first[class]) else { return self.cut(class) };
        // SAFETY: a free piece's first word is the next one.
        self.first[class] = unsafe { piece.cast::<*mut u8>().read() };
        Some(piece)
    }

    #[inline(always)]
    unsafe fn give(&mut self, at: NonNull<u8>, layout: Layout) {
        let class = Self::class(layout);
        // SAFETY: obligation 1: the piece is ours now, and has room for a word.
        unsafe { at.cast::<*mut u8>().write(self.first[class]) };
        self.first[class] = at.as_ptr();
    }
}
