//! TLB shootdown: no core goes on using a translation that has been taken back.
//!
//! A space has a *generation*, raised by every change that takes rights back, and the set of cores that may cache it. An initiator changes
//! the tables, raises the generation, and asks the cores on which the space is current; all others compare generations when they switch back.
//! Similar: Amit, "Optimizing the TLB Shootdown Algorithm with Page Access Tracking" (USENIX ATC 2017), §2; Linux `arch/x86/mm/tlb.c`.
//!
//! * X1: only a core itself changes its [`CoreTlb`], its [`Active`] words, and its bit in a space's set.
//! * X2: a core without its bit in a space's set never uses a translation of the space again: it flushes before it next loads it.
//! * X3: a core's slot for a space remembers a generation; the core uses no translation that a change up to it has taken back.
//! * X4: a [`Request`] is not touched by its target after `done` is set, and not by its initiator before.
//! * X5: a space stays in place from its first activation until every core of its set has forgotten it.
//! * X6: between publishing a space and loading it, a core tells which one it leaves: its tables can be walked until the load.

mod batch;
mod core;
mod counters;
mod shootdown;

#[cfg(test)]
mod fake;
#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;

pub use self::batch::{Batch, FLUSH_THRESHOLD, RANGES};
pub use self::core::{Active, Core, CoreTlb, SLOTS};
pub use self::counters::{Counters, Counts};
pub use self::shootdown::{Request, shootdown};

use ::core::fmt;

use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{AtomicCoreSet, CoreId, IrqOff, const_fn, sync};

use crate::id::FrameId;
use crate::virt::PageId;

/// Names an address space for ever: never used again, so that a core may compare by it long after the space is gone. Written `S7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SpaceId(u64);

impl SpaceId {
    /// What no space is called.
    const NONE: Self = Self(0);
    /// The largest number: one bit is needed for a mark ([`Active`]).
    const MAX: u64 = u64::MAX >> 1;

    /// The number.
    #[must_use]
    #[inline(always)]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S{}", self.0)
    }
}

/// Gives out [`SpaceId`]s. Creating a space is rare enough for one shared counter.
#[derive(Debug)]
#[repr(align(64))]
pub struct SpaceIds(AtomicU64);

impl SpaceIds {
    const_fn! {
        /// Nothing given out yet.
        #[must_use]
        pub const fn new() -> Self {
            Self(AtomicU64::new(SpaceId::NONE.0 + 1))
        }
    }

    /// An id that was never given out before.
    ///
    /// # Panics
    /// After 2^63 of them.
    pub fn take(&self) -> SpaceId {
        // ORDER: Relaxed: only that the numbers differ matters.
        let id = self.0.fetch_add(1, Ordering::Relaxed);
        assert!(id <= SpaceId::MAX, "X7: space ids are never used again");
        SpaceId(id)
    }
}

impl Default for SpaceIds {
    fn default() -> Self {
        Self::new()
    }
}

/// What an address space needs for shootdown; a part of it.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `generation` | initiators | initiators, cores that switch | SeqCst | with the constants that a switch reads as well |
/// | `lone` | a core that enters the set | initiators | SeqCst | the same |
/// | `cores` | each core its own bit | initiators | AcqRel, SeqCst walks | its own two |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct SpaceTlb {
    generation: AtomicU64,
    id: SpaceId,
    root: FrameId,
    /// The one core that has ever been in the set, plus 1; 0 for none, [`SEVERAL`] for more. It only grows, and spares the initiator on the
    /// only core of a space, the most common one, the walk of the set.
    lone: AtomicU64,
    cores: AtomicCoreSet,
}

/// More than one core has been in the set.
const SEVERAL: u64 = u64::MAX;

/// Where assembly finds what [`CoreTlb::go_back`] reads.
#[cfg(not(loom))]
impl SpaceTlb {
    /// The generation.
    pub const GENERATION: usize = ::core::mem::offset_of!(Self, generation);
    /// The id; twice this is what [`Active`] shows.
    pub const ID: usize = ::core::mem::offset_of!(Self, id);
}

impl SpaceTlb {
    const_fn! {
        /// A space that no core has loaded yet.
        #[must_use]
        pub const fn new(id: SpaceId, root: FrameId) -> Self {
            let (generation, lone) = (AtomicU64::new(0), AtomicU64::new(0));
            Self { generation, id, root, lone, cores: AtomicCoreSet::new() }
        }
    }

    /// The space's name.
    #[must_use]
    #[inline(always)]
    pub const fn id(&self) -> SpaceId {
        self.id
    }

    /// The frame of the top-level table.
    #[must_use]
    #[inline(always)]
    pub const fn root(&self) -> FrameId {
        self.root
    }

