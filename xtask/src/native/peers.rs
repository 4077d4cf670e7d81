//! The allocators that are measured: ours, and those of the registry that do the same job, each over an arena of frame numbers.
//!
//! Peers are single-threaded data structures; a kernel would put them behind a lock, and so does this module, with a plain spin lock,
//! the cheapest there is. `floor` is no allocator for a kernel: a private stack of 512 frames over a locked bitmap, without
//! nodes, zones, blocks or detection of double frees. It marks what is attainable.

use bitmap_allocator::{BitAlloc, BitAlloc1M, BitAlloc16M};
use buddy_system_allocator::FrameAllocator;
use mm::bench::{FrameSource, Local};
use mm::frames::{Config, CoreCache, Frames, Plan, Request, Stats};
use mm::{FrameId, Order, PhysRange};
use percpu::{CoreId, NodeId};
use spin::mutex::SpinMutex;

/// Where the arena starts: above every special zone.
pub const BASE: usize = 4 << 18;

/// Frames of a gibibyte.
pub const GIB: usize = 1 << 18;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// `mm::Frames`.
    Ours,
    /// Crate `bitmap-allocator`.
    Bitmap,
    /// Crate `buddy_system_allocator`.
    Buddy,
    /// See the module comment.
    Floor,
}

impl Peer {
    /// Every peer, ours first.
    pub const ALL: [Self; 4] = [Self::Ours, Self::Bitmap, Self::Buddy, Self::Floor];

    /// The word of the `peer` parameter; ours has none.
    #[must_use]
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::Ours => None,
            Self::Bitmap => Some("bitmap-allocator"),
            Self::Buddy => Some("buddy_system_allocator"),
            Self::Floor => Some("floor"),
        }
    }

    /// The peer of a parameter.
    #[must_use]
    pub fn of(word: Option<&str>) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.word() == word)
    }

    /// Whether it can serve blocks of more than one frame.
    #[must_use]
    pub const fn has_orders(self) -> bool {
        !matches!(self, Self::Floor)
    }
}

/// One locked bitmap of the peer crate, in the size that fits.
pub enum Bitmap {
    /// Up to 4 GiB.
    Small(SpinMutex<Box<BitAlloc1M>>),
    /// Up to 64 GiB.
    Large(SpinMutex<Box<BitAlloc16M>>),
}

/// An allocator over an arena, shared by threads.
pub enum Arena {
    /// `mm::Frames`, with its metadata leaked: the process is short-lived and arenas are few.
    Ours(Frames<'static>),
    /// Crate `bitmap-allocator`.
    Bitmap(Bitmap),
    /// Crate `buddy_system_allocator`.
    Buddy(Box<SpinMutex<FrameAllocator<33>>>),
    /// The same bitmap below private stacks.
    Floor(Bitmap),
}

fn bitmap(frames: usize) -> Bitmap {
    if frames <= BitAlloc1M::CAP {
        let mut map = Box::new(BitAlloc1M::DEFAULT);
        map.insert(0..frames);
        Bitmap::Small(SpinMutex::new(map))
    } else {
        let mut map: Box<BitAlloc16M> = Box::default();
        map.insert(0..frames);
        Bitmap::Large(SpinMutex::new(map))
    }
}

/// Bytes of metadata of ours, for an arena of so many frames.
#[must_use]
pub fn metadata_bytes(frames: usize) -> usize {
    with_plan(frames, |_, plan| plan.metadata_bytes(NodeId::new(0)))
}

fn with_plan<R>(frames: usize, f: impl FnOnce(&Config<'_>, &Plan) -> R) -> R {
    let memory = [(NodeId::new(0), PhysRange::new(FrameId::new(BASE), FrameId::new(BASE + frames)))];
    let config = Config { memory: &memory, reserved: &[], taken: &[], distance: &|_, _| 10, cores: 2 };
    let plan = Plan::new(&config).expect("M: one range is a valid memory map");
    f(&config, &plan)
}

pub(super) fn ours(frames: usize) -> Frames<'static> {
    with_plan(frames, |config, plan| {
        Frames::new(config, plan, |_, bytes| Vec::leak(vec![0; bytes / size_of::<u64>()]))
            .expect("M: the plan's own size is enough")
    })
}

impl Arena {
    /// A fresh arena of so many frames, all free.
    #[must_use]
    pub fn new(peer: Peer, frames: usize) -> Self {
        match peer {
            Peer::Ours => Self::Ours(ours(frames)),
            Peer::Bitmap => Self::Bitmap(bitmap(frames)),
            Peer::Floor => Self::Floor(bitmap(frames)),
            Peer::Buddy => {
                let mut buddy = FrameAllocator::new();
                buddy.add_frame(BASE, BASE + frames);
                Self::Buddy(Box::new(SpinMutex::new(buddy)))
            }
        }
    }

