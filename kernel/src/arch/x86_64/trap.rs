//! Exceptions and unexpected interrupts in the kernel: reported with registers and symbols, then the run ends.

use core::fmt;

use abi::debug::Counter;
use abi::exit::Exit;
use percpu::IrqOff;
use perf::trace::Event;
use x86_64::registers::control::{Cr2, Cr3, Cr4};

use super::ioapic::{FIRST_VECTOR, LAST_VECTOR};
use super::{apic, io, tables::vector, timer, tsc};
use crate::{interrupt, log, metrics, panic, symbols, trace};

/// The registers of interrupted code, as `trap_common` in `entry.S` lays them out, lowest address first.
#[repr(C)]
pub(crate) struct TrapFrame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rbp: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
    rcx: u64,
    rbx: u64,
    rax: u64,
    pub(super) vector: u64,
    pub(super) error: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const _: () = assert!(size_of::<TrapFrame>() == (15 + 2 + 5) * 8);

/// Names of the exceptions (SDM volume 3, table 7-1).
const NAMES: [&str; 32] = [
    "divide error",
    "debug",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid TSS",
    "segment not present",
    "stack-segment fault",
    "general protection",
    "page fault",
    "reserved (15)",
    "x87 floating-point error",
    "alignment check",
    "machine check",
    "SIMD floating-point error",
    "virtualization",
    "control protection",
    "reserved (22)",
    "reserved (23)",
    "reserved (24)",
    "reserved (25)",
    "reserved (26)",
    "reserved (27)",
    "hypervisor injection",
    "VMM communication",
    "security",
    "reserved (31)",
];

/// Called by `trap_common` with interrupts off.
pub(super) extern "C" fn trap_dispatch(frame: &mut TrapFrame) {
    match frame.vector as u8 {
        vector::NMI if panic::stopping() => panic::stop_here(),
        vector::SPURIOUS => {}
        // It has ended a sleep, whose core looks what is due, or comes where `cores::expose` lets it.
        vector::TIMER => {
            // SAFETY: an interrupt gate has turned interrupts off, and they come back with the return only.
            let irq = unsafe { IrqOff::assume() };
            let late = tsc::now().saturating_sub(timer::armed(&irq));
            let _rang = timer::on_interrupt(&irq);
            metrics::count(&irq, Counter::TimerInterrupts);
            trace::event(&irq, Event::Timer, late, 0, 0);
        }
        device @ FIRST_VECTOR..=LAST_VECTOR => {
            // SAFETY: as above.
            let irq = unsafe { IrqOff::assume() };
            interrupt::note(&irq, usize::from(device - FIRST_VECTOR));
        }
        vector::ERROR => {
            let errors = apic::take_errors();
            apic::end_of_interrupt();
            log!("interrupt controller: error status {errors:#x} (SDM volume 3, figure 12-9)");
        }
        v if usize::from(v) < NAMES.len() => fatal(frame),
        v => {
            apic::end_of_interrupt();
            log!("unexpected interrupt, vector {v:#x}: ignored");
        }
    }
}

fn fatal(frame: &TrapFrame) -> ! {
    panic::stop_other_cores();
    panic::seize_log();
    log!("exception: {frame}");
    symbols::print_backtrace(frame.rip, frame.rsp);
    io::exit(Exit::Exception)
}

impl fmt::Display for TrapFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.get(self.vector as usize).unwrap_or(&"interrupt");
        writeln!(
            f,
            "{name} (vector {}, error code {:#x}) on {:?}",
            self.vector,
            self.error,
            panic::this_core()
        )?;
        if self.vector == u64::from(vector::PAGE_FAULT) {
            writeln!(f, "  {}", PageFault { error: self.error, address: Cr2::read_raw() })?;
        }
        if self.vector == u64::from(vector::DOUBLE_FAULT) && crate::layout::STACKS.contains(Cr2::read_raw()) {
            writeln!(f, "  {OVERFLOW}")?;
        }
        writeln!(f, "  rip {:016x} {}", self.rip, symbols::Symbol(self.rip))?;
        writeln!(f, "  cs {:x} ss {:x} rflags {:x} rsp {:016x}", self.cs, self.ss, self.rflags, self.rsp)?;
        writeln!(
            f,
            "  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}",
            self.rax, self.rbx, self.rcx, self.rdx
        )?;
        writeln!(
            f,
            "  rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}",
            self.rsi, self.rdi, self.rbp, self.r8
        )?;
        writeln!(
            f,
            "  r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}",
            self.r9, self.r10, self.r11, self.r12
        )?;
        writeln!(f, "  r13 {:016x} r14 {:016x} r15 {:016x}", self.r13, self.r14, self.r15)?;
        let root = Cr3::read_raw().0.start_address().as_u64();
        write!(f, "  cr2 {:016x} cr3 {root:016x} cr4 {:x}", Cr2::read_raw(), Cr4::read_raw())
    }
}

/// What a fault in the stacks' region means; an overflow arrives as a double fault, because the page fault finds no stack either.
const OVERFLOW: &str = "a stack's guard page: the kernel stack has overflowed";

/// A page fault in words (error code bits: SDM volume 3, figure 5-12).
struct PageFault {
    error: u64,
    address: u64,
}

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = |n: u32| self.error & (1 << n) != 0;
        let access = if bit(4) {
            "execute"
        } else if bit(1) {
            "write"
        } else {
            "read"
        };
        let cause = if bit(3) {
            "a reserved bit is set"
        } else if bit(0) {
            "the protection forbids it"
        } else {
            "nothing is mapped"
        };
        write!(f, "{access} at {:#018x}: {cause}", self.address)?;
        if crate::layout::STACKS.contains(self.address) {
            write!(f, " ({OVERFLOW})")?;
        }
        Ok(())
    }
}
