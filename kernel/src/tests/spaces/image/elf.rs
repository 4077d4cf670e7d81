//! A writer of small ELF files, and the program that the tests load.

use alloc::vec::Vec;

use mm::virt::PAGE_BYTES;

/// Fields of the file header that tests damage, by their offsets.
pub(super) const TYPE: usize = 16;
pub(super) const MACHINE: usize = 18;
pub(super) const ENTRY: usize = 24;
pub(super) const COUNT: usize = 56;
/// The first program header, and the fields of one.
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 56;
pub(super) const FLAGS: usize = 4;
pub(super) const OFFSET: usize = 8;
pub(super) const ADDRESS: usize = 16;
pub(super) const FILLED: usize = 32;
pub(super) const SIZE: usize = 40;
pub(super) const ALIGN: usize = 48;

/// Kinds of files (System V ABI, chapter 4).
pub(super) const EXEC: u16 = 2;
pub(super) const DYN: u16 = 3;

/// A segment: kind, flags, offset, address, bytes in the file, bytes in memory.
pub(super) struct Header(pub(super) u32, pub(super) u32, pub(super) [usize; 4]);

const LOAD: u32 = 1;
const STACK: u32 = 0x6474_e551;
const R: u32 = 4;
const W: u32 = 2;
const X: u32 = 1;

/// Where the segments are, counted from the image's base: code, constants, data. The last begins and ends inside a page.
pub(super) const CODE: usize = 0;
pub(super) const CONSTANTS: usize = 2 * PAGE_BYTES;
pub(super) const DATA: usize = 4 * PAGE_BYTES + 0x340;
pub(super) const CODE_BYTES: usize = PAGE_BYTES + 17;
pub(super) const CONSTANTS_BYTES: usize = 100;
pub(super) const DATA_BYTES: usize = PAGE_BYTES + 0x123;
/// Pages of data in all, and of the whole image.
pub(super) const DATA_PAGES: usize = 6;
pub(super) const PAGES: usize = 4 + DATA_PAGES;
/// Where code begins in the file; everything else has the same distance.
const FILE: usize = PAGE_BYTES;
/// Pages that hold something from the file.
pub(super) const FILLED_PAGES: usize = 5;

/// The byte at an offset of the file: none is zero, so that bytes that must be zero tell themselves from the file's.
fn filling(offset: usize) -> u8 {
    (offset % 251) as u8 | 1
}

/// The program, linked for `base`.
pub(super) fn program(kind: u16, base: usize) -> Vec<u8> {
    let data_size = DATA_PAGES * PAGE_BYTES - DATA % PAGE_BYTES;
    let headers = [
        Header(LOAD, R | X, [FILE + CODE, base + CODE, CODE_BYTES, CODE_BYTES]),
        Header(LOAD, R, [FILE + CONSTANTS, base + CONSTANTS, CONSTANTS_BYTES, CONSTANTS_BYTES]),
        Header(LOAD, R | W, [FILE + DATA, base + DATA, DATA_BYTES, data_size]),
        Header(STACK, R | W, [0, 0, 0, 0]),
    ];
    file(kind, base + 4, &headers, FILE + PAGES * PAGE_BYTES)
}

/// A file of so many bytes, all of them not zero but for the headers.
fn file(kind: u16, entry: usize, headers: &[Header], bytes: usize) -> Vec<u8> {
    let mut file: Vec<u8> = (0..bytes).map(filling).collect();
    file[..HEADERS].copy_from_slice(&[0; HEADERS]);
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    put(&mut file, TYPE, &kind.to_le_bytes());
    put(&mut file, MACHINE, &62_u16.to_le_bytes());
    put(&mut file, 20, &1_u32.to_le_bytes());
    put(&mut file, ENTRY, &(entry as u64).to_le_bytes());
    put(&mut file, 32, &(HEADERS as u64).to_le_bytes());
    put(&mut file, 52, &(HEADERS as u16).to_le_bytes());
    put(&mut file, 54, &(HEADER_BYTES as u16).to_le_bytes());
    put(&mut file, COUNT, &(headers.len() as u16).to_le_bytes());
    for (index, Header(kind, flags, [offset, address, filled, size])) in headers.iter().enumerate() {
        let at = header(index);
        put(&mut file, at, &kind.to_le_bytes());
        put(&mut file, at + FLAGS, &flags.to_le_bytes());
        let words =
            [(OFFSET, offset), (ADDRESS, address), (FILLED, filled), (SIZE, size), (ALIGN, &PAGE_BYTES)];
        for (field, &word) in words {
            put(&mut file, at + field, &(word as u64).to_le_bytes());
        }
    }
    file
}

/// Where a program header is.
pub(super) const fn header(index: usize) -> usize {
    HEADERS + index * HEADER_BYTES
}

/// Writes over a part of a file.
pub(super) fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// What a page of the loaded image must hold, by the definition: a byte of a segment is the file's, every other one is zero.
pub(super) fn expected(page: usize) -> Vec<u8> {
    let segments = [(CODE, CODE_BYTES), (CONSTANTS, CONSTANTS_BYTES), (DATA, DATA_BYTES)];
    let byte = |at: usize| {
        let held = segments.iter().any(|&(start, bytes)| (start..start + bytes).contains(&at));
        if held { filling(FILE + at) } else { 0 }
    };
    (page * PAGE_BYTES..(page + 1) * PAGE_BYTES).map(byte).collect()
}
