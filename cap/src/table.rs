//! The table, and looking things up in it.

use crate::memory::{LeafAt, Memory};
use crate::slot::{Leaf, Slot};
use crate::word::{Head, Meta, SlotId};
use crate::{ROOT_ENTRIES, SLOTS};
use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use core::ptr;
use percpu::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

#[cfg(not(loom))]
static EMPTY: Leaf = Leaf::new();
#[cfg(loom)]
loom::lazy_static! {
    static ref EMPTY: Leaf = Leaf::new();
}

/// What stands in the root where no leaf is: a leaf that stays empty, so that a lookup need not ask.
pub(crate) fn empty_leaf() -> &'static Leaf {
    &EMPTY
}

pub(crate) fn empty() -> *mut Leaf {
    ptr::from_ref(empty_leaf()).cast_mut()
}

/// What a lookup finds. The object outlives the kernel entry in which it was found, whatever becomes of the capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The word that the inserter gave.
    pub object: u64,
    /// Every right of the capability, those asked for among them.
    pub rights: Rights,
}

/// A capability of whatever kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is for.
    pub kind: ObjectKind,
    /// What it allows.
    pub rights: Rights,
    /// The word that the inserter gave for the object.
    pub object: u64,
    /// The word that is told to whoever asks for it.
    pub badge: u64,
}

/// The capabilities of a process.
///
/// The root lies in the table itself: 512 words, in which places without a leaf name one that stays empty. A leaf of 128 slots comes
/// when its first slot is needed, so a small process has one. A table that is dropped before it is drained keeps its leaves
/// and its references for ever.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `root` | inserters, once each; the last drainer | all | Release / Acquire | its own, hardly written |
/// | `head` | inserters, deleters | the same | AcqRel | with `fresh` |
/// | `fresh` | inserters while no slot is free; drainers | the same | Relaxed | with `head` |
/// | `cursor` | drainers | drainers | Relaxed | with `head` |
/// | `limit`, `memory` | the maker | all | – | after `head` |
#[derive(Debug)]
#[repr(C)]
pub struct Table<M: Memory> {
    root: Root,
    pub(crate) counters: Counters,
    pub(crate) limit: u16,
    pub(crate) memory: M,
}

#[derive(Debug)]
#[repr(C, align(64))]
struct Root([AtomicPtr<Leaf>; ROOT_ENTRIES]);

impl Root {
    /// A constant, not a loop: a loop would build the root on the stack and copy it from there.
    #[cfg(not(loom))]
    #[inline(always)]
    fn empty() -> Self {
        Self(const { [const { AtomicPtr::new((&raw const EMPTY).cast_mut()) }; ROOT_ENTRIES] })
    }

    #[cfg(loom)]
    fn empty() -> Self {
        Self([(); ROOT_ENTRIES].map(|()| AtomicPtr::new(empty())))
    }
}

#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Counters {
    pub(crate) head: AtomicU64,
    /// The lowest slot that was never used.
    pub(crate) fresh: AtomicUsize,
    /// Where draining goes on.
    pub(crate) cursor: AtomicUsize,
}

impl Slot {
    /// Everything about the capability that a handle of this slot names.
    #[inline(always)]
    pub(crate) fn entry(&self, handle: Handle) -> Result<(Entry, Meta), Error> {
        loop {
            let meta = self.meta();
            let (object, badge) = (self.object(), self.badge());
            let kind = meta.kind(handle).ok_or(Error::BadHandle)?;
            if self.still(meta) {
                return Ok((Entry { kind, rights: meta.rights(handle), object, badge }, meta));
            }
            // It has gone, or was given a node, which happens once.
        }
    }
}

impl<M: Memory> Table<M> {
    /// An empty table for up to `limit` capabilities, at most [`SLOTS`]` - 1`. Written where it is to stay at once, it is one copy of
    /// a constant root.
    #[must_use]
    #[inline(always)]
    pub fn new(memory: M, limit: usize) -> Self {
        Self {
            root: Root::empty(),
            counters: Counters {
                head: AtomicU64::new(Head::EMPTY.0),
                fresh: AtomicUsize::new(1),
                cursor: AtomicUsize::new(1),
            },
            limit: limit.min(SLOTS - 1) as u16,
            memory,
        }
    }

    /// Looks up a handle: the object, if the capability is of this kind and has these rights. Constant kinds and rights make it shortest.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::WrongType`] or [`Error::MissingRight`].
    #[inline(always)]
    pub fn lookup(&self, handle: Handle, kind: ObjectKind, rights: Rights) -> Result<Found, Error> {
        let slot = self.slot(handle);
        let meta = slot.meta();
        let object = slot.object();
        if slot.still(meta) && meta.matches(handle, kind, rights) {
            return Ok(Found { object, rights: meta.rights(handle) });
        }
        self.look_again(handle, kind, rights).map(|(found, _)| found)
    }

    /// As [`lookup`](Self::lookup), and the badge.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    #[inline(always)]
    pub fn lookup_badged(
        &self,
        handle: Handle,
        kind: ObjectKind,
        rights: Rights,
    ) -> Result<(Found, u64), Error> {
        let slot = self.slot(handle);
        let meta = slot.meta();
        let object = slot.object();
        let badge = slot.badge();
        if slot.still(meta) && meta.matches(handle, kind, rights) {
            return Ok((Found { object, rights: meta.rights(handle) }, badge));
        }
        self.look_again(handle, kind, rights)
    }

    /// Everything about a capability of whatever kind.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub fn entry(&self, handle: Handle) -> Result<Entry, Error> {
        self.entry_meta(handle).map(|(entry, _)| entry)
    }

    /// Slots in use: capabilities, and those that are just being made or deleted.
    #[must_use]
    pub fn count(&self) -> usize {
        // ORDER: Relaxed: a figure; nothing is read by it.
        usize::from(Head(self.counters.head.load(Ordering::Relaxed)).live())
    }

    /// The most that it can hold at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        usize::from(self.limit)
    }

    /// The memory that it was made with.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    pub(crate) fn entry_meta(&self, handle: Handle) -> Result<(Entry, Meta), Error> {
        self.slot(handle).entry(handle)
    }

    /// The slot that a handle names by the low bits of its index; the rest is for [`Meta::matches`] to compare.
    #[inline(always)]
    pub(crate) fn slot(&self, handle: Handle) -> &Slot {
        self.slot_at(SlotId::of(handle))
    }

    #[inline(always)]
    pub(crate) fn slot_at(&self, slot: SlotId) -> &Slot {
        // ORDER: Acquire pairs with Release in `place`: the leaf is cleared before it is seen.
        let leaf = self.root_entry(slot.leaf()).load(Ordering::Acquire);
        self.memory.leaf(LeafAt::new(leaf)).slot(slot)
    }

    #[inline(always)]
    pub(crate) fn root_entry(&self, leaf: usize) -> &AtomicPtr<Leaf> {
        &self.root.0[leaf]
    }

    /// What a lookup finds that has not found at the first look: mostly, why it finds nothing.
    #[cold]
    #[inline(never)]
    fn look_again(&self, handle: Handle, kind: ObjectKind, rights: Rights) -> Result<(Found, u64), Error> {
        let (entry, meta) = self.entry_meta(handle)?;
        if !meta.matches(handle, kind, rights) {
            return Err(meta.objection(handle, kind, rights));
        }
        Ok((Found { object: entry.object, rights: entry.rights }, entry.badge))
    }
}
