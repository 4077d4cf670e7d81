//! The use of a vector register (x86-64).

use core::arch::asm;

/// Uses a vector register, so that a switch has to keep it. The compiler's own code has no floating point on this target, so the register
/// is nobody else's.
#[inline(always)]
pub(crate) fn use_vector_unit() {
    // SAFETY: see above.
    unsafe { asm!("paddq xmm0, xmm0", options(nomem, nostack, preserves_flags)) };
}
