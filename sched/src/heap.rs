//! An intrusive leftist heap with parent links: the least key is at the root; insertion, removal of any member and removal of the least
//! are O(log n) in the worst case, without allocation and without a bound on the members.
//!
//! The right spine of a leftist tree of n members has at most log2(n + 1) of them, and merging walks only right spines. After a removal
//! the ranks are mended upwards; that ends after as many steps, because each further step changes a rank that is one higher.
//! Source: C. A. Crane, "Linear lists and priority queues as balanced binary trees", 1972; D. E. Knuth, TAOCP vol. 3, §5.2.3.

use crate::NEVER;
use crate::task::{Entity, Links, Stem};
use core::cell::Cell;
use core::marker::PhantomData;

/// Which links of a member a heap uses; always the same for equal references.
pub trait Part<E> {
    /// Its neighbours below.
    fn links(e: &E) -> &Links<E>;
    /// Its key, and its neighbour above.
    fn stem(e: &E) -> &Stem<E>;
}

/// The links that the run queue uses too.
pub(crate) struct Run;

impl<E: Entity> Part<E> for Run {
    fn links(e: &E) -> &Links<E> {
        &e.task().links
    }
    fn stem(e: &E) -> &Stem<E> {
        &e.task().stem
    }
}

/// The links of the timeout.
pub(crate) struct Timeout;

impl<E: Entity> Part<E> for Timeout {
    fn links(e: &E) -> &Links<E> {
        &e.task().timeout_links
    }
    fn stem(e: &E) -> &Stem<E> {
        &e.task().timeout_stem
    }
}

/// A heap of what is due, the earliest first. Plain memory of its owner.
pub struct Heap<E, P> {
    root: Cell<Option<E>>,
    part: PhantomData<P>,
}

impl<E: Copy + Eq, P: Part<E>> Heap<E, P> {
    /// Nothing in it.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: Cell::new(None), part: PhantomData }
    }

    /// The one with the least key.
    #[inline]
    pub fn first(&self) -> Option<E> {
        self.root.get()
    }

    /// The least key; [`NEVER`] for an empty heap.
    #[inline]
    pub fn least(&self) -> u64 {
        self.root.get().map_or(NEVER, |e| P::stem(&e).key.get())
    }

    /// Adds `e`, which is in no heap by these links.
    pub fn insert(&self, e: E, key: u64) {
        let (links, stem) = (P::links(&e), P::stem(&e));
        links.next.set(None);
        links.prev.set(None);
        stem.parent.set(None);
        stem.key.set(key);
        stem.rank.set(1);
        self.root.set(merge::<E, P>(self.root.get(), Some(e)));
    }

    /// Takes the one with the least key out.
    pub fn pop(&self) -> Option<E> {
        let e = self.root.get()?;
        self.remove(e);
        Some(e)
    }

    /// Takes `e`, which is a member, out.
    pub fn remove(&self, e: E) {
        let parent = P::stem(&e).parent.get();
        let (left, right) = (P::links(&e).next.take(), P::links(&e).prev.take());
        for child in [left, right].into_iter().flatten() {
            P::stem(&child).parent.set(None);
        }
        let rest = merge::<E, P>(left, right);
        P::stem(&e).parent.set(None);
        P::stem(&e).rank.set(0);
        if let Some(rest) = rest {
            P::stem(&rest).parent.set(parent);
        }
        let Some(parent) = parent else {
            self.root.set(rest);
            return;
        };
        let side = if P::links(&parent).next.get() == Some(e) {
            &P::links(&parent).next
        } else {
            &P::links(&parent).prev
        };
        side.set(rest);
        let mut at = Some(parent);
        while let Some(node) = at {
            if !mend::<E, P>(node) {
                break;
            }
            at = P::stem(&node).parent.get();
        }
    }
}

impl<E: Copy + Eq, P: Part<E>> Default for Heap<E, P> {
    fn default() -> Self {
        Self::new()
    }
}

fn rank<E: Copy + Eq, P: Part<E>>(e: Option<E>) -> u32 {
    e.map_or(0, |e| P::stem(&e).rank.get())
}

/// Puts the child of higher rank left and sets the node's rank; whether that changed.
fn mend<E: Copy + Eq, P: Part<E>>(node: E) -> bool {
    let links = P::links(&node);
    let (left, right) = (rank::<E, P>(links.next.get()), rank::<E, P>(links.prev.get()));
    if left < right {
        links.next.swap(&links.prev);
    }
    let rank = left.min(right) + 1;
    P::stem(&node).rank.replace(rank) != rank
}

/// One tree of two, whose roots have no parents.
fn merge<E: Copy + Eq, P: Part<E>>(a: Option<E>, b: Option<E>) -> Option<E> {
    let (Some(a), Some(b)) = (a, b) else { return a.or(b) };
    let key = |e: E| P::stem(&e).key.get();
    let (root, mut other) = if key(b) < key(a) { (b, a) } else { (a, b) };
    let mut node = root;
    // Downwards: weave the right spines into one.
    while let Some(right) = P::links(&node).prev.get() {
        if key(other) < key(right) {
            P::links(&node).prev.set(Some(other));
            P::stem(&other).parent.set(Some(node));
            (node, other) = (other, right);
        } else {
            node = right;
        }
    }
    P::links(&node).prev.set(Some(other));
    P::stem(&other).parent.set(Some(node));
    // Upwards: mend the ranks along it.
    let mut at = Some(node);
    while let Some(node) = at {
        mend::<E, P>(node);
        at = P::stem(&node).parent.get();
    }
    Some(root)
}
