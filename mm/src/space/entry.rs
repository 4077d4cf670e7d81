//! Entries of page tables: what the CPU reads, and what is remembered where it reads nothing.
//!
//! The tables are the only record of an address space: an entry that is not present says what a fault there means, at any level, so that
//! a region of any size takes as few entries as its alignment allows and needs no list of regions beside it. The idea is that of
//! CortenMM (SOSP 2025); formats: Intel SDM volume 3, §5.5.
//!
//! | bits | present leaf | not present |
//! |---|---|---|
//! | 0 | 1 | 0 |
//! | 1–8 | protection, user, cache, accessed, dirty, size | bits 1–3 the [`Kind`] |
//! | 9 | owned: the frame goes with the mapping | – |
//! | 10 | the region may be written | the same |
//! | 11 | shared until written | may be backed by a 2 MiB block |
//! | 12–51 | frame | ones: no memory lies there, so speculation finds nothing (L1 terminal fault) |
//! | 52–61 | record | record |
//! | 62, 63 | not executable, as asked and as the CPU reads it | the same |

use super::{Kind, Protection, SpaceError};
use crate::id::FrameId;
use crate::virt::PageSize;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const NO_CACHE: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const OWNED: u64 = 1 << 9;
const WRITE: u64 = 1 << 10;
const COPY: u64 = 1 << 11;
const ROOMY: u64 = 1 << 11;
const ADDRESS: u64 = (FRAMES as u64 - 1) << 12;
const RECORD_SHIFT: u32 = 52;
const NO_EXECUTE: u64 = 1 << 62;
const HARDWARE_NO_EXECUTE: u64 = 1 << 63;

const KIND_SHIFT: u32 = 1;
const KIND: u64 = 0b111 << KIND_SHIFT;

/// Bits that a protection decides.
const PROTECTION: u64 = WRITABLE | WRITE | NO_EXECUTE | HARDWARE_NO_EXECUTE;

/// Records of a space, and the bits that name one.
pub(crate) const RECORDS: usize = 1 << 10;

/// Frames that an entry can name.
pub(crate) const FRAMES: usize = 1 << 40;

/// Entries of a table.
pub(crate) const ENTRIES: usize = 512;

/// The level of a table, counted from the leaves.
pub(crate) type Level = u32;

/// The size of the pages that entries of a table of this level map.
pub(crate) const fn size(level: Level) -> PageSize {
    match level {
        1 => PageSize::Small,
        2 => PageSize::Huge,
        _ => PageSize::Giant,
    }
}

/// 4 KiB pages that an entry of a table of this level covers.
pub(crate) const fn span(level: Level) -> usize {
    1 << (9 * (level - 1))
}

/// What the CPU understands.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Bits that may be set in a present entry.
    mask: u64,
    /// Whether entries of level 3 may map 1 GiB.
    giant: bool,
}

impl Format {
    /// The format of a CPU with or without no-execute, and with or without pages of 1 GiB.
    #[must_use]
    pub const fn new(no_execute: bool, giant: bool) -> Self {
        Self { mask: if no_execute { u64::MAX } else { !HARDWARE_NO_EXECUTE }, giant }
    }

    /// Whether leaves of this level exist.
    pub(crate) const fn has(self, level: Level) -> bool {
        level <= 2 || level == 3 && self.giant
    }

    /// The protection bits of an entry.
    #[inline(always)]
    pub(crate) const fn bits(self, protection: Protection) -> Bits {
        let bits = match protection {
            Protection::Read => NO_EXECUTE | HARDWARE_NO_EXECUTE,
            Protection::ReadWrite => NO_EXECUTE | HARDWARE_NO_EXECUTE | WRITE | WRITABLE,
            Protection::ReadExecute => 0,
        };
        Bits { present: bits & self.mask, absent: bits & !WRITABLE }
    }
}

/// Protection bits, computed once for many entries. W^X holds because [`Protection`] has no value with both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits {
    present: u64,
    absent: u64,
}

impl Bits {
    /// Whether an entry that these bits have been given to allows less than before, by the bits that have changed.
    #[inline(always)]
    pub(crate) const fn narrow(self, changed: u64) -> bool {
        let writes = changed & WRITABLE != 0 && self.present & WRITABLE == 0;
        let executes = changed & NO_EXECUTE != 0 && self.present & NO_EXECUTE != 0;
        writes || executes
    }
}

/// An entry. Written as the number it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Entry(u64);

impl core::fmt::Debug for Entry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "E{:#x}", self.0)
    }
}

/// Who gives the frame of a leaf back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// The space, when the mapping goes.
    Owned,
    /// Somebody else: an object, or a device's bus.
    Borrowed,
    /// An object; the first write replaces it by a copy.
    BorrowedCopy,
}

