//! The kernel's own page tables: the direct map, the image with its protections, stacks with guard pages, device registers.
//!
//! Built once while the loader's tables are still in use, then extended for devices. G1: no page is both writable and executable; the
//! four kinds of mapping below are all that can be asked for. The `x86_64` crate walks the tables.

use mm::PhysRange;
use percpu::IrqOff;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame, Size1GiB,
    Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::walk;
use crate::{layout, levels, machine, memory};

/// What a mapping is for, which decides its protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Executable, read-only.
    Code,
    /// Read-only.
    ReadOnly,
    /// Readable and writable.
    Data,
    /// Readable and writable, uncached.
    Device,
}

impl Kind {
    fn flags(self) -> PageTableFlags {
        use PageTableFlags as F;
        let no_execute = if machine::features().nx { F::NO_EXECUTE } else { F::empty() };
        let base = F::PRESENT | F::GLOBAL;
        match self {
            Kind::Code => base,
            Kind::ReadOnly => base | no_execute,
            Kind::Data => base | F::WRITABLE | no_execute,
            Kind::Device => base | F::WRITABLE | F::NO_CACHE | F::WRITE_THROUGH | no_execute,
        }
    }
}

/// Bytes that an entry of the root covers.
const ROOT_ENTRY: u64 = 1 << 39;

/// Where new page tables come from.
pub(crate) type TableSource<'a> = &'a mut dyn FnMut() -> Option<PhysAddr>;

struct Source<'a>(TableSource<'a>);

// SAFETY: every `TableSource` of this kernel gives zeroed frames that it never gives again.
unsafe impl FrameAllocator<Size4KiB> for Source<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        (self.0)().map(PhysFrame::containing_address)
    }
}

/// The kernel's page tables.
pub(crate) struct KernelTables {
    root: PhysAddr,
    /// What to add to the physical address of a table to reach it: the loader's direct map at first, then our own.
    offset: VirtAddr,
}

impl KernelTables {
    /// Empty tables, reached through the direct map at `offset`.
    pub(crate) fn new(offset: VirtAddr, source: TableSource<'_>) -> Option<Self> {
        Some(Self { root: source()?, offset })
    }

    /// The root, for CR3.
    pub(crate) fn root(&self) -> PhysAddr {
        self.root
    }

    /// From now on the tables are reached through the kernel's own direct map.
    pub(crate) fn entered(&mut self) {
        self.offset = VirtAddr::new(layout::DIRECT.base);
    }

    /// Maps `range` at `at` with the largest pages that fit. Both must be page aligned. Mapping a page twice panics: the kernel's map is
    /// laid out once, so it would be a bug here.
    ///
    /// Returns `None` if there is no memory for a table; what was mapped until then stays.
    pub(crate) fn map(
        &mut self,
        at: VirtAddr,
        range: PhysRange,
        kind: Kind,
        source: TableSource<'_>,
    ) -> Option<()> {
        let huge_1g = machine::features().huge_1g;
        let mut source = Source(source);
        let (mut virt, mut phys, end) =
            (at, PhysAddr::new(range.start.address()), PhysAddr::new(range.end.address()));
        while phys < end {
            let left = end - phys;
            let fits = |size: u64| virt.is_aligned(size) && phys.is_aligned(size) && left >= size;
            let step = if huge_1g && fits(Size1GiB::SIZE) {
                self.map_page::<Size1GiB>(virt, phys, kind, &mut source)?
            } else if fits(Size2MiB::SIZE) {
                self.map_page::<Size2MiB>(virt, phys, kind, &mut source)?
            } else {
                self.map_page::<Size4KiB>(virt, phys, kind, &mut source)?
            };
            virt += step;
            phys += step;
        }
        Some(())
    }

    /// Makes the tables that entries of the root lead to for a whole region, so that the root's upper half never changes afterwards: address
    /// spaces copy it.
    pub(crate) fn reserve(&mut self, region: &layout::Region, source: TableSource<'_>) -> Option<()> {
        let mut at = region.base;
        while at < region.base + region.size {
            let mut mapper = self.mapper();
            let entry = &mut mapper.level_4_table_mut()[VirtAddr::new(at).p4_index()];
            if entry.is_unused() {
                entry.set_addr(source()?, PageTableFlags::PRESENT | PageTableFlags::WRITABLE);
            }
            at += ROOT_ENTRY;
        }
        Some(())
    }

