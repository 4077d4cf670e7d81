//! Readers for the ACPI tables that describe affinity: SRAT, SLIT, HMAT.
//!
//! Written after ACPI 6.5: header §5.2.6, SRAT §5.2.16, SLIT §5.2.17, HMAT §5.2.28. A table is checked as a whole by its
//! `parse`, every length against the bytes at hand; it is then used or rejected, never half believed.
//!
//! * A1: after `parse`, every structure of the table lies inside its bytes.

use super::{ApicId, Domain};

/// Length of the header that all tables share.
const HEADER: usize = 36;
const LENGTH_AT: usize = 4;
const REVISION_AT: usize = 8;

/// Why a table was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// The bytes end before the table, or a structure inside it, does.
    Truncated,
    /// It is another table.
    Signature,
    /// The bytes do not add up to zero.
    Checksum,
    /// A revision with another layout or unit.
    Revision,
    /// Contents that cannot be true, such as a distance below that of the node to itself.
    Values,
}

/// Little-endian fields at byte offsets; `None` beyond the end.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }

    fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    /// A 32-bit length or count as an index.
    fn index(self, at: usize) -> Option<usize> {
        usize::try_from(self.u32(at)?).ok()
    }

    fn split(self, at: usize) -> Option<(Bytes<'a>, Bytes<'a>)> {
        self.0.split_at_checked(at).map(|(head, tail)| (Bytes(head), Bytes(tail)))
    }
}

/// Checks signature, length and checksum, and cuts the bytes to the table's length.
fn table<'a>(signature: &[u8; 4], bytes: &'a [u8]) -> Result<Bytes<'a>, TableError> {
    let bytes = Bytes(bytes);
    if bytes.array::<4>(0).ok_or(TableError::Truncated)? != *signature {
        return Err(TableError::Signature);
    }
    let length = bytes.index(LENGTH_AT).ok_or(TableError::Truncated)?;
    let (table, _) = bytes.split(length).ok_or(TableError::Truncated)?;
    if length < HEADER {
        return Err(TableError::Truncated);
    }
    if table.0.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) != 0 {
        return Err(TableError::Checksum);
    }
    Ok(table)
}

/// The System Resource Affinity Table: which core and which memory is near which.
#[derive(Clone, Copy)]
pub struct Srat<'a>(Bytes<'a>);

/// One entry of an [`Srat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// A core belongs to a domain.
    Core {
        /// Its interrupt id.
        apic: ApicId,
        /// Its domain.
        domain: Domain,
    },
    /// A range of memory belongs to a domain.
    Memory {
        /// First physical byte.
        base: u64,
        /// Bytes.
        length: u64,
        /// Its domain.
        domain: Domain,
        /// What kind of memory it may be.
        kind: MemoryKind,
    },
}

/// What an affinity range may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Memory that is there.
    Fixed,
    /// A window into which memory may be plugged; the memory map says how much is there.
    Hotplug,
    /// Non-volatile memory, plugged or not.
    NonVolatile,
}

impl<'a> Srat<'a> {
    /// The entries begin after the header and twelve reserved bytes.
    const ENTRIES: usize = HEADER + 12;

    /// Checks the table.
    ///
    /// # Errors
    /// When it is not a whole, well-formed SRAT.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = table(b"SRAT", bytes)?;
        let (_, entries) = table.split(Self::ENTRIES).ok_or(TableError::Truncated)?;
        let mut rest = entries;
        while !rest.0.is_empty() {
            (_, rest) = Self::cut(rest).ok_or(TableError::Truncated)?;
        }
        Ok(Self(entries))
    }

    /// The first entry and the rest; an entry is at least its type and length byte.
    fn cut(entries: Bytes<'a>) -> Option<(Bytes<'a>, Bytes<'a>)> {
        let length = usize::from(entries.u8(1)?);
        if length < 2 { None } else { entries.split(length) }
    }

    /// The enabled entries for cores and memory. Others (interrupt translation, generic initiators) are passed over.
    pub fn entries(self) -> impl Iterator<Item = Affinity> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (entry, tail) = Self::cut(rest)?;
            rest = tail;
            Some(entry)
        })
        .filter_map(decode_affinity)
    }
}

