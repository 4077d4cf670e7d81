//! Blocks of frames from the host's allocator, a limited number of them, and who has taken which.

use core::alloc::Layout;
use core::ptr::NonNull;
use mm::Order;
use mm::slab::Pages;
use std::alloc;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    left: usize,
    core: usize,
    /// By address: bytes, and who has it.
    out: BTreeMap<usize, (usize, usize)>,
}

/// See the module comment.
#[derive(Clone)]
pub(crate) struct Host(Arc<Mutex<State>>);

fn layout(order: Order) -> Layout {
    let bytes = order.frames() * 4096;
    Layout::from_size_align(bytes, bytes).expect("a block has a layout")
}

impl Host {
    pub(crate) fn new(left: usize) -> Self {
        Self(Arc::new(Mutex::new(State { left, ..State::default() })))
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().expect("no test panics inside"))
    }

    /// From now on this core takes.
    pub(crate) fn turn(&self, core: usize) {
        self.with(|state| state.core = core);
    }

    pub(crate) fn left(&self) -> usize {
        self.with(|state| state.left)
    }

    pub(crate) fn frames(&self) -> usize {
        self.with(|state| state.out.values().map(|&(bytes, _)| bytes / 4096).sum())
    }

    pub(crate) fn all_blocks(&self) -> usize {
        self.with(|state| state.out.len())
    }

    pub(crate) fn blocks(&self, core: usize) -> usize {
        self.with(|state| state.out.values().filter(|&&(_, owner)| owner == core).count())
    }

    pub(crate) fn owner(&self, at: usize) -> Option<usize> {
        self.with(|state| {
            let (start, &(bytes, core)) = state.out.range(..=at).next_back()?;
            (at < start + bytes).then_some(core)
        })
    }
}

// SAFETY: the host's allocator gives memory with just these properties.
unsafe impl Pages for Host {
    fn take(&self, order: Order) -> Option<NonNull<u8>> {
        self.with(|state| {
            state.left = state.left.checked_sub(1)?;
            // SAFETY: a block is not empty.
            let block = NonNull::new(unsafe { alloc::alloc(layout(order)) })?;
            state.out.insert(block.addr().get(), (layout(order).size(), state.core));
            Some(block)
        })
    }

    unsafe fn give(&self, start: NonNull<u8>, order: Order) {
        self.with(|state| {
            state.left += 1;
            let known = state.out.remove(&start.addr().get()).map(|(bytes, _)| bytes);
            assert_eq!(known, Some(layout(order).size()), "a block goes back as it came");
        });
        // SAFETY: taken above with the same layout.
        unsafe { alloc::dealloc(start.as_ptr(), layout(order)) };
    }
}
