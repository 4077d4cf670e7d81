//! The atomics and cells of the workspace; `--cfg loom` swaps them for the model checker's.
//!
//! Everything of the kernel outside this module names `percpu::sync::atomic::…` (programs have `perf::sync`), so that every lock-free protocol can be
//! model-checked without a second version of its code. The names are type aliases on purpose: clippy's
//! `disallowed-types` then stops the raw types everywhere else and lets these through.
//!
//! Loom's constructors are not `const`. A constructor that must be `const` for statics is written inside
//! [`const_fn!`](crate::const_fn), which drops the `const` under loom.
//!
//! Run the models of a crate with `RUSTFLAGS="--cfg loom" cargo test -p <crate> --release --lib loom`.

/// Atomic integers, pointers, orderings and fences.
pub mod atomic {
    #[cfg(not(loom))]
    #[expect(clippy::disallowed_types, reason = "the one place that names the raw atomics")]
    mod raw {
        use core::sync::atomic;

        /// An 8-bit atomic.
        pub type AtomicU8 = atomic::AtomicU8;
        /// A 16-bit atomic.
        pub type AtomicU16 = atomic::AtomicU16;
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
            AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
        };
    }

    pub use raw::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// Stands between SeqCst accesses of different variables whose total order an argument needs. Loom takes SeqCst accesses for acquire and
/// release ones and knows the total order of fences only, so there it is a fence; elsewhere the accesses suffice and it is nothing.
#[inline(always)]
pub fn total_order() {
    #[cfg(loom)]
    // ORDER: SeqCst: stands for the SeqCst accesses on either side of the call.
    atomic::fence(atomic::Ordering::SeqCst);
}

/// What to do inside a busy-wait loop.
pub mod hint {
    #[cfg(not(any(loom, test)))]
    pub use core::hint::spin_loop;
    #[cfg(loom)]
    pub use loom::hint::spin_loop;
    /// This crate's own tests run more cores than the host may have processors.
    #[cfg(all(test, not(loom)))]
    pub use std::thread::yield_now as spin_loop;
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

        /// Takes the value out.
        pub fn into_inner(self) -> T {
            self.0.into_inner()
        }
    }

    #[cfg(loom)]
    pub use loom::cell::UnsafeCell;
}

/// Declares a `const fn` that is an ordinary `fn` under `--cfg loom`, where atomics have no constant constructor.
///
/// ```
/// use percpu::sync::atomic::AtomicU64;
/// pub struct Counter(AtomicU64);
/// impl Counter {
///     percpu::const_fn! {
///         /// A counter at zero.
///         pub const fn new() -> Self { Self(AtomicU64::new(0)) }
///     }
/// }
/// ```
#[macro_export]
macro_rules! const_fn {
    ($(#[$attribute:meta])* $visible:vis const fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$attribute])* $visible const fn $($rest)*
        #[cfg(loom)]
        $(#[$attribute])* $visible fn $($rest)*
    };
}
