//! Handing capabilities on: derived ones, and those that move.

use crate::change::{Capability, Gone};
use crate::memory::{Memory, NodeAt};
use crate::table::{Entry, Table};
use crate::tree::{Node, Pop, Taken, Tours};
use crate::word::{Meta, SlotId};
use abi::cap::{Handle, Rights};
use abi::error::Error;
use core::ptr::{self, NonNull};

/// Why nothing was derived.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reference may have to be given up"]
pub struct Refusal {
    /// What the caller of the system call is told.
    pub error: Error,
    /// The reference that was acquired for nothing.
    pub reference: Option<Gone>,
}

impl Refusal {
    /// The error, after `give_up` has dealt with the reference if there is one.
    pub fn settle(self, give_up: impl FnOnce(Gone)) -> Error {
        if let Some(gone) = self.reference {
            give_up(gone);
        }
        self.error
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, reference: None }
    }
}

/// Doomed capabilities that a derivation takes out before it adds one. With two, there are less of a family after every derivation for as long
/// as anything is doomed in it, so no number of them keeps a revocation from its end.
const HELP: usize = 2;

/// Nodes that a derivation may need, taken before the lock is.
struct Nodes {
    child: *mut Node,
    /// For a source that has none yet.
    parent: *mut Node,
}

/// What a derivation makes.
struct Child {
    id: SlotId,
    capability: Capability,
}

impl<M: Memory> Table<M> {
    /// Makes another capability of one that has `GRANT`, in this table or in another: for the same object, with those of its rights that
    /// are in `rights`. `acquire` makes the reference that the new one, which it is shown, owns; it returns false if the object has no
    /// reference any more (it is readable, but being taken down), and it may be called for a capability that is just being deleted.
    /// `sink` gets references of doomed capabilities that go by the way.
    ///
    /// The new capability becomes visible only if the source was still there after `acquire`, which must be an Acquire operation, and
    /// together with its place in the family.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::MissingRight`], and those of [`insert`](Self::insert). The refusal holds the reference if it was made.
    pub fn derive(
        &self,
        from: Handle,
        into: &Self,
        (rights, badge): (Rights, u64),
        acquire: impl FnOnce(&Capability) -> bool,
        sink: impl FnMut(Gone),
    ) -> Result<Handle, Refusal> {
        self.derive_if(from, into, (rights, badge), |_| true, (acquire, sink))
    }

    /// As [`derive`](Self::derive), of what the other table may have.
    ///
    /// # Errors
    /// As there; [`Error::WrongState`] for what it may not.
    pub fn derive_if(
        &self,
        from: Handle,
        into: &Self,
        (rights, badge): (Rights, u64),
        may: impl FnOnce(&Entry) -> bool,
        (acquire, sink): (impl FnOnce(&Capability) -> bool, impl FnMut(Gone)),
    ) -> Result<Handle, Refusal> {
        let (entry, meta) = self.granting(from, may)?;
        let id = into.claim()?;
        let Some(mut nodes) = self.take_nodes(into, meta.has_node(from)) else {
            into.put(id);
            return Err(Error::NoMemory.into());
        };
        let Entry { kind, object, .. } = entry;
        let capability = Capability { kind, rights: entry.rights.and(rights), object, badge };
        let acquired = acquire(&capability);
        let made = if acquired {
            self.join_family((from, meta), into, Child { id, capability }, &mut nodes, sink)
        } else {
            None
        };
        self.give_nodes(into, &nodes);
        made.ok_or_else(|| {
            into.put(id);
            let gone = Gone { kind, rights: capability.rights, object };
            Refusal { error: Error::BadHandle, reference: acquired.then_some(gone) }
        })
    }

    /// Makes another capability of one that has `GRANT`, with all its rights and its badge: as [`derive`](Self::derive), in fewer steps, for a
    /// source that has a node while a slot is free and nothing is doomed. `None`, and nothing was done, if that is not so, or if there is
    /// nothing to be made: `derive` does the rest, or says why not. `take_node` is that of the other table's memory, for a caller who has one
    /// at hand.
    #[inline(always)]
    pub fn pass(
        &self,
        from: Handle,
        into: &Self,
        take_node: impl FnOnce() -> Option<NonNull<Node>>,
        acquire: impl FnOnce(&Capability) -> bool,
        give_up: impl FnOnce(Gone),
    ) -> Option<Handle> {
        let source = self.slot(from);
        let (Entry { kind, rights, object, badge }, meta) = source.entry(from).ok()?;
        if !rights.has(Rights::GRANT) || !meta.has_node(from) {
            return None;
        }
        let (id, slot) = into.claim_free()?;
        let Some(node) = take_node() else {
            into.put(id);
            return None;
        };
        if !acquire(&Capability { kind, rights, object, badge }) {
            into.put_back(id, node, || {});
            return None;
        }
        percpu::race_point!("cap.acquired");
        let made = self.memory.family(object).with(&self.memory, |tours| {
            // A live capability that has a node keeps it (C6).
            if tours.any_doomed() || source.meta() != meta {
                return None;
            }
            let handle = slot.meta().next_handle();
            tours.graft(node.as_ptr(), source.node(), into, handle);
            slot.set_node(node.as_ptr());
            slot.publish(meta.copied(from, handle), object, badge);
            Some(handle)
        });
        if made.is_none() {
            into.put_back(id, node, || give_up(Gone { kind, rights, object }));
        }
        made
    }

    #[cold]
    #[inline(never)]
    fn put_back(&self, id: SlotId, node: NonNull<Node>, give_up: impl FnOnce()) {
        self.memory.give_node(NodeAt::new(node.as_ptr()));
        self.put(id);
        give_up();
    }

