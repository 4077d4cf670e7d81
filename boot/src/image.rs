//! How a kernel image is placed: a checked plan made from the program headers of an ELF64 file.
//!
//! Invariants of a [`Plan`]:
//! - E1: every segment lies in the top 2 GiB, in pages of its own; segments are sorted and do not overlap.
//! - E2: no segment is both writable and executable.
//! - E3: the bytes a segment takes from the file are in the file, and are not more than its size in memory.
//! - E4: the entry point is in an executable segment.

use crate::{PAGE, Refusal, align_down, align_up, to_usize};
use abi::exit::Exit;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PF_W, PF_X, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;

/// Lowest virtual address an executable may have (protocol, "Memory Layout at Entry").
pub const TOP_2_GIB: u64 = 0xffff_ffff_8000_0000;
/// Most loadable segments.
pub const SEGMENTS: usize = 16;
/// Largest alignment of the image in physical memory: enough for the kernel to remap itself with large pages.
const MAX_ALIGN: u64 = 0x20_0000;
/// The last page of the address space stays free, so that no end address overflows.
const LAST: u64 = 0u64.wrapping_sub(PAGE);

/// What a mapping may be used for besides reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Constants.
    Read,
    /// Data.
    Write,
    /// Code.
    Execute,
    /// The direct map: writable and executable, as the protocol's text asks for.
    Any,
}

/// One loadable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Virtual address of the first byte.
    pub base: u64,
    /// Size in memory; the part behind the file's bytes is zero.
    pub size: u64,
    /// Offset of the content in the file.
    pub file_offset: usize,
    /// Bytes taken from the file.
    pub file_size: usize,
    /// Permissions.
    pub access: Access,
}

impl Segment {
    /// First page address.
    #[must_use]
    pub const fn first_page(&self) -> u64 {
        align_down(self.base, PAGE)
    }

    /// One past the last page address.
    #[must_use]
    pub const fn end_page(&self) -> u64 {
        align_down(self.base + self.size + (PAGE - 1), PAGE)
    }

    /// Whether `len` bytes at `address` are all inside.
    #[must_use]
    pub fn contains(&self, address: u64, len: u64) -> bool {
        address.checked_sub(self.base).and_then(|at| at.checked_add(len)).is_some_and(|end| end <= self.size)
    }
}

/// Where everything of a kernel goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    segments: [Segment; SEGMENTS],
    len: usize,
    /// Virtual address to start at.
    pub entry: u64,
    /// Alignment of the physical placement.
    pub align: u64,
}

const fn refuse(what: &'static str) -> Refusal {
    Refusal::new(Exit::BadElf, what)
}

impl Plan {
    /// Checks a file and plans its placement.
    ///
    /// # Errors
    /// [`Exit::BadElf`] with what is wrong.
    pub fn parse(file: &[u8]) -> Result<Self, Refusal> {
        let malformed = |_| refuse("the kernel is not a well-formed ELF file");
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(malformed)?;
        let header = &elf.ehdr;
        if header.class != Class::ELF64 || header.e_machine != EM_X86_64 {
            return Err(refuse("the kernel is not an ELF64 file for x86-64"));
        }
        match header.e_type {
            ET_EXEC => {}
            ET_DYN => {
                return Err(refuse("the kernel is position independent; only static executables are loaded"));
            }
            _ => return Err(refuse("the kernel is not an executable")),
        }
        let headers = elf.segments().ok_or(refuse("the kernel has no program headers"))?;
        let mut plan = Self {
            segments: [Segment { base: 0, size: 0, file_offset: 0, file_size: 0, access: Access::Read };
                SEGMENTS],
            len: 0,
            entry: header.e_entry,
            align: PAGE,
        };
        for header in headers.iter() {
            if header.p_type == PT_INTERP {
                return Err(refuse("the kernel asks for a dynamic linker"));
            }
            if header.p_type == PT_LOAD && header.p_memsz != 0 {
                plan.add(&header, file.len())?;
            }
        }
        plan.finish()
    }

    /// The segments, by ascending address.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments[..self.len]
    }

    /// Virtual address of the first page of the image.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.segments().first().map_or(TOP_2_GIB, Segment::first_page)
    }

    /// Bytes from the first to the last page of the image.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.segments().last().map_or(0, |last| last.end_page() - self.base())
    }

    /// Where in the image a segment begins.
    #[must_use]
    pub fn offset(&self, segment: &Segment) -> usize {
        to_usize(segment.base - self.base())
    }

    /// Bytes of the image up to the last one that comes from the file; the rest is zero.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.segments().iter().map(|segment| self.offset(segment) + segment.file_size).max().unwrap_or(0)
    }

    /// Whether code can start at `address`.
    #[must_use]
    pub fn is_code(&self, address: u64) -> bool {
        self.segments()
            .iter()
            .any(|segment| segment.access == Access::Execute && segment.contains(address, 1))
    }

    fn add(&mut self, header: &ProgramHeader, file_len: usize) -> Result<(), Refusal> {
        let end = header.p_vaddr.checked_add(header.p_memsz).filter(|&end| end <= LAST);
        if header.p_vaddr < TOP_2_GIB || end.is_none() {
            let what = "a segment of the kernel is outside the top 2 GiB, at this address";
            return Err(Refusal::with(Exit::BadElf, what, header.p_vaddr));
        }
        if header.p_filesz > header.p_memsz {
            return Err(refuse("a segment of the kernel is larger in the file than in memory"));
        }
        let cut_off = refuse("the kernel is cut off: a segment extends past the end of the file");
        let (file_offset, file_size) = (to_usize(header.p_offset), to_usize(header.p_filesz));
        if file_offset.checked_add(file_size).is_none_or(|end| end > file_len) {
            return Err(cut_off);
        }
        let access = match (header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
            (true, true) => return Err(refuse("a segment of the kernel is both writable and executable")),
            (true, false) => Access::Write,
            (false, true) => Access::Execute,
            (false, false) => Access::Read,
        };
        if header.p_align.is_power_of_two() {
            self.align = self.align.max(header.p_align.min(MAX_ALIGN));
        }
        let slot = self.segments.get_mut(self.len).ok_or(refuse("the kernel has too many segments"))?;
        *slot = Segment { base: header.p_vaddr, size: header.p_memsz, file_offset, file_size, access };
        self.len += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Self, Refusal> {
        self.segments[..self.len].sort_unstable_by_key(|segment| segment.base);
        if self.len == 0 {
            return Err(refuse("the kernel has nothing to load"));
        }
        if self.segments().windows(2).any(|pair| pair[0].end_page() > pair[1].first_page()) {
            return Err(refuse("two segments of the kernel overlap or share a page"));
        }
        if !self.is_code(self.entry) {
            let what = "the entry point of the kernel is not in an executable segment";
            return Err(Refusal::with(Exit::BadElf, what, self.entry));
        }
        Ok(self)
    }

    /// Physical address to align to, so that `physical - virtual` is a multiple of the alignment: the offset of the
    /// image's first page from the alignment below it.
    #[must_use]
    pub fn slack(&self) -> u64 {
        self.base() - align_down(self.base(), self.align)
    }

    /// Bytes of physical memory to take, at a multiple of [`Plan::align`].
    #[must_use]
    pub fn footprint(&self) -> u64 {
        align_up(self.slack() + self.span(), PAGE).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
pub(crate) mod tests;
