//! The kernel's half of the address space: one table, ascending, checked at compile time.

use x86_64::{PhysAddr, VirtAddr};

/// A range of virtual addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    /// First address.
    pub(crate) base: u64,
    /// Length in bytes.
    pub(crate) size: u64,
}

impl Region {
    /// Whether the address lies in the region.
    pub(crate) const fn contains(&self, address: u64) -> bool {
        address >= self.base && address - self.base < self.size
    }
}

/// All physical memory that the memory map names, readable and writable, never executable.
pub(crate) const DIRECT: Region = Region { base: 0xffff_8000_0000_0000, size: 1 << 46 };
/// Stacks: a slot for each core, each stack below a guard page.
pub(crate) const STACKS: Region = Region { base: 0xffff_c000_0000_0000, size: 1 << 32 };
/// Device registers and firmware tables, mapped when first needed.
pub(crate) const DEVICES: Region = Region { base: 0xffff_c100_0000_0000, size: 1 << 40 };
/// One word for each frame of the direct map (`mm::space::FrameInfo`), present where there is memory for the allocator.
pub(crate) const INFO: Region = Region { base: 0xffff_c200_0000_0000, size: DIRECT.size / 4096 * 8 };
/// The kernel image, where `link.ld` puts it. The last page of the address space stays out.
pub(crate) const IMAGE: Region = Region { base: 0xffff_ffff_8000_0000, size: (1 << 31) - 4096 };

/// The whole map.
pub(crate) const MAP: [Region; 5] = [DIRECT, STACKS, DEVICES, INFO, IMAGE];

const _: () = {
    let mut i = 1;
    while i < MAP.len() {
        assert!(MAP[i - 1].base + MAP[i - 1].size <= MAP[i].base, "regions of the memory map overlap");
        i += 1;
    }
};

/// Where the direct map shows a physical address.
pub(crate) fn direct(address: PhysAddr) -> VirtAddr {
    VirtAddr::new(DIRECT.base + address.as_u64())
}
