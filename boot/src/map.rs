//! The memory map: sorted, non-overlapping regions that loader memory is carved from and the kernel is told about.
//!
//! Invariants (checked by the property test below):
//! - M1: regions are sorted by base, none is empty, none overlaps another, neighbours of one kind are merged.
//! - M2: `set` gives a range a kind and leaves every byte outside the range as it was.
//! - M3: `alloc` only takes usable bytes, so a range is handed out at most once.

use crate::{PAGE, Refusal, align_down, align_up};
use abi::exit::Exit;
use core::ops::Range;

/// How many regions a map can hold. QEMU passes at most 128 and the loader splits off fewer than that.
pub const CAPACITY: usize = 512;

/// End of the physical addresses that are looked at: 64 TiB, so that the direct map stays clear of the kernel.
pub const PHYSICAL_END: u64 = 1 << 46;

/// What a region is. The discriminants are the types of the Limine memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    /// Free memory.
    Usable = 0,
    /// Not to be touched.
    Reserved = 1,
    /// ACPI tables, free once they have been read.
    AcpiReclaimable = 2,
    /// Belongs to the firmware.
    AcpiNvs = 3,
    /// Faulty memory.
    Bad = 4,
    /// Used by the loader and by its answers, free once the kernel has read them.
    LoaderReclaimable = 5,
    /// The kernel image, its file and the modules.
    ExecutableAndModules = 6,
}

impl Kind {
    /// The type in the Limine memory map.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }

    /// The kind of an entry of the virtual machine's memory map (Xen public headers, `arch-x86/hvm/start_info.h`).
    /// Whatever is not known to be memory is reserved.
    #[must_use]
    pub const fn from_start_info(raw: u32) -> Self {
        match raw {
            1 => Kind::Usable,
            3 => Kind::AcpiReclaimable,
            4 => Kind::AcpiNvs,
            5 => Kind::Bad,
            _ => Kind::Reserved,
        }
    }

    /// Which kind wins where the firmware's entries overlap: the more restrictive one.
    const fn rank(self) -> u8 {
        match self {
            Kind::Usable => 0,
            Kind::LoaderReclaimable | Kind::ExecutableAndModules => 1,
            Kind::AcpiReclaimable => 2,
            Kind::AcpiNvs => 3,
            Kind::Reserved => 4,
            Kind::Bad => 5,
        }
    }
}

/// One region: `base..end` of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// One past the last byte.
    pub end: u64,
    /// What it is.
    pub kind: Kind,
}

const FULL: Refusal =
    Refusal::new(Exit::NoMemory, "the memory map has more regions than the loader can keep");

/// The memory map.
#[derive(Clone, Debug)]
pub struct Map {
    regions: [Region; CAPACITY],
    len: usize,
}

impl Map {
    /// A map without regions.
    #[must_use]
    pub const fn new() -> Self {
        Self { regions: [Region { base: 0, end: 0, kind: Kind::Reserved }; CAPACITY], len: 0 }
    }

    /// Builds the map from what the firmware reports, in any order and with overlaps.
    ///
    /// What lies behind [`PHYSICAL_END`] is dropped. Usable memory is cut to whole pages, and the first page is never usable: base revisions below 3 forbid it,
    /// and an address that looks like a null pointer is not worth a page.
    ///
    /// # Errors
    /// [`Exit::NoMemory`] when there are too many regions.
    pub fn from_firmware(&mut self, entries: impl Iterator<Item = Region> + Clone) -> Result<(), Refusal> {
        self.len = 0;
        for rank in 0..=Kind::Bad.rank() {
            for entry in entries.clone().filter(|entry| entry.kind.rank() == rank) {
                self.set(entry.base, entry.end.min(PHYSICAL_END), entry.kind)?;
            }
        }
        if self.regions().first().is_some_and(|first| first.kind == Kind::Usable && first.base < PAGE) {
            self.set(0, PAGE, Kind::Reserved)?;
        }
        self.align_usable();
        Ok(())
    }

