//! The kernel's heap: `mm::heap` over the frame allocator, behind a lock, as Rust's global allocator. For cold paths only.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use mm::Order;
use mm::heap::{Backing, Heap};
use percpu::{Held, IrqOff};
use x86_64::{PhysAddr, VirtAddr};

use crate::layout::{self, DIRECT};
use crate::{levels, memory};

/// Arenas from the frame allocator, near the core that needs one.
#[derive(Debug)]
pub(crate) struct Arenas;

// SAFETY: a block of frames is the taker's alone until it is put back, and the direct map shows it readable and writable.
unsafe impl Backing for Arenas {
    fn take(&mut self, order: Order) -> Option<NonNull<u8>> {
        let frame = IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.get(cache, order))).ok()?;
        NonNull::new(layout::direct(PhysAddr::new(frame.address())).as_mut_ptr())
    }

    fn give(&mut self, start: NonNull<u8>, order: Order) {
        let frame = mm::FrameId::containing(VirtAddr::from_ptr(start.as_ptr()).as_u64() - DIRECT.base);
        let put = IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.put(cache, frame, order)));
        put.expect("G9: an arena goes back as it came");
    }
}

struct Global;

#[global_allocator]
static GLOBAL: Global = Global;

/// Uses the heap. A chain of locks of its own, since code under any lower lock may allocate.
fn with<R>(f: impl FnOnce(&mut Heap<Arenas>) -> R) -> R {
    IrqOff::with(|irq| irq.locks(|held: &mut Held<'_, 0>| levels::HEAP.with(held, |heap, _| f(heap))))
}

// SAFETY: `Heap` hands out memory that is disjoint, aligned as asked and valid until freed; a failure is a null pointer.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        with(|heap| heap.allocate(layout)).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if let Some(start) = NonNull::new(start) {
            // SAFETY: the caller's obligation is that of `Heap::free`.
            with(|heap| unsafe { heap.free(start, layout) });
        }
    }
}

/// Takes the first arena, which holds the heap's tables and stays; `false` if there is no memory for it.
pub(crate) fn start() -> bool {
    let smallest = Layout::new::<u64>();
    with(|heap| {
        let Some(first) = heap.allocate(smallest) else { return false };
        // SAFETY: taken the line above with this layout.
        unsafe { heap.free(first, smallest) };
        true
    })
}

/// Arenas in use.
pub(crate) fn arenas() -> usize {
    with(|heap| heap.arenas())
}
