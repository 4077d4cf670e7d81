//! What the boot loader told us: the Limine protocol's requests, read once and copied.
//!
//! Everything the responses point to lies in memory that is reclaimed later, behind the loader's page tables. This module copies what the
//! kernel keeps; only the list of processors is used in place, before the memory is reclaimed.

use abi::task::NAME_BYTES;
use limine::BaseRevision;
use limine::memory_map::EntryType;
use limine::mp::{Cpu, RequestFlags};
use limine::paging::Mode;
use limine::request::{
    ExecutableAddressRequest, ExecutableCmdlineRequest, ExecutableFileRequest, HhdmRequest, MemoryMapRequest,
    ModuleRequest, MpRequest, PagingModeRequest, RsdpRequest, StackSizeRequest,
};
use mm::{FrameId, PhysRange};
use x86_64::{PhysAddr, VirtAddr};

use crate::early::PAGE;

/// The stack that the loader gives each core, in bytes. It is only used until the core enters the kernel's own tables.
const LOADER_STACK: u64 = 64 * 1024;

#[used]
#[unsafe(link_section = ".limine_requests")]
static BASE_REVISION: BaseRevision = BaseRevision::with_revision(3);
#[used]
#[unsafe(link_section = ".limine_requests")]
static HHDM: HhdmRequest = HhdmRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static MEMORY_MAP: MemoryMapRequest = MemoryMapRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static RSDP: RsdpRequest = RsdpRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static MP: MpRequest = MpRequest::new().with_flags(RequestFlags::X2APIC);
#[used]
#[unsafe(link_section = ".limine_requests")]
static EXECUTABLE_ADDRESS: ExecutableAddressRequest = ExecutableAddressRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static EXECUTABLE_FILE: ExecutableFileRequest = ExecutableFileRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static COMMAND_LINE: ExecutableCmdlineRequest = ExecutableCmdlineRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static MODULES: ModuleRequest = ModuleRequest::new();
#[used]
#[unsafe(link_section = ".limine_requests")]
static STACK_SIZE: StackSizeRequest = StackSizeRequest::new().with_size(LOADER_STACK);
#[used]
#[unsafe(link_section = ".limine_requests")]
static PAGING: PagingModeRequest = PagingModeRequest::new()
    .with_mode(Mode::FOUR_LEVEL)
    .with_min_mode(Mode::FOUR_LEVEL)
    .with_max_mode(Mode::FOUR_LEVEL);

/// Ranges of the memory map that the kernel can keep track of.
pub(crate) const MAX_RANGES: usize = 256;
/// Bytes of command line that the kernel keeps.
pub(crate) const MAX_COMMAND_LINE: usize = 1024;

/// Programs that the kernel takes from the loader; more are ignored.
pub(crate) const MAX_PROGRAMS: usize = 32;
/// Where in the bundle they are.
const PROGRAM_FOLDER: &[u8] = b"/user/";

/// A file that the loader has put into pages of its own.
#[derive(Clone, Copy)]
pub(crate) struct Module {
    name: [u8; NAME_BYTES],
    name_len: usize,
    /// Where it is.
    pub(crate) start: PhysAddr,
    /// Its length.
    pub(crate) bytes: usize,
}

impl Module {
    const NONE: Self = Self { name: [0; NAME_BYTES], name_len: 0, start: PhysAddr::zero(), bytes: 0 };

    /// A program of the bundle; nothing for any other file, and for one whose name is too long or not UTF-8. The loader may put something
    /// before the path, as the name of a medium.
    fn program(path: &[u8], start: PhysAddr, bytes: usize) -> Option<Self> {
        let at = path.windows(PROGRAM_FOLDER.len()).position(|part| part == PROGRAM_FOLDER)?;
        let name = &path[at + PROGRAM_FOLDER.len()..];
        let mut module = Self { name_len: name.len(), start, bytes, ..Self::NONE };
        module.name.get_mut(..name.len())?.copy_from_slice(name);
        core::str::from_utf8(name).ok().filter(|name| !name.is_empty()).map(|_| module)
    }