    /// Moves a capability that has `GRANT` to another table, or to another slot of this one. It keeps its place in the family, its badge, its
    /// timer and its reference.
    ///
    /// It is never in both tables; nobody is told the new handle before it is there.
    ///
    /// # Errors
    /// [`Error::BadHandle`], [`Error::MissingRight`], and those of [`insert`](Self::insert): then it is where it was.
    pub fn move_to(&self, from: Handle, into: &Self) -> Result<Handle, Error> {
        self.move_if(from, into, |_| true)
    }

    /// As [`move_to`](Self::move_to), of what the other table may have.
    ///
    /// # Errors
    /// As there; [`Error::WrongState`] for what it may not.
    pub fn move_if(
        &self,
        from: Handle,
        into: &Self,
        may: impl FnOnce(&Entry) -> bool,
    ) -> Result<Handle, Error> {
        let (entry, meta) = self.granting(from, may)?;
        let id = into.claim()?;
        percpu::race_point!("cap.moving");
        let (source, old) = (self.slot(from), SlotId::of(from));
        let Entry { kind, rights, object, badge } = entry;
        let capability = Capability { kind, rights, object, badge };
        let moved = self.memory.family(object).with(&self.memory, |tours| {
            // It may have been given a node meanwhile; not from here on.
            let now = source.meta();
            if !now.is_same(meta) || !source.take(now, Meta::dead(old, now.generation())) {
                return None;
            }
            if !now.has_node(from) {
                return Some(into.publish(id, capability));
            }
            let node = source.node();
            source.set_node(ptr::null_mut());
            let handle = into.next_handle(id);
            tours.place(node, into, handle);
            into.publish_tied(handle, capability, node);
            Some(handle)
        });
        if moved.is_some() {
            self.put(old);
        } else {
            into.put(id);
        }
        moved.ok_or(Error::BadHandle)
    }

    /// A capability that may be handed on.
    #[inline(always)]
    fn granting(&self, from: Handle, may: impl FnOnce(&Entry) -> bool) -> Result<(Entry, Meta), Error> {
        let (entry, meta) = self.entry_meta(from)?;
        if !entry.rights.has(Rights::GRANT) {
            return Err(Error::MissingRight);
        }
        if may(&entry) { Ok((entry, meta)) } else { Err(Error::WrongState) }
    }

    /// A live capability that has a node keeps it, so none is needed for a source `with_node`.
    fn take_nodes(&self, into: &Self, with_node: bool) -> Option<Nodes> {
        let child = into.memory.take_node()?.as_ptr();
        if with_node {
            return Some(Nodes { child, parent: ptr::null_mut() });
        }
        let Some(parent) = self.memory.take_node() else {
            into.memory.give_node(NodeAt::new(child));
            return None;
        };
        Some(Nodes { child, parent: parent.as_ptr() })
    }

    /// Gives back those that were not needed.
    fn give_nodes(&self, into: &Self, nodes: &Nodes) {
        for (node, memory) in [(nodes.child, &into.memory), (nodes.parent, &self.memory)] {
            if !node.is_null() {
                memory.give_node(NodeAt::new(node));
            }
        }
    }

    /// Puts a child beneath its source, if that is still there; takes the nodes that it uses out of `nodes`.
    fn join_family(
        &self,
        (from, meta): (Handle, Meta),
        into: &Self,
        child: Child,
        nodes: &mut Nodes,
        mut sink: impl FnMut(Gone),
    ) -> Option<Handle> {
        let mut taken = None;
        percpu::race_point!("cap.acquired");
        let made = self.memory.family(child.capability.object).with(&self.memory, |tours| {
            if tours.any_doomed() {
                taken = Some(help(&tours));
            }
            let Some(parent) = self.parent(&tours, (from, meta), &mut nodes.parent) else {
                return orphan(into, child);
            };
            let node = core::mem::replace(&mut nodes.child, ptr::null_mut());
            let handle = into.next_handle(child.id);
            tours.graft(node, parent, into, handle);
            into.publish_tied(handle, child.capability, node);
            Some(handle)
        });
        if let Some(taken) = taken {
            taken.into_iter().flatten().for_each(|taken| sink(taken.settle()));
        }
        made
    }

    /// The node of a source that is still there (C6, C7); `spare` becomes it if it had none.
    pub(crate) fn parent(
        &self,
        tours: &Tours<'_, M>,
        (from, meta): (Handle, Meta),
        spare: &mut *mut Node,
    ) -> Option<*mut Node> {
        let source = self.slot(from);
        let now = source.meta();
        if !now.is_same(meta) {
            return None;
        }
        if now.has_node(from) {
            return Some(source.node());
        }
        if !source.tie(now, now.with_node(SlotId::of(from))) {
            return None;
        }
        let node = core::mem::replace(spare, ptr::null_mut());
        tours.plant(node, self, from);
        source.set_node(node);
        Some(node)
    }
}

/// A child whose source has gone before it was there.
#[cfg(not(feature = "late-derive"))]
fn orphan<M: Memory>(_: &Table<M>, _: Child) -> Option<Handle> {
    None
}

/// The planted bug: it is published nevertheless.
#[cfg(feature = "late-derive")]
fn orphan<M: Memory>(into: &Table<M>, child: Child) -> Option<Handle> {
    Some(into.publish(child.id, child.capability))
}

#[cold]
fn help<'a, M: Memory>(tours: &Tours<'a, M>) -> [Option<Taken<'a, M>>; HELP] {
    [(); HELP].map(|()| match tours.pop() {
        Pop::Taken(one) => Some(one),
        Pop::Empty | Pop::Lost => None,
    })
}