    /// Figures of ours.
    #[must_use]
    pub fn stats(&self) -> Option<Stats> {
        match self {
            Self::Ours(frames) => Some(frames.stats()),
            _ => None,
        }
    }

    /// Calls `f` with one core's way to the arena.
    pub fn enter<R>(&self, core: u16, f: impl Visit<R>) -> R {
        match self {
            Self::Ours(frames) => {
                let cache = CoreCache::new(CoreId::new(core), NodeId::new(0));
                let mut local = Local::new(frames, cache, Request::LOCAL);
                let result = f.visit(&mut local);
                let refused = local.refused();
                assert!(refused.is_none(), "a block was refused that had been handed out: {refused:?}");
                result
            }
            Self::Bitmap(map) => f.visit(&mut LockedBitmap(map)),
            Self::Buddy(buddy) => f.visit(&mut LockedBuddy(buddy)),
            Self::Floor(map) => f.visit(&mut Stacked { map, stack: Vec::with_capacity(STACK) }),
        }
    }
}

/// What is done with a source; one instance of the code for each allocator, so that nothing is called through a pointer.
pub trait Visit<R> {
    /// Does it.
    fn visit<S: FrameSource>(self, source: &mut S) -> R;
}

struct LockedBitmap<'a>(&'a Bitmap);

impl Bitmap {
    #[inline(always)]
    fn get(&self, order: Order) -> Option<usize> {
        fn take(map: &mut impl BitAlloc, order: Order) -> Option<usize> {
            if order == Order::FRAME {
                map.alloc()
            } else {
                map.alloc_contiguous(None, order.frames(), order.get())
            }
        }
        match self {
            Self::Small(map) => take(&mut **map.lock(), order),
            Self::Large(map) => take(&mut **map.lock(), order),
        }
    }

    #[inline(always)]
    fn put(&self, bit: usize, order: Order) {
        fn give(map: &mut impl BitAlloc, bit: usize, order: Order) {
            if order == Order::FRAME {
                map.dealloc(bit)
            } else {
                map.dealloc_contiguous(bit, order.frames())
            };
        }
        match self {
            Self::Small(map) => give(&mut **map.lock(), bit, order),
            Self::Large(map) => give(&mut **map.lock(), bit, order),
        }
    }
}

impl FrameSource for LockedBitmap<'_> {
    #[inline(always)]
    fn get(&mut self, order: Order) -> Option<FrameId> {
        self.0.get(order).map(|bit| FrameId::new(BASE + bit))
    }

    #[inline(always)]
    fn put(&mut self, frame: FrameId, order: Order) {
        self.0.put(frame.number() - BASE, order);
    }
}

struct LockedBuddy<'a>(&'a SpinMutex<FrameAllocator<33>>);

impl FrameSource for LockedBuddy<'_> {
    #[inline(always)]
    fn get(&mut self, order: Order) -> Option<FrameId> {
        self.0.lock().alloc(order.frames()).map(FrameId::new)
    }

    #[inline(always)]
    fn put(&mut self, frame: FrameId, order: Order) {
        self.0.lock().dealloc(frame.number(), order.frames());
    }
}

const STACK: usize = 512;

struct Stacked<'a> {
    map: &'a Bitmap,
    stack: Vec<FrameId>,
}

impl Stacked<'_> {
    #[cold]
    fn refill(&mut self) {
        while self.stack.len() < STACK / 2
            && let Some(bit) = self.map.get(Order::FRAME)
        {
            self.stack.push(FrameId::new(BASE + bit));
        }
    }

    #[cold]
    fn spill(&mut self, keep: usize) {
        while self.stack.len() > keep
            && let Some(frame) = self.stack.pop()
        {
            self.map.put(frame.number() - BASE, Order::FRAME);
        }
    }
}

impl FrameSource for Stacked<'_> {
    #[inline(always)]
    fn get(&mut self, _: Order) -> Option<FrameId> {
        if self.stack.is_empty() {
            self.refill();
        }
        self.stack.pop()
    }

    #[inline(always)]
    fn put(&mut self, frame: FrameId, _: Order) {
        if self.stack.len() == STACK {
            self.spill(STACK / 2);
        }
        self.stack.push(frame);
    }

    fn drain(&mut self) {
        self.spill(0);
    }
}
