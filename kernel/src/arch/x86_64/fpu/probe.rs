//! Setting and reading the extended registers one by one, for tests: by other instructions than those that switch them.

use core::arch::asm;

use percpu::IrqOff;
use x86_64::registers::control::{Cr0, Cr0Flags};
use x86_64::registers::xcontrol::XCr0Flags;

use super::switched_on;

/// Vector registers, and bytes of one with AVX; without, only the lower half is used.
const VECTORS: usize = 16;
const VECTOR: usize = 32;

/// Values of the registers: those that every CPU has, and AVX's.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Values {
    vectors: [[u8; VECTOR]; VECTORS],
    /// What is on top of the x87 stack, as an integer; 0 if the stack is empty.
    top: u64,
    mxcsr: u32,
    fcw: u16,
}

impl Values {
    /// The initial state.
    pub(crate) const INITIAL: Self =
        Self { vectors: [[0; VECTOR]; VECTORS], top: 0, mxcsr: super::MXCSR, fcw: super::FCW };

    /// Values that a number determines, no two registers alike and none in its initial state: rounding towards zero, all exceptions masked.
    pub(crate) fn marked(number: u8) -> Self {
        /// Rounding control and flush-to-zero of MXCSR (SDM volume 1, figure 10-3), rounding control of FCW (figure 8-6).
        const MXCSR: u32 = 0xe000;
        const FCW: u16 = 0xc00;
        let wide = has_avx();
        let byte = |register: usize, at: usize| {
            let value = number.wrapping_mul(31).wrapping_add((register * VECTOR + at) as u8) | 1;
            if at < VECTOR / 2 || wide { value } else { 0 }
        };
        let vectors = core::array::from_fn(|register| core::array::from_fn(|at| byte(register, at)));
        let initial = Self::INITIAL;
        Self { vectors, top: 1 + u64::from(number), mxcsr: initial.mxcsr | MXCSR, fcw: initial.fcw | FCW }
    }

    /// Sets the registers. They are not blocked.
    pub(crate) fn load(&self) {
        let Self { vectors, top, mxcsr, fcw } = self;
        // SAFETY: loads from this structure; the kernel's own code uses none of these registers, here and below.
        unsafe {
            asm!("fninit", "fild qword ptr [{top}]", "fldcw [{fcw}]", "ldmxcsr [{mxcsr}]",
                top = in(reg) top, fcw = in(reg) fcw, mxcsr = in(reg) mxcsr, options(readonly, nostack));
        }
        if has_avx() {
            // SAFETY: as above, 16 registers of 32 bytes.
            unsafe {
                asm!(".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "vmovdqu ymm\\n, [{at} + {size}*\\n]", ".endr",
                    at = in(reg) vectors, size = const VECTOR, options(readonly, nostack));
            }
        } else {
            // SAFETY: as above; the lower half of each.
            unsafe {
                asm!(".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "movdqu xmm\\n, [{at} + {size}*\\n]", ".endr",
                    at = in(reg) vectors, size = const VECTOR, options(readonly, nostack));
            }
        }
    }

    /// Reads the registers, and takes the value off the x87 stack. They are not blocked.
    pub(crate) fn read() -> Self {
        let mut values = Self::INITIAL;
        let Self { vectors, top, mxcsr, fcw } = &mut values;
        let mut tags: u64;
        // SAFETY: stores to this structure; FXAM looks at the top of the stack and faults on nothing.
        unsafe {
            asm!("fnstcw [{fcw}]", "stmxcsr [{mxcsr}]", "fxam", "fnstsw ax",
                fcw = in(reg) fcw, mxcsr = in(reg) mxcsr, out("rax") tags, options(nostack));
        }
        tags &= CONDITIONS;
        if tags != EMPTY {
            // SAFETY: a store to this structure, of a value that is there.
            unsafe { asm!("fistp qword ptr [{top}]", top = in(reg) top, options(nostack)) };
        }
        if has_avx() {
            // SAFETY: stores to this structure, 16 registers of 32 bytes.
            unsafe {
                asm!(".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "vmovdqu [{at} + {size}*\\n], ymm\\n", ".endr",
                    at = in(reg) vectors, size = const VECTOR, options(nostack));
            }
        } else {
            // SAFETY: as above; the lower half of each.
            unsafe {
                asm!(".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", "movdqu [{at} + {size}*\\n], xmm\\n", ".endr",
                    at = in(reg) vectors, size = const VECTOR, options(nostack));
            }
        }
        values
    }
}

/// Condition codes C3, C2 and C0 in the status word, and what FXAM sets for an empty register (SDM volume 1, table 8-7): C3 and C0.
const CONDITIONS: u64 = 1 << 14 | 1 << 10 | 1 << 8;
const EMPTY: u64 = 1 << 14 | 1 << 8;

fn has_avx() -> bool {
    XCr0Flags::from_bits_truncate(switched_on()).contains(XCr0Flags::AVX)
}

/// Whether the registers of the core this runs on are blocked.
pub(crate) fn is_blocked() -> bool {
    Cr0::read().contains(Cr0Flags::TASK_SWITCHED)
}

/// Runs `f` with the registers not blocked, although they were: to see what a thread could read that looks behind the block.
pub(crate) fn behind_the_block<R>(irq: &IrqOff, f: impl FnOnce() -> R) -> R {
    super::allow();
    let result = f();
    super::block(irq);
    result
}
