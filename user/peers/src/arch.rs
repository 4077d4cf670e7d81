//! Vector registers, of which each thread that has some keeps its own (x86-64).

use core::arch::asm;

/// Writes two registers that nobody else uses: the compiler's own code has no floating point on this target.
pub(crate) fn set_vectors(pattern: u64) {
    // SAFETY: see above.
    unsafe {
        asm!("movq xmm3, {0}", "movq xmm12, {1}", in(reg) pattern, in(reg) !pattern, options(nomem, nostack, preserves_flags));
    }
}

/// Whether they are still as [`set_vectors`] has written them.
pub(crate) fn vectors_are(pattern: u64) -> bool {
    let (low, high): (u64, u64);
    // SAFETY: as above.
    unsafe {
        asm!("movq {0}, xmm3", "movq {1}, xmm12", out(reg) low, out(reg) high, options(nomem, nostack, preserves_flags));
    }
    (low, high) == (pattern, !pattern)
}
