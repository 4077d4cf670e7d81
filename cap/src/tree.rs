//! Who was derived of whom: a tour through each tree of capabilities.
//!
//! A tour is a list in which every capability stands twice, where it opens and where it closes; what was derived of it stands in between. So
//! a descendant of any depth is found in one step, and whoever goes leaves what it had in between to the one around it.
//!
//! The families of an object share a lock and a list of what is *doomed*: pieces of tours, cut out by revocations, whose capabilities go one
//! by one. Roots without children have no node and are in no tour.
//!
//! After the Euler tours of R. E. Tarjan, U. Vishkin, "An efficient parallel biconnectivity algorithm" (SIAM J. Computing 14, 1985).

use crate::change::Gone;
use crate::memory::{Memory, NodeAt, TableAt};
use crate::table::Table;
use crate::ticket::Ticket;
use crate::word::{Meta, SlotId};
use abi::cap::Handle;
use core::ptr::{self, NonNull};
use percpu::const_fn;
use percpu::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// A capability's place in the tour. A table fills it before it uses it.
///
/// Everything is written and read with the family's lock, but for a new node.
///
/// | field | says |
/// |---|---|
/// | `open`, `close` | neighbours of both ends |
/// | `table`, `handle` | where the capability is; null once it is out of the tour |
/// | `timer` | what was attached to it, or null |
///
/// C9: what is in a tour names its slot.
#[derive(Debug)]
#[repr(C)]
#[cfg_attr(not(loom), repr(align(64)))]
pub struct Node {
    open: Ties,
    close: Ties,
    table: AtomicPtr<()>,
    handle: AtomicU64,
    timer: AtomicPtr<()>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Node>() == 64, "a node is a line");

#[derive(Debug)]
struct Ties {
    before: AtomicPtr<Node>,
    after: AtomicPtr<Node>,
}

impl Ties {
    fn new() -> Self {
        Self { before: AtomicPtr::new(ptr::null_mut()), after: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl Node {
    /// One that is in no tour.
    #[must_use]
    pub fn new() -> Self {
        let (table, timer) = (AtomicPtr::new(ptr::null_mut()), AtomicPtr::new(ptr::null_mut()));
        Self { open: Ties::new(), close: Ties::new(), table, handle: AtomicU64::new(0), timer }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a tour passes a capability: the address of its node, plus 1 where it closes. Null beyond both ends of a tour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End(*mut Node);

impl End {
    const NONE: Self = Self(ptr::null_mut());

    fn open(node: *mut Node) -> Self {
        Self(node)
    }

    fn close(node: *mut Node) -> Self {
        Self(node.wrapping_byte_add(1))
    }

    fn is_none(self) -> bool {
        self.0.is_null()
    }

    fn node(self) -> *mut Node {
        if self.closes() { self.0.wrapping_byte_sub(1) } else { self.0 }
    }

    fn closes(self) -> bool {
        self.0.addr() & 1 != 0
    }
}

/// Where the list begins of what is doomed among the capabilities for an object. Kept with the object, beside the lock.
#[derive(Debug)]
#[repr(transparent)]
pub struct Doomed(AtomicPtr<Node>);

impl Doomed {
    const_fn! {
        /// Nothing.
        #[must_use]
        pub const fn new() -> Self {
            Self(AtomicPtr::new(ptr::null_mut()))
        }
    }

    fn first(&self) -> End {
        // ORDER: Relaxed: under the lock.
        End(self.0.load(Ordering::Relaxed))
    }

    fn set_first(&self, end: End) {
        // ORDER: Relaxed: under the lock.
        self.0.store(end.0, Ordering::Relaxed);
    }
}

impl Default for Doomed {
    fn default() -> Self {
        Self::new()
    }
}

/// What the capabilities for an object share.
#[derive(Clone, Copy, Debug)]
pub struct Family<'a> {
    /// Guards every node of theirs, and `doomed`.
    pub lock: &'a Ticket,
    /// What is on its way out.
    pub doomed: &'a Doomed,
}

impl<'a> Family<'a> {
    /// Runs `f` on the tours, with the lock held. `memory` knows the nodes.
    #[inline]
    pub(crate) fn with<M: Memory, R>(self, memory: &'a M, f: impl FnOnce(Tours<'a, M>) -> R) -> R {
        self.lock.with(|| f(Tours { memory, doomed: self.doomed }))
    }
}

/// The tours of an object's families, for who has the lock.
pub(crate) struct Tours<'a, M> {
    memory: &'a M,
    doomed: &'a Doomed,
}

/// What [`Tours::pop`] comes to.
pub(crate) enum Pop<'a, M: Memory> {
    /// Nothing is doomed.
    Empty,
    /// Somebody else has just deleted it.
    Lost,
    /// Taken out.
    Taken(Taken<'a, M>),
}

/// A capability that was taken out of its slot and of the tour. What is left to do needs no lock.
#[must_use = "its slot, its node and its reference are to be given up"]
pub(crate) struct Taken<'a, M: Memory> {
    table: &'a Table<M>,
    id: SlotId,
    node: *mut Node,
    gone: Gone,
}

impl<M: Memory> Taken<'_, M> {
    /// Gives up slot and node; the reference goes to the caller.
    pub(crate) fn settle(self) -> Gone {
        self.table.memory.give_node(NodeAt::new(self.node));
        // The last access to a table that may be another process's (C8).
        self.table.put(self.id);
        self.gone
    }
}

