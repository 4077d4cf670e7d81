//! The objects a core has retired and not yet given back.

use super::protocol::Scan;
use super::word::Epoch;
use crate::lock::Held;
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};

/// Gives an object back.
///
/// # Safety
/// 1. Called once per retirement, with the retired object's link, when nobody can reach the object any more.
pub type Reclaim = unsafe fn(NonNull<Retired>, &mut Held<'_, 0>);

/// The link of a retired object, embedded in the object.
#[derive(Debug)]
#[repr(C)]
pub struct Retired {
    link: UnsafeCell<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    next: *mut Retired,
    reclaim: Option<Reclaim>,
    ripe: Epoch,
}

const _: () = assert!(size_of::<Retired>() == 24);

// SAFETY: the link is used only by the core that retired the object, under `&mut Limbo`.
unsafe impl Send for Retired {}
// SAFETY: as above; a shared reference gives no access.
unsafe impl Sync for Retired {}

impl Retired {
    /// A link of an object in use.
    #[must_use]
    pub const fn new() -> Self {
        Self { link: UnsafeCell::new(Link { next: ptr::null_mut(), reclaim: None, ripe: Epoch::FIRST }) }
    }
}

impl Default for Retired {
    fn default() -> Self {
        Self::new()
    }
}

/// A core's retired objects, oldest first; only the core itself touches it.
#[derive(Debug)]
pub(super) struct Limbo {
    oldest: *mut Retired,
    newest: *mut Retired,
    pub(super) scan: Scan,
}

impl Limbo {
    pub(super) const fn new() -> Self {
        Self { oldest: ptr::null_mut(), newest: ptr::null_mut(), scan: Scan::NEW }
    }

    #[cfg(not(loom))]
    pub(super) fn is_empty(&self) -> bool {
        self.oldest.is_null()
    }

    /// Appends an object; epochs only grow, so the list is in order of ripeness.
    ///
    /// # Safety
    /// 1. Obligations 1 and 2 of [`retire`](super::retire).
    pub(super) unsafe fn push(&mut self, object: NonNull<Retired>, reclaim: Reclaim, ripe: Epoch) {
        let link = Link { next: ptr::null_mut(), reclaim: Some(reclaim), ripe };
        // SAFETY: the object is valid (obligation 1), and only this list uses its link.
        unsafe { Self::write(object, link) };
        match NonNull::new(self.newest) {
            None => self.oldest = object.as_ptr(),
            Some(before) => {
                // SAFETY: objects in the list are valid (obligation 1 of their push).
                let link = unsafe { Self::read(before) };
                // SAFETY: as above.
                unsafe { Self::write(before, Link { next: object.as_ptr(), ..link }) };
            }
        }
        self.newest = object.as_ptr();
    }

    /// Takes out the oldest object if it is ripe.
    pub(super) fn pop_ripe(&mut self, global: Epoch) -> Option<(NonNull<Retired>, Reclaim)> {
        let object = NonNull::new(self.oldest)?;
        // SAFETY: objects in the list are valid.
        let link = unsafe { Self::read(object) };
        if global < link.ripe {
            return None;
        }
        self.oldest = link.next;
        if self.oldest.is_null() {
            self.newest = ptr::null_mut();
        }
        Some((object, link.reclaim.expect("E4: a retired object has its callback")))
    }

    /// # Safety
    /// 1. `object` is valid and its link used by this list only.
    unsafe fn read(object: NonNull<Retired>) -> Link {
        // SAFETY: obligation 1.
        let cell = unsafe { object.as_ref() };
        // SAFETY: nobody else has the link (obligation 1).
        unsafe { *cell.link.get() }
    }

    /// # Safety
    /// 1. `object` is valid and its link used by this list only.
    unsafe fn write(object: NonNull<Retired>, link: Link) {
        // SAFETY: obligation 1.
        let cell = unsafe { object.as_ref() };
        // SAFETY: nobody else has the link (obligation 1).
        unsafe { *cell.link.get() = link };
    }
}
