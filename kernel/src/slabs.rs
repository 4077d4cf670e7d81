//! The kernel's slabs: memory of any size near the core that asks, and pages for caches of objects.
//!
//! What a core takes and gives stays on it: its part of every cache is core-local, its slabs lie on its node. Interrupts are off
//! around every call, which `IrqOff` proves.

use core::ptr::NonNull;

use mm::slab::{LocalSizes, Pages, Sizes};
use mm::{FrameId, Order};
use percpu::{IrqOff, core_local};
use x86_64::{PhysAddr, VirtAddr};

use crate::layout::{self, DIRECT};
use crate::memory;

/// Frames near the calling core, through the direct map.
#[derive(Debug)]
pub(crate) struct Near;

// SAFETY: a block of frames is the taker's alone until it is put back, aligned to its size as the direct map is to more, and mapped
// readable and writable there.
unsafe impl Pages for Near {
    fn take(&self, order: Order) -> Option<NonNull<u8>> {
        let frame = IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.get(cache, order))).ok()?;
        NonNull::new(layout::direct(PhysAddr::new(frame.address())).as_mut_ptr())
    }

    unsafe fn give(&self, start: NonNull<u8>, order: Order) {
        let frame = FrameId::containing(VirtAddr::from_ptr(start.as_ptr()).as_u64() - DIRECT.base);
        let put = IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.put(cache, frame, order)));
        put.expect("G10: a slab goes back as it came");
    }
}

/// Memory of any size for the kernel.
pub(crate) static SIZES: Sizes<Near> = Sizes::new(Near);

core_local! {
    /// This core's part of it.
    pub(crate) static HERE: LocalSizes<'static, Near> = LocalSizes::new(&SIZES);
}

/// Lets the core that runs this take memory. Before its first allocation.
pub(crate) fn enter() {
    // SAFETY: a core's copy stays where it is for ever (L1).
    IrqOff::with(|irq| unsafe { HERE.owned(irq).enter() });
}
