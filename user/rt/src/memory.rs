//! Mappings, and the heap: the crate `talc` (boundary tags, binned free lists) on pages that are mapped when it runs out.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::slice;

use abi::task::Protection;
use perf::channel::Channel;
use talc::{OomHandler, Span, Talc};

use crate::handle::{Region, Result, Typed};
use crate::start::Start;
use crate::sync::atomic::{AtomicU32, AtomicU64};
use crate::sync::{Kernel, Mutex};
use crate::sys;

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Maps zeroed pages where the kernel likes; gives the address. They are taken when first touched.
///
/// # Errors
/// See `map`.
pub fn map(pages: usize) -> Result<NonNull<u8>> {
    let own = Start::get().process().handle();
    // SAFETY: address 0 has the kernel choose a range that nothing is mapped in.
    let address = unsafe { sys::map(own, 0, pages as u64, Protection::ReadWrite as u64) }?;
    Ok(NonNull::new(address as *mut u8).expect("M9: nothing is mapped at address 0"))
}

/// Unmaps pages.
///
/// # Errors
/// See `unmap`.
///
/// # Safety
/// 1. Nothing in them is used again.
pub unsafe fn unmap(start: NonNull<u8>, pages: usize) -> Result<()> {
    let own = Start::get().process().handle();
    // SAFETY: the caller's promise (1).
    unsafe { sys::unmap(own, start.as_ptr() as u64, pages as u64) }.map(drop)
}

/// Makes pages read-only for good: a guard that a runaway stack cannot write to, and that nothing else can be mapped into.
///
/// # Errors
/// See `protect`.
///
/// # Safety
/// 1. Nothing writes to them.
pub unsafe fn guard(start: NonNull<u8>, pages: usize) -> Result<()> {
    let own = Start::get().process().handle();
    // SAFETY: the caller's promise (1).
    unsafe { sys::protect(own, start.as_ptr() as u64, pages as u64, Protection::Read as u64) }.map(drop)
}

/// Maps a region as the channel to the kernel's harness, for as long as the program runs.
///
/// # Errors
/// See `region_map`.
pub fn channel(region: Region) -> Result<&'static Channel> {
    let start = map_region(region, 1)?;
    // SAFETY: no larger than the page that was mapped, which stays; atomics throughout, for which any bits are a value.
    Ok(unsafe { start.cast().as_ref() })
}

/// Maps a page of a region as words that several processes share, for as long as the program runs.
///
/// # Errors
/// See `region_map`.
pub fn words(region: Region) -> Result<&'static [AtomicU32; PAGE / 4]> {
    let start = map_region(region, 1)?;
    // SAFETY: as large as the page that was mapped, which stays; atomics, for which any bits are a value.
    Ok(unsafe { start.cast().as_ref() })
}

/// Maps the first pages of a region of device registers, for as long as the program runs. What is there changes by itself: it is read and
/// written as volatile.
///
/// # Errors
/// See `region_map`.
pub fn registers(region: Region, pages: usize) -> Result<NonNull<u8>> {
    map_region(region, pages)
}

/// Maps so many pages of a region as words that several processes share, for as long as the program runs.
///
/// # Errors
/// See `region_map`.
pub fn shared(region: Region, pages: usize) -> Result<&'static [AtomicU64]> {
    let start = map_region(region, pages)?;
    // SAFETY: as long as the pages that were mapped, which stay; atomics, for which any bits are a value.
    Ok(unsafe { slice::from_raw_parts(start.cast().as_ptr(), pages * PAGE / 8) })
}

/// Maps the first pages of a region, writable, where the kernel likes.
fn map_region(region: Region, pages: usize) -> Result<NonNull<u8>> {
    let (process, region) = (Start::get().process().handle(), region.handle());
    // SAFETY: address 0 has the kernel choose a range that nothing is mapped in.
    let address =
        unsafe { sys::region_map(process, region, 0, 0, pages as u64, Protection::ReadWrite as u64) }?;
    Ok(NonNull::new(address as *mut u8).expect("M9: nothing is mapped at address 0"))
}

/// Pages of the heap's first arena; each further one has twice as many, up to [`MAX_ARENA`].
const MIN_ARENA: usize = 64;
const MAX_ARENA: usize = 4096;
/// What `talc` needs of an arena for itself.
const OVERHEAD: usize = PAGE;

/// Maps arenas. They are never given back: a program ends with all it has.
struct Arenas {
    next: usize,
}

impl OomHandler for Arenas {
    fn handle_oom(talc: &mut Talc<Self>, layout: Layout) -> core::result::Result<(), ()> {
        let needed = layout.size().checked_add(layout.align()).and_then(|bytes| bytes.checked_add(OVERHEAD));
        let pages = talc.oom_handler.next.max(needed.ok_or(())?.div_ceil(PAGE));
        let start = map(pages).map_err(drop)?;
        talc.oom_handler.next = (pages * 2).min(MAX_ARENA);
        let span = Span::from_base_size(start.as_ptr(), pages * PAGE);
        // SAFETY: the pages were mapped just now for nothing else.
        unsafe { talc.claim(span) }.map(drop)
    }
}

/// The heap of a program.
struct Heap(Mutex<Talc<Arenas>, Kernel>);

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(Talc::new(Arenas { next: MIN_ARENA })));

// SAFETY: `talc` gives out memory of the layout asked for and once until it is freed; the mutex gives it one caller at a time.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise: the layout is not of size 0.
        let memory = unsafe { self.0.lock().malloc(layout) };
        memory.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: the caller's promise: allocated here with this layout, and not used again.
            unsafe { self.0.lock().free(memory, layout) };
        }
    }
}