    fn map_page<S: PageSize + core::fmt::Debug>(
        &mut self,
        virt: VirtAddr,
        phys: PhysAddr,
        kind: Kind,
        source: &mut Source<'_>,
    ) -> Option<u64>
    where
        for<'t> OffsetPageTable<'t>: Mapper<S>,
    {
        let page = Page::<S>::containing_address(virt);
        let frame = PhysFrame::containing_address(phys);
        let table_flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
        let flags =
            if S::SIZE == Size4KiB::SIZE { kind.flags() } else { kind.flags() | PageTableFlags::HUGE_PAGE };
        let mut mapper = self.mapper();
        // SAFETY: G1: `layout` keeps the regions apart and each frame's kind is settled by who maps it (`start`, `map_device`).
        match unsafe { mapper.map_to_with_table_flags(page, frame, flags, table_flags, source) } {
            Ok(flush) => flush.ignore(), // not present before, so no core can have cached it
            Err(MapToError::FrameAllocationFailed) => return None,
            Err(error) => panic!("G1: {virt:?} -> {phys:?} overlaps an older mapping: {error:?}"),
        }
        Some(S::SIZE)
    }

    fn mapper(&mut self) -> OffsetPageTable<'_> {
        let root = (self.offset + self.root.as_u64()).as_mut_ptr::<PageTable>();
        // SAFETY: G7: the root is a table that only this structure reaches, and `&mut self` makes this the one reference.
        let root = unsafe { &mut *root };
        // SAFETY: G7: every table came from a source whose frames the direct map at `offset` shows.
        unsafe { OffsetPageTable::new(root, self.offset) }
    }
}

/// The kernel's page tables in use, and how much of [`layout::DEVICES`] is taken.
pub(crate) struct DeviceMap {
    tables: KernelTables,
    next: u64,
}

/// Takes over the tables that CR3 now holds.
pub(crate) fn install(mut tables: KernelTables) {
    tables.entered();
    let map = DeviceMap { tables, next: layout::DEVICES.base };
    IrqOff::with(|irq| irq.locks(|held| levels::TABLES.with(held, |slot, _| *slot = Some(map))));
}

/// Whether the kernel has mapped some of these frames for itself, as device registers or firmware tables.
pub(crate) fn uses(range: PhysRange) -> bool {
    let next = IrqOff::with(|irq| {
        irq.locks(|held| levels::TABLES.with(held, |slot, _| slot.as_ref().map_or(0, |map| map.next)))
    });
    // What is mapped already never changes, so that the tables can be read without the lock.
    let mut own = false;
    if next > layout::DEVICES.base {
        let (first, last) = (VirtAddr::new(layout::DEVICES.base), VirtAddr::new(next - 1));
        walk::each_page(first, last, &mut |page| {
            let start = page.physical.as_u64();
            let shown = PhysRange::covering(start, start + page.size);
            own |= shown.start < range.end && range.start < shown.end;
        });
    }
    own
}

/// The root in use.
pub(crate) fn current_root() -> PhysAddr {
    Cr3::read_raw().0.start_address()
}

/// Extends the kernel's map, as [`KernelTables::map`] does.
pub(crate) fn map(at: VirtAddr, range: PhysRange, kind: Kind) -> Option<()> {
    let map = |slot: &mut Option<DeviceMap>| {
        let map = slot.as_mut().expect("G7: the kernel's own tables are in use");
        map.tables.map(at, range, kind, &mut memory::table_frame)
    };
    IrqOff::with(|irq| irq.locks(|held| levels::TABLES.with(held, |slot, _| map(slot))))
}

/// Maps `bytes` bytes of physical address space from `address` for the life of the kernel and returns where.
///
/// For device registers ([`Kind::Device`], uncached) and firmware tables ([`Kind::ReadOnly`]).
pub(crate) fn map_physical(address: PhysAddr, bytes: u64, kind: Kind) -> Option<VirtAddr> {
    let first = address.align_down(Size4KiB::SIZE);
    let last = (address + bytes.max(1)).align_up(Size4KiB::SIZE);
    let range = PhysRange::inside(first.as_u64(), last.as_u64());
    let map = |slot: &mut Option<DeviceMap>| {
        let map = slot.as_mut().expect("G7: devices are mapped after the kernel entered its own tables");
        let at = VirtAddr::new(map.next);
        if !layout::DEVICES.contains(map.next + (last - first)) {
            return None;
        }
        map.tables.map(at, range, kind, &mut memory::table_frame)?;
        map.next += last - first;
        Some(at + (address - first))
    };
    IrqOff::with(|irq| irq.locks(|held| levels::TABLES.with(held, |slot, _| map(slot))))
}
