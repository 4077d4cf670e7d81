//! Memory: physical frames per NUMA node, and the heap for cold paths on top of them.
//!
//! * [`id`]: frame numbers, block orders, ranges, zones.
//! * [`frames`]: the frame allocator; [`bench`]: what its benchmark rows do.
//! * [`slab`]: kernel objects, with a magazine on each core; [`bank`]: who pays for memory.
//! * [`heap`]: allocation of any size for cold paths.
//! * [`virt`]: virtual pages and ranges of them.
//!
//! `unsafe` is confined to the placing of tables in memory that the caller gives, and to slabs and heap.
#![cfg_attr(not(test), no_std)]

#[cfg(test)]
extern crate std;

pub mod bank;
pub mod bench;
mod carve;
mod error;
pub mod frames;
pub mod heap;
pub mod id;
pub mod slab;
pub mod virt;

pub use error::FrameError;
pub use frames::{CoreCache, Frames};
pub use id::{FrameId, Order, PhysRange, Zone};
pub use virt::{PageId, PageRange, PageSize};
