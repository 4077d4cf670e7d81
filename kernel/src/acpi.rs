//! Firmware tables: found and checked by the `acpi` crate, except that SRAT, SLIT and HMAT go raw to `percpu::topology`.
//!
//! The tables may lie in reserved memory that no direct map shows, so every one is mapped on its own, read-only.

use core::ptr::NonNull;

use acpi::fadt::Fadt;
use acpi::hpet::HpetInfo;
use acpi::madt::{Madt, MadtEntry};
use acpi::sdt::{SdtHeader, Signature};
use acpi::{AcpiHandler, AcpiTable, AcpiTables, PhysicalMapping};
use spin::Once;
use x86_64::{PhysAddr, VirtAddr};

use crate::arch::io;
use crate::arch::paging::{self, Kind};
use crate::arch::tsc::Reference;

/// Maps tables for the `acpi` crate. Mappings stay: the tables are few and small.
#[derive(Clone, Copy)]
pub(crate) struct Handler;

impl AcpiHandler for Handler {
    unsafe fn map_physical_region<T>(&self, address: usize, size: usize) -> PhysicalMapping<Self, T> {
        let at = paging::map_physical(PhysAddr::new(address as u64), size as u64, Kind::ReadOnly)
            .expect("G8: the device region has room for every firmware table");
        let at = NonNull::new(at.as_mut_ptr::<T>()).expect("G8: the device region is not at address 0");
        // SAFETY: `size` bytes are mapped at `at`, for good.
        unsafe { PhysicalMapping::new(address, at, size, size, *self) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}

/// The firmware tables.
pub(crate) struct Tables(AcpiTables<Handler>);

/// The crate names most signatures, but not this one, and has no constructor.
// SAFETY: `Signature` is `repr(transparent)` over four bytes, any of which are valid.
const HMAT: Signature = unsafe { core::mem::transmute::<[u8; 4], Signature>(*b"HMAT") };

/// A table that is handed on as bytes.
macro_rules! raw_table {
    ($name:ident, $signature:expr) => {
        #[repr(transparent)]
        struct $name(SdtHeader);

        // SAFETY: the type is the header that every table begins with, and no more.
        unsafe impl AcpiTable for $name {
            const SIGNATURE: Signature = $signature;

            fn header(&self) -> &SdtHeader {
                &self.0
            }
        }
    };
}

raw_table!(Srat, Signature::SRAT);
raw_table!(Slit, Signature::SLIT);
raw_table!(Hmat, HMAT);
raw_table!(Dsdt, Signature::DSDT);

/// What the firmware says of interrupt lines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire {
    /// A controller, whose first pin is this global system interrupt.
    Controller {
        /// Where its registers are.
        address: PhysAddr,
        /// The first of its interrupts.
        first: u32,
    },
    /// An ISA interrupt that is another global system interrupt than that of its number, or looks different.
    Override {
        /// The ISA interrupt.
        isa: u8,
        /// The global system interrupt.
        interrupt: u32,
        /// MPS INTI flags.
        flags: u16,
    },
    /// A global system interrupt that is not to be delivered as one.
    NotMaskable {
        /// Which.
        interrupt: u32,
    },
}

/// The HPET and the PM timer; found once, because mapping a device takes address space and perhaps a table.
static REFERENCES: Once<[Option<Reference>; 2]> = Once::new();

/// All clocks of known frequency, the best first; none before [`Tables::reference_clock`].
pub(crate) fn references() -> impl Iterator<Item = &'static Reference> {
    REFERENCES.get().into_iter().flatten().flatten()
}

impl Tables {
    /// Opens the tables whose root pointer is at `rsdp`; `None` if they are damaged.
    pub(crate) fn open(rsdp: PhysAddr) -> Option<Self> {
        // SAFETY: the loader found the root pointer there; the crate checks its signature and checksum.
        unsafe { AcpiTables::from_rsdp(Handler, rsdp.as_u64() as usize) }.ok().map(Self)
    }

