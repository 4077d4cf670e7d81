//! Capabilities: what a process may do, and to what.
//!
//! A [`Table`] turns the handles of one process into objects. Threads on any cores look up, insert, derive and delete at the same time;
//! nobody waits for anybody, and a lookup writes nothing. What an object is, and where memory comes from, is the kernel's ([`Memory`]).
//!
//! * C1: a slot is changed only by who took it off the free list, until its capability is published; then by who deletes it.
//! * C2: a slot without a live capability holds the code of no kind; one with has zeros between rights and generation. A handle cannot be
//!   forged so that it makes up for either: it meets the former in bits that choose the slot, and the latter must be zeros in it too.
//! * C3: a generation of a slot is live once, and generation 0 never; a slot whose generations are used up is never used again.
//! * C4: the words of a live slot do not change. Readers look at `meta` before and after the others, so all are of one capability.
//! * C5: a live slot owns one reference to its object: the inserter's, and after its deletion the deleter's.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod change;
mod drain;
mod memory;
mod slot;
mod table;
mod word;

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
mod scene;
#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(not(loom))]
pub mod assembly;

pub use change::{Capability, Gone, Refusal};
pub use drain::Drained;
pub use memory::{LeafAt, Memory};
pub use slot::Leaf;
pub use table::{Entry, Found, Table};

/// Slots of a table. Slot 0 is never used: its number ends the free list.
pub const SLOTS: usize = ROOT_ENTRIES * LEAF_SLOTS;

/// Slots of a leaf; models have room for few.
const LEAF_BITS: u32 = if cfg!(loom) { 1 } else { 7 };
const LEAF_SLOTS: usize = 1 << LEAF_BITS;
/// Leaves of a table.
const ROOT_BITS: u32 = if cfg!(loom) { 1 } else { 9 };
const ROOT_ENTRIES: usize = 1 << ROOT_BITS;
