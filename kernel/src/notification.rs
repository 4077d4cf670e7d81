//! Notifications: a word of bits that are set without waiting, and waited for.

use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use percpu::Held;
use percpu::sync::atomic::{AtomicU64, Ordering};

use crate::object::{Header, Object};
use crate::{slabs, wait};

/// A word of bits, and whoever waits for one of them.
#[repr(C)]
pub(crate) struct Notification {
    header: Header,
    bits: AtomicU64,
}

const _: () = assert!(offset_of!(Notification, header) == 0, "N2: the header comes first");

/// Sets bits; whoever waits is woken, and takes them.
pub(crate) fn signal(held: &mut Held<'_, 0>, notification: &Notification, bits: u64) {
    // ORDER: Release pairs with Acquire where they are taken.
    notification.bits.fetch_or(bits, Ordering::Release);
    wait::wake(held, wait::Key::object(NonNull::from_ref(notification)), 1, 0, 0);
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Notification {
    const KIND: ObjectKind = ObjectKind::Notification;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        slabs::give(held, object);
    }
}
