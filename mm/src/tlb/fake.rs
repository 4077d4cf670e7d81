//! A machine for tests: cores whose TLBs are simulated, and two spaces whose tables and frames are loom's cells under loom.
//!
//! Space `A` maps [`PAGES`] pages, each to a frame of its own; other spaces map nothing. A walk goes from the upper entry, which the core
//! caches, to the table and its entry; a use of a page goes through what the core has cached, if anything. Loom finds an initiator that writes a frame, or the table, which it has freed,
//! while a core can still reach it.

use ::core::cell::Cell;
use std::sync::Arc;
use std::vec::Vec;

use percpu::sync::atomic::{AtomicUsize, Ordering};
use percpu::sync::cell::UnsafeCell;
use percpu::{CoreId, Inbox, IrqOff};

use super::shootdown::shootdown_from;
use super::{
    Active, Batch, Cached, Core, CoreTlb, Counters, Counts, Machine, Mmu, Request, SLOTS, SpaceId, SpaceTlb,
    Tag,
};
use crate::id::FrameId;
use crate::virt::{PageId, PageRange, PageSize};

/// Pages of space `A`.
pub(super) const PAGES: usize = 2;

/// Whether the hardware tells spaces apart by tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tags {
    Kept,
    Ignored,
}

/// Memory: the table of space `A`, and the frames it maps.
pub(super) struct Memory {
    /// The frame of the lower table; 1 when it has been used for something else.
    table: UnsafeCell<u32>,
    /// The entry above it: 1 while the table is in use.
    upper: AtomicUsize,
    /// The entries: 0 for nothing, else the frame's number plus one.
    entries: [AtomicUsize; PAGES],
    /// Contents of the frames: 0, and 1 when they have been used for something else.
    frames: [UnsafeCell<u32>; PAGES],
}

// SAFETY: whether the accesses to the cells are ordered is what the models find out.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

/// The simulated address translation of a core.
pub(super) struct FakeMmu {
    memory: Arc<Memory>,
    tags: Tags,
    /// Root and tag; the kernel's are 0.
    loaded: Cell<(usize, usize)>,
    /// Entries by tag, and last the upper entry.
    cached: [[Cell<usize>; PAGES + 1]; SLOTS + 1],
}

const KERNEL: usize = 0;
const ROOT_A: usize = 1;

impl FakeMmu {
    fn drop_tag(&self, tag: usize) {
        self.cached[tag].iter().for_each(|page| page.set(0));
    }

    /// What the hardware does whenever it likes: reads the loaded tables and caches what they say.
    fn walk(&self, page: usize) -> usize {
        if self.loaded.get().0 != ROOT_A {
            return 0;
        }
        let cached = &self.cached[self.loaded.get().1];
        if cached[PAGES].get() == 0 {
            // ORDER: Relaxed: a processor's walk orders nothing; that it finds what it should is the protocol's doing.
            cached[PAGES].set(self.memory.upper.load(Ordering::Relaxed));
        }
        if cached[PAGES].get() == 0 {
            return 0;
        }
        // SAFETY: a core may walk the tables that it has loaded; the models check that nobody writes them meanwhile.
        let reused = self.memory.table.with(|table| unsafe { *table });
        assert_eq!(reused, 0, "a core walks a table that was freed");
        // ORDER: Relaxed: as above.
        let entry = self.memory.entries[page].load(Ordering::Relaxed);
        cached[page].set(entry);
        entry
    }

    fn replace(&self, root: usize, tag: usize) {
        self.walk(0);
        self.loaded.set((root, tag));
        if self.tags == Tags::Ignored {
            (0..=SLOTS).for_each(|tag| self.drop_tag(tag));
        }
    }
}

impl Mmu for FakeMmu {
    fn invalidate(&self, page: PageId) {
        let cached = &self.cached[self.loaded.get().1];
        cached[page.number()].set(0);
        cached[PAGES].set(0);
    }

    fn flush(&self) {
        self.drop_tag(self.loaded.get().1);
    }

    unsafe fn load(&self, root: FrameId, tag: Tag, cached: Cached) {
        let tag = usize::from(tag.raw());
        self.replace(root.number(), tag);
        if cached == Cached::Stale {
            self.drop_tag(tag);
        }
    }

    fn plain_load(&self, root: FrameId, tag: Tag) -> u64 {
        root.address() | u64::from(tag.raw())
    }

    unsafe fn load_plainly(&self, word: u64) {
        let root = FrameId::containing(word);
        self.replace(root.number(), (word & 0xfff) as usize);
    }

    fn load_kernel(&self) {
        self.replace(KERNEL, 0);
    }
}

struct FakeCore {
    tlb: CoreTlb,
    active: Active,
    counters: Counters,
    mmu: FakeMmu,
    inbox: Inbox,
    requests: Vec<Request>,
}

/// The machine.
pub(super) struct Fake {
    memory: Arc<Memory>,
    cores: Vec<FakeCore>,
    pub(super) a: SpaceTlb,
    pub(super) b: SpaceTlb,
    pub(super) c: SpaceTlb,
    /// Cores that have got all they wanted.
    finished: AtomicUsize,
    /// Interrupts that were sent.
    pub(super) sent: AtomicUsize,
}

// SAFETY: a core's `tlb` and `mmu` are used by the thread that is this core; whether the accesses to memory are ordered is what the
// models find out.
unsafe impl Sync for Fake {}
// SAFETY: as above.
unsafe impl Send for Fake {}

