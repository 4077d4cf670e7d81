//! Address spaces: regions, faults and page tables, which here are one thing.
//!
//! A space is its page tables (see `entry`): what is mapped stands in them, and so does what a fault would map. Operations take the lock of
//! the 1 GiB unit they are in (`table`), change entries, and leave the rest, invalidation and giving frames back, in a [`Pending`], which is
//! settled when no lock is held and every core has answered. Operations on several units are atomic for each page, not for the
//! whole. Long ones stop after a bounded step and say where to go on.
//!
//! A frame is in one place at a time: its pool, a page of one space, an object, the list of stale frames; `info` says which.
//! Reasons and measurements: `docs/adr/0003-address-spaces.md`. Invariants: A1–A2 `table`, A3–A4 `pending`, A6 `dismantle`, O1 `object`, O2 `record`.

mod check;
mod dismantle;
mod entry;
mod fault;
mod info;
mod land;
mod lend;
mod load;
mod look;
mod map;
mod memory;
mod object;
mod orphans;
mod pass;
mod pending;
mod protect;
mod record;
mod share;
mod single;
mod table;
mod take;
mod unmap;
mod walk;

pub use check::{Broken, Usage};
pub use entry::Format;
pub use fault::{Access, Fault};
pub use info::{FrameInfo, Use};
pub use load::Load;
pub use look::Region;
pub use map::{Backing, Mapping, When};
pub use memory::{Frames, Memory, Pool, Shortage};
pub use object::{Attachment, Object};
pub use orphans::Orphans;
pub use pass::{Course, Pass, Passing, Phase, Steps};
pub use pending::Pending;

use crate::bank::{Payer, Purse};
use crate::frames::Policy;
use crate::id::{FrameId, Order};
use crate::tlb::{SpaceId, SpaceTlb};
use core::fmt;
use info::Word;
use percpu::IrqOff;
use record::Records;

/// What may be done with the pages of a region. There is no value that allows both writing and executing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Protection {
    /// Read.
    Read,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
}

/// What a region is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Zeroed pages of its own, taken when they are first touched.
    Anonymous = 1,
    /// The pages of an object.
    Shared = 2,
    /// The pages of an object; one that is written is copied first.
    Copy = 3,
    /// Somebody else is asked for each page.
    Pager = 4,
    /// Nothing: an access is a mistake that shall be told from others.
    Guard = 5,
    /// Nothing: no other region shall come here.
    Reserved = 6,
    /// Device registers or memory outside the frame allocator.
    Device = 7,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Anonymous, Self::Shared, Self::Copy, Self::Pager, Self::Guard, Self::Reserved, Self::Device];

    fn from_number(number: u64) -> Self {
        Self::ALL.into_iter().find(|&kind| kind as u64 == number).unwrap_or(Self::Anonymous)
    }
}

/// Why an operation was refused. Nothing has changed when one is returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum SpaceError {
    /// Something is mapped in the range already.
    Occupied,
    /// Nothing of the kind that the operation needs is mapped there.
    NotMapped,
    /// No frame could be had.
    Shortage(Shortage),
    /// The space has as many mappings of objects, pagers and placements as it can have.
    TooManyMappings,
    /// The object has no such pages.
    BeyondObject,
    /// The region's kind does not allow it: a device cannot be copied.
    WrongKind,
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied => f.write_str("something is mapped in the range already"),
            Self::NotMapped => f.write_str("nothing suitable is mapped there"),
            Self::Shortage(shortage) => shortage.fmt(f),
            Self::TooManyMappings => f.write_str("the space has too many mappings"),
            Self::BeyondObject => f.write_str("the object has no such pages"),
            Self::WrongKind => f.write_str("the region's kind does not allow it"),
        }
    }
}

impl core::error::Error for SpaceError {}

/// How far an operation has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an operation that has more to do is not done"]
pub enum Progress<At, Out = ()> {
    /// It is done.
    Done(Out),
    /// It goes on here, once what is pending has been settled.
    More(At),
}

/// What every operation works with: frames, and room for what is left to be done.
#[derive(Debug)]
pub struct Cx<'a, P> {
    pub(crate) pool: &'a mut P,
    pub(crate) pending: &'a mut Pending,
    /// Entries that this step may still look at.
    steps: usize,
}

/// Entries that one step looks at, about: what a core does with interrupts off.
pub const STEP: usize = 4096;

impl<'a, P: Pool> Cx<'a, P> {
    /// For one step of an operation. The locks of page tables are taken with interrupts off.
    #[inline(always)]
    pub fn new(_irq: &'a IrqOff, pool: &'a mut P, pending: &'a mut Pending) -> Self {
        Self { pool, pending, steps: STEP }
    }
}

/// What the upper half of a space's root is copied from; none of it changes afterwards.
#[derive(Clone, Copy, Debug)]
pub enum Upper {
    /// Nothing.
    Empty,
    /// The kernel's root.
    Kernel(FrameId),
    /// The same, and for a second root under which programs run, in the frame after the first, one that shows only the way into the kernel.
    Isolated {
        /// The kernel's root.
        kernel: FrameId,
        /// The root that shows the way.
        border: FrameId,
    },
}

