//! Probes of single instructions and of the registers' state around `syscall` (x86-64; Intel SDM vol. 2 says what each raises at ring 3).

use core::arch::asm;

use crate::{Try, WENT_THROUGH};

/// Defines probes of instructions: `rax` is the operand, and the default of an operand that is 0.
macro_rules! probes {
    ($( $(#[doc = $text:literal])* $name:literal $function:ident ($default:expr) $code:literal; )*) => {
        /// The probes of this module that the CPU decides about.
        const INSTRUCTIONS: &[(&str, Try)] = &[$(($name, $function)),*];

        $(
            $(#[doc = $text])*
            fn $function(operand: u64) -> u64 {
                let operand: u64 = if operand == 0 { $default } else { operand };
                // SAFETY: either the process ends here, or the probe has failed and its exit code says so.
                unsafe {
                    asm!(
                        $code,
                        inout("rax") operand => _,
                        out("rcx") _,
                        out("rdx") _,
                        out("rsi") _,
                        out("rdi") _,
                        out("r11") _,
                    );
                }
                WENT_THROUGH
            }
        )*
    };
}

/// A data segment of the kernel's, in the usual place of the descriptor table; `address=` overrides it.
const KERNEL_DATA: u64 = 0x10;
/// A code segment of the kernel's.
const KERNEL_CODE: u64 = 0x08;

probes! {
    /// Vector 13.
    "cli" cli (0) "cli";
    /// Vector 13.
    "sti" sti (0) "sti";
    /// Vector 13.
    "hlt" hlt (0) "hlt";
    /// Vector 13: no port is open, this one is the serial line's.
    "in" port_in (0x3f8) "mov edx, eax; in al, dx";
    /// Vector 13.
    "out" port_out (0x3f8) "mov edx, eax; out dx, al";
    /// Vector 13: at ring 3 POPF leaves IOPL as it is.
    "iopl" iopl (0x3f8) "mov edx, eax; pushfq; or dword ptr [rsp], 0x3000; popfq; in al, dx";
    /// Vector 13.
    "read-cr0" read_cr0 (0) "mov rax, cr0";
    /// Vector 13.
    "write-cr3" write_cr3 (0x1000) "mov cr3, rax";
    /// Vector 13.
    "write-cr4" write_cr4 (0) "mov cr4, rax";
    /// Vector 13.
    "write-dr7" write_dr7 (0x400) "mov dr7, rax";
    /// Vector 13: IA32_LSTAR, where SYSCALL goes.
    "wrmsr" wrmsr (0xc000_0082) "mov ecx, eax; xor eax, eax; xor edx, edx; wrmsr";
    /// Vector 13.
    "rdmsr" rdmsr (0xc000_0082) "mov ecx, eax; rdmsr";
    /// Vector 13: CR4.PCE is clear.
    "rdpmc" rdpmc (0) "xor ecx, ecx; rdpmc";
    /// Vector 13; 6 without XSAVE.
    "xsetbv" xsetbv (7) "xor ecx, ecx; xor edx, edx; xsetbv";
    /// Vector 13.
    "lgdt" lgdt (0) "sub rsp, 16; lgdt [rsp]; add rsp, 16";
    /// Vector 13.
    "lidt" lidt (0) "sub rsp, 16; lidt [rsp]; add rsp, 16";
    /// Vector 13.
    "lldt" lldt (KERNEL_DATA) "lldt ax";
    /// Vector 13.
    "ltr" ltr (KERNEL_DATA) "ltr ax";
    /// Vector 13 where the CPU has UMIP; else it goes through, and tells an address of the kernel's.
    "sgdt" sgdt (0) "sub rsp, 16; sgdt [rsp]; add rsp, 16";
    /// As `sgdt`.
    "sidt" sidt (0) "sub rsp, 16; sidt [rsp]; add rsp, 16";
    /// As `sgdt`.
    "str" str_register (0) "str ax";
    /// As `sgdt`.
    "smsw" smsw (0) "smsw ax";
    /// Vector 13.
    "clts" clts (0) "clts";
    /// Vector 13.
    "lmsw" lmsw (1) "lmsw ax";
    /// Vector 13.
    "invlpg" invlpg (0x1000) "invlpg [rax]";
    /// Vector 13; QEMU's emulation lets it through.
    "invd" invd (0) "invd";
    /// Vector 13; QEMU's emulation lets it through.
    "wbinvd" wbinvd (0) "wbinvd";
    /// Vector 13.
    "swapgs" swapgs (0) "swapgs";
    /// Vector 13.
    "sysret" sysret (0) "mov rcx, rax; pushfq; pop r11; sysretq";
    /// Vector 13, 6 on CPUs that do not have it in long mode: SYSENTER_CS is 0.
    "sysenter" sysenter (0) "sysenter";
    /// Vector 13: to ring 0 by its own choice.
    "iret-kernel" iret_kernel (KERNEL_CODE) "mov rdx, rsp; push 0x10; push rdx; pushfq; push rax; lea rdx, [rip]; push rdx; iretq";
    /// Vector 13.
    "far-return" far_return (KERNEL_CODE) "push rax; lea rdx, [rip]; push rdx; retfq";
    /// Vector 3, or 13 if the kernel's gate is not open to programs.
    "int3" int3 (0) "int3";
    /// Vector 1.
    "icebp" icebp (0) ".byte 0xf1";
    /// Vector 13: no gate is open.
    "int-80" int_80 (0) "int 0x80";
    /// Vector 13: programs do not raise page faults by number.
    "int-0e" int_0e (0) "int 0x0e";
    /// Vector 13: nor the kernel's own interrupts.
    "int-f0" int_f0 (0) "int 0xf0";
    /// Vector 6.
    "ud2" ud2 (0) "ud2";
    /// Vector 0.
    "divide" divide (0) "xor edx, edx; xor ecx, ecx; div rcx";
    /// Vector 16: an x87 division by zero, unmasked.
    "x87" x87 (0x0340) "push rax; fninit; fldcw [rsp]; fld1; fldz; fdivp; fwait; pop rax";
    /// Vector 19: an SSE division by zero, unmasked; QEMU's emulation lets it through.
    "simd" simd (0x1d80) "push rax; ldmxcsr [rsp]; pop rax; xorps xmm1, xmm1; mov eax, 0x3f800000; movd xmm0, eax; divss xmm0, xmm1";
    /// Vector 13: reserved bits of MXCSR; QEMU's emulation lets it through.
    "mxcsr" mxcsr (0xffff_ffff) "push rax; ldmxcsr [rsp]; pop rax";
    /// Vector 14: the kernel's half is not executable from here.
    "jump-kernel" jump_kernel (0xffff_ffff_8000_0000) "call rax";
    /// Vector 13: an address that no CPU forms.
    "jump-noncanonical" jump_noncanonical (0x8000_0000_0000_0000) "push rax; ret";
    /// Vector 13.
    "ds-kernel" ds_kernel (KERNEL_DATA) "mov ds, eax";
    /// Vector 13.
    "es-kernel" es_kernel (KERNEL_DATA) "mov es, eax";
    /// Vector 13.
    "fs-kernel" fs_kernel (KERNEL_DATA) "mov fs, eax";
    /// Vector 13.
    "gs-kernel" gs_kernel (KERNEL_DATA) "mov gs, eax";
    /// Vector 13.
    "ss-kernel" ss_kernel (KERNEL_DATA) "mov ss, eax";
    /// Vector 13: beyond the table.
    "ds-beyond" ds_beyond (0xfff8) "mov ds, eax";
    /// Vector 13: the local table is none. Vector 14 says that the CPU looked for one at address 0, where it is after reset.
    "ds-local" ds_local (0x0f) "mov ds, eax";
    /// Vector 1: SYSCALL clears TF for the kernel, SYSRET brings it back, and the next instruction here is stepped.
    "step-syscall" step_syscall (0) "pushfq; or dword ptr [rsp], 0x100; popfq; syscall; nop; nop";
}

/// Makes the null call with everything that the kernel must not rely on set to garbage; checks what it must keep.
macro_rules! survivors {
    ($( $(#[doc = $text:literal])* $name:literal $function:ident ($default:expr) $before:literal $after:literal; )*) => {
        /// The probes of this module that must change nothing.
        const SURVIVORS: &[(&str, Try)] = &[$(($name, $function)),*];

        $(
            $(#[doc = $text])*
            fn $function(operand: u64) -> u64 {
                let operand: u64 = if operand == 0 { $default } else { operand };
                let status: u64;
                // SAFETY: `$before` changes state that `$after` puts back; in between is the null call, whose number is 0.
                unsafe {
                    asm!(
                        $before,
                        "xor eax, eax",
                        "syscall",
                        $after,
                        inout("rax") operand => status,
                        out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _,
                        out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
                    );
                }
                u64::from(status != 0)
            }
        )*
    };
}

survivors! {
    /// Survives: SYSCALL takes the return address and flags from the CPU, not from the registers they end up in.
    "rcx-r11" rcx_r11 (0x8000_0000_0000_0000) "mov rcx, rax; mov r11, rax" "";
    /// Survives: the kernel has its own stack before it uses one.
    "rsp-zero" rsp_zero (0) "mov r12, rsp; xor esp, esp" "mov rsp, r12";
    /// Survives, as `rsp-zero`.
    "rsp-kernel" rsp_kernel (0xffff_c000_0000_1000) "mov r12, rsp; mov rsp, rax" "mov rsp, r12";
    /// Survives, as `rsp-zero`.
    "rsp-noncanonical" rsp_noncanonical (0x8000_0000_0000_0000) "mov r12, rsp; mov rsp, rax" "mov rsp, r12";
    /// Survives: the kernel masks the alignment check, and with it what SMAP would allow.
    "flag-ac" flag_ac (0) "pushfq; or dword ptr [rsp], 0x40000; popfq" "pushfq; and dword ptr [rsp], 0xfffbffff; popfq";
    /// Survives: a nested-task flag in the kernel would fail its IRET.
    "flag-nt" flag_nt (0) "pushfq; or dword ptr [rsp], 0x4000; popfq" "pushfq; and dword ptr [rsp], 0xffffbfff; popfq";
    /// Survives: the kernel's string instructions go upwards.
    "flag-df" flag_df (0) "std" "cld";
    /// Survives, with interrupts on: at ring 3 POPF leaves IF as it is.
    "flag-if" flag_if (0) "pushfq; and dword ptr [rsp], 0xfffffdff; popfq" "pushfq; pop rcx; xor edx, edx; bt ecx, 9; sbb rdx, rdx; inc rdx; or rax, rdx";
    /// Survives: null selectors are a program's to load.
    "null-selectors" null_selectors (0) "xor ecx, ecx; mov ds, ecx; mov es, ecx; mov fs, ecx; mov gs, ecx" "";
}

/// Survives: every register full of garbage, and those that the call keeps are kept.
fn registers(_: u64) -> u64 {
    let changed: u64;
    // SAFETY: the null call; rbx and rbp are put back, everything else is declared.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbx, 0x8000000000000000",
            "mov rbp, -1",
            "mov rcx, rbx",
            "mov rdx, rbp",
            "mov rsi, rbx",
            "mov rdi, rbp",
            "mov r8, rbx",
            "mov r9, rbp",
            "mov r10, rbx",
            "mov r11, rbp",
            "lea r12, [rbx + 12]",
            "lea r13, [rbx + 13]",
            "lea r14, [rbx + 14]",
            "lea r15, [rbx + 15]",
            "xor eax, eax",
            "syscall",
            "mov rcx, 0x8000000000000000",
            "xor rbx, rcx",
            "inc rbp",
            "xor r12, rcx",
            "xor r13, rcx",
            "xor r14, rcx",
            "xor r15, rcx",
            "sub r12, 12",
            "sub r13, 13",
            "sub r14, 14",
            "sub r15, 15",
            "or rax, rbx",
            "or rax, rbp",
            "or rax, r12",
            "or rax, r13",
            "or rax, r14",
            "or rax, r15",
            "pop rbp",
            "pop rbx",
            out("rax") changed,
            out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    u64::from(changed != 0)
}

/// Survives, or vector 6 where the kernel keeps FSGSBASE off: the kernel's own GS base is another one.
fn gs_base(operand: u64) -> u64 {
    let base: u64 = if operand == 0 { 0xffff_ffff_8000_0000 } else { operand };
    let status: u64;
    // SAFETY: programs have no use for GS; the null call.
    unsafe {
        asm!(
            "wrgsbase rcx",
            "xor eax, eax",
            "syscall",
            out("rax") status,
            inout("rcx") base => _,
            out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    u64::from(status != 0)
}

/// Vector 14: goes on below the stack, page by page.
fn stack_overflow(_: u64) -> u64 {
    // SAFETY: ends the process.
    unsafe { asm!("2:", "sub rsp, 4096", "mov qword ptr [rsp], 0", "jmp 2b", options(noreturn)) };
}

/// Never ends: another process has to be able to run, and to end this one.
fn spin(_: u64) -> u64 {
    // SAFETY: does nothing.
    unsafe { asm!("2:", "jmp 2b", options(noreturn)) };
}

/// Jumps to an address, which must not return.
pub(crate) fn call(address: u64) {
    // SAFETY: ends the process, or the probe has failed.
    unsafe { asm!("call rax", in("rax") address, clobber_abi("C")) };
}

/// The instructions `syscall; ret`, and their length.
pub(crate) const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// The instruction `ret`.
pub(crate) const RETURN: u8 = 0xc3;

const OTHERS: &[(&str, Try)] =
    &[("registers", registers), ("gs-base", gs_base), ("stack-overflow", stack_overflow), ("spin", spin)];

/// The probes of this module.
pub(crate) const PROBES: [&[(&str, Try)]; 3] = [INSTRUCTIONS, SURVIVORS, OTHERS];
