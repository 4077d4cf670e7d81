//! Probes of memory: what is not mapped, not ours, or not for this kind of access.

use core::hint::black_box;
use core::ptr;

use abi::task::Protection;
use rt::handle::Typed;
use rt::start::Start;
use rt::sys;

use crate::{Try, WENT_THROUGH, arch};

/// Where the kernel has all memory mapped.
const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Where the kernel is.
const KERNEL_IMAGE: u64 = 0xffff_ffff_8000_0000;
/// An address that no CPU forms.
const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;
/// The last page of the lower half: after an instruction at its very end comes an address that no CPU forms.
const LAST_PAGE: u64 = 0x7fff_ffff_f000;
const PAGE: u64 = 4096;

fn or(operand: u64, otherwise: u64) -> u64 {
    if operand == 0 { otherwise } else { operand }
}

fn read(address: u64) -> u64 {
    // SAFETY: ends the process, or the probe has failed.
    black_box(unsafe { ptr::read_volatile(address as *const u8) });
    WENT_THROUGH
}

fn write(address: u64) -> u64 {
    // SAFETY: ends the process, or the probe has failed.
    unsafe { ptr::write_volatile(address as *mut u8, 0) };
    WENT_THROUGH
}

fn execute(address: u64) -> u64 {
    arch::call(address);
    WENT_THROUGH
}

/// Vector 14.
fn read_null(_: u64) -> u64 {
    read(0)
}

/// Vector 14.
fn read_kernel(operand: u64) -> u64 {
    read(or(operand, DIRECT_MAP))
}

/// Vector 14.
fn write_kernel(operand: u64) -> u64 {
    write(or(operand, KERNEL_IMAGE))
}

/// Vector 13.
fn read_non_canonical(operand: u64) -> u64 {
    read(or(operand, NON_CANONICAL))
}

/// Vector 14: what another process has at an address is not here.
fn read_other(operand: u64) -> u64 {
    read(operand)
}

/// Vector 14.
fn execute_stack(_: u64) -> u64 {
    let code = black_box([arch::RETURN; 16]);
    execute(code.as_ptr() as u64)
}

/// Vector 14.
fn execute_heap(_: u64) -> u64 {
    let own = Start::get().process().handle();
    // SAFETY: new pages at the kernel's choice.
    let Ok(page) = (unsafe { sys::map(own, 0, 1, Protection::ReadWrite as u64) }) else { return 1 };
    // SAFETY: the page was mapped just now.
    unsafe { ptr::write_volatile(page as *mut u8, arch::RETURN) };
    execute(page)
}

/// Vector 14.
fn write_text(_: u64) -> u64 {
    write(write_text as *const () as u64)
}

/// Vector 14.
fn write_constant(_: u64) -> u64 {
    static CONSTANT: [u8; 64] = [1; 64];
    write(black_box(&CONSTANT).as_ptr() as u64)
}

/// Vector 14: what was unmapped is gone at once.
fn read_unmapped(_: u64) -> u64 {
    let own = Start::get().process().handle();
    // SAFETY: new pages at the kernel's choice.
    let Ok(page) = (unsafe { sys::map(own, 0, 1, Protection::ReadWrite as u64) }) else { return 1 };
    // SAFETY: the page was mapped just now.
    unsafe { ptr::write_volatile(page as *mut u8, 1) };
    // SAFETY: nothing but this probe knows of the page.
    if unsafe { sys::unmap(own, page, 1) }.is_err() {
        return 2;
    }
    read(page)
}

/// Vector 14: a page made executable is not writable any more.
fn write_executable(_: u64) -> u64 {
    let own = Start::get().process().handle();
    // SAFETY: new pages at the kernel's choice.
    let Ok(page) = (unsafe { sys::map(own, 0, 1, Protection::ReadWrite as u64) }) else { return 1 };
    // SAFETY: the page was mapped just now.
    unsafe { ptr::write_volatile(page as *mut u8, arch::RETURN) };
    // SAFETY: nothing but this probe knows of the page.
    if unsafe { sys::protect(own, page, 1, Protection::ReadExecute as u64) }.is_err() {
        return 2;
    }
    arch::call(page);
    write(page)
}

/// Survives if the kernel refuses to map there, else vector 13 or 14 here: a `syscall` whose return address no CPU forms must not fault
/// inside the kernel (SYSRET on Intel CPUs, CVE-2012-0217).
fn return_non_canonical(_: u64) -> u64 {
    let own = Start::get().process().handle();
    // SAFETY: nothing is at the top of the lower half.
    if unsafe { sys::map(own, LAST_PAGE, 1, Protection::ReadWrite as u64) }.is_err() {
        return 0;
    }
    let at = LAST_PAGE + PAGE - arch::SYSCALL.len() as u64;
    for (place, byte) in (at..).zip(arch::SYSCALL) {
        // SAFETY: inside the page that was mapped just now.
        unsafe { ptr::write_volatile(place as *mut u8, byte) };
    }
    // SAFETY: nothing but this probe knows of the page.
    if unsafe { sys::protect(own, LAST_PAGE, 1, Protection::ReadExecute as u64) }.is_err() {
        return 2;
    }
    execute(at)
}

/// The probes of this module.
pub(crate) const PROBES: &[(&str, Try)] = &[
    ("read-null", read_null),
    ("read-kernel", read_kernel),
    ("write-kernel", write_kernel),
    ("read-noncanonical", read_non_canonical),
    ("read-other", read_other),
    ("execute-stack", execute_stack),
    ("execute-heap", execute_heap),
    ("write-text", write_text),
    ("write-constant", write_constant),
    ("read-unmapped", read_unmapped),
    ("write-executable", write_executable),
    ("return-noncanonical", return_non_canonical),
];
