//! What the virtual machine passes to a PVH guest: `hvm_start_info` (Xen public headers,
//! `arch-x86/hvm/start_info.h`), whose physical address is in `ebx` at entry.

use crate::map::{Kind, Region};
use crate::{Memory, Refusal, to_u64, to_usize, u32_at, u64_at};
use abi::exit::Exit;

/// Value of the first field.
const MAGIC: u32 = 0x336e_c578;
/// The version that added the memory map.
const MIN_VERSION: u32 = 1;
/// Most memory map entries the loader looks at.
const MAX_ENTRIES: u32 = 256;
/// Longest command line, without its terminator.
pub const MAX_CMDLINE: usize = 4095;

// Offsets in `struct hvm_start_info`.
const VERSION: usize = 4;
const NR_MODULES: usize = 12;
const MODLIST: usize = 16;
const CMDLINE: usize = 24;
const RSDP: usize = 32;
const MEMMAP: usize = 40;
const MEMMAP_ENTRIES: usize = 48;
const SIZE: usize = 56;

// `struct hvm_modlist_entry`: address, size, command line, reserved.
const MODULE_SIZE_FIELD: usize = 8;
const MODULE_BYTES: usize = 32;

// `struct hvm_memmap_table_entry`: address, size, type, reserved.
const ENTRY_LEN: usize = 8;
const ENTRY_TYPE: usize = 16;
const ENTRY_BYTES: usize = 24;

/// The start information, with every table found and measured.
#[derive(Clone, Copy, Debug)]
pub struct StartInfo<'m> {
    /// Physical address of the ACPI root pointer; 0 when the machine did not say.
    pub rsdp: u64,
    /// Physical address of the initrd.
    pub initrd: u64,
    /// Content of the initrd.
    pub bundle: &'m [u8],
    /// The command line, without terminator.
    pub cmdline: &'m [u8],
    memmap: &'m [u8],
    /// Where the structures themselves lie, as base and end: not to be overwritten while they are read.
    pub occupied: [(u64, u64); 4],
}

const fn refuse(what: &'static str, address: u64) -> Refusal {
    Refusal::with(Exit::BadStartInfo, what, address)
}

impl<'m> StartInfo<'m> {
    /// Reads the structure at `address`.
    ///
    /// # Errors
    /// [`Exit::BadStartInfo`] when it is missing or malformed, [`Exit::BadBundle`] when there is no initrd.
    pub fn read<M: Memory>(memory: &'m M, address: u64) -> Result<Self, Refusal> {
        let unreadable = refuse("the start information is not in readable memory", address);
        let info = memory.bytes(address, SIZE).ok_or(unreadable)?;
        let word = |offset| u32_at(info, offset).unwrap_or(0);
        let quad = |offset| u64_at(info, offset).unwrap_or(0);
        if word(0) != MAGIC {
            return Err(refuse(
                "no PVH start information here: was the loader started with -kernel?",
                address,
            ));
        }
        if word(VERSION) < MIN_VERSION {
            return Err(refuse("the start information is too old to have a memory map", address));
        }
        let entries = word(MEMMAP_ENTRIES);
        if entries == 0 || entries > MAX_ENTRIES {
            return Err(refuse("the memory map has no entries or absurdly many", u64::from(entries)));
        }
        let memmap_len = to_usize(u64::from(entries)) * ENTRY_BYTES;
        let memmap = memory.bytes(quad(MEMMAP), memmap_len);
        let memmap = memmap.ok_or(refuse("the memory map is not in readable memory", quad(MEMMAP)))?;
        let cmdline = cmdline(memory, quad(CMDLINE))?;
        let (initrd, bundle) = initrd(memory, word(NR_MODULES), quad(MODLIST))?;
        let extent = |base: u64, len: usize| (base, base.saturating_add(to_u64(len)));
        let occupied = [
            extent(address, SIZE),
            extent(quad(MEMMAP), memmap_len),
            extent(quad(MODLIST), MODULE_BYTES),
            extent(quad(CMDLINE), cmdline.len() + 1),
        ];
        Ok(Self { rsdp: quad(RSDP), initrd, bundle, cmdline, memmap, occupied })
    }

    /// The firmware's memory map as it stands; an entry that wraps around the address space is cut.
    pub fn regions(&self) -> impl Iterator<Item = Region> + Clone + use<'m> {
        self.memmap.chunks_exact(ENTRY_BYTES).map(|entry| {
            let base = u64_at(entry, 0).unwrap_or(0);
            let end = base.saturating_add(u64_at(entry, ENTRY_LEN).unwrap_or(0));
            Region { base, end, kind: Kind::from_start_info(u32_at(entry, ENTRY_TYPE).unwrap_or(0)) }
        })
    }
}

fn cmdline<M: Memory>(memory: &M, address: u64) -> Result<&[u8], Refusal> {
    if address == 0 {
        return Ok(&[]);
    }
    let longest = memory.bytes(address, MAX_CMDLINE + 1);
    let longest = longest.ok_or(refuse("the command line is not in readable memory", address))?;
    let end = longest.iter().position(|&byte| byte == 0);
    end.map(|end| &longest[..end]).ok_or(refuse("the command line is longer than 4095 bytes", address))
}

fn initrd<M: Memory>(memory: &M, count: u32, modlist: u64) -> Result<(u64, &[u8]), Refusal> {
    if count == 0 {
        return Err(Refusal::new(Exit::BadBundle, "no bundle was given: pass it with -initrd"));
    }
    let first = memory.bytes(modlist, MODULE_BYTES);
    let first = first.ok_or(refuse("the module list is not in readable memory", modlist))?;
    let address = u64_at(first, 0).unwrap_or(0);
    let len = to_usize(u64_at(first, MODULE_SIZE_FIELD).unwrap_or(u64::MAX));
    let bundle = memory.bytes(address, len);
    Ok((address, bundle.ok_or(refuse("the initrd is not in readable memory", address))?))
}

#[cfg(test)]
#[path = "start_tests.rs"]
pub(crate) mod tests;
