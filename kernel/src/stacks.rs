//! Where each core's stacks are: a slot of [`layout::STACKS`] for each core, every stack above an unmapped guard page.
//!
//! ```text
//! slot + 0       guard   (4 KiB, as before every stack)
//!      + 4 KiB   main stack, 64 KiB
//!      + 68 KiB  guard, then the stack of the first IST vector, 8 KiB; likewise the second and the third
//! ```

use x86_64::VirtAddr;

use crate::arch::tables::IST_VECTORS;
use crate::layout::STACKS;
use percpu::{CoreId, MAX_CORES};

const PAGE: u64 = 4096;
/// Address space for each core.
const SLOT: u64 = 128 * 1024;
/// Stacks of a core: the main one and one for each IST vector.
pub(crate) const STACKS_PER_CORE: usize = 1 + IST_VECTORS.len();

const _: () = assert!(SLOT * MAX_CORES as u64 <= STACKS.size, "the stack region is too small for every core");
const _: () = assert!(offset(STACKS_PER_CORE) <= SLOT, "a slot is too small for its stacks");

/// Size of a stack in bytes: a power of two of pages, so that it is one block of frames.
pub(crate) const fn bytes(stack: usize) -> u64 {
    if stack == 0 { 16 * PAGE } else { 2 * PAGE }
}

/// Offset of a stack's lowest byte in its slot.
const fn offset(stack: usize) -> u64 {
    let mut at = PAGE;
    let mut i = 0;
    while i < stack {
        at += bytes(i) + PAGE;
        i += 1;
    }
    at
}

/// The lowest address of a stack.
pub(crate) fn base(core: CoreId, stack: usize) -> VirtAddr {
    VirtAddr::new(STACKS.base + core.index() as u64 * SLOT + offset(stack))
}

/// The address just above a stack.
pub(crate) fn top(core: CoreId, stack: usize) -> VirtAddr {
    base(core, stack) + bytes(stack)
}

/// Whether the address lies in a stack of a core below `cores` (G6).
pub(crate) fn contains(address: u64, cores: usize) -> bool {
    if !STACKS.contains(address) || (address - STACKS.base) / SLOT >= cores as u64 {
        return false;
    }
    let in_slot = (address - STACKS.base) % SLOT;
    (0..STACKS_PER_CORE).any(|s| (offset(s)..offset(s) + bytes(s)).contains(&in_slot))
}
