//! Names for code addresses, from the symbol table of the kernel's own ELF file, which the loader keeps in memory.

use core::fmt;

use elf::ElfBytes;
use elf::abi::{SHT_STRTAB, SHT_SYMTAB, STT_FUNC};
use elf::endian::LittleEndian;
use elf::string_table::StringTable;
use elf::symbol::SymbolTable;
use spin::Once;

use crate::{layout, log};

/// What is kept of the kernel's ELF file; nothing until [`install`].
static TABLES: Once<Tables> = Once::new();

/// The symbols and their names, and where in the file the first byte of both is.
struct Tables {
    symbols: SymbolTable<'static, LittleEndian>,
    names: StringTable<'static>,
    first: usize,
}

/// The section types that are kept (System V ABI, chapter 4).
const KEPT: [u32; 2] = [SHT_SYMTAB, SHT_STRTAB];

/// Words of the stack that a backtrace looks at, and lines that it prints, at most.
const STACK_WORDS: u64 = 1024;
const BACKTRACE_LINES: usize = 16;

/// Makes the ELF file known. Nothing of it is referred to afterwards but what lies behind [`first_byte`].
pub(crate) fn install(file: &'static [u8]) {
    if let Some(tables) = read(file) {
        TABLES.call_once(|| tables);
    }
}

fn read(file: &'static [u8]) -> Option<Tables> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).ok()?;
    let (symbols, names) = elf.symbol_table().ok()??;
    let sections = elf.section_headers()?.iter().filter(|section| KEPT.contains(&section.sh_type));
    let first = sections.map(|section| section.sh_offset as usize).min()?;
    Some(Tables { symbols, names, first })
}

/// Where in the file the part begins that stays in use; the segments before it have been loaded elsewhere.
pub(crate) fn first_byte() -> Option<usize> {
    TABLES.get().map(|tables| tables.first)
}

/// Shows as `name+0xoffset`, or as nothing where no symbol covers the address.
pub(crate) struct Symbol(pub(crate) u64);

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match find(self.0) {
            Some((name, offset)) => write!(f, "{:#}+{offset:#x}", rustc_demangle::demangle(name)),
            None => Ok(()),
        }
    }
}

fn find(address: u64) -> Option<(&'static str, u64)> {
    let Tables { symbols, names, .. } = TABLES.get()?;
    let symbol = symbols
        .iter()
        .filter(|s| s.st_symtype() == STT_FUNC && s.st_value <= address)
        .max_by_key(|s| s.st_value)
        .filter(|s| address - s.st_value < s.st_size.max(1))?;
    Some((names.get(symbol.st_name as usize).ok()?, address - symbol.st_value))
}

/// Prints where the code at `rip` may have been called from: the words on its stack that point into a function.
///
/// The kernel is built without frame pointers, so a word left over from an earlier call can appear among them.
pub(crate) fn print_backtrace(rip: u64, rsp: u64) {
    log!("  at {rip:016x} {}", Symbol(rip));
    // An overflow leaves the pointer in the guard page below the stack: the words begin above it.
    let rsp = if crate::start::is_stack(rsp) { rsp.next_multiple_of(8) } else { rsp.next_multiple_of(4096) };
    let words = (rsp..).step_by(8).take(STACK_WORDS as usize).take_while(|&a| crate::start::is_stack(a));
    let callers = words.map(|address| {
        let word = address as *const u64;
        // SAFETY: G6: `is_stack` holds, so the aligned word lies in a mapped stack.
        unsafe { word.read_volatile() }
    });
    let callers = callers.filter(|&w| layout::IMAGE.contains(w)).filter_map(|w| find(w - 1).map(|_| w));
    for caller in callers.take(BACKTRACE_LINES) {
        log!("  from {caller:016x} {}", Symbol(caller - 1));
    }
}
