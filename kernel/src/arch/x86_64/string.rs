//! Filling and copying memory by the word, with the CPU's string instructions: one instruction, whatever the length.

use core::arch::asm;
use core::ptr::NonNull;

/// Fills words with one value.
///
/// # Safety
/// 1. `at` is aligned, and so many words from it on are the caller's to write.
#[inline(always)]
pub(crate) unsafe fn fill(at: NonNull<u64>, value: u64, words: usize) {
    // SAFETY: obligation 1; the direction flag is clear, as the calling convention demands.
    unsafe {
        asm!(
            "rep stosq",
            inout("rdi") at.as_ptr() => _,
            inout("rcx") words => _,
            in("rax") value,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies words.
///
/// # Safety
/// 1. Both are aligned and do not overlap; so many words can be read from `from` on, and are the caller's to write from `to` on.
#[inline(always)]
pub(crate) unsafe fn copy(from: NonNull<u64>, to: NonNull<u64>, words: usize) {
    // SAFETY: obligation 1; the direction flag is clear, as the calling convention demands.
    unsafe {
        asm!(
            "rep movsq",
            inout("rsi") from.as_ptr() => _,
            inout("rdi") to.as_ptr() => _,
            inout("rcx") words => _,
            options(nostack, preserves_flags)
        );
    }
}