/// An address space: the user half of one set of page tables.
///
/// * A8: a space has paid for its roots, tables and records, its reservations whole, and each frame that an entry owns and that is of no
///   reservation; a frame that several spaces own is paid for by each.
/// * A7: the user half of a second root has the entries of the first. Both are changed under the first one's lock, the second earlier, so
///   that no program faults for want of an entry that the kernel finds in order. Nothing can be executed through those of the first.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `tlb` | see [`SpaceTlb`] | any core | its own |
/// | `records` | who maps or unmaps what needs a record | any core | its own |
/// | `purse` | who takes or gives frames | any core | its own |
/// | the rest | nobody after start | any core | – |
#[derive(Debug)]
#[repr(C)]
pub struct Space<M> {
    tlb: SpaceTlb,
    memory: M,
    root: FrameId,
    /// Its root, or two.
    roots: Order,
    format: Format,
    /// Pays for every frame that the tables own, for the tables, and for the records.
    purse: Purse,
    records: Records<M>,
}

impl<M: Memory> Space<M> {
    /// Where assembly finds what cores keep of the space.
    pub const TLB: usize = core::mem::offset_of!(Self, tlb);

    /// An empty space that nobody pays for.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn new<P: Pool>(
        memory: M,
        pool: &mut P,
        id: SpaceId,
        format: Format,
        upper: Upper,
    ) -> Result<Self, Shortage> {
        Self::paid_by(Payer::NOBODY, memory, pool, id, (format, upper))
    }

    /// An empty space, whose frames somebody pays for.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn paid_by<P: Pool>(
        payer: Payer,
        memory: M,
        pool: &mut P,
        id: SpaceId,
        (format, upper): (Format, Upper),
    ) -> Result<Self, Shortage> {
        let roots = if matches!(upper, Upper::Isolated { .. }) { Order::PAIR } else { Order::FRAME };
        let purse = Purse::new(payer);
        let root = match memory::take(&purse, pool, roots, Policy::Local) {
            Ok(root) => root,
            Err(shortage) => {
                purse.close(&mut Frames(pool));
                return Err(shortage);
            }
        };
        match upper {
            Upper::Empty => memory.zero(root, roots),
            Upper::Kernel(kernel) => memory.root(kernel, root),
            Upper::Isolated { kernel, border } => {
                memory.root(kernel, root);
                memory.root(border, FrameId::new(root.number() + 1));
            }
        }
        memory.info(root).set_table(Word::new(0));
        let tlb = SpaceTlb::new(id, root);
        Ok(Self { tlb, memory, root, roots, format, purse, records: Records::new(memory) })
    }

    /// What pays for its frames.
    #[must_use]
    pub fn purse(&self) -> &Purse {
        &self.purse
    }

    /// Takes a block that the space pays for.
    #[inline(always)]
    fn take_frame<P: Pool>(&self, pool: &mut P, order: Order, policy: Policy) -> Result<FrameId, Shortage> {
        memory::take(&self.purse, pool, order, policy)
    }

    /// Gives back a block that the space has paid for.
    #[inline(always)]
    fn give_frame<P: Pool>(&self, pool: &mut P, frame: FrameId, order: Order) {
        memory::give(&self.purse, pool, frame, order);
    }

    /// So many frames that the space has paid for are its own no longer: given back, or only others' now.
    #[inline(always)]
    fn refund<P: Pool>(&self, pool: &mut P, frames: usize) {
        self.purse.put(frames, &mut Frames(pool));
    }

    /// Who may cache its translations.
    #[must_use]
    #[inline(always)]
    pub fn tlb(&self) -> &SpaceTlb {
        &self.tlb
    }

    /// The frame of its root table.
    #[must_use]
    pub fn root(&self) -> FrameId {
        self.root
    }

    /// How frames are reached.
    #[must_use]
    pub fn memory(&self) -> M {
        self.memory
    }

    /// The low bits of the id, as frames' words have them.
    #[inline(always)]
    fn short_id(&self) -> u64 {
        self.tlb.id().raw() & 0x1f_ffff
    }

    /// Ends an empty space: gives back its root and the memory of its records. Every core has forgotten it (X5).
    ///
    /// # Errors
    /// The space itself, if something is mapped: unmap everything first, or [`Space::dismantle`] it, step by step.
    #[expect(clippy::result_large_err, reason = "rare, and there is nowhere to box it")]
    pub fn close<P: Pool>(self, pool: &mut P) -> Result<(), Self> {
        if self.memory.info(self.root).table().count() != 0 {
            return Err(self);
        }
        self.records.destroy(&self.purse, pool);
        self.give_frame(pool, self.root, self.roots);
        debug_assert_eq!(self.purse.in_use(), 0, "A8: what a space has taken, it has given back");
        self.purse.close(&mut Frames(pool));
        Ok(())
    }
}
