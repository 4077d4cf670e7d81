//! What this CPU can do, and switching on what protects the kernel.

use core::arch::x86_64::__cpuid_count;

use percpu::topology::cpuid::Registers;
use raw_cpuid::{CpuId, CpuIdReaderNative};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

/// Fast short `rep movsb` (SDM volume 2, CPUID: leaf 7, EDX bit 4), for which `raw-cpuid` has no name.
const FSRM_LEAF: u32 = 7;
const FSRM: u32 = 1 << 4;

/// CPU features that the kernel acts on or reports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features {
    pub(crate) x2apic: bool,
    pub(crate) nx: bool,
    pub(crate) smep: bool,
    pub(crate) smap: bool,
    pub(crate) umip: bool,
    pub(crate) huge_1g: bool,
    pub(crate) pcid: bool,
    pub(crate) invpcid: bool,
    pub(crate) rdtscp: bool,
    pub(crate) invariant_tsc: bool,
    pub(crate) tsc_deadline: bool,
    pub(crate) monitor: bool,
    pub(crate) fsgsbase: bool,
    pub(crate) erms: bool,
    pub(crate) fsrm: bool,
    pub(crate) hypervisor: bool,
    /// Bits of a physical address.
    pub(crate) physical_bits: u8,
}

impl Features {
    /// Reads the features of the CPU this runs on.
    pub(crate) fn read() -> Self {
        let id = CpuId::new();
        let mut features = Self::default();
        if let Some(info) = id.get_feature_info() {
            features.x2apic = info.has_x2apic();
            features.pcid = info.has_pcid();
            features.tsc_deadline = info.has_tsc_deadline();
            features.monitor = info.has_monitor_mwait();
            features.hypervisor = info.has_hypervisor();
        }
        if let Some(info) = id.get_extended_feature_info() {
            features.smep = info.has_smep();
            features.smap = info.has_smap();
            features.umip = info.has_umip();
            features.invpcid = info.has_invpcid();
            features.fsgsbase = info.has_fsgsbase();
            features.erms = info.has_rep_movsb_stosb();
            features.fsrm = leaf(FSRM_LEAF, 0).edx & FSRM != 0;
        }
        if let Some(info) = id.get_extended_processor_and_feature_identifiers() {
            features.nx = info.has_execute_disable();
            features.huge_1g = info.has_1gib_pages();
            features.rdtscp = info.has_rdtscp();
        }
        // Without the leaf 36 (SDM volume 2, CPUID: leaf 80000008H).
        let capacity = id.get_processor_capacity_feature_info();
        features.physical_bits = capacity.map_or(36, |info| info.physical_address_bits());
        if let Some(info) = id.get_advanced_power_mgmt_info() {
            features.invariant_tsc = info.has_invariant_tsc();
        }
        features
    }

    /// The names of the features that are present, in a fixed order, for reports.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            ("x2apic", self.x2apic),
            ("nx", self.nx),
            ("smep", self.smep),
            ("smap", self.smap),
            ("umip", self.umip),
            ("1gib_pages", self.huge_1g),
            ("pcid", self.pcid),
            ("invpcid", self.invpcid),
            ("rdtscp", self.rdtscp),
            ("invariant_tsc", self.invariant_tsc),
            ("tsc_deadline", self.tsc_deadline),
            ("monitor", self.monitor),
            ("fsgsbase", self.fsgsbase),
            ("erms", self.erms),
            ("fsrm", self.fsrm),
            ("hypervisor", self.hypervisor),
        ]
        .into_iter()
        .filter_map(|(name, present)| present.then_some(name))
    }
}

/// One CPUID leaf, as `percpu::topology` wants it.
pub(crate) fn leaf(leaf: u32, subleaf: u32) -> Registers {
    let r = __cpuid_count(leaf, subleaf);
    Registers { eax: r.eax, ebx: r.ebx, ecx: r.ecx, edx: r.edx }
}

/// CPUID of this CPU.
pub(crate) fn cpuid() -> CpuId<CpuIdReaderNative> {
    CpuId::new()
}

/// Switches on write protection, no-execute and, where present, SMEP, SMAP, UMIP and global pages (SDM volume 3, §2.5 and §4.6).
///
/// The kernel's tables use the no-execute bit, which the protocol has switched on before (EFER.NXE where present); an application
/// processor is in them already when it calls this.
pub(crate) fn protect(features: &Features) {
    if features.nx {
        // SAFETY: G1: no mapping in use executes from a page with the bit set.
        unsafe { Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE)) };
    }
    let cr0 = Cr0Flags::WRITE_PROTECT | Cr0Flags::NUMERIC_ERROR | Cr0Flags::MONITOR_COPROCESSOR;
    // SAFETY: G1: the kernel never writes through a read-only mapping; the kernel uses no floating point.
    unsafe { Cr0::update(|flags| flags.insert(cr0)) };
    let mut cr4 = Cr4Flags::PAGE_GLOBAL;
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, features.smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, features.smap);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, features.umip);
    // SAFETY: every bit was found in CPUID, and the kernel touches user memory only where `usercopy` opens it.
    unsafe { Cr4::update(|flags| flags.insert(cr4)) };
}

/// The protections that are switched on on one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    pub(crate) write_protect: bool,
    pub(crate) no_execute: bool,
    pub(crate) smep: bool,
    pub(crate) smap: bool,
    pub(crate) umip: bool,
}

impl Protection {
    /// What [`protect`] switches on where a CPU has these features.
    pub(crate) fn expected(features: &Features) -> Self {
        Self {
            write_protect: true,
            no_execute: features.nx,
            smep: features.smep,
            smap: features.smap,
            umip: features.umip,
        }
    }

    /// What is on on the core this runs on.
    pub(crate) fn in_force() -> Self {
        let cr4 = Cr4::read();
        Self {
            write_protect: Cr0::read().contains(Cr0Flags::WRITE_PROTECT),
            no_execute: Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE),
            smep: cr4.contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION),
            smap: cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION),
            umip: cr4.contains(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION),
        }
    }
}
