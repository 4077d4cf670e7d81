//! What a table needs of the kernel: memory for leaves and nodes, and the way from an address to what lies there.

use crate::slot::Leaf;
use crate::table::Table;
use crate::tree::{Family, Node};
use core::ptr::NonNull;

/// A leaf as a table holds it. Only tables make these, from what [`Memory::take`] gave them and from a leaf of this crate's own that stays
/// empty, so an implementation of [`Memory::leaf`] can rely on what it gets.
#[derive(Debug)]
#[repr(transparent)]
pub struct LeafAt(*mut Leaf);

impl LeafAt {
    #[inline(always)]
    pub(crate) const fn new(at: *mut Leaf) -> Self {
        Self(at)
    }

    /// Where it is; never null.
    #[must_use]
    #[inline(always)]
    pub const fn pointer(&self) -> *mut Leaf {
        self.0
    }
}

/// A node as a tree holds it: one that [`Memory::take_node`] gave, and that has not been given back.
#[derive(Debug)]
#[repr(transparent)]
pub struct NodeAt(*mut Node);

impl NodeAt {
    #[inline(always)]
    pub(crate) const fn new(at: *mut Node) -> Self {
        Self(at)
    }

    /// Where it is; never null.
    #[must_use]
    #[inline(always)]
    pub const fn pointer(&self) -> *mut Node {
        self.0
    }
}

/// A table that a node names: that of a slot which is not free, so the table has not been drained.
#[derive(Debug)]
#[repr(transparent)]
pub struct TableAt<M: Memory>(*const Table<M>);

impl<M: Memory> TableAt<M> {
    pub(crate) const fn new(at: *const Table<M>) -> Self {
        Self(at)
    }

    /// Where it is; never null.
    #[must_use]
    pub const fn pointer(&self) -> *const Table<M> {
        self.0
    }
}

/// Memory for a table, and the kernel's knowledge of what lies where. A table has one of these, which may carry the quota that pays:
/// for leaves, and for at most one node for each capability, which goes along when that moves to another table.
pub trait Memory: Sized {
    /// A leaf for the table alone: memory of a [`Leaf`]'s size and alignment, whatever it holds. `None` if memory or the quota is exhausted.
    fn take(&self) -> Option<NonNull<Leaf>>;

    /// The leaf itself. It is valid from [`take`](Self::take) until [`give_back`](Self::give_back), and longer: see there.
    fn leaf(&self, at: LeafAt) -> &Leaf;

    /// Takes back a leaf that this memory gave. Nobody writes to it any more, and no lookup that begins later finds it; one that began
    /// before may still read it, so its frame is to be kept until every core has left the kernel once.
    fn give_back(&self, leaf: LeafAt);

    /// A node, whatever it holds. `None` if memory or the quota is exhausted.
    fn take_node(&self) -> Option<NonNull<Node>>;

    /// The node itself. It is valid from [`take_node`](Self::take_node) until [`give_node`](Self::give_node).
    fn node(&self, at: NodeAt) -> &Node;

    /// Takes back a node that this memory gave, or another that it shares nodes with. Nobody looks at it any more.
    fn give_node(&self, node: NodeAt);

    /// A table of a capability in the same family. It stays where it is from its first capability until it is drained.
    fn table(&self, at: TableAt<Self>) -> &Table<Self>;

    /// What the capabilities for an object share: one for each object, always the same. The object was in a live capability a moment ago.
    fn family(&self, object: u64) -> Family<'_>;

    /// The capability to which a timer was [attached](Table::attach) has gone. Called with the family's lock: it takes no lock.
    fn disarm(&self, timer: NonNull<()>);
}
