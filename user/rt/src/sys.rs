//! A stub for each system call, made from the kernel's own table. Addresses are plain numbers here; [`crate::handle`] has types.

use abi::cap::Handle;
use abi::error::Error;

use crate::arch;

/// What a call answers: the value in `rdx`, or why not.
pub type Answer = Result<u64, Error>;

#[inline(always)]
fn answer((status, value): (u64, u64)) -> Answer {
    if status == 0 { Ok(value) } else { Err(failure(status)) }
}

/// The error of a status. A number that this build does not know can only come from a newer kernel.
#[cold]
fn failure(status: u64) -> Error {
    Error::decode(status).unwrap_or(Error::Unsupported)
}

macro_rules! argument_type {
    (Handle) => {
        Handle
    };
    ($other:ident) => {
        u64
    };
}

macro_rules! argument_word {
    (Handle $argument:ident) => {
        $argument.0
    };
    ($other:ident $argument:ident) => {
        $argument
    };
}

macro_rules! enter {
    ($n:literal) => {
        arch::call0($n)
    };
    ($n:literal, $a:expr) => {
        arch::call1($n, $a)
    };
    ($n:literal, $a:expr, $b:expr) => {
        arch::call2($n, $a, $b)
    };
    ($n:literal, $a:expr, $b:expr, $c:expr) => {
        arch::call3($n, $a, $b, $c)
    };
    ($n:literal, $a:expr, $b:expr, $c:expr, $d:expr) => {
        arch::call4($n, $a, $b, $c, $d)
    };
    ($n:literal, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => {
        arch::call5($n, $a, $b, $c, $d, $e)
    };
    ($n:literal, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        arch::call6($n, $a, $b, $c, $d, $e, $f)
    };
}

macro_rules! stubs {
    ($( $(#[doc = $text:literal])* $number:literal $name:ident $variant:ident ( $($argument:ident : $kind:ident),* ) -> $value:literal; )*) => { $(
        $(#[doc = $text])*
        ///
        /// # Errors
        /// As the call's description says.
        ///
        /// # Safety
        /// 1. Addresses are of memory that the call may read or write, and that no reference forbids it to.
        /// 2. What it unmaps, protects or maps anew is not used as it was before.
        #[inline(always)]
        pub unsafe fn $name($($argument: argument_type!($kind)),*) -> Answer {
            // SAFETY: the caller's promise (1, 2).
            answer(unsafe { enter!($number $(, argument_word!($kind $argument))*) })
        }
    )* };
}

abi::for_each_syscall!(stubs);

/// Any call with any arguments, status and value as they come: for what is not a stub's business, as fuzzing and the reason of a
/// `BadImage`.
///
/// # Safety
/// 1. As for the stub of that call.
#[inline]
pub unsafe fn raw(number: u64, [a, b, c, d, e, f]: [u64; 6]) -> (u64, u64) {
    // SAFETY: the caller's promise (1).
    unsafe { arch::call6(number, a, b, c, d, e, f) }
}