    /// The cores that may hold translations of the space.
    #[must_use]
    #[inline(always)]
    pub const fn cores(&self) -> &AtomicCoreSet {
        &self.cores
    }

    /// How many changes have taken rights back so far.
    #[must_use]
    #[inline(always)]
    pub fn generation(&self) -> u64 {
        // ORDER: SeqCst: an acquire load, pairing with the raise in `shootdown` (we see the tables as they were changed), that stands after
        // the SeqCst exchange of the own active word in the total order: either this load sees the raise, or the initiator the word.
        self.generation.load(Ordering::SeqCst)
    }

    /// Puts a core into the set. A full fence follows before it reads the generation.
    fn enter(&self, core: CoreId) {
        let own = u64::from(core.raw()) + 1;
        // ORDER: SeqCst, all: before the load of the generation in the total order, as the insertion is. Partner: `is_lone`.
        let first = self.lone.compare_exchange(0, own, Ordering::SeqCst, Ordering::SeqCst);
        if first.is_err_and(|lone| lone != own) {
            // ORDER: SeqCst; as above.
            self.lone.store(SEVERAL, Ordering::SeqCst);
        }
        self.cores.insert(core);
    }

    /// Whether no other core has ever been in the set. Asked after a raise: a core that enters later finds the raise.
    #[inline(always)]
    fn is_lone(&self, core: CoreId) -> bool {
        // ORDER: SeqCst, after the raise in the total order; partner: `enter`, whose core then reads the generation. So either this load
        // sees the core, or the core the generation.
        self.lone.load(Ordering::SeqCst) == u64::from(core.raw()) + 1
    }

    /// Raises the generation by the changes that the tables already show, and returns it.
    #[inline(always)]
    fn raise(&self, changes: u64) -> u64 {
        // ORDER: SeqCst, before the loads of the set and of the active words in the total order; partner: `Active::publish` and the load
        // in `generation`. Its Release half publishes the changed tables to whoever sees the generation; its Acquire half, with those of
        // the initiators before, makes a flush on this change's behalf good for theirs as well.
        let generation = self.generation.fetch_add(changes, Ordering::SeqCst) + changes;
        sync::total_order();
        generation
    }
}

/// The number by which a core's hardware tells the translations of its slots apart: a process-context identifier, where it has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Tag(u16);

impl Tag {
    /// The tag of a slot; 0 is left to the kernel's own tables.
    #[inline(always)]
    const fn of_slot(slot: usize) -> Self {
        Self(slot as u16 + 1)
    }

    /// The number.
    #[must_use]
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

/// Whether the translations that the hardware still has under a tag may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cached {
    /// They are as the tables say.
    Valid,
    /// Some may be of before a change, or of another space.
    Stale,
}

/// The address translation of the core that calls it.
///
/// Every operation is complete when it returns: no later access, nor walk ahead of one, uses what it has dropped.
pub trait Mmu {
    /// Drops the translation of one page of the loaded space, and whatever is cached of upper levels.
    fn invalidate(&self, page: PageId);

    /// Drops every translation of the loaded space.
    fn flush(&self);

    /// Loads a space's tables; drops what is cached under the tag if it is [`Cached::Stale`], or if the hardware knows no tags.
    ///
    /// # Safety
    /// 1. `root` is the root of tables that map the kernel as its own do, and stays so while loaded.
    unsafe fn load(&self, root: FrameId, tag: Tag, cached: Cached);

    /// The word that loads a space's tables when all that is cached under the tag is valid, if that load is all that a switch to it
    /// takes; 0 if there is more to it.
    fn plain_load(&self, root: FrameId, tag: Tag) -> u64;

    /// Loads a space's tables by such a word.
    ///
    /// # Safety
    /// 1. As for [`load`](Self::load), of the root that `word` was made for.
    unsafe fn load_plainly(&self, word: u64);

    /// Loads the kernel's own tables, which map nothing in the user half.
    fn load_kernel(&self);
}

/// The cores of a machine, as shootdown needs them.
pub trait Machine: percpu::Ipi {
    /// Address translation.
    type Mmu: Mmu;

    /// Cores have ids below this.
    fn core_count(&self) -> usize;

    /// The state of the core that calls, which is `own`.
    fn own<'a>(&'a self, own: CoreId, irq: &'a IrqOff) -> Core<'a, Self::Mmu>;

    /// What a core that has activated a space shows of itself.
    fn active(&self, core: CoreId) -> &Active;

    /// The requests of the calling core, which is `own`: one for each core, by id, for nobody else to send.
    fn requests<'a>(&'a self, own: CoreId, irq: &IrqOff) -> &'a [Request];
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SpaceTlb>() == 64 + 128 && align_of::<SpaceTlb>() == 64);
