//! Memory: physical frames per NUMA node, the heap for cold paths on top of them, and TLB shootdown.
//!
//! * [`id`]: frame numbers, block orders, ranges, zones.
//! * [`frames`]: the frame allocator; [`bench`]: what its benchmark rows do.
//! * [`slab`]: kernel objects, with a magazine on each core; [`bank`]: who pays for memory.
//! * [`heap`]: allocation of any size for cold paths.
//! * [`image`]: what an ELF file wants mapped.
//! * [`space`]: address spaces: regions, faults, page tables, memory objects.
//! * [`tlb`]: which core may hold translations of which space, and how they are taken back.
//! * [`virt`]: virtual pages and ranges of them.
//! * [`user`]: addresses that a user program has named, and the check that makes them usable.
//!
//! `unsafe` is confined to memory that is used as what it is not typed as (tables, page tables, slabs, heap) and to messages between cores.
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
#[cfg(not(loom))]
pub mod image;
pub mod slab;
#[cfg(not(loom))]
pub mod space;
/// Of address spaces, loom knows the words of frames.
#[cfg(all(test, loom))]
mod space {
    #[expect(dead_code, unreachable_pub, reason = "the models use a part, and nobody else any")]
    mod info;
    mod models;
}
pub mod tlb;
pub mod user;
pub mod virt;

pub use error::FrameError;
pub use frames::{CoreCache, Frames};
pub use id::{FrameId, Order, PhysRange, Zone};
pub use tlb::{Batch, SpaceId, SpaceTlb};
pub use virt::{PageId, PageRange, PageSize};
