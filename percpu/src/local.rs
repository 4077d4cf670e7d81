//! Core-local statics.
//!
//! [`core_local!`](crate::core_local) declares a static of which every core has its own copy. On the machine the statics live
//! in the linker section `.core_local`, a template between the symbols `__core_local_start` and `__core_local_end`; the kernel
//! copies it for each core onto the core's own node and hands the copy to `install`. The segment base of a core holds
//! (its copy − the template), so that a static's link address, read through the segment, is the core's copy of it.
//!
//! * L1: a core's copy, once registered, stays where it is for ever.
//! * L2: only its own core reaches a copy whose type is not `Sync`, and only with interrupts off.
//! * L3: the body of [`PerCpu::with_mut`] does not enter the same cell again.
//!
//! Before `install` a core with segment base 0 works on the template itself. Take the copies before that.

use crate::arch;
use crate::id::CoreId;
use crate::pin::{IrqOff, Pinned};
use core::cell::{Cell, UnsafeCell};
use core::fmt;

/// A static of which every core has its own copy; made by [`core_local!`](crate::core_local).
#[repr(transparent)]
pub struct PerCpu<T: 'static> {
    slot: arch::Slot<T>,
}

// SAFETY: without a witness nothing is reachable; `local` and `of` demand `T: Sync`, and what is not `Sync` is reached only
// by its own core with interrupts off (L2).
unsafe impl<T> Sync for PerCpu<T> {}

impl<T> PerCpu<T> {
    /// The template; called by [`core_local!`](crate::core_local), which puts it into the right section.
    #[doc(hidden)]
    #[cfg(target_os = "none")]
    pub const fn new(value: T) -> Self {
        Self { slot: arch::Slot::new(value) }
    }

    /// The template; called by [`core_local!`](crate::core_local).
    #[doc(hidden)]
    #[cfg(not(target_os = "none"))]
    pub const fn new(init: fn() -> T) -> Self {
        Self { slot: arch::Slot::new(init) }
    }

    /// This core's copy. Other cores may look at it and interrupts may come, so `T` is `Sync`.
    #[inline(always)]
    pub fn local<'p>(&'static self, _pin: &'p Pinned<'_>) -> &'p T
    where
        T: Sync,
    {
        // SAFETY: the pointer is this core's live copy (L1), shared only as `T: Sync` permits; the pin keeps it ours.
        unsafe { &*self.slot.own() }
    }

    /// This core's copy of a type that need not be `Sync`, such as a `Cell`: nobody else sees it.
    #[inline(always)]
    pub fn owned<'p>(&'static self, _irq: &'p IrqOff) -> &'p T {
        // SAFETY: the pointer is this core's live copy (L1). Without interrupts nothing else on this core runs while the
        // witness lives, and other cores reach only `Sync` types (L2).
        unsafe { &*self.slot.own() }
    }

    /// Another core's copy; `None` if that core has none yet.
    #[inline]
    pub fn of(&'static self, core: CoreId) -> Option<&'static T>
    where
        T: Sync,
    {
        // SAFETY: a registered copy lives for ever (L1), and `T: Sync` allows sharing it.
        self.slot.of(core).map(|copy| unsafe { &*copy })
    }
}

impl<T> fmt::Debug for PerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpu").finish_non_exhaustive()
    }
}

/// A core-local value that its core changes in place; see [`PerCpu::with_mut`].
#[derive(Debug, Default)]
pub struct CoreCell<T> {
    busy: Cell<bool>,
    value: UnsafeCell<T>,
}

impl<T> CoreCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        Self { busy: Cell::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `f` on the value; entering the same cell from within `f` panics (L3).
    #[inline(always)]
    pub fn with_mut<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        struct Leave<'a>(&'a Cell<bool>);
        impl Drop for Leave<'_> {
            #[inline(always)]
            fn drop(&mut self) {
                self.0.set(false);
            }
        }

        if self.busy.replace(true) {
            entered_twice();
        }
        let _leave = Leave(&self.busy);
        // SAFETY: `busy` was clear and is set now, so this is the only reference; the cell is not `Sync`.
        f(unsafe { &mut *self.value.get() })
    }
}

