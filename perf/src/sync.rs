//! The atomics and cells of what programs share: `--cfg loom` swaps them for the model checker's.
//!
//! Programs and the runtime see `abi` and `perf` alone, so what `percpu::sync` is to the kernel, this module is to them: the only place
//! that names the raw atomics. Loom's constructors are not `const`; a constructor that must be is written inside
//! [`const_fn!`](crate::const_fn), which drops the `const` under loom.

/// Atomic integers, pointers, orderings and fences.
pub mod atomic {
    #[cfg(not(loom))]
    #[expect(clippy::disallowed_types, reason = "the place that names the raw atomics for programs")]
    mod raw {
        use core::sync::atomic;

        /// An 8-bit atomic.
        pub type AtomicU8 = atomic::AtomicU8;
        /// A 32-bit atomic.
        pub type AtomicU32 = atomic::AtomicU32;
        /// A 64-bit atomic.
        pub type AtomicU64 = atomic::AtomicU64;
        /// A pointer-sized atomic integer.
        pub type AtomicUsize = atomic::AtomicUsize;
        /// An atomic flag.
        pub type AtomicBool = atomic::AtomicBool;
        /// An atomic pointer.
        pub type AtomicPtr<T> = atomic::AtomicPtr<T>;

        pub use core::sync::atomic::{Ordering, fence};
    }

    #[cfg(loom)]
    mod raw {
        pub use loom::sync::atomic::{
            AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
        };
    }

    pub use raw::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
}

/// What to do inside a busy-wait loop.
pub mod hint {
    #[cfg(not(loom))]
    pub use core::hint::spin_loop;
    #[cfg(loom)]
    pub use loom::hint::spin_loop;
}

/// A cell whose accesses loom can check for races.
pub mod cell {
    /// An [`UnsafeCell`](core::cell::UnsafeCell) that is reached through closures, as loom's is.
    #[cfg(not(loom))]
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    #[cfg(not(loom))]
    impl<T> UnsafeCell<T> {
        /// A cell that holds `value`.
        pub const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer for reading.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer for writing.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    #[cfg(loom)]
    pub use loom::cell::UnsafeCell;
}

/// Declares a `const fn` that is an ordinary `fn` under `--cfg loom`, where atomics have no constant constructor.
#[macro_export]
macro_rules! const_fn {
    ($(#[$attribute:meta])* $visible:vis const fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$attribute])* $visible const fn $($rest)*
        #[cfg(loom)]
        $(#[$attribute])* $visible fn $($rest)*
    };
}
