//! Addresses that a user program has named: claimed, then checked, then copied.
//!
//! A *claim* is whatever stood in a register: nothing can be reached through it. [`UserSlice::check`] and [`UserPtr::check`] turn it into
//! a *checked* address, which lies in the user half whole, and the kernel's copy routines take nothing else.
//!
//! * **U1** The bytes that a checked address names lie below [`USER_END`].
//!
//! Whether anything is mapped there is known only while it is copied. No reference is ever made to user memory: the program may
//! change it, or unmap it, at any moment.

use core::fmt;
use core::marker::PhantomData;

use crate::virt::{PAGE_BYTES, USER_PAGES};

/// The address after the user half: 2^47.
pub const USER_END: usize = USER_PAGES * PAGE_BYTES;

/// The first address of the kernel's half; between the halves no address is canonical.
const KERNEL_START: usize = USER_END.wrapping_neg();

/// Why a claim is refused. All are the caller's mistake; nothing has been accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum UserError {
    /// Address and length together exceed the address space.
    Overflow,
    /// A byte lies between the halves, where no address is canonical.
    NotCanonical,
    /// The first byte lies in the kernel's half.
    Kernel,
    /// The address is not a multiple of the value's alignment.
    Misaligned,
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overflow => "the range runs over the end of the address space",
            Self::NotCanonical => "the range touches addresses that are not canonical",
            Self::Kernel => "the range begins in the kernel's half",
            Self::Misaligned => "the address is not aligned",
        })
    }
}

impl core::error::Error for UserError {}

/// Whether bytes from an address on lie in the user half, all of them. An empty range is judged by its address.
#[inline(always)]
const fn check(address: usize, bytes: usize) -> Result<(), UserError> {
    // One comparison each on the way that nearly every claim goes; why a claim is bad is found out apart.
    match address.checked_add(bytes) {
        Some(end) if end <= USER_END => Ok(()),
        sum => Err(refusal(address, sum)),
    }
}

#[cold]
const fn refusal(address: usize, end: Option<usize>) -> UserError {
    match end {
        None => UserError::Overflow,
        Some(_) if address >= KERNEL_START => UserError::Kernel,
        Some(_) => UserError::NotCanonical,
    }
}

/// A claim: so many bytes from an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserSlice {
    address: usize,
    bytes: usize,
}

impl UserSlice {
    /// The claim that two registers make.
    #[must_use]
    #[inline(always)]
    pub const fn new(address: usize, bytes: usize) -> Self {
        Self { address, bytes }
    }

    /// Checks the claim.
    ///
    /// # Errors
    /// Any [`UserError`] but `Misaligned`.
    #[inline(always)]
    pub const fn check(self) -> Result<CheckedSlice, UserError> {
        match check(self.address, self.bytes) {
            Ok(()) => Ok(CheckedSlice { address: self.address, bytes: self.bytes }),
            Err(error) => Err(error),
        }
    }
}

/// So many bytes of the user half (U1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckedSlice {
    address: usize,
    bytes: usize,
}

impl CheckedSlice {
    /// The first address.
    #[must_use]
    #[inline(always)]
    pub const fn address(self) -> usize {
        self.address
    }

    /// How many bytes.
    #[must_use]
    #[inline(always)]
    pub const fn len(self) -> usize {
        self.bytes
    }

    /// Whether there is no byte.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// The part before byte `at`, and the part from it on; nothing if the slice is shorter.
    #[must_use]
    #[inline]
    pub const fn split_at(self, at: usize) -> Option<(Self, Self)> {
        match self.bytes.checked_sub(at) {
            Some(rest) => {
                let first = Self { address: self.address, bytes: at };
                Some((first, Self { address: self.address + at, bytes: rest }))
            }
            None => None,
        }
    }
}

