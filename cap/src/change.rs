//! Putting capabilities into a table and taking them out.

use crate::SLOTS;
use crate::memory::{LeafAt, Memory, NodeAt};
use crate::slot::Slot;
use crate::table::{self, Table};
use crate::tree::Node;
use crate::word::{Head, Meta, SlotId};
use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use core::ptr;
use percpu::sync::atomic::Ordering;

/// A capability to be put into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is for.
    pub kind: ObjectKind,
    /// What it allows.
    pub rights: Rights,
    /// The word by which the kernel knows the object.
    pub object: u64,
    /// The word that is told to whoever asks for it.
    pub badge: u64,
}

/// A reference to an object that a table no longer owns: the caller's to give up (C5).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the reference is the caller's to give up"]
pub struct Gone {
    /// What the capability was for.
    pub kind: ObjectKind,
    /// What it allowed.
    pub rights: Rights,
    /// The word that the inserter gave for the object.
    pub object: u64,
}

impl<M: Memory> Table<M> {
    /// Puts a capability in. The table takes over one reference to the object, which the caller has made; after an error it is still the
    /// caller's. Rights that do not exist are left out.
    ///
    /// # Errors
    /// [`Error::NoSlot`] at the limit, or when the table is closed; [`Error::NoMemory`].
    pub fn insert(&self, capability: Capability) -> Result<Handle, Error> {
        let slot = self.claim()?;
        Ok(self.publish(slot, capability))
    }

    /// Takes a capability out. Of several callers one succeeds, and has the reference. What was derived of it is from now on derived of what
    /// it was derived of.
    ///
    /// # Errors
    /// [`Error::BadHandle`].
    pub fn delete(&self, handle: Handle) -> Result<Gone, Error> {
        let slot = self.slot(handle);
        let id = SlotId::of(handle);
        loop {
            let meta = slot.meta();
            let kind = meta.kind(handle).ok_or(Error::BadHandle)?;
            // Read before, because afterwards the slot is somebody else's; right if the capability is still there then (C4).
            let object = slot.object();
            if !slot.take(meta, Meta::dead(id, meta.generation())) {
                // Deleted by another, or given a node, which happens once.
                continue;
            }
            if meta.has_node(handle) {
                self.uproot(slot, object);
            }
            self.put(id);
            return Ok(Gone { kind, rights: meta.rights(handle), object });
        }
    }

    /// Takes the node of a capability that the caller has taken out, and whose reference it has, out of its tour.
    #[cold]
    fn uproot(&self, slot: &Slot, object: u64) {
        let node = self.memory.family(object).with(&self.memory, |tours| {
            let node = slot.node();
            slot.set_node(ptr::null_mut());
            tours.remove(node);
            node
        });
        self.memory.give_node(NodeAt::new(node));
    }

    /// Fills a slot that the caller has claimed, for a capability that has no node.
    pub(crate) fn publish(&self, id: SlotId, capability: Capability) -> Handle {
        let handle = self.next_handle(id);
        let meta = Meta::live(id, handle.generation(), capability.kind, capability.rights);
        self.slot_at(id).publish(meta, capability.object, capability.badge);
        handle
    }

    /// As [`publish`](Self::publish) for one that has a node: with the family's lock.
    ///
    /// `handle` is the slot's [next](Self::next_handle).
    #[inline]
    pub(crate) fn publish_tied(&self, handle: Handle, capability: Capability, node: *mut Node) {
        let (slot, id) = (self.slot(handle), SlotId::of(handle));
        slot.set_node(node);
        let meta = Meta::live(id, handle.generation(), capability.kind, capability.rights).with_node(id);
        slot.publish(meta, capability.object, capability.badge);
    }

    /// The handle that a slot will have which the caller has claimed.
    pub(crate) fn next_handle(&self, id: SlotId) -> Handle {
        // C3: a slot whose last generation was the largest is on no list.
        id.handle(self.slot_at(id).meta().generation() + 1)
    }