impl percpu::Ipi for Fake {
    fn send(&self, _: CoreId) {
        // Not under loom: what polls needs none, and each step multiplies the executions.
        if cfg!(not(loom)) {
            // ORDER: Relaxed: read when all is over.
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn inbox(&self, core: CoreId) -> &Inbox {
        &self.cores[core.index()].inbox
    }
}

impl Machine for Fake {
    type Mmu = FakeMmu;

    fn core_count(&self) -> usize {
        self.cores.len()
    }

    fn own<'a>(&'a self, own: CoreId, _: &'a IrqOff) -> Core<'a, FakeMmu> {
        self.core(own)
    }

    fn active(&self, core: CoreId) -> &Active {
        &self.cores[core.index()].active
    }

    fn requests<'a>(&'a self, own: CoreId, _: &IrqOff) -> &'a [Request] {
        &self.cores[own.index()].requests
    }
}

fn all(cores: usize) -> impl Iterator<Item = CoreId> {
    (0..cores).filter_map(CoreId::from_index)
}

impl Fake {
    pub(super) fn new(cores: usize, tags: Tags) -> Self {
        let memory = Memory {
            table: UnsafeCell::new(0),
            upper: AtomicUsize::new(1),
            entries: ::core::array::from_fn(|page| AtomicUsize::new(page + 1)),
            frames: ::core::array::from_fn(|_| UnsafeCell::new(0)),
        };
        let memory = Arc::new(memory);
        let core = |_| FakeCore {
            tlb: CoreTlb::new(),
            active: Active::new(),
            counters: Counters::new(),
            mmu: FakeMmu {
                memory: memory.clone(),
                tags,
                loaded: Cell::new((KERNEL, 0)),
                cached: Default::default(),
            },
            inbox: Inbox::new(),
            requests: all(cores).map(Request::new).collect(),
        };
        let space = |id, root| SpaceTlb::new(SpaceId(id), FrameId::new(root));
        Self {
            memory: memory.clone(),
            cores: all(cores).map(core).collect(),
            a: space(1, ROOT_A),
            b: space(2, 2),
            c: space(3, 3),
            finished: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
        }
    }

    pub(super) fn core(&self, id: CoreId) -> Core<'_, FakeMmu> {
        let core = &self.cores[id.index()];
        Core { id, tlb: &core.tlb, active: &core.active, counters: &core.counters, mmu: &core.mmu }
    }

    pub(super) fn activate(&self, own: usize, space: &SpaceTlb) {
        // SAFETY: spaces live as long as the machine; the tests run one thread for each core.
        unsafe { self.core(id(own)).activate(space) };
    }

    pub(super) fn counts(&self, core: usize) -> Counts {
        self.cores[core].counters.read()
    }

    /// Uses a page of the loaded space, as a program would; says whether it was mapped.
    pub(super) fn touch(&self, own: usize, page: usize) -> bool {
        let mmu = &self.cores[own].mmu;
        let cached = mmu.cached[mmu.loaded.get().1][page].get();
        let entry = if cached == 0 { mmu.walk(page) } else { cached };
        let Some(frame) = entry.checked_sub(1) else { return false };
        // SAFETY: the frame is mapped as far as this core knows; the models check that nobody writes it meanwhile.
        let content = self.memory.frames[frame].with(|frame| unsafe { *frame });
        assert_eq!(content, 0, "a core uses a frame that was freed");
        true
    }

    pub(super) fn serve(&self, own: usize) {
        IrqOff::with(|irq| self.cores[own].inbox.serve(irq));
    }

    pub(super) fn shoot(&self, own: usize, batch: &Batch) {
        IrqOff::with(|irq| shootdown_from(id(own), irq, self, &self.a, batch));
    }

    /// Takes a page out of `A`'s table.
    pub(super) fn clear(&self, page: usize) {
        // ORDER: Relaxed: the shootdown publishes it.
        self.memory.entries[page].store(0, Ordering::Relaxed);
    }

    /// Takes a page out of `A` and uses its frame for something else.
    pub(super) fn unmap(&self, own: usize, page: usize) {
        self.clear(page);
        self.shoot(own, &page_of(page));
        // SAFETY: nobody can reach it any more; the models check it.
        self.memory.frames[page].with_mut(|frame| unsafe { *frame = 1 });
    }

    /// Takes the table out of `A`, with all it maps, and uses its frame for something else.
    pub(super) fn unmap_table(&self, own: usize) {
        // ORDER: Relaxed: the shootdown publishes it.
        self.memory.upper.store(0, Ordering::Relaxed);
        let mut batch = Batch::new();
        batch.add(PageRange::new(PageId::new(0), PAGES).expect("user pages"), PageSize::Small);
        batch.tables_freed();
        self.shoot(own, &batch);
        // SAFETY: nobody can reach it any more; the models check it.
        self.memory.table.with_mut(|table| unsafe { *table = 1 });
    }

    /// A core goes on serving until `count` cores have finished.
    pub(super) fn finish(&self, own: usize, count: usize, pause: fn()) {
        // ORDER: AcqRel: Release pairs with Acquire below: what a core did is over for those who see it finished.
        self.finished.fetch_add(1, Ordering::AcqRel);
        // ORDER: Acquire pairs with Release above.
        while self.finished.load(Ordering::Acquire) < count {
            self.serve(own);
            pause();
        }
    }
}

/// A batch of one page.
pub(super) fn page_of(page: usize) -> Batch {
    let mut batch = Batch::new();
    batch.add(PageRange::new(PageId::new(page), 1).expect("a user page"), PageSize::Small);
    batch
}

pub(super) fn id(core: usize) -> CoreId {
    CoreId::from_index(core).expect("a small number")
}
