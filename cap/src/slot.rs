//! Slots and leaves: the memory of a table.

use crate::LEAF_SLOTS;
use crate::tree::Node;
use crate::word::{Meta, SlotId};
use core::ptr;
use percpu::const_fn;
use percpu::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Room for one capability.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `meta` | the inserter publishes, one deleter takes; the family says that there is a node | all | Release / Acquire |
/// | `object` | the inserter before it publishes; whoever puts it on the free list: the next free slot | all, between two looks at `meta` | Release / Acquire |
/// | `badge` | the inserter before it publishes | as `object` | Release / Acquire |
/// | `node` | who has the lock of the object's family | the same | Relaxed |
#[derive(Debug)]
#[repr(C, align(32))]
pub(crate) struct Slot {
    meta: AtomicU64,
    object: AtomicU64,
    badge: AtomicU64,
    node: AtomicPtr<Node>,
}

/// A frame of slots. A table fills it before it uses it.
#[derive(Debug)]
#[cfg_attr(not(loom), repr(C, align(4096)))]
pub struct Leaf {
    slots: [Slot; LEAF_SLOTS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 32 && size_of::<Leaf>() == 4096);

#[cfg(not(loom))]
impl Slot {
    /// Where the words lie.
    pub(crate) const META: usize = core::mem::offset_of!(Self, meta);
    /// As `META`.
    pub(crate) const OBJECT: usize = core::mem::offset_of!(Self, object);
    /// As `META`.
    pub(crate) const BADGE: usize = core::mem::offset_of!(Self, badge);
}

impl Slot {
    const_fn! {
        const fn new(number: usize) -> Self {
            Self {
                meta: AtomicU64::new(Meta::dead(SlotId::new(number), 0).0),
                object: AtomicU64::new(0),
                badge: AtomicU64::new(0),
                node: AtomicPtr::new(ptr::null_mut()),
            }
        }
    }

    #[inline(always)]
    pub(crate) fn meta(&self) -> Meta {
        // ORDER: Acquire pairs with Release in `publish`: what is loaded after this is of this capability or of a later one.
        Meta(self.meta.load(Ordering::Acquire))
    }

    /// The object's word. Whose it is, [`still`](Self::still) tells afterwards.
    #[inline(always)]
    pub(crate) fn object(&self) -> u64 {
        // ORDER: Acquire pairs with Release in `publish` and `set_link`: who sees a later word also sees that the capability has gone.
        self.object.load(Ordering::Acquire)
    }

    /// The badge, as [`object`](Self::object).
    #[inline(always)]
    pub(crate) fn badge(&self) -> u64 {
        // ORDER: Acquire pairs with Release in `publish`, as for `object`.
        self.badge.load(Ordering::Acquire)
    }

    /// Whether the slot has held this capability until now.
    #[inline(always)]
    pub(crate) fn still(&self, meta: Meta) -> bool {
        // ORDER: Relaxed: the Acquire loads of `object` and `badge`, or the caller's own, keep it behind them.
        self.meta.load(Ordering::Relaxed) == meta.0
    }

    /// Fills the slot, which the caller has claimed (C1), and opens it to lookups.
    #[inline]
    pub(crate) fn publish(&self, meta: Meta, object: u64, badge: u64) {
        // ORDER: Release pairs with Acquire in `object`: a reader that meets this word then sees that the last capability has gone, which
        // happened before the slot was claimed.
        self.object.store(object, Ordering::Release);
        // ORDER: Release pairs with Acquire in `badge`: likewise.
        self.badge.store(badge, Ordering::Release);
        // ORDER: Release pairs with Acquire in `meta`.
        self.meta.store(meta.0, Ordering::Release);
    }

    /// Takes the capability out: true for exactly one caller (C5).
    #[inline]
    pub(crate) fn take(&self, meta: Meta, dead: Meta) -> bool {
        // ORDER: Relaxed: `meta` was loaded with Acquire, and the head of the free list orders this before the slot's next use.
        self.meta.compare_exchange(meta.0, dead.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Says that the capability, which had no node, now has one: with the family's lock. False if it has gone.
    #[inline]
    pub(crate) fn tie(&self, meta: Meta, tied: Meta) -> bool {
        // ORDER: Release pairs with Acquire in `meta`: whoever sees it sees the words that were there before. Relaxed on failure: gone.
        self.meta.compare_exchange(meta.0, tied.0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// The node, for who has the family's lock; null for a capability that has none.
    #[inline]
    pub(crate) fn node(&self) -> *mut Node {
        // ORDER: Relaxed: under the lock.
        self.node.load(Ordering::Relaxed)
    }

    /// Says which node is the capability's: with the family's lock.
    #[inline]
    pub(crate) fn set_node(&self, node: *mut Node) {
        // ORDER: Relaxed: under the lock; a slot's next user comes by the head of the free list.
        self.node.store(node, Ordering::Relaxed);
    }

    /// Makes a free slot look as if it had been used up to a generation.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn age(&self, meta: Meta) {
        // ORDER: Relaxed: by the test's only thread.
        self.meta.store(meta.0, Ordering::Relaxed);
    }

    /// The free slot after this one.
    #[inline]
    pub(crate) fn link(&self) -> SlotId {
        // ORDER: Relaxed: the free list's head, loaded with Acquire, orders it.
        SlotId(self.object.load(Ordering::Relaxed) as u16)
    }

    /// Says which free slot comes after this one, which the caller owns (C1).
    #[inline]
    pub(crate) fn set_link(&self, next: SlotId) {
        // ORDER: Release pairs with Acquire in `object`, as in `publish`.
        self.object.store(u64::from(next.0), Ordering::Release);
    }
}

impl Leaf {
    /// The first leaf, empty: what the empty leaf of all tables holds.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        let mut slots = [const { Slot::new(0) }; LEAF_SLOTS];
        let mut i = 0;
        while i < LEAF_SLOTS {
            slots[i] = Slot::new(i);
            i += 1;
        }
        Self { slots }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self { slots: core::array::from_fn(Slot::new) }
    }

    /// Makes it as [`Leaf::new`], whatever it held and wherever it is to be: a dead slot's kind does not depend on the leaf. It is the
    /// caller's alone.
    pub(crate) fn clear(&self) {
        for (number, slot) in self.slots.iter().enumerate() {
            // ORDER: Relaxed: shown to nobody before it is published in the root.
            slot.meta.store(Meta::dead(SlotId::new(number), 0).0, Ordering::Relaxed);
            // ORDER: Relaxed: as above.
            slot.node.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub(crate) fn slot(&self, slot: SlotId) -> &Slot {
        &self.slots[slot.in_leaf()]
    }
}
