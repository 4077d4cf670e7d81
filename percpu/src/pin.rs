//! Witnesses: context is an argument, not a comment.
//!
//! * W1: while a [`Pinned`] is alive, its holder stays on the core it was made on. It is not `Send`.
//! * W2: while an [`IrqOff`] is alive, no maskable interrupt handler runs on its core.
//!
//! The kernel runs with interrupts off on one stack per core, so its entry points hold both from the start and hand
//! `&mut IrqOff` down. What `&mut` buys: a core waits for another core only with `&mut IrqOff`, and a lock
//! ([`crate::lock`]) borrows it, so waiting for a core that may want your lock does not compile.
//!
//! NMI and machine-check handlers interrupt even an `IrqOff` section: they may only touch `Sync` core-local data.

use crate::arch;
use crate::id::CoreId;
use core::marker::PhantomData;
use core::ops::Deref;

/// Proof that the holder does not migrate (W1).
#[derive(Debug)]
pub struct Pinned<'a>(PhantomData<(&'a (), *mut ())>);

impl Pinned<'_> {
    /// Claims a pin.
    ///
    /// # Safety
    /// 1. The calling context stays on this core until the witness is gone.
    #[must_use]
    #[inline(always)]
    pub const unsafe fn assume() -> Self {
        Self(PhantomData)
    }

    /// The core this code runs on.
    #[must_use]
    #[inline(always)]
    pub fn core(&self) -> CoreId {
        arch::current_core()
    }
}

/// Proof that interrupts are off on this core, and hence that the holder is pinned (W1, W2).
#[derive(Debug)]
pub struct IrqOff(Pinned<'static>);

impl IrqOff {
    /// Claims that interrupts are off: for entry points, where the hardware has turned them off.
    ///
    /// # Safety
    /// 1. Interrupts are off on this core and stay off until the witness is gone.
    #[must_use]
    #[inline(always)]
    pub const unsafe fn assume() -> Self {
        // SAFETY: without interrupts nothing can move the caller to another core (obligation 1).
        Self(unsafe { Pinned::assume() })
    }

    /// Runs `f` with interrupts off and restores the previous state.
    #[inline]
    pub fn with<R>(f: impl FnOnce(&mut Self) -> R) -> R {
        let saved = arch::irq_save();
        // SAFETY: `irq_save` has just turned interrupts off; they come back after `f`.
        let mut irq = unsafe { Self::assume() };
        let result = f(&mut irq);
        arch::irq_restore(saved);
        result
    }
}

impl Deref for IrqOff {
    type Target = Pinned<'static>;

    #[inline(always)]
    fn deref(&self) -> &Pinned<'static> {
        &self.0
    }
}

const _: () = assert!(size_of::<IrqOff>() == 0);

/// A pin never leaves its core:
///
/// ```compile_fail,E0277
/// fn send<T: Send>(_: T) {}
/// percpu::IrqOff::with(|irq| send(irq));
/// ```
#[cfg(doctest)]
struct PinIsNotSend;

#[cfg(test)]
mod tests {
    use super::IrqOff;

    #[test]
    fn nested_sections_agree_on_the_core() {
        IrqOff::with(|outer| IrqOff::with(|inner| assert_eq!(outer.core(), inner.core())));
    }
}
