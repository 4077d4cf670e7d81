//! What interrupts a program: page faults, its own mistakes, the timer, other cores, devices.

use abi::ipc::Fault;
use abi::task::ExitStatus;
use percpu::{IrqOff, mailbox};
use x86_64::VirtAddr;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::PageFaultErrorCode as Error;

use crate::arch::ioapic::{FIRST_VECTOR, LAST_VECTOR};
use crate::arch::tables::vector;
use crate::arch::user::Frame;
use crate::arch::{apic, ipi, page_fault};
use crate::fault::{self, Mode, Resolution};
use crate::process::Process;
use crate::{dispatch, handler, interrupt, log, thread};

/// Vectors below are exceptions (SDM volume 3, table 7-1).
const EXCEPTIONS: u64 = 32;

/// Called by `user.S` with a program's registers saved; afterwards the current thread goes on, unless something is pending.
pub(crate) extern "C" fn trap(frame: &Frame) {
    // SAFETY: an interrupt gate has turned interrupts off, and they come back with the return to ring 3 only.
    let mut irq = unsafe { IrqOff::assume() };
    match frame.vector as u8 {
        device @ FIRST_VECTOR..=LAST_VECTOR => {
            interrupt::strike(&mut irq, usize::from(device - FIRST_VECTOR));
        }
        vector::PAGE_FAULT => on_page_fault(&mut irq, frame),
        vector::TIMER => dispatch::on_timer(&mut irq),
        vector::IPI => {
            ipi::count(&irq);
            apic::end_of_interrupt();
            mailbox::serve_unless_armed(&mut irq);
            dispatch::passed_through(&mut irq);
        }
        vector::SPURIOUS => {}
        _ if frame.vector < EXCEPTIONS => fail(&mut irq, frame, Fault::EXCEPTIONS, frame.rip),
        other => {
            apic::end_of_interrupt();
            log!("unexpected interrupt, vector {other:#x}: ignored");
        }
    }
}

fn on_page_fault(irq: &mut IrqOff, frame: &Frame) {
    let address = Cr2::read_raw();
    let error = Error::from_bits_truncate(frame.error);
    dispatch::current(irq).process().count_fault();
    let resolvable = address < mm::user::USER_END as u64 && !error.contains(Error::MALFORMED_TABLE);
    if resolvable {
        let access = page_fault::access(error, Mode::User);
        if fault::resolve(irq, VirtAddr::new_truncate(address), access) == Resolution::Retry {
            return;
        }
    }
    fail(irq, frame, Fault::PAGES, address);
}

/// A fault that the kernel cannot resolve: for the process's handler, or the process's end.
fn fail(irq: &mut IrqOff, frame: &Frame, kind: u64, address: u64) {
    let (vector, instruction) = (frame.vector, frame.rip);
    let thread = dispatch::current(irq);
    handler::report(irq, thread, kind, address);
    end(irq, vector, address, instruction);
}

/// Ends the current thread's process for a fault.
#[cold]
fn end(irq: &mut IrqOff, vector: u64, address: u64, instruction: u64) {
    let status = ExitStatus { reason: ExitStatus::FAULTED, code: vector, address, instruction };
    Process::end_own(irq, status);
}

/// The current thread's saved return address is not canonical: what the CPU would answer with a general protection fault; or it is none, for
/// the handler of a fault has refused.
pub(crate) extern "C" fn far_return() -> ! {
    // SAFETY: interrupts are off in the kernel, and the stack is empty.
    let mut irq = unsafe { IrqOff::assume() };
    let thread: thread::ThreadRef = dispatch::current(&irq);
    match handler::status(thread) {
        Some(status) => Process::end_own(&mut irq, status),
        None => {
            let at = thread.frame().rip;
            end(&mut irq, u64::from(vector::GENERAL_PROTECTION), at, at);
        }
    }
    dispatch::leave()
}
