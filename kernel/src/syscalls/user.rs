//! Structures and bytes in the caller's memory.

use abi::cap::CapInfo;
use abi::debug::{BUCKETS, COUNTERS, Metrics};
use abi::error::Error;
use abi::quota::{BankInfo, BankSpec, LeaseInfo, Limits};
use abi::task::{CoreInfo, CoreMask, Grant, ProcessInfo, ProcessSpec, SchedSpec, ThreadInfo, ThreadSpec};
use mm::user::{CheckedSlice, UserSlice};
use percpu::IrqOff;

use super::Result;
use crate::arch::usercopy;

/// A structure of the contract.
///
/// # Safety
/// 1. Made of integers without padding, so that all its bytes are values and any bytes are one.
pub(super) unsafe trait Plain: Copy + Default {}

/// Words of a [`Metrics`].
const METRICS_WORDS: usize = 4 + COUNTERS + 3 * BUCKETS;

macro_rules! plain {
    ($($name:ident $words:expr;)*) => {$(
        const _: () = assert!(size_of::<$name>() == $words * size_of::<u64>());
        // SAFETY: integers, whose sizes add up to the structure's, as `abi` asserts and the line above repeats.
        unsafe impl Plain for $name {}
    )*};
}

plain! {
    ThreadSpec 5;
    SchedSpec 5;
    ThreadInfo 8;
    ProcessSpec 11;
    ProcessInfo 16;
    Grant 3;
    CapInfo 2;
    CoreInfo 5;
    CoreMask 5;
    BankSpec 2;
    BankInfo 4;
    Limits 4;
    LeaseInfo 6;
    Metrics METRICS_WORDS;
}

/// A claim on the caller's memory.
///
/// # Errors
/// [`Error::BadAddress`].
#[inline(always)]
pub(super) fn claim(address: u64, bytes: u64) -> Result<CheckedSlice> {
    UserSlice::new(address as usize, bytes as usize).check().map_err(|_| Error::BadAddress)
}

/// Reads a structure.
///
/// # Errors
/// [`Error::BadAddress`].
pub(super) fn read<T: Plain>(irq: &mut IrqOff, address: u64) -> Result<T> {
    let mut value = T::default();
    // SAFETY: all bytes of a `Plain` value may be written with any bytes.
    let bytes = unsafe { core::slice::from_raw_parts_mut((&raw mut value).cast::<u8>(), size_of::<T>()) };
    usercopy::copy_in(irq, claim(address, size_of::<T>() as u64)?, bytes).map_err(|_| Error::BadAddress)?;
    Ok(value)
}

/// Writes a structure.
///
/// # Errors
/// [`Error::BadAddress`].
pub(super) fn write<T: Plain>(irq: &mut IrqOff, address: u64, value: &T) -> Result<()> {
    let at = claim(address, size_of::<T>() as u64)?;
    // SAFETY: all bytes of a `Plain` value are initialised.
    let bytes = unsafe { core::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) };
    usercopy::copy_out(irq, bytes, at).map_err(|_| Error::BadAddress)
}

/// Reads bytes.
///
/// # Errors
/// [`Error::BadAddress`].
pub(super) fn read_bytes(irq: &mut IrqOff, address: u64, to: &mut [u8]) -> Result<()> {
    usercopy::copy_in(irq, claim(address, to.len() as u64)?, to).map_err(|_| Error::BadAddress)
}

/// Writes bytes.
///
/// # Errors
/// [`Error::BadAddress`].
pub(super) fn write_bytes(irq: &mut IrqOff, address: u64, from: &[u8]) -> Result<()> {
    usercopy::copy_out(irq, from, claim(address, from.len() as u64)?).map_err(|_| Error::BadAddress)
}
