//! Capabilities: what a process may do, and to what.
//!
//! A [`Table`] turns the handles of one process into objects. Threads on any cores look up, insert, derive, move and delete at the same time;
//! a lookup writes nothing and waits for nobody. Who descends from whom is known across tables (`tree`), so that it can be revoked; that
//! takes the lock of an object's *family*. What an object is, and where memory comes from, is the kernel's ([`Memory`]).
//!
//! * C1: a slot is changed only by who took it off the free list, until its capability is published; then by who deletes it.
//! * C2: a slot without a live capability holds the code of no kind; one with has zeros between rights and generation. A handle cannot be
//!   forged so that it makes up for either: it meets the former in bits that choose the slot, and the latter must be zeros in it too.
//! * C3: a generation of a slot is live once, and generation 0 never; a slot whose generations are used up is never used again.
//! * C4: the words of a live slot do not change, but for what says that it has a node now. Readers look at `meta` before and after the
//!   others, so all are of one capability.
//! * C5: a live slot owns one reference to its object: the inserter's, and after its deletion the deleter's.
//! * C6: with the family's lock, a live capability that was derived, or was derived of, has a node in a tour between the ends of those it
//!   descends from; it is published with the lock, and only if its source was live then. A free slot has no node.
//! * C7: that a root has a node now is said in `meta`, with the lock: who takes it out takes either one that has none, and will have none,
//!   or knows that it has.
//! * C8: a slot whose node is in a tour is not on the free list, so its table is not drained; nobody touches the table after putting it there.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod change;
mod drain;
mod memory;
mod pass;
mod revoke;
mod slot;
mod table;
mod ticket;
mod tree;
mod word;

#[cfg(all(test, loom))]
mod family_models;
#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod scene;
#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(not(loom))]
pub mod assembly;

pub use change::{Capability, Gone};
pub use drain::Drained;
pub use memory::{LeafAt, Memory, NodeAt, TableAt};
pub use pass::Refusal;
pub use revoke::{Attached, Purged, Sentence, expire, purge};
pub use slot::Leaf;
pub use table::{Entry, Found, Table};
pub use ticket::Ticket;
pub use tree::{Doomed, Family, Node};

/// Slots of a table. Slot 0 is never used: its number ends the free list.
pub const SLOTS: usize = ROOT_ENTRIES * LEAF_SLOTS;

/// Slots of a leaf; models have room for few.
const LEAF_BITS: u32 = if cfg!(loom) { 1 } else { 7 };
const LEAF_SLOTS: usize = 1 << LEAF_BITS;
/// Leaves of a table.
const ROOT_BITS: u32 = if cfg!(loom) { 1 } else { 9 };
const ROOT_ENTRIES: usize = 1 << ROOT_BITS;
