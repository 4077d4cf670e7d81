//! What a core must be set up with before the kernel runs on it, and what it can tell about itself.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use x86_64::registers::model_specific::Msr;

// Architectural MSRs (Intel SDM volume 4, table 2-2).
const IA32_APIC_BASE: u32 = 0x1b;
const IA32_PAT: u32 = 0x277;
const X2APIC_ID: u32 = 0x802;

const APIC_ENABLED: u64 = 1 << 11;
const APIC_EXTENDED: u64 = 1 << 10;

/// The layout the protocol gives ("Caching"): WB, WT, UC-, UC, WP, WC; the last two as at reset.
const PAT_LAYOUT: u64 = u64::from_le_bytes([6, 4, 7, 0, 5, 1, 7, 0]);

// CPUID.1 (Intel SDM volume 2, CPUID).
const HAS_X2APIC: u32 = 1 << 21;
const HAS_PAT: u32 = 1 << 16;

/// Reads a model-specific register.
pub(super) fn read_msr(msr: u32) -> u64 {
    // SAFETY: callers read registers that exist: architectural ones, or behind their CPUID bit.
    unsafe { Msr::new(msr).read() }
}

/// Writes a model-specific register.
pub(super) fn write_msr(msr: u32, value: u64) {
    let mut msr = Msr::new(msr);
    // SAFETY: the registers the loader writes (APIC, PAT, MTRR) change no address translation.
    unsafe { msr.write(value) };
}

/// Whether the processor has x2APIC mode.
pub(super) fn has_x2apic() -> bool {
    __cpuid(1).ecx & HAS_X2APIC != 0
}

/// Whether a hypervisor says that it is there (bit reserved for that purpose; AMD APM volume 3, CPUID Fn0000_0001).
pub(super) fn is_virtual() -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    __cpuid(1).ecx & HYPERVISOR != 0
}

/// Whether this core is in x2APIC mode.
pub(super) fn in_x2apic() -> bool {
    read_msr(IA32_APIC_BASE) & APIC_EXTENDED != 0
}

/// Puts this core's APIC into x2APIC mode (Intel SDM volume 3, 10.12.1).
pub(super) fn enter_x2apic() {
    write_msr(IA32_APIC_BASE, read_msr(IA32_APIC_BASE) | APIC_ENABLED | APIC_EXTENDED);
}

/// Physical address of this core's xAPIC registers.
pub(super) fn apic_base() -> u64 {
    read_msr(IA32_APIC_BASE) & 0x000f_ffff_ffff_f000
}

/// This core's APIC id. With many cores the 8-bit id of leaf 1 is cut off, so the extended topology leaf goes first.
pub(super) fn apic_id() -> u32 {
    const EXTENDED_TOPOLOGY: u32 = 0xb;
    if in_x2apic() {
        return u32::try_from(read_msr(X2APIC_ID) & 0xffff_ffff).unwrap_or(u32::MAX);
    }
    if __cpuid(0).eax >= EXTENDED_TOPOLOGY {
        let leaf = __cpuid_count(EXTENDED_TOPOLOGY, 0);
        if leaf.ebx != 0 {
            return leaf.edx;
        }
    }
    __cpuid(1).ebx >> 24
}

/// Gives the PAT the protocol's layout.
pub(super) fn set_pat() {
    if __cpuid(1).edx & HAS_PAT != 0 {
        write_msr(IA32_PAT, PAT_LAYOUT);
    }
}

/// What the kernel's page tables may use.
pub(super) fn paging_features() -> boot::paging::Features {
    const GIB_PAGES: u32 = 1 << 26;
    const NX: u32 = 1 << 20;
    let edx = __cpuid(0x8000_0001).edx;
    boot::paging::Features { gib_pages: edx & GIB_PAGES != 0, no_execute: edx & NX != 0 }
}
