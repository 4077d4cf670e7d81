//! The structures of the answers (Limine boot protocol, "Feature List" and "File Structure").
//!
//! Every pointer is a virtual address in the direct map unless its comment says otherwise. All structures are made
//! of plain integers without padding, so their bytes can be written to memory as they are.

use core::mem::{offset_of, size_of};

/// Where physical memory is mapped: the start of the higher half with 4-level page tables.
pub const HHDM: u64 = 0xffff_8000_0000_0000;
/// Smallest stack the protocol permits.
pub const MIN_STACK: u64 = 0x1_0000;
/// Flag of the MP request and response: x2APIC mode.
pub const X2APIC: u64 = 1;
/// Flag of an internal module: fail when it is missing.
pub const MODULE_REQUIRED: u64 = 1;
/// Flag of an internal module: decompress it.
pub const MODULE_COMPRESSED: u64 = 2;
/// Bytes of `limine_internal_module`: path, string, flags.
pub const INTERNAL_MODULE: usize = 24;

/// A response that says no more than that the request was honoured.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Honoured {
    /// Revision of the response.
    pub revision: u64,
}

/// A response with one value: an address, an offset, a pointer, a mode or a time.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Value {
    /// Revision of the response.
    pub revision: u64,
    /// The value.
    pub value: u64,
}

/// A response with two values: name and version, physical and virtual base, or count and array.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Pair {
    /// Revision of the response.
    pub revision: u64,
    /// The first value.
    pub first: u64,
    /// The second value.
    pub second: u64,
}

/// `limine_mp_response`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Mp {
    /// Revision of the response.
    pub revision: u64,
    /// [`X2APIC`] or 0.
    pub flags: u32,
    /// APIC id of the core that boots.
    pub bsp_apic_id: u32,
    /// Number of cores.
    pub count: u64,
    /// Pointer to an array of pointers to [`Core`].
    pub cores: u64,
}

/// `limine_mp_info`: one core, and the mailbox that releases it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Core {
    /// ACPI processor UID.
    pub acpi_id: u32,
    /// APIC id.
    pub apic_id: u32,
    /// Unused.
    pub reserved: u64,
    /// Virtual address the core jumps to once it is not 0.
    pub goto_address: u64,
    /// Free for the kernel.
    pub extra: u64,
}

/// `limine_memmap_entry`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryMapEntry {
    /// Physical address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// A discriminant of [`crate::map::Kind`].
    pub kind: u64,
}

/// `limine_file`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct File {
    /// Revision of the structure.
    pub revision: u64,
    /// Pointer to the content.
    pub address: u64,
    /// Bytes of content.
    pub size: u64,
    /// Pointer to the path, with a leading slash.
    pub path: u64,
    /// Pointer to the string that belongs to the file.
    pub string: u64,
    /// Media type, network origin, partition and disk ids: a bundle has none of them.
    pub origin: [u64; 9],
}

const _: () = assert!(offset_of!(Mp, count) == 16 && size_of::<Mp>() == 32);
const _: () = assert!(offset_of!(Core, goto_address) == 16 && size_of::<Core>() == 32);
// Six words of 32 bit and three UUIDs of 16 bytes follow the string.
const _: () = assert!(offset_of!(File, origin) == 40 && size_of::<File>() == 40 + 6 * 4 + 3 * 16);