#[cold]
#[inline(never)]
fn entered_twice() -> ! {
    panic!("L3: a core-local cell is entered once at a time");
}

impl<T> PerCpu<CoreCell<T>> {
    /// Runs `f` with exclusive use of this core's value; entering it again from within `f` panics (L3).
    #[inline(always)]
    pub fn with_mut<R>(&'static self, irq: &IrqOff, f: impl FnOnce(&mut T) -> R) -> R {
        self.owned(irq).with_mut(f)
    }
}

/// Declares core-local statics.
///
/// ```
/// use core::cell::Cell;
/// use percpu::{IrqOff, core_local};
/// core_local! {
///     /// Ticks seen by this core.
///     static TICKS: Cell<u64> = Cell::new(0);
/// }
/// IrqOff::with(|irq| TICKS.owned(irq).set(1));
/// ```
#[macro_export]
macro_rules! core_local {
    ($($(#[$attribute:meta])* $visible:vis static $name:ident: $type:ty = $value:expr;)*) => {$(
        $(#[$attribute])*
        #[cfg_attr(target_os = "none", unsafe(link_section = ".core_local"))]
        $visible static $name: $crate::local::PerCpu<$type> =
            $crate::local::PerCpu::new($crate::__core_local_initial!($value));
    )*};
}

/// The argument of [`PerCpu::new`]: a value for the linker section on the machine, a function on the host.
#[cfg(target_os = "none")]
#[doc(hidden)]
#[macro_export]
macro_rules! __core_local_initial {
    ($value:expr) => {
        $value
    };
}

/// The argument of [`PerCpu::new`]: a value for the linker section on the machine, a function on the host.
#[cfg(not(target_os = "none"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __core_local_initial {
    ($value:expr) => {
        || $value
    };
}

#[cfg(target_os = "none")]
pub use machine::{activate, copy, install, register, template};

#[cfg(target_os = "none")]
mod machine {
    use crate::arch;
    use crate::id::CoreId;
    use core::ptr::NonNull;

    /// Where the template of the core-local statics starts, and how many bytes it has. Copies are aligned to a page, as some statics are.
    #[must_use]
    pub fn template() -> (NonNull<u8>, usize) {
        arch::template()
    }

    /// The copy of a core, if it has one.
    #[must_use]
    pub fn copy(core: CoreId) -> Option<NonNull<u8>> {
        arch::copy(core)
    }

    /// Makes `base` the copy of `core`: remote cores find it from now on. Any core may call this.
    ///
    /// # Safety
    /// 1. `base` is aligned to a page, writable, and holds a copy of the template that nobody has used yet.
    /// 2. It stays valid for ever (L1).
    /// 3. `core` had no copy before.
    pub unsafe fn register(core: CoreId, base: NonNull<u8>) {
        // SAFETY: the caller's obligations 1 to 3 are exactly the callee's.
        unsafe { arch::register(core, base) }
    }

    /// Points this core's segment base at its registered copy.
    ///
    /// # Safety
    /// 1. The caller runs on `core`, and no reference into another copy or the template is alive on it.
    /// 2. `core` is registered.
    pub unsafe fn activate(core: CoreId) {
        // SAFETY: the caller's obligations 1 and 2 are exactly the callee's.
        unsafe { arch::activate(core) }
    }

    /// [`register`] and [`activate`] at once, for the core that calls it.
    ///
    /// # Safety
    /// 1. Those of [`register`].
    /// 2. Those of [`activate`].
    pub unsafe fn install(core: CoreId, base: NonNull<u8>) {
        // SAFETY: obligation 1.
        unsafe { register(core, base) };
        // SAFETY: obligation 2; the line above has registered the core.
        unsafe { activate(core) };
    }
}