    fn bytes<T: AcpiTable>(&self) -> Option<&'static [u8]> {
        let table = self.0.find_table::<T>().ok()?;
        let (start, length) = (table.virtual_start().as_ptr().cast::<u8>(), table.region_length());
        // SAFETY: G8: the handler mapped the whole table read-only and never unmaps it.
        Some(unsafe { core::slice::from_raw_parts(start, length) })
    }

    /// The System Resource Affinity Table.
    pub(crate) fn srat(&self) -> Option<&'static [u8]> {
        self.bytes::<Srat>()
    }

    /// The System Locality Information Table.
    pub(crate) fn slit(&self) -> Option<&'static [u8]> {
        self.bytes::<Slit>()
    }

    /// The Heterogeneous Memory Attribute Table.
    pub(crate) fn hmat(&self) -> Option<&'static [u8]> {
        self.bytes::<Hmat>()
    }

    /// How many processors the firmware says are enabled (MADT flag bit 0, ACPI 6.5 table 5.22).
    pub(crate) fn enabled_processors(&self) -> Option<usize> {
        const ENABLED: u32 = 1;
        let madt = self.0.find_table::<Madt>().ok()?;
        let flags = madt.get().entries().map(|entry| match entry {
            MadtEntry::LocalApic(unit) => unit.flags,
            MadtEntry::LocalX2Apic(unit) => unit.flags,
            _ => 0,
        });
        Some(flags.filter(|flags| flags & ENABLED != 0).count())
    }

    /// Visits what the MADT says of interrupt lines (ACPI 6.5, §5.2.12), in its order.
    pub(crate) fn wires(&self, visit: &mut dyn FnMut(Wire)) {
        let Ok(madt) = self.0.find_table::<Madt>() else { return };
        for entry in madt.get().entries() {
            match entry {
                MadtEntry::IoApic(unit) => visit(Wire::Controller {
                    address: PhysAddr::new({ unit.io_apic_address }.into()),
                    first: unit.global_system_interrupt_base,
                }),
                // Bus 0 is ISA, the only one that there is.
                MadtEntry::InterruptSourceOverride(wire) if wire.bus == 0 => visit(Wire::Override {
                    isa: wire.irq,
                    interrupt: wire.global_system_interrupt,
                    flags: wire.flags,
                }),
                MadtEntry::NmiSource(wire) => {
                    visit(Wire::NotMaskable { interrupt: wire.global_system_interrupt });
                }
                _ => {}
            }
        }
    }

    /// A clock of known frequency: the HPET, else the PM timer.
    pub(crate) fn find_references(&self) {
        REFERENCES.call_once(|| [self.hpet(), self.pm_timer()]);
    }

    fn hpet(&self) -> Option<Reference> {
        /// Registers of the HPET (IA-PC HPET 1.0a, §2.3): capabilities and period, configuration, main counter.
        const CAPABILITIES: u64 = 0x0;
        const CONFIGURATION: u64 = 0x10;
        const COUNTER: u64 = 0xf0;
        const ENABLE: u64 = 1;
        const MAX_PERIOD: u64 = 100_000_000;

        let info = HpetInfo::new(&self.0).ok()?;
        let base = paging::map_physical(PhysAddr::new(info.base_address as u64), 0x400, Kind::Device)?;
        let register = |offset: u64| (base + offset).as_mut_ptr::<u64>();
        // SAFETY: G5: the page of the HPET was just mapped uncached.
        let capabilities = unsafe { register(CAPABILITIES).read_volatile() };
        let femtoseconds = capabilities >> 32;
        // SAFETY: G5, as above.
        let configuration = unsafe { register(CONFIGURATION).read_volatile() };
        // SAFETY: G5, as above; starting the counter disturbs nobody, since the kernel uses none of the HPET's timers.
        unsafe { register(CONFIGURATION).write_volatile(configuration | ENABLE) };
        // The period is at most 100 ns (§2.3.4): anything else is not an HPET to be trusted.
        (1..=MAX_PERIOD)
            .contains(&femtoseconds)
            .then(|| Reference::Hpet { counter: VirtAddr::from_ptr(register(COUNTER)), femtoseconds })
    }

    fn pm_timer(&self) -> Option<Reference> {
        let fadt = self.0.find_table::<Fadt>().ok()?;
        let block = fadt.pm_timer_block().ok()??;
        let wide = { fadt.flags }.pm_timer_is_32_bit();
        Some(Reference::PmTimer { port: u16::try_from(block.address).ok()?, wide })
    }

    /// What it takes to switch the machine off.
    pub(crate) fn power_off(&self) -> Option<PowerOff> {
        let fadt = self.0.find_table::<Fadt>().ok()?;
        let port = u16::try_from(fadt.pm1a_control_block().ok()?.address).ok()?;
        let address = fadt.dsdt_address().ok()?;
        // SAFETY: the FADT names the table; the handler maps its header, whose length field is read below.
        let header = unsafe { Handler.map_physical_region::<SdtHeader>(address, size_of::<SdtHeader>()) };
        let length = { header.get().length } as usize;
        // SAFETY: as above, now with the length that the header states.
        let table = unsafe { Handler.map_physical_region::<Dsdt>(address, length) };
        table.get().validate().ok()?;
        // SAFETY: G8: the whole table is mapped, for good.
        let aml = unsafe { core::slice::from_raw_parts(table.virtual_start().as_ptr().cast::<u8>(), length) };
        Some(PowerOff { port, sleep_type: soft_off_type(aml)? })
    }
}

/// The write that switches the machine off.
#[derive(Clone, Copy)]
pub(crate) struct PowerOff {
    port: u16,
    sleep_type: u8,
}

impl PowerOff {
    /// Switches the machine off; returns if it does not obey.
    pub(crate) fn perform(self) {
        /// PM1 control: SLP_TYP in bits 12:10, SLP_EN is bit 13 (ACPI 6.5 table 4.15).
        const SLEEP_ENABLE: u16 = 1 << 13;
        io::write_pm1_control(self.port, u16::from(self.sleep_type) << 10 | SLEEP_ENABLE);
    }
}

/// SLP_TYPa of `\_S5`: the first element of the package of that name (ACPI 6.5 §7.4.2.6).
///
/// The kernel has no AML interpreter; firmware encodes the package as a constant, which this reads: NameOp, `_S5_`, PackageOp,
/// PkgLength, element count, then a byte constant (with or without prefix).
fn soft_off_type(aml: &[u8]) -> Option<u8> {
    const PACKAGE: u8 = 0x12;
    const BYTE: u8 = 0x0a;
    let at = aml.windows(5).position(|w| w == [b'_', b'S', b'5', b'_', PACKAGE])? + 5;
    // PkgLength: the top two bits of its first byte count the bytes that follow (ACPI 6.5 §20.2.4).
    let length_bytes = usize::from(aml.get(at)? >> 6);
    let element = at + 1 + length_bytes + 1;
    match *aml.get(element)? {
        BYTE => aml.get(element + 1).copied(),
        constant @ (0 | 1) => Some(constant),
        _ => None,
    }
}