    /// The regions, by ascending base.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.len]
    }

    /// Makes `base..end` a region of `kind`, whatever was there.
    ///
    /// # Errors
    /// [`Exit::NoMemory`] when there are too many regions.
    pub fn set(&mut self, base: u64, end: u64, kind: Kind) -> Result<(), Refusal> {
        if base >= end {
            return Ok(());
        }
        let first = self.regions().partition_point(|region| region.end <= base);
        let after = self.regions().partition_point(|region| region.base < end);
        let overlapped = self.regions().get(first..after).unwrap_or_default();
        let before = overlapped.first().filter(|r| r.base < base).map(|r| Region { end: base, ..*r });
        let behind = overlapped.last().filter(|r| r.end > end).map(|r| Region { base: end, ..*r });
        let pieces = [before, Some(Region { base, end, kind }), behind];
        self.splice(first, after, pieces.iter().flatten())?;
        self.merge();
        Ok(())
    }

    /// Gives the usable part of `base..end`, rounded outwards to whole pages, another kind; the rest stays what it is.
    ///
    /// # Errors
    /// [`Exit::NoMemory`] when there are too many regions.
    pub fn claim(&mut self, base: u64, end: u64, kind: Kind) -> Result<(), Refusal> {
        let (mut at, end) = (align_down(base, PAGE), align_up(end, PAGE).unwrap_or(u64::MAX));
        while let Some(region) =
            self.regions().iter().find(|r| r.kind == Kind::Usable && r.end > at && r.base < end).copied()
        {
            self.set(region.base.max(at), region.end.min(end), kind)?;
            at = region.end;
        }
        Ok(())
    }

    /// Takes `size` bytes at a multiple of `align` from the highest usable memory within a range.
    ///
    /// From the top, because low memory is scarce (legacy DMA) and so that everything the loader takes ends up
    /// in one place.
    ///
    /// # Errors
    /// [`Exit::NoMemory`] when there is no such range; the number is `size`.
    pub fn alloc(&mut self, size: u64, align: u64, within: Range<u64>, kind: Kind) -> Result<u64, Refusal> {
        const NONE: &str = "no usable memory for a block of this many bytes";
        let none = Refusal::with(Exit::NoMemory, NONE, size);
        let size = align_up(size, PAGE).ok_or(none)?;
        let fits = |region: &Region| {
            let base = align_down(region.end.min(within.end).checked_sub(size)?, align);
            (region.kind == Kind::Usable && base >= region.base.max(within.start)).then_some(base)
        };
        let base = self.regions().iter().rev().find_map(fits).ok_or(none)?;
        self.set(base, base + size, kind)?;
        Ok(base)
    }

    /// Cuts usable regions to whole pages; what is left over becomes a hole.
    fn align_usable(&mut self) {
        for region in &mut self.regions[..self.len] {
            if region.kind == Kind::Usable {
                region.base = align_up(region.base, PAGE).unwrap_or(region.end);
                region.end = align_down(region.end, PAGE);
            }
        }
        self.retain(|region| region.base < region.end);
    }

    /// Replaces the regions `first..after` by `pieces`.
    fn splice<'r>(
        &mut self,
        first: usize,
        after: usize,
        pieces: impl Iterator<Item = &'r Region> + Clone,
    ) -> Result<(), Refusal> {
        let count = pieces.clone().count();
        let len = self.len - (after - first) + count;
        if len > CAPACITY {
            return Err(FULL);
        }
        self.regions.copy_within(after..self.len, first + count);
        for (slot, piece) in self.regions[first..].iter_mut().zip(pieces) {
            *slot = *piece;
        }
        self.len = len;
        Ok(())
    }

    /// Joins neighbours of one kind that touch.
    fn merge(&mut self) {
        let mut kept = 0;
        for next in 1..self.len {
            let region = self.regions[next];
            let last = &mut self.regions[kept];
            if last.kind == region.kind && last.end == region.base {
                last.end = region.end;
            } else {
                kept += 1;
                self.regions[kept] = region;
            }
        }
        self.len = self.len.min(kept + 1);
    }

    fn retain(&mut self, keep: impl Fn(&Region) -> bool) {
        let mut kept = 0;
        for next in 0..self.len {
            if keep(&self.regions[next]) {
                self.regions[kept] = self.regions[next];
                kept += 1;
            }
        }
        self.len = kept;
    }
}

impl Default for Map {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
