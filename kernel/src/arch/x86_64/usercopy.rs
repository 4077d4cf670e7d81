//! Copies between the kernel and user memory, and single values of it: the Rust side of `usercopy.S`.
//!
//! Everything takes checked addresses (U1), and `&mut IrqOff`: a page fault inside may enter the address space's code, which must not
//! find this core's data in use. A fault that the address space refuses ends the copy with an error, never the kernel.
//!
//! * **U2** Only the routines of `usercopy.S` access the user half, each instruction that does is in `user_faults`, and EFLAGS.AC is
//!   set inside them only.

use core::arch::global_asm;

use mm::user::{CheckedPtr, CheckedSlice};
use percpu::IrqOff;
use percpu::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::cpu::Features;

global_asm!(
    include_str!("usercopy.S"),
    smap = sym SMAP,
    rep_from = sym REP_FROM,
);

unsafe extern "C" {
    fn user_copy(to: usize, from: usize, bytes: usize) -> usize;
    fn user_clear(to: usize, bytes: usize) -> usize;
    fn user_load_u8(from: usize) -> Loaded;
    fn user_load_u32(from: usize) -> Loaded;
    fn user_load_u64(from: usize) -> Loaded;
    fn user_store_u8(to: usize, value: u64) -> u64;
    fn user_store_u32(to: usize, value: u64) -> u64;
    fn user_store_u64(to: usize, value: u64) -> u64;
    fn user_exchange_u32(at: usize, expected: u32, new: u32) -> Loaded;
    static user_start: u8;
    static user_end: u8;
    static user_faults: Covered;
    static user_faults_end: Covered;
}

/// Whether SMAP is on. Written once, before any other core runs.
pub(super) static SMAP: AtomicBool = AtomicBool::new(false);

/// From how many bytes on the string instructions are used. Written once, before any other core runs.
static REP_FROM: AtomicUsize = AtomicUsize::new(usize::MAX);

/// With fast short strings `rep movsb` pays as soon as the moves of one block do not do; without, its start-up costs tens of cycles
/// (Intel optimisation manual, §3.7.6), and without ERMS it copies byte by byte.
const REP_FROM_FSRM: usize = 65;
const REP_FROM_ERMS: usize = 1024;

/// Settles how this machine copies.
pub(crate) fn choose(features: &Features) {
    let rep_from = match features {
        Features { fsrm: true, .. } => REP_FROM_FSRM,
        Features { erms: true, .. } => REP_FROM_ERMS,
        _ => usize::MAX,
    };
    // ORDER: Relaxed, both: other cores are released later, by stores that order these.
    REP_FROM.store(rep_from, Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    SMAP.store(features.smap, Ordering::Relaxed);
}

/// A row of `user_faults`: a fault at `first..end` continues at `fixup`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Covered {
    first: u64,
    end: u64,
    fixup: u64,
}

/// `user_covered` in the assembly writes three words.
const _: () = assert!(size_of::<Covered>() == 3 * size_of::<u64>());

/// Whether an instruction belongs to the routines.
#[inline(always)]
pub(super) fn contains(rip: u64) -> bool {
    (&raw const user_start as u64..&raw const user_end as u64).contains(&rip)
}

/// Where a routine goes on after a fault at this instruction.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let (first, end) = (&raw const user_faults, &raw const user_faults_end);
    let rows = (end.addr() - first.addr()) / size_of::<Covered>();
    // SAFETY: the assembly lays out whole rows between the two labels, in memory that never changes.
    let rows = unsafe { core::slice::from_raw_parts(first, rows) };
    rows.iter().find(|row| (row.first..row.end).contains(&rip)).map(|row| row.fixup)
}

/// A value in `rax`, and in `rdx` whether it could not be had.
#[repr(C)]
struct Loaded {
    value: u64,
    failed: u64,
}

/// A fault that the address space refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UserFault {
    /// Bytes from the start on that were copied, or cleared, before it: all that could be reached.
    pub(crate) done: usize,
}

#[inline(always)]
fn outcome(bytes: usize, left: usize) -> Result<(), UserFault> {
    if left == 0 { Ok(()) } else { Err(UserFault { done: bytes - left }) }
}

