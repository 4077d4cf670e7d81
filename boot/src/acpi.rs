//! The few ACPI tables a loader needs: the root pointer, MADT (cores, I/O APICs) and FADT (the PM timer).
//!
//! An own walk of about a hundred lines instead of a crate: it reads through [`Memory`], so hostile tables and
//! truncated memory are tested on the host, and it allocates nothing. Section numbers are those of ACPI 6.5.

use crate::{Memory, array, to_usize, u32_at, u64_at};

/// Largest table the loader reads: a MADT of 64 Ki cores is smaller.
const MAX_TABLE: u32 = 0x10_0000;
/// Bytes of the header every table starts with (5.2.6).
const HEADER: usize = 36;

/// The root of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// Physical address of the root pointer itself.
    pub rsdp: u64,
    table: u64,
    entry: usize,
}

impl Root {
    /// Reads the root pointer at `rsdp` (5.2.5.3).
    #[must_use]
    pub fn read<M: Memory>(memory: &M, rsdp: u64) -> Option<Self> {
        let head =
            memory.bytes(rsdp, 20).filter(|head| head.starts_with(b"RSD PTR ") && sums_to_zero(head))?;
        if head[15] >= 2 {
            let whole = memory.bytes(rsdp, 36).filter(|whole| sums_to_zero(whole))?;
            if let Some(table) = u64_at(whole, 24).filter(|&table| table != 0) {
                return Some(Self { rsdp, table, entry: 8 });
            }
        }
        Some(Self { rsdp, table: u64::from(u32_at(head, 16)?), entry: 4 })
    }

    /// Looks for the root pointer where BIOS firmware puts it (5.2.5.1).
    #[must_use]
    pub fn search<M: Memory>(memory: &M) -> Option<Self> {
        let ebda = memory.bytes(0x40e, 2).and_then(|segment| array(segment, 0)).map_or(0, u16::from_le_bytes);
        let ebda = u64::from(ebda) << 4;
        let in_ebda = (ebda..ebda + 1024).step_by(16).filter(|_| ebda >= 0x400);
        in_ebda.chain((0xe_0000..0x10_0000).step_by(16)).find_map(|at| Self::read(memory, at))
    }

    /// The first table with this signature.
    #[must_use]
    pub fn table<'m, M: Memory>(&self, memory: &'m M, signature: [u8; 4]) -> Option<&'m [u8]> {
        let entries = read_table(memory, self.table)?.get(HEADER..)?;
        let addresses = entries.chunks_exact(self.entry).map(|entry| match self.entry {
            8 => u64_at(entry, 0).unwrap_or(0),
            _ => u64::from(u32_at(entry, 0).unwrap_or(0)),
        });
        addresses.filter_map(|at| read_table(memory, at)).find(|table| table.starts_with(&signature))
    }
}

/// A whole table with a correct checksum.
fn read_table<M: Memory>(memory: &M, at: u64) -> Option<&[u8]> {
    let len = u32_at(memory.bytes(at, HEADER)?, 4).filter(|&len| len <= MAX_TABLE)?;
    let table = memory.bytes(at, to_usize(u64::from(len)))?;
    (table.len() >= HEADER && sums_to_zero(table)).then_some(table)
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

/// A core as the MADT lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// ACPI processor UID.
    pub acpi_id: u32,
    /// APIC id.
    pub apic_id: u32,
}

// Types of the MADT's structures.
const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const LOCAL_X2APIC: u8 = 9;

/// The MADT (5.2.12).
#[derive(Clone, Copy, Debug)]
pub struct Madt<'m>(&'m [u8]);

impl<'m> Madt<'m> {
    /// Finds the table.
    #[must_use]
    pub fn find<M: Memory>(memory: &'m M, root: &Root) -> Option<Self> {
        root.table(memory, *b"APIC").map(Self)
    }

    /// The structures behind the fixed part: type and content without the two header bytes. Ends at the first
    /// malformed one.
    fn entries(&self) -> impl Iterator<Item = (u8, &'m [u8])> + use<'m> {
        let mut rest = self.0.get(HEADER + 8..).unwrap_or_default();
        core::iter::from_fn(move || {
            let (&[kind, len], _) = rest.split_first_chunk::<2>()?;
            let (entry, behind) = rest.split_at_checked(usize::from(len)).filter(|_| len >= 2)?;
            rest = behind;
            Some((kind, &entry[2..]))
        })
    }

    /// The cores that are present: those whose enabled flag is set. A core that is merely online-capable (5.2.12.2)
    /// is not there until the firmware says so. The same id twice, once as a local APIC and once as a local x2APIC
    /// entry, counts once.
    pub fn cores(&self) -> impl Iterator<Item = Core> + use<'m> {
        let madt = *self;
        let is_repeated = move |apic_id| {
            madt.entries().any(|(kind, entry)| {
                kind == LOCAL_APIC && core((kind, entry)).is_some_and(|core| core.apic_id == apic_id)
            })
        };
        let counted = move |(kind, entry): (u8, &'m [u8])| {
            core((kind, entry)).filter(|core| kind == LOCAL_APIC || !is_repeated(core.apic_id))
        };
        self.entries().filter_map(counted)
    }

    /// Physical addresses of the I/O APICs (5.2.12.3).
    pub fn io_apics(&self) -> impl Iterator<Item = u64> + use<'m> {
        self.entries()
            .filter(|&(kind, _)| kind == IO_APIC)
            .filter_map(|(_, entry)| u32_at(entry, 2))
            .map(u64::from)
    }
}

/// A present core, from a local APIC (5.2.12.2) or local x2APIC (5.2.12.12) structure.
fn core((kind, entry): (u8, &[u8])) -> Option<Core> {
    const ENABLED: u32 = 1;
    let (acpi_id, apic_id, flags) = match kind {
        LOCAL_APIC => (u32::from(*entry.first()?), u32::from(*entry.get(1)?), u32_at(entry, 2)?),
        LOCAL_X2APIC => (u32_at(entry, 10)?, u32_at(entry, 2)?, u32_at(entry, 6)?),
        _ => return None,
    };
    let broadcast = if kind == LOCAL_APIC { 0xff } else { u32::MAX };
    (flags & ENABLED != 0 && apic_id != broadcast).then_some(Core { acpi_id, apic_id })
}

/// I/O port of the PM timer (5.2.9, 4.8.3.3), if the machine has one.
#[must_use]
pub fn pm_timer_port<M: Memory>(memory: &M, root: &Root) -> Option<u16> {
    const PM_TMR_BLK: usize = 76;
    const X_PM_TMR_BLK: usize = 208;
    const SYSTEM_IO: u8 = 1;
    let fadt = root.table(memory, *b"FACP")?;
    let extended = fadt
        .get(X_PM_TMR_BLK)
        .filter(|&&space| space == SYSTEM_IO)
        .and_then(|_| u64_at(fadt, X_PM_TMR_BLK + 4));
    let port = extended.filter(|&port| port != 0).or(u32_at(fadt, PM_TMR_BLK).map(u64::from))?;
    u16::try_from(port).ok().filter(|&port| port != 0)
}

#[cfg(test)]
#[path = "acpi_tests.rs"]
mod tests;
