//! Program images: what an ELF file wants mapped, found out and checked before anything is.
//!
//! A file is hostile until [`Plan::of`] has read its headers, which happens once, on the caller's own copy. What a plan says cannot be wrong
//! in a way that matters to a kernel:
//!
//! * I1: segments are in ascending order and have no page in common; all lie inside [`Plan::pages`], which is at most [`MAX_PAGES`] long.
//!   An image of fixed address stays off page 0 and inside the user half; one that can be moved ends at most [`MAX_PAGES`] from 0.
//! * I2: the bytes that a segment's page takes from the file lie inside the file, whose length the caller has given.
//! * I3: nothing is writable and executable; the entry lies in an executable segment.
//!
//! Relocations are the program's own business. Sources: System V ABI, chapters 4 and 5; its AMD64 supplement.

mod place;

pub use place::{Layout, MAX_STACK};

use crate::space::Protection;
use crate::virt::{PAGE_BYTES, PageId, PageSize, USER_PAGES};
use abi::image::ImageFlaw as Flaw;
use elf::abi::{
    EI_VERSION, EM_X86_64, ET_DYN, ET_EXEC, EV_CURRENT, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_TLS,
};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::parse::ParseAt;
use elf::segment::ProgramHeader;

/// Bytes at the beginning of a file in which all headers lie.
pub const HEAD_BYTES: usize = PAGE_BYTES;
/// Most segments that are loaded.
pub const MAX_SEGMENTS: usize = 8;
/// Most program headers of any kind.
const MAX_HEADERS: usize = 32;
/// Most pages from the first of the image to its last: 1 GiB, so that an offset in it fits a signed 32-bit displacement.
pub const MAX_PAGES: usize = PageSize::Giant.pages();
/// Bytes of a file's header, and of its part that says how to read the rest.
const HEADER_BYTES: usize = 64;
const IDENT_BYTES: usize = 16;

/// Whether an image can be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placing {
    /// It must lie where its headers say.
    Fixed,
    /// It can lie anywhere, moved by whole multiples of its alignment, and relocates itself.
    Movable,
}

/// Consecutive pages of an image with one protection: those with bytes of the file, then those without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    first: usize,
    pages: usize,
    filled: usize,
    /// What may be done with it.
    pub protection: Protection,
    /// The bytes of the file, and how many zeroes come before them in the first page.
    offset: usize,
    bytes: usize,
    lead: usize,
}

/// What one page of a segment takes from the file: `bytes` bytes from `offset` on, to be put at byte `at` of the page; the rest is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where in the page.
    pub at: usize,
    /// Where in the file.
    pub offset: usize,
    /// How many.
    pub bytes: usize,
}

impl Segment {
    /// Its first page, before the image is moved.
    #[must_use]
    #[inline]
    pub const fn first(&self) -> PageId {
        PageId::new(self.first)
    }

    /// How many pages it has.
    #[must_use]
    #[inline]
    pub const fn pages(&self) -> usize {
        self.pages
    }

    /// How many of them, from the first on, hold something from the file.
    #[must_use]
    #[inline]
    pub const fn filled(&self) -> usize {
        self.filled
    }

    /// What its page `index` takes from the file; nothing for a page that is all zeroes.
    #[must_use]
    pub fn piece(&self, index: usize) -> Option<Piece> {
        if index >= self.filled {
            return None;
        }
        // Counted from the start of the first page: none of this exceeds `lead + bytes`.
        let end = self.lead + self.bytes;
        let start = (index * PAGE_BYTES).max(self.lead);
        let stop = ((index + 1) * PAGE_BYTES).min(end);
        Some(Piece { at: start % PAGE_BYTES, offset: self.offset + (start - self.lead), bytes: stop - start })
    }
}

/// The template of thread-local storage (`PT_TLS`), before the image is moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tls {
    /// Where it is.
    pub address: usize,
    /// Bytes that are there; the rest is zero.
    pub filled: usize,
    /// Bytes of each thread's block.
    pub bytes: usize,
    /// What the block's end is aligned to: a power of two, at most a page.
    pub align: usize,
}

/// A checked image; see the module's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    placing: Placing,
    entry: usize,
    tls: Option<Tls>,
    /// Pages that a slide is a multiple of.
    align: usize,
    len: usize,
    segments: [Segment; MAX_SEGMENTS],
}

const NO_SEGMENT: Segment =
    Segment { first: 0, pages: 0, filled: 0, protection: Protection::Read, offset: 0, bytes: 0, lead: 0 };