/// A claim: a value of type `T` at an address.
pub struct UserPtr<T> {
    address: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> UserPtr<T> {
    /// The claim that a register makes.
    #[must_use]
    #[inline(always)]
    pub const fn new(address: usize) -> Self {
        Self { address, of: PhantomData }
    }

    /// Checks the claim.
    ///
    /// # Errors
    /// Any [`UserError`].
    #[inline(always)]
    pub const fn check(self) -> Result<CheckedPtr<T>, UserError> {
        if let Err(error) = check(self.address, size_of::<T>()) {
            return Err(error);
        }
        if !self.address.is_multiple_of(align_of::<T>()) {
            return Err(UserError::Misaligned);
        }
        Ok(CheckedPtr { address: self.address, of: PhantomData })
    }
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserPtr({:#x})", self.address)
    }
}

/// The place of a `T` in the user half (U1), aligned.
pub struct CheckedPtr<T> {
    address: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> CheckedPtr<T> {
    /// The address.
    #[must_use]
    #[inline(always)]
    pub const fn address(self) -> usize {
        self.address
    }
}

impl<T> Clone for CheckedPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for CheckedPtr<T> {}

impl<T> fmt::Debug for CheckedPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckedPtr({:#x})", self.address)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{KERNEL_START, USER_END, UserError, UserPtr, UserSlice};
    use proptest::prelude::{Just, Strategy, any, prop_oneof};
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::format;

    /// Addresses and lengths near every edge, and any other.
    fn edge() -> impl Strategy<Value = usize> {
        let edges = prop_oneof![Just(0), Just(USER_END), Just(KERNEL_START), Just(usize::MAX), Just(1 << 63)];
        prop_oneof![
            4 => (edges, -70_isize..70).prop_map(|(edge, by)| edge.wrapping_add_signed(by)),
            1 => any::<usize>(),
            1 => 0_usize..USER_END,
        ]
    }

    /// The same judgement in arithmetic that cannot overflow, over the first and the last byte.
    fn naive(address: usize, bytes: usize) -> Result<(), UserError> {
        let (address, end) = (address as u128, address as u128 + bytes as u128);
        if end > usize::MAX as u128 {
            return Err(UserError::Overflow);
        }
        if address >= KERNEL_START as u128 {
            return Err(UserError::Kernel);
        }
        if end > USER_END as u128 { Err(UserError::NotCanonical) } else { Ok(()) }
    }

    proptest! {
        #[test]
        fn slices_agree_with_wide_arithmetic(address in edge(), bytes in edge()) {
            let checked = UserSlice::new(address, bytes).check();
            prop_assert_eq!(checked.map(|_| ()), naive(address, bytes));
            if let Ok(slice) = checked {
                prop_assert_eq!((slice.address(), slice.len()), (address, bytes));
                prop_assert!(address + bytes <= USER_END);
            }
        }

        #[test]
        fn pointers_agree_with_slices(address in edge()) {
            let aligned = if address.is_multiple_of(8) { Ok(address) } else { Err(UserError::Misaligned) };
            let expected = naive(address, 8).and(aligned);
            prop_assert_eq!(UserPtr::<u64>::new(address).check().map(|ptr| ptr.address()), expected);
            prop_assert_eq!(UserPtr::<u8>::new(address).check().is_ok(), address < USER_END);
        }

        #[test]
        fn parts_make_up_the_whole(bytes in 0_usize..100, at in 0_usize..120) {
            let slice = UserSlice::new(USER_END - 100, bytes).check().unwrap();
            match slice.split_at(at) {
                None => prop_assert!(at > bytes),
                Some((first, rest)) => {
                    prop_assert_eq!((first.address(), first.len()), (slice.address(), at));
                    prop_assert_eq!((rest.address(), rest.len()), (slice.address() + at, bytes - at));
                }
            }
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let refused = |address, bytes| UserSlice::new(address, bytes).check().unwrap_err();
        assert_eq!(refused(USER_END, 1), UserError::NotCanonical);
        assert_eq!(refused(USER_END - 1, 2), UserError::NotCanonical, "runs out of the half");
        assert_eq!(refused(KERNEL_START, 0), UserError::Kernel, "even an empty range");
        assert_eq!(refused(usize::MAX, 1), UserError::Overflow);
        assert_eq!(refused(4096, usize::MAX), UserError::Overflow);
        assert!(UserSlice::new(USER_END, 0).check().is_ok(), "nothing is accessed");
        assert!(format!("{}", UserError::Kernel).contains("kernel"));
    }
}