impl Entry {
    /// Nothing.
    pub(crate) const EMPTY: Self = Self(0);

    #[inline(always)]
    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    #[inline(always)]
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// An entry that leads to a table of the next level. Protection is the leaves' business.
    pub(crate) const fn table(frame: FrameId) -> Self {
        Self(frame.address() | PRESENT | WRITABLE | USER | ACCESSED)
    }

    /// The same, but nothing can be executed through it.
    pub(crate) const fn barred(self, format: Format) -> Self {
        if self.is_empty() { self } else { Self(self.0 | HARDWARE_NO_EXECUTE & format.mask) }
    }

    /// A leaf. Accessed and dirty are set from the start: nobody reads them, and so the CPU never writes an entry.
    #[inline(always)]
    pub(crate) const fn leaf(level: Level, frame: FrameId, hold: Hold, bits: Bits, record: usize) -> Self {
        let large = if level == 1 { 0 } else { LARGE };
        let hold = match hold {
            Hold::Owned => OWNED,
            Hold::Borrowed => 0,
            Hold::BorrowedCopy => COPY,
        };
        let bits = if hold == COPY { bits.present & !WRITABLE } else { bits.present };
        let record = (record as u64) << RECORD_SHIFT;
        Self(frame.address() | PRESENT | USER | ACCESSED | DIRTY | large | hold | bits | record)
    }

    /// A leaf for device registers: strongly ordered, not cached (PAT entry 3 after reset, SDM volume 3, §13.12.3).
    pub(crate) const fn uncached(self) -> Self {
        Self(self.0 | WRITE_THROUGH | NO_CACHE)
    }

    /// What a fault here means.
    #[inline(always)]
    pub(crate) const fn lazy(kind: Kind, bits: Bits, record: usize) -> Self {
        Self(ADDRESS | (kind as u64) << KIND_SHIFT | bits.absent | (record as u64) << RECORD_SHIFT)
    }

    /// A lazy entry whose pages may lie in a block of 2 MiB.
    pub(crate) const fn roomy(self) -> Self {
        Self(self.0 | ROOMY)
    }

    /// Taken for somebody who is about to put pages there, or has just taken them away; then it keeps their record.
    #[inline(always)]
    pub(crate) const fn claim(record: usize) -> Self {
        const PLAIN: u64 = ADDRESS | (Kind::Reserved as u64) << KIND_SHIFT | NO_EXECUTE | HARDWARE_NO_EXECUTE;
        Self(PLAIN | (record as u64) << RECORD_SHIFT)
    }

    /// Whether no page is here and none may come but by passing.
    #[inline(always)]
    pub(crate) const fn is_claim(self) -> bool {
        self.0 & (PRESENT | KIND) == (Kind::Reserved as u64) << KIND_SHIFT
    }

    /// Whether a leaf is present, owned, and of this record: what is passed most.
    #[inline(always)]
    pub(crate) const fn is_own_of(self, record: usize) -> bool {
        const MASK: u64 = PRESENT | OWNED | (RECORDS as u64 - 1) << RECORD_SHIFT;
        self.0 & MASK == PRESENT | OWNED | (record as u64) << RECORD_SHIFT
    }

    /// Why what is here cannot be passed on: nothing is, or it belongs to a device.
    #[inline(always)]
    pub(crate) const fn hindrance(self) -> Option<SpaceError> {
        const LENT: u64 = PRESENT | (RECORDS as u64 - 1) << RECORD_SHIFT;
        if self.is_owned() {
            None
        } else if self.is_empty() || self.is_claim() {
            Some(SpaceError::NotMapped)
        } else if self.0 & LENT == PRESENT {
            Some(SpaceError::WrongKind)
        } else {
            None
        }
    }

    /// An owned leaf whose frame an object has taken over: the object's, by this record.
    #[inline(always)]
    pub(crate) const fn lent(self, record: usize) -> Self {
        let writable = if self.may_write() { WRITABLE } else { 0 };
        Self(self.0 & !(OWNED | COPY) | writable).with_record(record)
    }

    #[inline(always)]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(crate) const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether an entry of a table of a level above 1 leads to a table.
    #[inline(always)]
    pub(crate) const fn is_table(self) -> bool {
        self.0 & (PRESENT | LARGE) == PRESENT
    }

    #[inline(always)]
    pub(crate) const fn is_owned(self) -> bool {
        self.0 & (PRESENT | OWNED) == PRESENT | OWNED
    }

    /// Whether one of the leaves of which this is the union may be owned: only those that are carry the bit.
    #[inline(always)]
    pub(crate) const fn may_own(self) -> bool {
        self.0 & OWNED != 0
    }