impl<'a, M: Memory> Tours<'a, M> {
    fn node(&self, node: *mut Node) -> &'a Node {
        self.memory.node(NodeAt::new(node))
    }

    fn ties(&self, end: End) -> &'a Ties {
        let node = self.node(end.node());
        if end.closes() { &node.close } else { &node.open }
    }

    fn before(&self, end: End) -> End {
        // ORDER: Relaxed: under the lock.
        End(self.ties(end).before.load(Ordering::Relaxed))
    }

    fn after(&self, end: End) -> End {
        // ORDER: Relaxed: under the lock.
        End(self.ties(end).after.load(Ordering::Relaxed))
    }

    /// Makes two ends neighbours; either may be none.
    fn join(&self, before: End, after: End) {
        if !before.is_none() {
            // ORDER: Relaxed: under the lock.
            self.ties(before).after.store(after.0, Ordering::Relaxed);
        }
        if !after.is_none() {
            // ORDER: Relaxed: under the lock.
            self.ties(after).before.store(before.0, Ordering::Relaxed);
        }
    }

    /// Takes a piece, from one end to another, out of what it is in; its outer ties stay as they were.
    fn cut(&self, first: End, last: End) {
        let (before, after) = (self.before(first), self.after(last));
        if self.doomed.first() == first {
            self.doomed.set_first(after);
        }
        self.join(before, after);
    }

    /// Makes a new node the tour of a root that has had no children.
    pub(crate) fn plant(&self, node: *mut Node, table: &Table<M>, handle: Handle) {
        // ORDER: Relaxed: under the lock.
        self.node(node).timer.store(ptr::null_mut(), Ordering::Relaxed);
        self.place(node, table, handle);
        self.join(End::NONE, End::open(node));
        self.join(End::open(node), End::close(node));
        self.join(End::close(node), End::NONE);
    }

    /// Makes a new node a child of another.
    #[inline]
    pub(crate) fn graft(&self, node: *mut Node, parent: *mut Node, table: &Table<M>, handle: Handle) {
        self.place(node, table, handle);
        let (own, above) = (self.node(node), self.node(parent));
        // ORDER: Relaxed: under the lock.
        own.timer.store(ptr::null_mut(), Ordering::Relaxed);
        let next = End(above.open.after.load(Ordering::Relaxed));
        // ORDER: as above. Which of its ends an end is, is known here, but not to `join`.
        above.open.after.store(End::open(node).0, Ordering::Relaxed);
        own.open.before.store(End::open(parent).0, Ordering::Relaxed);
        own.open.after.store(End::close(node).0, Ordering::Relaxed);
        own.close.before.store(End::open(node).0, Ordering::Relaxed);
        own.close.after.store(next.0, Ordering::Relaxed);
        // ORDER: as above. There is one: the parent's own end.
        self.ties(next).before.store(End::close(node).0, Ordering::Relaxed);
    }

    /// Says where a node's capability is.
    pub(crate) fn place(&self, node: *mut Node, table: &Table<M>, handle: Handle) {
        let node = self.node(node);
        // ORDER: Relaxed: under the lock.
        node.table.store(ptr::from_ref(table).cast_mut().cast(), Ordering::Relaxed);
        // ORDER: Relaxed: under the lock.
        node.handle.store(handle.0, Ordering::Relaxed);
    }

    /// Where a node's capability is; none for one that is in no tour.
    fn whereabouts(&self, node: *mut Node) -> Option<(&'a Table<M>, Handle)> {
        let node = self.node(node);
        // ORDER: Relaxed: under the lock.
        let table = node.table.load(Ordering::Relaxed);
        // ORDER: Relaxed: under the lock.
        let handle = Handle(node.handle.load(Ordering::Relaxed));
        (!table.is_null()).then(|| (self.memory.table(TableAt::new(table.cast())), handle))
    }

    /// Takes a node out, unless it is out; its children are now those of the one around it. Its timer is disarmed.
    pub(crate) fn remove(&self, node: *mut Node) {
        let own = self.node(node);
        // ORDER: Relaxed: under the lock.
        if own.table.swap(ptr::null_mut(), Ordering::Relaxed).is_null() {
            return;
        }
        // ORDER: Relaxed: under the lock.
        if own.open.after.load(Ordering::Relaxed) == End::close(node).0 {
            // No children: one piece.
            self.cut(End::open(node), End::close(node));
        } else {
            self.cut(End::close(node), End::close(node));
            self.cut(End::open(node), End::open(node));
        }
        self.attach(node, ptr::null_mut());
    }

    /// Attaches a timer, or none; the one before is disarmed.
    pub(crate) fn attach(&self, node: *mut Node, timer: *mut ()) {
        // ORDER: Relaxed: under the lock.
        let before = self.node(node).timer.swap(timer, Ordering::Relaxed);
        if let Some(before) = NonNull::new(before) {
            self.memory.disarm(before);
        }
    }

    /// A node's timer has run out, and is nobody's any more.
    pub(crate) fn detach(&self, node: *mut Node) {
        // ORDER: Relaxed: under the lock.
        self.node(node).timer.store(ptr::null_mut(), Ordering::Relaxed);
    }

    /// Dooms what was derived of a node.
    pub(crate) fn doom_children(&self, node: *mut Node) {
        let (first, last) = (self.after(End::open(node)), self.before(End::close(node)));
        if last != End::open(node) {
            self.doom(first, last);
        }
    }

    /// Dooms a node and what was derived of it; it comes first.
    pub(crate) fn doom_whole(&self, node: *mut Node) {
        self.doom(End::open(node), End::close(node));
    }

    fn doom(&self, first: End, last: End) {
        self.cut(first, last);
        self.join(last, self.doomed.first());
        self.join(End::NONE, first);
        self.doomed.set_first(first);
    }

    /// Whether something is doomed.
    pub(crate) fn any_doomed(&self) -> bool {
        !self.doomed.first().is_none()
    }

    /// Takes out the first of what is doomed.
    pub(crate) fn pop(&self) -> Pop<'a, M> {
        let node = self.doomed.first().node();
        if node.is_null() {
            return Pop::Empty;
        }
        let (table, handle) = self.whereabouts(node).expect("C9: what is in a tour names its slot");
        let (slot, id) = (table.slot(handle), SlotId::of(handle));
        let (meta, object) = (slot.meta(), slot.object());
        self.remove(node);
        let Some(kind) = meta.kind(handle) else { return Pop::Lost };
        if !slot.take(meta, Meta::dead(id, meta.generation())) {
            return Pop::Lost;
        }
        slot.set_node(ptr::null_mut());
        Pop::Taken(Taken { table, id, node, gone: Gone { kind, rights: meta.rights(handle), object } })
    }
}