impl Plan {
    /// Reads and checks the headers of a whole file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(file: &[u8]) -> Result<Self, Flaw> {
        Self::of(&file[..file.len().min(HEAD_BYTES)], file.len())
    }

    /// As [`Plan::read`], with the first [`HEAD_BYTES`] bytes of a file of `bytes` bytes, or all of a shorter one.
    ///
    /// # Errors
    /// As [`Plan::read`].
    pub fn of(head: &[u8], bytes: usize) -> Result<Self, Flaw> {
        let header = file_header(head)?;
        let placing = match header.e_type {
            ET_EXEC => Placing::Fixed,
            ET_DYN => Placing::Movable,
            _ => return Err(Flaw::NotProgram),
        };
        let (none, entry) = (None, to_usize(header.e_entry));
        let mut plan =
            Self { placing, entry, tls: none, align: 1, len: 0, segments: [NO_SEGMENT; MAX_SEGMENTS] };
        let mut tls = None;
        for header in program_headers(head, &header)? {
            let header = header?;
            match header.p_type {
                PT_LOAD if header.p_memsz == 0 && header.p_filesz == 0 => {}
                PT_LOAD => plan.add(&header, bytes)?,
                PT_INTERP => return Err(Flaw::Interpreter),
                PT_GNU_STACK if header.p_flags & PF_X != 0 => return Err(Flaw::WriteExecute),
                PT_TLS if tls.is_some() => return Err(Flaw::Tls),
                PT_TLS => tls = Some(header),
                _ => {}
            }
        }
        plan.tls = tls.map(|header| plan.template(&header)).transpose()?;
        plan.finish()
    }

    /// Adds a segment behind those that are there.
    fn add(&mut self, header: &ProgramHeader, bytes: usize) -> Result<(), Flaw> {
        let (segment, align) = segment(header, bytes)?;
        let end = self.segments().last().map_or(0, |last| last.first + last.pages);
        if segment.first < end {
            return Err(Flaw::Overlap);
        }
        *self.segments.get_mut(self.len).ok_or(Flaw::Headers)? = segment;
        self.len += 1;
        self.align = self.align.max(align);
        Ok(())
    }

    /// What can be said when all segments are known.
    fn finish(self) -> Result<Self, Flaw> {
        let [first, ..] = self.segments() else { return Err(Flaw::Headers) };
        if self.placing == Placing::Fixed && first.first == 0 {
            return Err(Flaw::Range);
        }
        let extent = match self.placing {
            Placing::Fixed => self.pages(),
            Placing::Movable => first.first + self.pages(),
        };
        if extent > MAX_PAGES {
            return Err(Flaw::TooLarge);
        }
        let entry = self.entry / PAGE_BYTES;
        let holds = |segment: &Segment| (segment.first..segment.first + segment.pages).contains(&entry);
        let code = self.segments().iter().find(|segment| holds(segment));
        match code {
            Some(Segment { protection: Protection::ReadExecute, .. }) => Ok(self),
            _ => Err(Flaw::Entry),
        }
    }

    fn template(&self, header: &ProgramHeader) -> Result<Tls, Flaw> {
        let tls = Tls {
            address: to_usize(header.p_vaddr),
            filled: to_usize(header.p_filesz),
            bytes: to_usize(header.p_memsz),
            align: to_usize(header.p_align).max(1),
        };
        let end = tls.address.checked_add(tls.filled).ok_or(Flaw::Tls)?;
        let holds = |segment: &Segment| {
            let start = segment.first * PAGE_BYTES;
            start <= tls.address && end <= start + segment.pages * PAGE_BYTES
        };
        let inside = tls.filled == 0 || self.segments().iter().any(holds);
        let aligned = tls.align.is_power_of_two() && tls.align <= PAGE_BYTES;
        let sized = tls.filled <= tls.bytes && tls.bytes <= MAX_PAGES * PAGE_BYTES;
        if inside && aligned && sized { Ok(tls) } else { Err(Flaw::Tls) }
    }

    /// The segments, ascending.
    #[must_use]
    #[inline]
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.len).unwrap_or(&[])
    }

    /// Whether it can be moved.
    #[must_use]
    #[inline]
    pub const fn placing(&self) -> Placing {
        self.placing
    }

    /// The first instruction, before the image is moved.
    #[must_use]
    #[inline]
    pub const fn entry(&self) -> usize {
        self.entry
    }

    /// The template of thread-local storage, if there is one.
    #[must_use]
    pub const fn tls(&self) -> Option<Tls> {
        self.tls
    }

    /// Pages that the distance by which it is moved is a multiple of.
    #[must_use]
    #[inline]
    pub const fn align(&self) -> usize {
        self.align
    }

    /// The first page, before the image is moved.
    #[must_use]
    #[inline]
    pub fn first(&self) -> PageId {
        PageId::new(self.segments[0].first)
    }

    /// Pages from the first of the first segment to the last of the last.
    #[must_use]
    #[inline]
    pub fn pages(&self) -> usize {
        let last = &self.segments[self.len.saturating_sub(1)];
        last.first + last.pages - self.segments[0].first
    }

    /// Pages that hold something from the file.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.segments().iter().map(Segment::filled).sum()
    }
}