/// Copies user memory into the kernel. A length that is a constant word costs one move; only where that faults does the general
/// routine find out how far one can come.
///
/// # Errors
/// [`UserFault`]; what lies behind `done` in `to` is as it was.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(crate) fn copy_in(_: &mut IrqOff, from: CheckedSlice, to: &mut [u8]) -> Result<(), UserFault> {
    assert!(from.len() == to.len(), "U2: the two sides of a copy are equally long");
    if let Ok(word) = <&mut [u8; size_of::<u64>()]>::try_from(&mut *to) {
        // SAFETY: U1, U2: it reads the user half. Aligned or not is all one to the CPU.
        let loaded = unsafe { user_load_u64(from.address()) };
        if loaded.failed == 0 {
            *word = loaded.value.to_ne_bytes();
            return Ok(());
        }
    }
    // SAFETY: U1, U2: it reads the user half, and writes `to`, which is as long.
    outcome(to.len(), unsafe { user_copy(to.as_mut_ptr().expose_provenance(), from.address(), to.len()) })
}

/// Copies the kernel's bytes into user memory; a word as in [`copy_in`].
///
/// # Errors
/// [`UserFault`].
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub(crate) fn copy_out(_: &mut IrqOff, from: &[u8], to: CheckedSlice) -> Result<(), UserFault> {
    assert!(from.len() == to.len(), "U2: the two sides of a copy are equally long");
    if let Ok(word) = <[u8; size_of::<u64>()]>::try_from(from) {
        // SAFETY: U1, U2: it writes the user half, to which no reference exists.
        if unsafe { user_store_u64(to.address(), u64::from_ne_bytes(word)) } == 0 {
            return Ok(());
        }
    }
    // SAFETY: U1, U2: it reads `from`, and writes as much of the user half, to which no reference exists.
    outcome(from.len(), unsafe { user_copy(to.address(), from.as_ptr().expose_provenance(), from.len()) })
}

/// Fills user memory with zeroes.
///
/// # Errors
/// [`UserFault`].
#[inline(always)]
pub(crate) fn clear(_: &mut IrqOff, to: CheckedSlice) -> Result<(), UserFault> {
    // SAFETY: U1, U2: it writes the user half, to which no reference exists.
    outcome(to.len(), unsafe { user_clear(to.address(), to.len()) })
}

/// The values that are loaded and stored whole, by one instruction.
pub(crate) trait Word: Copy {
    /// Loads one.
    ///
    /// # Errors
    /// [`UserFault`], with nothing done.
    fn load(irq: &mut IrqOff, from: CheckedPtr<Self>) -> Result<Self, UserFault>;
    /// Stores one.
    ///
    /// # Errors
    /// [`UserFault`], with nothing done.
    fn store(irq: &mut IrqOff, to: CheckedPtr<Self>, value: Self) -> Result<(), UserFault>;
}

macro_rules! words {
    ($($word:ident $load:ident $store:ident;)*) => {$(
        impl Word for $word {
            #[inline(always)]
            fn load(_: &mut IrqOff, from: CheckedPtr<Self>) -> Result<Self, UserFault> {
                // SAFETY: U1, U2: it reads the user half.
                let loaded = unsafe { $load(from.address()) };
                if loaded.failed == 0 { Ok(loaded.value as $word) } else { Err(UserFault { done: 0 }) }
            }

            #[inline(always)]
            fn store(_: &mut IrqOff, to: CheckedPtr<Self>, value: Self) -> Result<(), UserFault> {
                // SAFETY: U1, U2: it writes the user half, to which no reference exists.
                let failed = unsafe { $store(to.address(), u64::from(value)) };
                if failed == 0 { Ok(()) } else { Err(UserFault { done: 0 }) }
            }
        }
    )*};
}

words! {
    u8 user_load_u8 user_store_u8;
    u32 user_load_u32 user_store_u32;
    u64 user_load_u64 user_store_u64;
}

/// Replaces `expected` by `new` if it is there, as one operation with a full barrier; returns what was there.
///
/// # Errors
/// [`UserFault`], with nothing done. Memory that cannot be written is refused even where the values differ.
#[inline(always)]
pub(crate) fn compare_exchange(
    _: &mut IrqOff,
    at: CheckedPtr<u32>,
    expected: u32,
    new: u32,
) -> Result<u32, UserFault> {
    // SAFETY: U1, U2: it reads and writes the user half, to which no reference exists.
    let found = unsafe { user_exchange_u32(at.address(), expected, new) };
    if found.failed == 0 { Ok(found.value as u32) } else { Err(UserFault { done: 0 }) }
}