    /// The frames that hold it and nothing else.
    pub(crate) fn range(&self) -> PhysRange {
        PhysRange::covering(self.start.as_u64(), self.start.as_u64() + self.bytes as u64)
    }

    /// Its name, without the folder.
    pub(crate) fn name(&self) -> &str {
        core::str::from_utf8(&self.name[..self.name_len]).unwrap_or("")
    }
}

/// What a physical range holds, as far as the kernel treats it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Free.
    Usable,
    /// The loader's, free once the processors have left it.
    Reclaimable,
    /// Memory that holds something to keep: the image, modules, firmware tables.
    Kept,
}

const NOTHING: PhysRange = PhysRange::new(FrameId::new(0), FrameId::new(0));

/// A list of ranges of fixed capacity.
pub(crate) struct Ranges {
    items: [(PhysRange, Use); MAX_RANGES],
    len: usize,
}

impl Ranges {
    const fn new() -> Self {
        Self { items: [(NOTHING, Use::Kept); MAX_RANGES], len: 0 }
    }

    fn push(&mut self, range: PhysRange, usage: Use) -> Result<(), Missing> {
        let slot = self.items.get_mut(self.len).ok_or(Missing::MapTooLong)?;
        *slot = (range, usage);
        self.len += 1;
        Ok(())
    }

    /// All ranges, ascending.
    pub(crate) fn all(&self) -> &[(PhysRange, Use)] {
        &self.items[..self.len]
    }

    /// The ranges of one use.
    pub(crate) fn of(&self, usage: Use) -> impl Iterator<Item = PhysRange> {
        self.all().iter().filter(move |(_, u)| *u == usage).map(|(range, _)| *range)
    }
}

/// What the loader did not provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The higher-half direct map.
    DirectMap,
    /// The memory map.
    MemoryMap,
    /// The memory map has more than [`MAX_RANGES`] entries.
    MapTooLong,
    /// The kernel's physical address.
    ImageAddress,
    /// Four-level paging.
    Paging,
    /// The ACPI tables.
    Acpi,
    /// The list of processors.
    Processors,
}

/// The loader's answers.
pub(crate) struct Handover {
    /// Where the loader's direct map begins.
    pub(crate) direct_map: VirtAddr,
    /// Physical address of the first byte of the image.
    pub(crate) image: PhysAddr,
    /// Physical address of the ACPI root pointer.
    pub(crate) rsdp: PhysAddr,
    /// The memory map.
    pub(crate) ranges: Ranges,
    /// The kernel's ELF file, if the loader kept it: physical address and length in bytes.
    pub(crate) file: Option<(PhysAddr, usize)>,
    command_line: [u8; MAX_COMMAND_LINE],
    command_line_len: usize,
    programs: [Module; MAX_PROGRAMS],
    programs_len: usize,
}

