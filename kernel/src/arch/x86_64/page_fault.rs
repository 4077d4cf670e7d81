//! The page fault between its entry (`irq_page_fault` in `entry.S`) and the address space ([`fault::resolve`]).
//!
//! A fault of the kernel is an answer, not a bug, only in `usercopy` and only on the user half (U1). Everything else is reported with
//! all registers, and the run ends.

use percpu::IrqOff;
use x86_64::VirtAddr;
use x86_64::structures::idt::PageFaultErrorCode as Error;

use super::usercopy;
use crate::fault::{self, Access, Kind, Mode, Obstacle, Resolution};

/// The part of an interrupted context that `irq_page_fault` keeps, lowest address first.
#[repr(C)]
pub(super) struct FaultFrame {
    /// What a C function may clobber: r11 to r8, rdi, rsi, rdx, rcx, rax.
    scratch: [u64; 9],
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const _: () = assert!(size_of::<FaultFrame>() == (9 + 1 + 5) * 8);

/// What the entry does after [`on_page_fault`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum After {
    /// Return to where the frame says.
    Return = 0,
    /// Report the fault and end the run.
    Report = 1,
}

/// Called by `irq_page_fault` with interrupts off; `address` is what CR2 held.
pub(super) extern "C" fn on_page_fault(frame: &mut FaultFrame, address: u64) -> After {
    let error = Error::from_bits_truncate(frame.error);
    let mode = if error.contains(Error::USER_MODE) { Mode::User } else { Mode::Kernel };
    let answerable = address < mm::user::USER_END as u64
        && !error.contains(Error::MALFORMED_TABLE)
        && (mode == Mode::User || usercopy::contains(frame.rip));
    if !answerable {
        return After::Report;
    }
    // SAFETY: an interrupt gate has turned interrupts off, and they come back with the return only.
    let mut irq = unsafe { IrqOff::assume() };
    match fault::resolve(&mut irq, VirtAddr::new_truncate(address), access(error, mode)) {
        Resolution::Retry => After::Return,
        Resolution::Refused => fix_up(frame, mode),
    }
}

/// The error code in words (SDM volume 3, figure 5-12).
pub(crate) fn access(error: Error, mode: Mode) -> Access {
    let kind = if error.contains(Error::INSTRUCTION_FETCH) {
        Kind::Execute
    } else if error.contains(Error::CAUSED_BY_WRITE) {
        Kind::Write
    } else {
        Kind::Read
    };
    let present = error.contains(Error::PROTECTION_VIOLATION);
    Access { kind, mode, obstacle: if present { Obstacle::Protection } else { Obstacle::Absent } }
}

/// Lets a copy of the kernel's go on where it answers for the fault. There is nobody yet to answer for a user program.
#[cold]
fn fix_up(frame: &mut FaultFrame, mode: Mode) -> After {
    match usercopy::fixup(frame.rip) {
        Some(fixup) if mode == Mode::Kernel => {
            frame.rip = fixup;
            After::Return
        }
        _ => After::Report,
    }
}
