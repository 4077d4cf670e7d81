//! The `syscall` instruction, once for each number of arguments, so that no register is loaded in vain.

use core::arch::asm;

macro_rules! calls {
    ($( $name:ident ( $($argument:ident),* ) $value:ident { $($operand:tt)* } )*) => { $(
        /// Enters the kernel; gives status and value.
        ///
        /// # Safety
        /// 1. What the call does to this process's memory is nothing that its code does not expect.
        #[inline(always)]
        pub(crate) unsafe fn $name(number: u64 $(, $argument: u64)*) -> (u64, u64) {
            let status: u64;
            let $value: u64;
            // SAFETY: the registers are those of `abi::syscall`; the effect on memory is the caller's promise (1).
            unsafe {
                asm!(
                    "syscall",
                    inlateout("rax") number => status,
                    $($operand)*
                    lateout("rcx") _,
                    lateout("r11") _,
                    options(nostack),
                );
            }
            (status, $value)
        }
    )* };
}

calls! {
    call0() value {
        lateout("rdi") _, lateout("rsi") _, lateout("rdx") value, lateout("r10") _, lateout("r8") _, lateout("r9") _,
    }
    call1(a) value {
        inlateout("rdi") a => _, lateout("rsi") _, lateout("rdx") value, lateout("r10") _, lateout("r8") _, lateout("r9") _,
    }
    call2(a, b) value {
        inlateout("rdi") a => _, inlateout("rsi") b => _, lateout("rdx") value, lateout("r10") _, lateout("r8") _, lateout("r9") _,
    }
    call3(a, b, c) value {
        inlateout("rdi") a => _, inlateout("rsi") b => _, inlateout("rdx") c => value, lateout("r10") _, lateout("r8") _,
        lateout("r9") _,
    }
    call4(a, b, c, d) value {
        inlateout("rdi") a => _, inlateout("rsi") b => _, inlateout("rdx") c => value, inlateout("r10") d => _, lateout("r8") _,
        lateout("r9") _,
    }
    call5(a, b, c, d, e) value {
        inlateout("rdi") a => _, inlateout("rsi") b => _, inlateout("rdx") c => value, inlateout("r10") d => _,
        inlateout("r8") e => _, lateout("r9") _,
    }
    call6(a, b, c, d, e, f) value {
        inlateout("rdi") a => _, inlateout("rsi") b => _, inlateout("rdx") c => value, inlateout("r10") d => _,
        inlateout("r8") e => _, inlateout("r9") f => _,
    }
}

/// Enters the kernel with a message, or with room for one (`abi::ipc`): registers in, registers out; gives the status.
///
/// # Safety
/// 1. What the call does to this process's memory is nothing that its code does not expect.
#[inline(always)]
pub(crate) unsafe fn message(number: u64, handle: &mut u64, tag: &mut u64, words: &mut [u64; 8]) -> u64 {
    let status: u64;
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *words;
    // SAFETY: the registers are those of `abi::ipc`; the effect on memory is the caller's promise (1).
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => status,
            inlateout("rdi") *handle,
            inlateout("rsi") *tag,
            inlateout("rdx") a,
            inlateout("r8") b,
            inlateout("r9") c,
            inlateout("r10") d,
            inlateout("r12") e,
            inlateout("r13") f,
            inlateout("r14") g,
            inlateout("r15") h,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    *words = [a, b, c, d, e, f, g, h];
    status
}

/// As [`message`], with the time at which to give up in `rbx`, which inline assembly may not name.
///
/// # Safety
/// 1. As for [`message`].
pub(crate) unsafe fn timed_message(
    number: u64,
    deadline: u64,
    handle: &mut u64,
    tag: &mut u64,
    words: &mut [u64; 8],
) -> u64 {
    let status: u64;
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *words;
    // SAFETY: as in `message`; `rbx` is put back.
    unsafe {
        asm!(
            "push rbx",
            "mov rbx, rcx",
            "syscall",
            "pop rbx",
            inlateout("rax") number => status,
            inlateout("rdi") *handle,
            inlateout("rsi") *tag,
            inlateout("rdx") a,
            inlateout("r8") b,
            inlateout("r9") c,
            inlateout("r10") d,
            inlateout("r12") e,
            inlateout("r13") f,
            inlateout("r14") g,
            inlateout("r15") h,
            inlateout("rcx") deadline => _,
            lateout("r11") _,
        );
    }
    *words = [a, b, c, d, e, f, g, h];
    status
}

/// Ends the thread's way here by an exception, and the process with it unless that has a handler.
pub(crate) fn undefined() -> ! {
    // SAFETY: the instruction raises an exception and has no other effect.
    unsafe { asm!("ud2", options(noreturn, nomem, nostack)) }
}
