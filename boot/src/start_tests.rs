use super::{MAGIC, StartInfo};
use crate::Memory;
use crate::map::Kind;
use abi::exit::Exit;
use proptest::prelude::{any, proptest};
use std::vec;
use std::vec::Vec;

/// Physical memory that starts at address 0.
pub(crate) struct Ram(pub(crate) Vec<u8>);

impl Memory for Ram {
    fn bytes(&self, base: u64, len: usize) -> Option<&[u8]> {
        let base = usize::try_from(base).ok()?;
        self.0.get(base..base.checked_add(len)?)
    }
}

impl Ram {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Start information at 0x100, one module at 0x3000, a command line at 0x2000, two memory map entries at 0x300.
fn machine() -> Ram {
    let mut ram = Ram(vec![0; 0x4000]);
    ram.put(0x100, &MAGIC.to_le_bytes());
    ram.put(0x104, &1u32.to_le_bytes());
    ram.put(0x10c, &1u32.to_le_bytes());
    for (at, value) in [(0x110, 0x200u64), (0x118, 0x2000), (0x120, 0xf_0000), (0x128, 0x300)] {
        ram.put(at, &value.to_le_bytes());
    }
    ram.put(0x130, &2u32.to_le_bytes());
    ram.put(0x200, &0x3000u64.to_le_bytes());
    ram.put(0x208, &3u64.to_le_bytes());
    ram.put(0x2000, b"mode=idle\0");
    ram.put(0x3000, b"tar");
    for (at, base, len, kind) in [(0x300, 0u64, 0x9_fc00u64, 1u32), (0x318, 0xffff_ffff_ffff_f000, 0x2000, 2)]
    {
        ram.put(at, &base.to_le_bytes());
        ram.put(at + 8, &len.to_le_bytes());
        ram.put(at + 16, &kind.to_le_bytes());
    }
    ram
}

#[test]
fn reads_every_field() {
    let ram = machine();
    let info = StartInfo::read(&ram, 0x100).unwrap();
    assert_eq!(
        (info.rsdp, info.initrd, info.bundle, info.cmdline),
        (0xf_0000, 0x3000, &b"tar"[..], &b"mode=idle"[..])
    );
    let regions: Vec<_> = info.regions().map(|region| (region.base, region.end, region.kind)).collect();
    assert_eq!(regions[0], (0, 0x9_fc00, Kind::Usable));
    assert_eq!(regions[1], (0xffff_ffff_ffff_f000, u64::MAX, Kind::Reserved));
}

#[test]
fn refuses_what_it_cannot_use() {
    let edits: [(usize, &[u8], Exit); 7] = [
        (0x100, &[0], Exit::BadStartInfo),
        (0x104, &[0], Exit::BadStartInfo),
        (0x130, &[0], Exit::BadStartInfo),
        (0x131, &[1], Exit::BadStartInfo),
        (0x10c, &[0], Exit::BadBundle),
        (0x112, &[1], Exit::BadStartInfo),
        (0x20f, &[1], Exit::BadStartInfo),
    ];
    for (at, bytes, exit) in edits {
        let mut ram = machine();
        ram.put(at, bytes);
        assert_eq!(StartInfo::read(&ram, 0x100).unwrap_err().exit, exit, "edit at {at:#x}");
    }
    assert_eq!(StartInfo::read(&machine(), 0x4000).unwrap_err().exit, Exit::BadStartInfo);
    let mut endless = machine();
    endless.put(0x2000, &[b'a'; 4096]);
    assert_eq!(StartInfo::read(&endless, 0x100).unwrap_err().exit, Exit::BadStartInfo);
}

proptest! {
    #[test]
    fn random_start_information_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 64..4096)) {
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        let ram = Ram(bytes);
        if let Ok(info) = StartInfo::read(&ram, 0) {
            info.regions().for_each(|region| assert!(region.base <= region.end));
        }
    }
}
