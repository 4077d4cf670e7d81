//! The part of the loader that never touches the machine, so that it can be tested on the host.
//!
//! The order of a boot is the order of the modules: [`start`] reads what the virtual machine passes, [`map`]
//! keeps the memory map that everything is carved from, [`bundle`] finds the files in the initrd, [`image`] plans
//! how the kernel is placed, [`requests`] finds what the kernel asks for, [`acpi`] finds the cores, [`paging`]
//! builds the kernel's first page tables and [`protocol`] holds the structures of the answers.
//!
//! All input is hostile: a parser returns an error or a smaller answer and never panics. What is done with the
//! plans, and every unsafe line, is in the program (`main.rs`).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acpi;
pub mod bundle;
pub mod date;
pub mod image;
pub mod map;
pub mod paging;
pub mod protocol;
pub mod requests;
pub mod start;

use abi::exit::Exit;

/// Bytes of the smallest page; the unit of everything the memory map promises to align.
pub const PAGE: u64 = 4096;

/// Read access to physical memory; `None` when any byte of the range cannot be reached.
pub trait Memory {
    /// The bytes at `base..base + len`.
    fn bytes(&self, base: u64, len: usize) -> Option<&[u8]>;
}

/// Why a boot cannot go on: the reason for the exit code, and what a person should read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason the run ends with.
    pub exit: Exit,
    /// What exactly was wrong.
    pub what: &'static str,
    /// The number that belongs to the message (an address, an id), if there is one.
    pub value: Option<u64>,
}

impl Refusal {
    /// A refusal without a number.
    #[must_use]
    pub const fn new(exit: Exit, what: &'static str) -> Self {
        Self { exit, what, value: None }
    }

    /// A refusal with the number that explains it.
    #[must_use]
    pub const fn with(exit: Exit, what: &'static str, value: u64) -> Self {
        Self { exit, what, value: Some(value) }
    }
}

// The loader runs on 64-bit machines and its tests do too, so sizes and addresses convert both ways without loss.
const _: () = assert!(usize::BITS == u64::BITS);

/// A size or count as a part of an address.
#[must_use]
pub const fn to_u64(size: usize) -> u64 {
    size as u64
}

/// A part of an address as a size or count.
#[must_use]
pub const fn to_usize(number: u64) -> usize {
    number as usize
}

/// `value` rounded down to a multiple of `align`, a power of two.
#[must_use]
pub const fn align_down(value: u64, align: u64) -> u64 {
    value & !(align - 1)
}

/// `value` rounded up to a multiple of `align`, a power of two; `None` when that overflows.
#[must_use]
pub const fn align_up(value: u64, align: u64) -> Option<u64> {
    match value.checked_add(align - 1) {
        Some(sum) => Some(align_down(sum, align)),
        None => None,
    }
}

/// `N` bytes at `offset` of `bytes`, if they are there.
#[must_use]
pub(crate) fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// A little-endian number at `offset`.
#[must_use]
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(u32::from_le_bytes)
}

/// A little-endian number at `offset`.
#[must_use]
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array(bytes, offset).map(u64::from_le_bytes)
}
