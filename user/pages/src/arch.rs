//! Instructions that fault (x86-64).

use core::arch::asm;

/// Divides by zero.
pub(crate) fn divide() {
    // SAFETY: the kernel ends the process, or its handler does; `rdx:rax` is nobody's.
    unsafe {
        asm!(
            "div {zero:r}",
            zero = in(reg) 0_u64,
            inout("rax") 1_u64 => _,
            inout("rdx") 0_u64 => _,
            options(nomem, nostack),
        );
    }
}

/// Meets a trap (ICEBP, SDM volume 3, §7.4.1); true if every register that can be looked at is as before.
pub(crate) fn trap() -> bool {
    let (mut a, mut b, mut c) = (0x1111_u64, 0x2222_u64, 0x3333_u64);
    // SAFETY: the handler lets the program go on behind it, with its registers.
    unsafe { asm!(".byte 0xf1", inout("rax") a, inout("rdx") b, inout("r8") c, options(nomem, nostack)) };
    (a, b, c) == (0x1111, 0x2222, 0x3333)
}
