//! The kernel's slabs: memory of any size near the core that asks, and pages for caches of objects.
//!
//! What a core takes and gives stays on it: its part of every cache is core-local, its slabs lie on its node. Interrupts are off
//! around every call, which `IrqOff` proves.

use core::alloc::Layout;
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

/// Memory for one object of a type, near the core that calls; nothing is written to it.
pub(crate) fn take<T>(irq: &IrqOff) -> Option<NonNull<T>> {
    HERE.owned(irq).allocate(Layout::new::<T>()).ok().map(NonNull::cast)
}

/// Gives the memory of an object back, to whichever core it came from. The value in it is not dropped.
///
/// The object came from [`take`] of the same type, and nobody uses it any more; the slab notices most mistakes.
pub(crate) fn give<T>(irq: &IrqOff, object: NonNull<T>) {
    // SAFETY: what the kernel's objects are made of comes from `take` and is given back once, by whoever holds it alone (N1).
    let freed = unsafe { HERE.owned(irq).free(object.cast(), Layout::new::<T>()) };
    freed.expect("G10: an object goes back as it came");
}
