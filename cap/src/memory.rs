//! Where leaves come from: the kernel's part.

use crate::slot::Leaf;
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

/// Memory for leaves. A table has one of these, which may carry the quota that pays.
pub trait Memory {
    /// A leaf for the table alone: memory of a [`Leaf`]'s size and alignment, whatever it holds. `None` if memory or the quota is exhausted.
    fn take(&self) -> Option<NonNull<Leaf>>;

    /// The leaf itself. It is valid from [`take`](Self::take) until [`give_back`](Self::give_back), and longer: see there.
    fn leaf(&self, at: LeafAt) -> &Leaf;

    /// Takes back a leaf that this memory gave. Nobody writes to it any more, and no lookup that begins later finds it; one that began
    /// before may still read it, so its frame is to be kept until every core has left the kernel once.
    fn give_back(&self, leaf: LeafAt);
}