    /// Claims a slot: from the free list, or one that was never used.
    pub(crate) fn claim(&self) -> Result<SlotId, Error> {
        // ORDER: Acquire pairs with Release in `replace`: the first slot's link is seen.
        let mut head = Head(self.counters.head.load(Ordering::Acquire));
        loop {
            let first = head.first();
            // Another thread may have claimed it and filled it; then the head has changed.
            let next = if first == SlotId::NONE { first } else { self.slot_at(first).link() };
            let claimed = head.claim(self.limit, next).ok_or(Error::NoSlot)?;
            match self.replace(head, claimed) {
                Ok(()) if first == SlotId::NONE => return self.claim_fresh(),
                Ok(()) => return Ok(first),
                Err(now) => head = now,
            }
        }
    }

    /// As [`claim`](Self::claim) from the free list, if there is one and nobody else is at it.
    #[inline(always)]
    pub(crate) fn claim_free(&self) -> Option<(SlotId, &Slot)> {
        // ORDER: Acquire pairs with Release in `replace`: the first slot's link is seen.
        let head = Head(self.counters.head.load(Ordering::Acquire));
        let first = head.first();
        if first == SlotId::NONE {
            return None;
        }
        let slot = self.slot_at(first);
        let claimed = head.claim(self.limit, slot.link())?;
        self.replace(head, claimed).ok()?;
        Some((first, slot))
    }

    /// A slot that was never used, for a caller whom the head already counts.
    fn claim_fresh(&self) -> Result<SlotId, Error> {
        let fresh = &self.counters.fresh;
        // ORDER: Relaxed: a guess, which the exchange below verifies.
        let mut number = fresh.load(Ordering::Relaxed);
        loop {
            if let Err(error) = self.place(number) {
                self.update(Head::retire);
                return Err(error);
            }
            // ORDER: Relaxed: only numbers are handed out; the leaf is ordered by its place in the root.
            match fresh.compare_exchange_weak(number, number + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(SlotId::new(number)),
                Err(now) => number = now,
            }
        }
    }

    /// Sees to it that there is a leaf for a slot.
    fn place(&self, number: usize) -> Result<(), Error> {
        if number >= SLOTS {
            return Err(Error::NoSlot);
        }
        let entry = self.root_entry(SlotId::new(number).leaf());
        let empty = table::empty();
        // ORDER: Relaxed: whether a leaf is there; `slot_at` loads it again.
        if !ptr::eq(entry.load(Ordering::Relaxed), empty) {
            return Ok(());
        }
        let leaf = self.memory.take().ok_or(Error::NoMemory)?.as_ptr();
        self.memory.leaf(LeafAt::new(leaf)).clear();
        // ORDER: Release pairs with Acquire in `slot_at`. Relaxed on failure: another has been quicker, and this one was shown to nobody.
        if entry.compare_exchange(empty, leaf, Ordering::Release, Ordering::Relaxed).is_err() {
            self.memory.give_back(LeafAt::new(leaf));
        }
        Ok(())
    }

    /// Gives up a slot that the caller has claimed, and which is not live.
    pub(crate) fn put(&self, id: SlotId) {
        let slot = self.slot_at(id);
        if slot.meta().generation() == u32::MAX {
            return self.update(Head::retire);
        }
        self.update(|head| {
            slot.set_link(head.first());
            head.put(id)
        });
    }

    fn update(&self, change: impl Fn(Head) -> Head) {
        // ORDER: Relaxed: a guess, which the exchange verifies.
        let mut head = Head(self.counters.head.load(Ordering::Relaxed));
        while let Err(now) = self.replace(head, change(head)) {
            head = now;
        }
    }

    fn replace(&self, old: Head, new: Head) -> Result<(), Head> {
        // ORDER: Release pairs with Acquire in `claim`, on failure here, and in `drain`: links are seen, and who changed a slot is done with
        // it. Later exchanges continue the release sequence, so whoever claims a slot sees its own putting. Not Acquire: `claim` has loaded
        // this very head with Acquire, and others follow no link. Acquire on failure: `claim` goes on with what it gets.
        let exchanged =
            self.counters.head.compare_exchange_weak(old.0, new.0, Ordering::Release, Ordering::Acquire);
        exchanged.map(drop).map_err(Head)
    }
}