/// No address or length that matters exceeds a `usize`: what does is far outside everything.
fn to_usize(word: u64) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

fn file_header(head: &[u8]) -> Result<FileHeader<LittleEndian>, Flaw> {
    let (ident, rest) = head.split_at_checked(IDENT_BYTES).ok_or(Flaw::NotElf)?;
    let tail = rest.get(..HEADER_BYTES - IDENT_BYTES).ok_or(Flaw::NotElf)?;
    let version = ident[EI_VERSION];
    let ident = elf::file::parse_ident::<LittleEndian>(ident).map_err(|_| Flaw::NotElf)?;
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| Flaw::NotElf)?;
    let known = header.class == Class::ELF64
        && header.e_machine == EM_X86_64
        && version == EV_CURRENT
        && header.version == u32::from(EV_CURRENT);
    if known { Ok(header) } else { Err(Flaw::NotElf) }
}

/// The program headers, all in the head.
fn program_headers<'h>(
    head: &'h [u8],
    header: &FileHeader<LittleEndian>,
) -> Result<impl Iterator<Item = Result<ProgramHeader, Flaw>> + use<'h>, Flaw> {
    let size = ProgramHeader::size_for(Class::ELF64);
    let count = usize::from(header.e_phnum);
    if usize::from(header.e_phentsize) != size || count == 0 || count > MAX_HEADERS {
        return Err(Flaw::Headers);
    }
    let start = to_usize(header.e_phoff);
    let end = start.checked_add(count * size).ok_or(Flaw::Headers)?;
    let table = head.get(start..end).ok_or(Flaw::Headers)?;
    Ok(table.chunks_exact(size).map(|entry| {
        ProgramHeader::parse_at(LittleEndian, Class::ELF64, &mut 0, entry).map_err(|_| Flaw::Headers)
    }))
}

/// One segment by itself, in a file of `bytes` bytes; and the pages that it is aligned to.
fn segment(header: &ProgramHeader, bytes: usize) -> Result<(Segment, usize), Flaw> {
    let (address, offset) = (to_usize(header.p_vaddr), to_usize(header.p_offset));
    let (filled, size) = (to_usize(header.p_filesz), to_usize(header.p_memsz));
    let align = to_usize(header.p_align);
    let file_end = offset.checked_add(filled).ok_or(Flaw::Beyond)?;
    if filled > size || file_end > bytes {
        return Err(Flaw::Beyond);
    }
    let possible = PAGE_BYTES..=PageSize::Huge.pages() * PAGE_BYTES;
    if !align.is_power_of_two() || !possible.contains(&align) || (address ^ offset) % align != 0 {
        return Err(Flaw::Misaligned);
    }
    let end = address.checked_add(size).ok_or(Flaw::Range)?;
    if end > USER_PAGES * PAGE_BYTES {
        return Err(Flaw::Range);
    }
    let protection = match (header.p_flags & PF_W != 0, header.p_flags & PF_X != 0) {
        (true, true) => return Err(Flaw::WriteExecute),
        (true, false) => Protection::ReadWrite,
        (false, true) => Protection::ReadExecute,
        (false, false) => Protection::Read,
    };
    let (first, lead) = (address / PAGE_BYTES, address % PAGE_BYTES);
    let pages = end.div_ceil(PAGE_BYTES) - first;
    // A segment without bytes has no page that takes something from the file, wherever it begins in its first page.
    let held = if filled == 0 { 0 } else { (lead + filled).div_ceil(PAGE_BYTES) };
    Ok((Segment { first, pages, filled: held, protection, offset, bytes: filled, lead }, align / PAGE_BYTES))
}