impl Handover {
    /// The kernel command line, cut at [`MAX_COMMAND_LINE`] bytes or at the first byte that is not UTF-8.
    pub(crate) fn command_line(&self) -> &str {
        let bytes = &self.command_line[..self.command_line_len];
        match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
        }
    }

    /// Reads and copies the loader's answers into `self`, which is filled in place because it is large.
    pub(crate) fn fill(&mut self) -> Result<(), Missing> {
        // Released official loaders may know less than revision 3, or no revisions at all, and leave the tag as it is: accepted
        // (DESIGN §2). What differs is the RSDP, handled below; what is missing is noticed request by request.
        self.direct_map = VirtAddr::new(HHDM.get_response().ok_or(Missing::DirectMap)?.offset());
        let paging = PAGING.get_response().ok_or(Missing::Paging)?;
        if paging.mode() != Mode::FOUR_LEVEL {
            return Err(Missing::Paging);
        }
        self.image =
            PhysAddr::new(EXECUTABLE_ADDRESS.get_response().ok_or(Missing::ImageAddress)?.physical_base());
        let rsdp = RSDP.get_response().ok_or(Missing::Acpi)?.address() as u64;
        // Virtual before revision 3, physical from then on.
        self.rsdp = PhysAddr::new(if rsdp >= self.direct_map.as_u64() {
            rsdp - self.direct_map.as_u64()
        } else {
            rsdp
        });
        self.fill_ranges()?;
        self.file = EXECUTABLE_FILE.get_response().map(|response| {
            let start = response.file().addr() as u64 - self.direct_map.as_u64();
            (PhysAddr::new(start), response.file().size() as usize)
        });
        if let Some(response) = COMMAND_LINE.get_response() {
            let bytes = response.cmdline().to_bytes();
            self.command_line_len = bytes.len().min(MAX_COMMAND_LINE);
            self.command_line[..self.command_line_len].copy_from_slice(&bytes[..self.command_line_len]);
        }
        self.fill_programs();
        Ok(())
    }

    /// The programs of the bundle, in its order.
    pub(crate) fn programs(&self) -> &[Module] {
        &self.programs[..self.programs_len]
    }

    /// Whether a file has its pages to itself, as the protocol has it, and they are in a range that nobody else uses.
    fn is_kept(&self, module: &Module) -> bool {
        let range = module.range();
        let inside = |kept: PhysRange| kept.start <= range.start && range.end <= kept.end;
        let others = self.programs().iter().all(|other| {
            let other = other.range();
            other.end <= range.start || range.end <= other.start
        });
        module.start.is_aligned(PAGE) && module.bytes > 0 && others && self.ranges.of(Use::Kept).any(inside)
    }

    fn fill_programs(&mut self) {
        for file in MODULES.get_response().map_or(&[][..], |response| response.modules()) {
            let start = PhysAddr::new(file.addr() as u64 - self.direct_map.as_u64());
            let program = Module::program(file.path().to_bytes(), start, file.size() as usize);
            if let Some(program) = program.filter(|program| self.is_kept(program))
                && let Some(slot) = self.programs.get_mut(self.programs_len)
            {
                *slot = program;
                self.programs_len += 1;
            }
        }
    }

    fn fill_ranges(&mut self) -> Result<(), Missing> {
        for entry in MEMORY_MAP.get_response().ok_or(Missing::MemoryMap)?.entries() {
            let usage = match entry.entry_type {
                EntryType::USABLE => Use::Usable,
                EntryType::BOOTLOADER_RECLAIMABLE => Use::Reclaimable,
                EntryType::EXECUTABLE_AND_MODULES | EntryType::ACPI_RECLAIMABLE => Use::Kept,
                _ => continue,
            };
            // The protocol aligns only usable and reclaimable ranges to pages. The others are widened to whole pages to be mapped, and
            // a page that two of them share belongs to the first.
            let whole = PhysRange::covering(entry.base, entry.base + entry.length);
            let taken = self.ranges.all().last().map_or(whole.start, |(last, _)| last.end);
            let range = PhysRange::new(whole.start.max(taken), whole.end);
            if !range.is_empty() {
                self.ranges.push(range, usage)?;
            }
        }
        Ok(())
    }
}

/// An empty handover, to be filled.
pub(crate) const fn empty() -> Handover {
    Handover {
        direct_map: VirtAddr::zero(),
        image: PhysAddr::zero(),
        rsdp: PhysAddr::zero(),
        ranges: Ranges::new(),
        file: None,
        command_line: [0; MAX_COMMAND_LINE],
        command_line_len: 0,
        programs: [Module::NONE; MAX_PROGRAMS],
        programs_len: 0,
    }
}

/// APIC id of the boot processor, and all processors, parked, in the loader's own memory: valid only while its page tables are in use.
pub(crate) fn processors() -> Result<(u32, &'static [&'static Cpu]), Missing> {
    let response = MP.get_response().ok_or(Missing::Processors)?;
    Ok((response.bsp_lapic_id(), response.cpus()))
}