/// §5.2.16.1 to §5.2.16.3; `None` for other types, disabled entries and entries that are too short.
fn decode_affinity(entry: Bytes<'_>) -> Option<Affinity> {
    const LOCAL_APIC: u8 = 0;
    const MEMORY: u8 = 1;
    const LOCAL_X2APIC: u8 = 2;
    const ENABLED: u32 = 1 << 0;
    const HOTPLUG: u32 = 1 << 1;
    const NON_VOLATILE: u32 = 1 << 2;

    let enabled = |at| entry.u32(at).filter(|flags| flags & ENABLED != 0);
    match entry.u8(0)? {
        LOCAL_APIC => {
            enabled(4)?;
            // The domain's upper 24 bits came later and stand apart.
            let [high0, high1, high2] = entry.array(9)?;
            let domain = Domain(u32::from_le_bytes([entry.u8(2)?, high0, high1, high2]));
            Some(Affinity::Core { apic: ApicId(entry.u8(3)?.into()), domain })
        }
        MEMORY => {
            let flags = enabled(28)?;
            let kind = match flags {
                _ if flags & NON_VOLATILE != 0 => MemoryKind::NonVolatile,
                _ if flags & HOTPLUG != 0 => MemoryKind::Hotplug,
                _ => MemoryKind::Fixed,
            };
            let (base, length) = (entry.u64(8)?, entry.u64(16)?);
            Some(Affinity::Memory { base, length, domain: Domain(entry.u32(2)?), kind })
        }
        LOCAL_X2APIC => {
            enabled(12)?;
            Some(Affinity::Core { apic: ApicId(entry.u32(8)?), domain: Domain(entry.u32(4)?) })
        }
        _ => None,
    }
}

/// The System Locality Information Table: relative distances, 10 being that of a node to itself.
#[derive(Clone, Copy)]
pub struct Slit<'a> {
    localities: usize,
    distances: &'a [u8],
}

impl<'a> Slit<'a> {
    const COUNT_AT: usize = HEADER;
    const ENTRIES: usize = HEADER + 8;
    /// The distance of a node to itself, §5.2.17.
    pub const SELF: u8 = 10;
    /// Two domains that cannot reach each other, §5.2.17.
    pub const UNREACHABLE: u8 = 255;

    /// Checks the table.
    ///
    /// # Errors
    /// When it is not a whole SLIT, or a distance contradicts the specification.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = table(b"SLIT", bytes)?;
        let count = table.u64(Self::COUNT_AT).ok_or(TableError::Truncated)?;
        let localities = usize::try_from(count).map_err(|_| TableError::Truncated)?;
        let size = localities.checked_mul(localities).ok_or(TableError::Truncated)?;
        let (_, entries) = table.split(Self::ENTRIES).ok_or(TableError::Truncated)?;
        let distances = entries.0.get(..size).ok_or(TableError::Truncated)?;
        let plausible = |(at, &distance): (usize, &u8)| {
            let own = at / localities == at % localities;
            if own { distance == Self::SELF } else { distance > Self::SELF }
        };
        if localities == 0 || !distances.iter().enumerate().all(plausible) {
            return Err(TableError::Values);
        }
        Ok(Self { localities, distances })
    }

    /// The distance, if the table covers both domains.
    #[must_use]
    pub fn distance(&self, from: Domain, to: Domain) -> Option<u8> {
        let (from, to) = (usize::try_from(from.0).ok()?, usize::try_from(to.0).ok()?);
        if to >= self.localities {
            return None;
        }
        self.distances.get(from.checked_mul(self.localities)?.checked_add(to)?).copied()
    }
}

/// The Heterogeneous Memory Attribute Table: latencies and bandwidths.
#[derive(Clone, Copy)]
pub struct Hmat<'a>(Bytes<'a>);

/// What the numbers of a [`Matrix`] mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Latency of reads and writes, picoseconds.
    AccessLatency,
    /// Latency of reads, picoseconds.
    ReadLatency,
    /// Latency of writes, picoseconds.
    WriteLatency,
    /// Bandwidth of reads and writes, megabytes per second.
    AccessBandwidth,
    /// Bandwidth of reads, megabytes per second.
    ReadBandwidth,
    /// Bandwidth of writes, megabytes per second.
    WriteBandwidth,
}

