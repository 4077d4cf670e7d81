//! Where a program begins: see `entry.S`.

use core::mem::offset_of;

/// A relocation with addend, `Elf64_Rela` (System V ABI, chapter 4, Relocation).
#[repr(C)]
struct Relocation {
    /// What to change, as an address of the link.
    offset: u64,
    /// The type, in the low half.
    info: u64,
    /// What to put there, less the base.
    addend: u64,
}

const _: () = assert!(size_of::<Relocation>() == 24);

/// `R_X86_64_RELATIVE`: base plus addend (System V ABI, AMD64 supplement, table 4.9).
const RELATIVE: u32 = 8;

core::arch::global_asm!(
    include_str!("entry.S"),
    info = const offset_of!(Relocation, info),
    offset = const offset_of!(Relocation, offset),
    addend = const offset_of!(Relocation, addend),
    size = const size_of::<Relocation>(),
    relative = const RELATIVE,
    start = sym crate::start::begin,
);
