//! Physical memory: reading it, and owning blocks of it.
//!
//! - P1: the loader's page tables map the first 4 GiB at their own address (entry.S).
//! - P2: a block comes from the map, which hands out a range once (M3), so its owner is its only user.

use super::asm;
use super::cores::Mailbox;
use abi::exit::Exit;
use boot::map::{Kind, Map};
use boot::paging::TableMemory;
use boot::protocol::HHDM;
use boot::{Memory, PAGE, Refusal, to_u64, to_usize};
use core::ops::Range;

/// End of what the loader can reach.
const REACH: u64 = 1 << 32;
/// Where the loader takes memory: behind itself, because the pages of its text and constants are not writable.
pub(super) fn anywhere() -> Range<u64> {
    asm::loader_extents()[2].1..REACH
}
/// Where processors start: in the first MiB, but not at its start, which looks like a null pointer.
pub(super) const REAL_MODE: Range<u64> = PAGE..0x10_0000;

/// The first 4 GiB of physical memory.
pub(super) struct Physical;

impl Memory for Physical {
    fn bytes(&self, base: u64, len: usize) -> Option<&[u8]> {
        let end = base.checked_add(to_u64(len))?;
        let pointer = pointer(base).filter(|_| end <= REACH)?;
        // SAFETY: P1; what is read this way belongs to the firmware or the bundle and is not written.
        Some(unsafe { core::slice::from_raw_parts(pointer, len) })
    }
}

/// The address where the loader sees a physical address. Real mode's interrupt table is left out: nothing the loader
/// reads is there, and a null pointer must not be a valid address.
fn pointer(base: u64) -> Option<*mut u8> {
    (0x400..REACH).contains(&base).then(|| core::ptr::with_exposed_provenance_mut(to_usize(base)))
}

/// Memory that is taken from the map as it is needed.
pub(super) struct Heap<'m> {
    /// The map all memory comes from.
    pub(super) map: &'m mut Map,
    next: u64,
    end: u64,
}

impl<'m> Heap<'m> {
    /// Bytes taken from the map at a time for small objects.
    const CHUNK: u64 = 16 * PAGE;

    pub(super) fn new(map: &'m mut Map) -> Self {
        Self { map, next: 0, end: 0 }
    }

    /// Takes a block whose bytes are whatever they were: base and content.
    pub(super) fn block(
        &mut self,
        size: u64,
        align: u64,
        within: Range<u64>,
        kind: Kind,
    ) -> Result<(u64, &'static mut [u8]), Refusal> {
        let base = self.map.alloc(size, align, within, kind)?;
        let missing = Refusal::with(Exit::NoMemory, "a block lies out of reach", base);
        let pointer = pointer(base).ok_or(missing)?;
        // SAFETY: P1, P2.
        Ok((base, unsafe { core::slice::from_raw_parts_mut(pointer, to_usize(size)) }))
    }

    /// Takes a zeroed block of the loader's.
    pub(super) fn zeroed(&mut self, size: u64, align: u64) -> Result<(u64, &'static mut [u8]), Refusal> {
        let (base, bytes) = self.block(size, align, anywhere(), Kind::LoaderReclaimable)?;
        bytes.fill(0);
        Ok((base, bytes))
    }

    /// Stores `values` one after the other: their address in the direct map.
    pub(super) fn store<T: Copy + 'static>(&mut self, values: &[T]) -> Result<u64, Refusal> {
        self.store_all(values.len(), values.iter().copied())
    }

    /// Stores the first `count` of `values` one after the other: their address in the direct map.
    pub(super) fn store_all<T: Copy + 'static>(
        &mut self,
        count: usize,
        values: impl Iterator<Item = T>,
    ) -> Result<u64, Refusal> {
        let step = to_u64(size_of::<T>());
        let len = to_u64(count).saturating_mul(step);
        let base = HHDM + self.reserve(len, align_of::<T>())?;
        (0..).zip(values.take(count)).for_each(|(index, value)| Self::replace(base + index * step, value));
        Ok(base)
    }

    /// Replaces a value that `store_all` made room for, by its address in the direct map.
    pub(super) fn replace<T: Copy + 'static>(address: u64, value: T) {
        let slot = pointer(address - HHDM).map(<*mut u8>::cast::<T>);
        // SAFETY: P1, P2; the address is one of the loader's own objects of this type.
        slot.into_iter().for_each(|slot| unsafe { slot.write(value) });
    }

    /// Stores a value where the loader itself sees it.
    pub(super) fn keep<T: Copy + 'static>(&mut self, value: T) -> Result<*mut T, Refusal> {
        let address = self.store(&[value])? - HHDM;
        Ok(pointer(address).map_or(core::ptr::null_mut(), <*mut u8>::cast))
    }

    /// Stores a text with a terminating zero.
    pub(super) fn text(&mut self, parts: &[&[u8]]) -> Result<u64, Refusal> {
        let bytes = || parts.iter().flat_map(|part| part.iter()).copied().chain([0]);
        self.store_all(bytes().count(), bytes())
    }

    /// Takes `len` bytes from the current chunk, or a new one.
    fn reserve(&mut self, len: u64, align: usize) -> Result<u64, Refusal> {
        let base = self.next.next_multiple_of(to_u64(align));
        if base + len <= self.end {
            self.next = base + len;
            return Ok(base);
        }
        let (base, bytes) = self.zeroed(len.max(1).next_multiple_of(Self::CHUNK), PAGE)?;
        self.end = base + to_u64(bytes.len());
        self.next = base + len;
        Ok(base)
    }
}

impl TableMemory for &mut Heap<'_> {
    fn new_table(&mut self) -> Result<u64, Refusal> {
        self.zeroed(PAGE, PAGE).map(|(base, _)| base)
    }

    fn table(&mut self, at: u64) -> &mut [u64; 512] {
        let table = pointer(at).map_or(core::ptr::null_mut(), <*mut u8>::cast);
        // SAFETY: P1, P2; `at` came from `new_table`, so it is a page of the loader's.
        unsafe { &mut *table }
    }
}

/// The entries of cores, `count` of [`boot::protocol::Core`] at physical address `base`, as cores share them.
pub(super) fn mailboxes(base: u64, count: usize) -> &'static [Mailbox] {
    let Some(first) = pointer(base) else { return &[] };
    // SAFETY: P1; the entries were stored before any core reads them, a mailbox is laid out like an entry, and its
    // fields are either constant or atomic.
    unsafe { core::slice::from_raw_parts(first.cast(), count) }
}

/// Device registers, which the loader's tables map uncached.
pub(super) mod mmio {
    use super::pointer;

    /// Reads a register; all ones where the loader cannot reach.
    pub(in crate::machine) fn read(address: u64) -> u32 {
        // SAFETY: P1; the address is a register of a device that the firmware's tables or an MSR named.
        pointer(address).map_or(u32::MAX, |register| unsafe { register.cast::<u32>().read_volatile() })
    }

    /// Writes a register.
    pub(in crate::machine) fn write(address: u64, value: u32) {
        let register = pointer(address).map(<*mut u8>::cast::<u32>);
        // SAFETY: P1; as for `read`, and no register written here touches memory.
        register.into_iter().for_each(|register| unsafe { register.write_volatile(value) });
    }
}
