use super::{Access, Plan, TOP_2_GIB};
use abi::exit::Exit;
use proptest::prelude::{any, proptest};
use std::vec::Vec;

/// A program header: type, flags, offset, address, size in file, size in memory, alignment.
#[derive(Clone, Copy)]
pub(crate) struct Header(u32, u32, u64, u64, u64, u64, u64);

impl Header {
    /// A loadable segment.
    pub(crate) fn load(flags: u32, offset: u64, address: u64, file: u64, memory: u64) -> Self {
        Self(1, flags, offset, address, file, memory, 0x1000)
    }
}

/// An ELF64 executable of 0x3000 bytes with these program headers (System V gABI, chapters 4 and 5).
pub(crate) fn elf(entry: u64, headers: &[Header]) -> Vec<u8> {
    let mut out = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    out.extend_from_slice(&2u16.to_le_bytes());
    out.extend_from_slice(&62u16.to_le_bytes());
    out.extend_from_slice(&1u32.to_le_bytes());
    for value in [entry, 64, 0] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(&0u32.to_le_bytes());
    for value in [64, 56, u16::try_from(headers.len()).unwrap(), 64, 0, 0] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    for &Header(kind, flags, offset, address, file, memory, align) in headers {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        for value in [offset, address, address, file, memory, align] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
    out.resize(0x3000, 0x90);
    out
}

const TEXT: Header = Header(1, 5, 0x1000, TOP_2_GIB, 0x800, 0x800, 0x1000);
const DATA: Header = Header(1, 6, 0x2000, TOP_2_GIB + 0x3000, 0x100, 0x2100, 0x1000);

#[test]
fn plans_a_kernel() {
    let plan = Plan::parse(&elf(TOP_2_GIB + 0x10, &[DATA, TEXT])).unwrap();
    assert_eq!((plan.base(), plan.span(), plan.entry), (TOP_2_GIB, 0x6000, TOP_2_GIB + 0x10));
    let access: Vec<_> = plan.segments().iter().map(|segment| segment.access).collect();
    assert_eq!(access, [Access::Execute, Access::Write]);
}

#[test]
fn keeps_the_offset_within_a_large_page() {
    let text = Header(1, 5, 0x1000, TOP_2_GIB + 0x3000, 0x800, 0x800, 0x20_0000);
    let plan = Plan::parse(&elf(TOP_2_GIB + 0x3000, &[text])).unwrap();
    assert_eq!((plan.align, plan.slack(), plan.footprint()), (0x20_0000, 0x3000, 0x4000));
}

#[test]
fn refuses_what_it_cannot_load() {
    let cases: [(&str, Vec<Header>); 12] = [
        ("nothing", [].into()),
        ("writable code", [Header(1, 7, 0x1000, TOP_2_GIB, 0x800, 0x800, 0x1000)].into()),
        ("low", [Header(1, 5, 0x1000, 0x20_0000, 0x800, 0x800, 0x1000)].into()),
        ("wraps", [TEXT, Header(1, 6, 0x1000, TOP_2_GIB, 0x800, u64::MAX, 0x1000)].into()),
        ("last page", [TEXT, Header(1, 6, 0x1000, u64::MAX - 0xfff, 0x10, 0x10, 0x1000)].into()),
        ("cut off", [TEXT, Header(1, 6, 0x2f00, TOP_2_GIB + 0x3000, 0x800, 0x800, 0x1000)].into()),
        ("offset wraps", [TEXT, Header(1, 6, u64::MAX, TOP_2_GIB + 0x3000, 0x800, 0x800, 0x1000)].into()),
        ("file larger", [TEXT, Header(1, 6, 0x1000, TOP_2_GIB + 0x3000, 0x800, 0x7ff, 0x1000)].into()),
        ("overlap", [TEXT, Header(1, 6, 0x1000, TOP_2_GIB + 0x400, 0x800, 0x800, 0x1000)].into()),
        ("shared page", [TEXT, Header(1, 6, 0x1000, TOP_2_GIB + 0x900, 0x100, 0x100, 0x100)].into()),
        ("entry in data", [Header(1, 6, 0x1000, TOP_2_GIB, 0x800, 0x800, 0x1000)].into()),
        ("interpreter", [TEXT, Header(3, 4, 0x1000, 0, 8, 8, 1)].into()),
    ];
    for (name, headers) in cases {
        assert_eq!(Plan::parse(&elf(TOP_2_GIB, &headers)).unwrap_err().exit, Exit::BadElf, "{name}");
    }
    assert!(Plan::parse(&elf(TOP_2_GIB, &[TEXT; 1])).is_ok());
    let many: Vec<_> =
        (0..17).map(|i| Header(1, 5, 0x1000, TOP_2_GIB + i * 0x1000, 0x10, 0x10, 0x1000)).collect();
    assert!(Plan::parse(&elf(TOP_2_GIB, &many[..16])).is_ok());
    assert_eq!(Plan::parse(&elf(TOP_2_GIB, &many)).unwrap_err().exit, Exit::BadElf);
    for (at, value) in [(4usize, 1u8), (5, 2), (16, 3), (16, 1), (18, 3), (0, 0)] {
        let mut file = elf(TOP_2_GIB, &[TEXT]);
        file[at] = value;
        assert_eq!(Plan::parse(&file).unwrap_err().exit, Exit::BadElf, "header byte {at}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
        let _ = Plan::parse(&bytes);
    }

    #[test]
    fn damaged_headers_keep_the_invariants(edits in proptest::collection::vec((16usize..176, any::<u8>()), 1..8)) {
        let mut file = elf(TOP_2_GIB + 0x10, &[TEXT, DATA]);
        for (at, value) in edits {
            file[at] = value;
        }
        if let Ok(plan) = Plan::parse(&file) {
            assert!(plan.is_code(plan.entry));
            for segment in plan.segments() {
                assert!(segment.base >= TOP_2_GIB && segment.end_page() != 0);
                assert!(segment.file_offset + segment.file_size <= file.len());
                assert!(u64::try_from(segment.file_size).unwrap() <= segment.size);
            }
        }
    }

    #[test]
    fn truncated_files_never_panic(len in 0usize..0x3000) {
        let file = elf(TOP_2_GIB + 0x10, &[TEXT, DATA]);
        let plan = Plan::parse(&file[..len]);
        assert_eq!(plan.is_ok(), len >= 0x2100);
    }
}
