use super::{Core, Madt, Root, pm_timer_port};
use crate::start::tests::Ram;
use proptest::prelude::{any, prop_assert, proptest};
use std::vec;
use std::vec::Vec;

fn fix_sum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
}

fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::from(*signature);
    out.extend_from_slice(&u32::try_from(36 + body.len()).unwrap().to_le_bytes());
    out.resize(36, 0);
    out.extend_from_slice(body);
    fix_sum(&mut out, 9);
    out
}

/// Root pointer at 0xf0040, root table at 0x1000, MADT at 0x2000, FADT at 0x3000.
fn machine(madt: &[u8], extended: bool) -> Ram {
    let mut ram = Ram(vec![0; 0x10_0000]);
    let mut rsdp = Vec::from(*b"RSD PTR ");
    rsdp.resize(36, 0);
    rsdp[15] = if extended { 2 } else { 0 };
    rsdp[if extended { 25 } else { 17 }] = 0x10;
    fix_sum(&mut rsdp[..20], 8);
    fix_sum(&mut rsdp, 32);
    let addresses: [u64; 2] = [0x3000, 0x2000];
    let root: Vec<u8> = match extended {
        true => addresses.iter().flat_map(|address| address.to_le_bytes()).collect(),
        false => addresses.iter().flat_map(|&address| (address as u32).to_le_bytes()).collect(),
    };
    let mut fadt = [0u8; 240];
    fadt[40..42].copy_from_slice(&0x608u16.to_le_bytes());
    let parts: [(usize, Vec<u8>); 4] = [
        (0xf_0040, rsdp),
        (0x1000, table(b"XSDT", &root)),
        (0x2000, table(b"APIC", madt)),
        (0x3000, table(b"FACP", &fadt)),
    ];
    for (at, bytes) in parts {
        ram.0[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    ram
}

fn xapic(uid: u8, id: u8, flags: u8) -> [u8; 8] {
    [0, 8, uid, id, flags, 0, 0, 0]
}

fn x2apic(uid: u32, id: u32, flags: u32) -> Vec<u8> {
    let words = [id, flags, uid].into_iter().flat_map(u32::to_le_bytes);
    [9u8, 16, 0, 0].into_iter().chain(words).collect()
}

#[test]
fn finds_cores_and_devices() {
    let io_apic = [1u8, 12, 0, 0, 0x00, 0x00, 0xc0, 0xfe, 0, 0, 0, 0];
    let body = [
        &[0u8; 8][..],
        &xapic(0, 0, 1),
        &xapic(1, 4, 1),
        &io_apic,
        &xapic(2, 6, 0),
        &xapic(3, 8, 2),
        &xapic(9, 0xff, 1),
        &x2apic(1, 4, 1),
        &x2apic(7, 0x1234, 1),
    ]
    .concat();
    for extended in [false, true] {
        let ram = machine(&body, extended);
        let root = Root::search(&ram).unwrap();
        assert_eq!(root.rsdp, 0xf_0040);
        let madt = Madt::find(&ram, &root).unwrap();
        let cores: Vec<_> = madt.cores().map(|Core { acpi_id, apic_id }| (acpi_id, apic_id)).collect();
        assert_eq!(
            cores,
            [(0, 0), (1, 4), (7, 0x1234)],
            "disabled, online-capable, broadcast and repeated are out"
        );
        assert_eq!(madt.io_apics().collect::<Vec<_>>(), [0xfec0_0000]);
        assert_eq!(pm_timer_port(&ram, &root), Some(0x608));
    }
}

#[test]
fn a_bad_checksum_is_no_table() {
    let mut ram = machine(&[0; 8], true);
    ram.0[0x2010] ^= 1;
    let root = Root::search(&ram).unwrap();
    assert!(Madt::find(&ram, &root).is_none());
    ram.0[0xf_0050] ^= 1;
    assert_eq!(Root::search(&ram), None);
}

proptest! {
    #[test]
    fn random_tables_never_panic(body in proptest::collection::vec(any::<u8>(), 0..256), edit in (0usize..0x4000, any::<u8>())) {
        let mut ram = machine(&body, true);
        ram.0[edit.0] = edit.1;
        if let Some(root) = Root::search(&ram)
            && let Some(madt) = Madt::find(&ram, &root)
        {
            prop_assert!(madt.cores().count() <= 64);
            let _ = (madt.io_apics().count(), pm_timer_port(&ram, &root));
        }
    }
}
