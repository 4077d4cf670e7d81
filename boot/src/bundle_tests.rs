use super::Bundle;
use abi::exit::Exit;
use proptest::prelude::{any, prop_assert_eq, proptest};
use std::format;
use std::vec::Vec;

/// A ustar archive (POSIX.1-2017, `pax`, "ustar Interchange Format").
pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, data) in members {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn finds_the_members() {
    let bytes =
        archive(&[("cmdline", b"mode=test\n"), ("kernel", b"ELF"), (".pad", b"x"), ("./bin/a", b"module")]);
    let bundle = Bundle::parse(&bytes).unwrap();
    assert_eq!(bundle.kernel().data, b"ELF");
    assert_eq!(bundle.cmdline(), Some(&b"mode=test"[..]));
    assert_eq!(bundle.modules().len(), 1);
    assert_eq!(bundle.module(b"/bin/a"), Some(0));
    assert_eq!(&bytes[bundle.modules()[0].offset..][..6], b"module");
}

#[test]
fn a_padded_member_stays_in_place() {
    let pad = [0u8; 3072];
    let bytes = archive(&[(".pad", &pad), ("kernel", &[1; 5000]), ("a", b"module")]);
    let bundle = Bundle::parse(&bytes).unwrap();
    assert_eq!(bundle.kernel().offset, 4096);
    assert!(!bundle.in_place(0x10_0200, bundle.kernel()));
    // The module's data begins at 4096 + 5120 + 512 = 9728, in the page in which the kernel ends.
    assert!(!bundle.in_place(0x10_0000, bundle.kernel()));
    assert!(!bundle.in_place(0x10_0000, &bundle.modules()[0]));
    let alone = archive(&[(".pad", &pad), ("kernel", &[1; 5000])]);
    let bundle = Bundle::parse(&alone).unwrap();
    assert!(bundle.in_place(0x10_0000, bundle.kernel()));
}

#[test]
fn names_what_is_wrong() {
    let no_kernel = archive(&[("a", b"1")]);
    let twice = archive(&[("kernel", b"1"), ("kernel", b"2")]);
    let module_twice = archive(&[("kernel", b"1"), ("a", b"2"), ("./a", b"3")]);
    let mut flipped = archive(&[("kernel", b"1")]);
    flipped[0] ^= 1;
    let whole = archive(&[("kernel", &[7; 2000])]);
    for bad in [&[][..], &[0; 100], &[0; 4096], &no_kernel, &twice, &module_twice, &flipped, &whole[..1536]] {
        assert_eq!(Bundle::parse(bad).unwrap_err().exit, Exit::BadBundle);
    }
    assert!(Bundle::parse(&whole).is_ok());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = Bundle::parse(&bytes);
    }

    /// Damage with the checksum repaired, so that it gets past the first check.
    #[test]
    fn damaged_headers_never_panic(at in 0usize..512, value in any::<u8>(), cut in 0usize..4) {
        let mut bytes = archive(&[("kernel", &[7; 700]), ("a", b"x")]);
        bytes[at] = value;
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|&byte| u32::from(byte)).sum();
        bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.truncate(bytes.len() - cut * 512);
        if let Ok(bundle) = Bundle::parse(&bytes) {
            let member = bundle.kernel();
            prop_assert_eq!(&bytes[member.offset..][..member.data.len()], member.data);
        }
    }
}
