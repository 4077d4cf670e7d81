//! The time-stamp counter (Intel SDM vol. 2B, RDTSC and RDTSCP). The kernel lets programs read it.

use core::arch::asm;

/// The counter, read at about now.
#[inline(always)]
#[must_use]
pub(crate) fn now() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("rax") low, out("rdx") high, options(nomem, nostack, preserves_flags)) };
    high << 32 | low
}

/// The counter, read when all before is done and nothing after has begun.
#[inline(always)]
#[must_use]
pub(crate) fn start() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a counter. Not `nomem`: the compiler must not move memory accesses across it.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("rax") low, out("rdx") high, options(nostack, preserves_flags));
    }
    high << 32 | low
}

/// The counter, read when all before is done and nothing after has begun.
#[inline(always)]
#[must_use]
pub(crate) fn stop() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a counter. Not `nomem`: the compiler must not move memory accesses across it.
    unsafe {
        asm!(
            "rdtscp",
            "lfence",
            out("rax") low,
            out("rdx") high,
            out("rcx") _,
            options(nostack, preserves_flags),
        );
    }
    high << 32 | low
}