/// One latency or bandwidth matrix of memory (not of a memory-side cache).
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// What is measured.
    pub measure: Measure,
    /// What one step of an entry is worth, in the measure's unit.
    pub base_unit: u64,
    initiators: usize,
    targets: usize,
    /// Initiator list, target list, entries.
    lists: Bytes<'a>,
}

impl<'a> Hmat<'a> {
    const STRUCTURES: usize = HEADER + 4;
    /// From revision 2 on latencies are in picoseconds; revision 1 had another unit.
    const REVISION: u8 = 2;

    /// Checks the table.
    ///
    /// # Errors
    /// When it is not a whole, well-formed HMAT of revision 2 or later.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        let table = table(b"HMAT", bytes)?;
        if table.u8(REVISION_AT).is_none_or(|revision| revision < Self::REVISION) {
            return Err(TableError::Revision);
        }
        let (_, structures) = table.split(Self::STRUCTURES).ok_or(TableError::Truncated)?;
        let mut rest = structures;
        while !rest.0.is_empty() {
            let (structure, tail) = Self::cut(rest).ok_or(TableError::Truncated)?;
            if Matrix::is_matrix(structure) && Matrix::lists(structure).is_none() {
                return Err(TableError::Truncated);
            }
            rest = tail;
        }
        Ok(Self(structures))
    }

    /// The first structure and the rest; a structure is at least its type, a reserved word and its length.
    fn cut(structures: Bytes<'a>) -> Option<(Bytes<'a>, Bytes<'a>)> {
        let length = structures.index(4)?;
        if length < 8 { None } else { structures.split(length) }
    }

    /// The matrices that concern memory itself.
    pub fn matrices(self) -> impl Iterator<Item = Matrix<'a>> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (structure, tail) = Self::cut(rest)?;
            rest = tail;
            Some(structure)
        })
        .filter_map(Matrix::decode)
    }
}

impl<'a> Matrix<'a> {
    /// "System Locality Latency and Bandwidth Information", §5.2.28.4.
    const TYPE: u16 = 1;
    const LISTS: usize = 32;
    /// An entry without information, and one that says "not reachable".
    const NOTHING: [u16; 2] = [0, u16::MAX];

    fn is_matrix(structure: Bytes<'_>) -> bool {
        structure.u16(0) == Some(Self::TYPE)
    }

    /// Both counts and the bytes of lists and entries, if these fit.
    fn lists(structure: Bytes<'a>) -> Option<(usize, usize, Bytes<'a>)> {
        let (initiators, targets) = (structure.index(12)?, structure.index(16)?);
        let entries = initiators.checked_mul(targets)?.checked_mul(2)?;
        let size = initiators.checked_add(targets)?.checked_mul(4)?.checked_add(entries)?;
        let (_, lists) = structure.split(Self::LISTS)?;
        Some((initiators, targets, lists.split(size)?.0))
    }

    fn decode(structure: Bytes<'a>) -> Option<Self> {
        /// Lower half of the flags: 0 is memory, the rest are memory-side caches.
        const HIERARCHY: u8 = 0x0f;
        if !Self::is_matrix(structure) || structure.u8(8)? & HIERARCHY != 0 {
            return None;
        }
        let measure = match structure.u8(9)? {
            0 => Measure::AccessLatency,
            1 => Measure::ReadLatency,
            2 => Measure::WriteLatency,
            3 => Measure::AccessBandwidth,
            4 => Measure::ReadBandwidth,
            5 => Measure::WriteBandwidth,
            _ => return None,
        };
        let (initiators, targets, lists) = Self::lists(structure)?;
        Some(Self { measure, base_unit: structure.u64(24)?, initiators, targets, lists })
    }

    /// The entries that say something: initiator, target, number of base units.
    pub fn entries(self) -> impl Iterator<Item = (Domain, Domain, u16)> + use<'a> {
        let target_list = 4 * self.initiators;
        let entries = target_list + 4 * self.targets;
        (0..self.initiators).flat_map(move |i| {
            (0..self.targets).filter_map(move |t| {
                let value = self.lists.u16(entries + 2 * (i * self.targets + t))?;
                let (from, to) = (self.lists.u32(4 * i)?, self.lists.u32(target_list + 4 * t)?);
                (!Self::NOTHING.contains(&value)).then_some((Domain(from), Domain(to), value))
            })
        })
    }
}