    /// Whether a leaf is present and not shared until it is written.
    #[inline(always)]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & (PRESENT | COPY) == PRESENT
    }

    /// Whether a leaf is present, plain, somebody else's, and of this record.
    #[inline(always)]
    pub(crate) const fn is_lent_by(self, record: usize) -> bool {
        const MASK: u64 = PRESENT | OWNED | COPY | (RECORDS as u64 - 1) << RECORD_SHIFT;
        self.0 & MASK == PRESENT | (record as u64) << RECORD_SHIFT
    }

    /// Whether a present leaf is shared until it is written.
    #[inline(always)]
    pub(crate) const fn is_copy(self) -> bool {
        self.0 & (PRESENT | COPY) == PRESENT | COPY
    }

    /// Whether the pages of a lazy entry may lie in a block of 2 MiB.
    pub(crate) const fn is_roomy(self) -> bool {
        self.0 & (PRESENT | ROOMY) == ROOMY
    }

    /// Whether the region may be written.
    #[inline(always)]
    pub(crate) const fn may_write(self) -> bool {
        self.0 & WRITE != 0
    }

    /// Whether the region may be executed.
    pub(crate) const fn may_execute(self) -> bool {
        self.0 & NO_EXECUTE == 0
    }

    /// Whether the CPU lets a write through.
    #[inline(always)]
    pub(crate) const fn is_writable(self) -> bool {
        self.0 & WRITABLE != 0
    }

    #[inline(always)]
    pub(crate) const fn frame(self) -> FrameId {
        FrameId::containing(self.0 & ADDRESS)
    }

    #[inline(always)]
    pub(crate) const fn record(self) -> usize {
        (self.0 >> RECORD_SHIFT) as usize % RECORDS
    }

    #[inline(always)]
    pub(crate) const fn with_record(self, record: usize) -> Self {
        Self(self.0 & !((RECORDS as u64 - 1) << RECORD_SHIFT) | (record as u64) << RECORD_SHIFT)
    }

    /// The kind of an entry that is not present; nothing for an empty one.
    pub(crate) const fn lazy_kind(self) -> Option<Kind> {
        Some(match (self.0 & KIND) >> KIND_SHIFT {
            1 => Kind::Anonymous,
            2 => Kind::Shared,
            3 => Kind::Copy,
            4 => Kind::Pager,
            5 => Kind::Guard,
            6 => Kind::Reserved,
            _ => return None,
        })
    }

    pub(crate) const fn protection(self) -> Protection {
        match (self.may_write(), self.may_execute()) {
            (true, _) => Protection::ReadWrite,
            (false, true) => Protection::ReadExecute,
            (false, false) => Protection::Read,
        }
    }

    /// With another protection. A page that is shared until it is written stays so.
    #[inline(always)]
    pub(crate) const fn protect(self, bits: Bits) -> Self {
        if !self.is_present() {
            return Self(self.0 & !(PROTECTION & !WRITABLE) | bits.absent);
        }
        let bits = if self.0 & COPY != 0 { bits.present & !WRITABLE } else { bits.present };
        Self(self.0 & !PROTECTION | bits)
    }

    /// [`Entry::protect`] for a leaf that [`Entry::is_plain`].
    #[inline(always)]
    pub(crate) const fn protect_plain(self, bits: Bits) -> Self {
        Self(self.0 & !PROTECTION | bits.present)
    }

    /// An owned leaf that from now on is shared until it is written.
    pub(crate) const fn share(self) -> Self {
        Self(self.0 & !WRITABLE | COPY)
    }

    /// A leaf that is nobody else's any more.
    pub(crate) const fn unshare(self) -> Self {
        let writable = if self.may_write() { WRITABLE } else { 0 };
        Self(self.0 & !COPY | OWNED | writable)
    }

    /// What entry `index` of a table of the level below says when this entry is split.
    #[inline(always)]
    pub(crate) const fn child(self, below: Level, index: usize) -> Self {
        if !self.is_present() {
            return self;
        }
        let offset = ((index * span(below)) as u64) << 12;
        let raw = if below == 1 { self.0 & !LARGE } else { self.0 };
        Self(raw + offset)
    }

    /// What an entry of the level above says in place of a full table that starts with this leaf.
    pub(crate) const fn enlarge(self) -> Self {
        Self(self.0 | LARGE)
    }

    /// The frame and everything else apart: whether `other`, the `index`th leaf of the same table, continues this one.
    #[inline(always)]
    pub(crate) const fn continues(self, other: Self, index: usize) -> bool {
        self.0 + ((index as u64) << 12) == other.0
    }

    /// The bits that make a region one, whether its pages are there or not.
    pub(crate) const fn attributes(self) -> u64 {
        self.0 & (WRITE | NO_EXECUTE | (RECORDS as u64 - 1) << RECORD_SHIFT)
    }
}
