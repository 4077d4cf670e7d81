use super::{Kind, Map, Region};
use crate::PAGE;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use std::vec::Vec;

const KINDS: [Kind; 7] = [
    Kind::Usable,
    Kind::Reserved,
    Kind::AcpiReclaimable,
    Kind::AcpiNvs,
    Kind::Bad,
    Kind::LoaderReclaimable,
    Kind::ExecutableAndModules,
];

fn region() -> impl Strategy<Value = Region> {
    (0u64..64, 0u64..20, 0usize..7).prop_map(|(base, len, kind)| Region {
        base: base * 1024,
        end: (base + len) * 1024,
        kind: KINDS[kind],
    })
}

fn check_invariant(map: &Map) {
    for region in map.regions() {
        assert!(region.base < region.end, "M1: {region:?} is empty");
    }
    for pair in map.regions().windows(2) {
        assert!(pair[0].end <= pair[1].base, "M1: {pair:?} overlap");
        assert!(pair[0].end < pair[1].base || pair[0].kind != pair[1].kind, "M1: {pair:?} not merged");
    }
}

proptest! {
    /// The model is an array with one kind per KiB.
    #[test]
    fn set_is_an_assignment(ops in proptest::collection::vec(region(), 0..60)) {
        let (mut map, mut model) = (Map::new(), [None; 96]);
        for op in ops {
            map.set(op.base, op.end, op.kind).unwrap();
            for cell in op.base / 1024..op.end / 1024 {
                model[cell as usize] = Some(op.kind);
            }
            check_invariant(&map);
        }
        for (cell, expected) in model.iter().enumerate() {
            let at = cell as u64 * 1024;
            let got = map.regions().iter().find(|r| (r.base..r.end).contains(&at)).map(|r| r.kind);
            prop_assert_eq!(got, *expected);
        }
    }

    #[test]
    fn firmware_entries_become_aligned_usable_memory(entries in proptest::collection::vec(region(), 0..40)) {
        let mut map = Map::new();
        map.from_firmware(entries.iter().copied()).unwrap();
        check_invariant(&map);
        for region in map.regions().iter().filter(|region| region.kind == Kind::Usable) {
            prop_assert!(region.base >= PAGE && region.base % PAGE == 0 && region.end % PAGE == 0);
            for other in entries.iter().filter(|other| other.kind != Kind::Usable && other.base < other.end) {
                prop_assert!(other.end <= region.base || other.base >= region.end);
            }
        }
    }

    #[test]
    fn claim_takes_usable_memory_only(
        entries in proptest::collection::vec(region(), 0..40), base in 0u64..70_000, len in 0u64..20_000,
    ) {
        let mut map = Map::new();
        map.from_firmware(entries.iter().copied()).unwrap();
        let kind_at = |map: &Map, at: u64| map.regions().iter().find(|r| (r.base..r.end).contains(&at)).map(|r| r.kind);
        let before = map.clone();
        map.claim(base, base + len, Kind::LoaderReclaimable).unwrap();
        check_invariant(&map);
        for at in (0..96 * 1024).step_by(1024) {
            let inside = at >= base / PAGE * PAGE && at < (base + len).next_multiple_of(PAGE);
            let expected = match kind_at(&before, at) {
                Some(Kind::Usable) if inside => Some(Kind::LoaderReclaimable),
                other => other,
            };
            prop_assert_eq!(kind_at(&map, at), expected);
        }
    }

    #[test]
    fn alloc_hands_out_usable_memory_once(
        entries in proptest::collection::vec(region(), 1..40),
        sizes in proptest::collection::vec((1u64..20_000, 0u32..4, any::<bool>()), 1..20),
    ) {
        let mut map = Map::new();
        map.from_firmware(entries.iter().copied()).unwrap();
        let mut given: Vec<(u64, u64)> = Vec::new();
        for (size, shift, low) in sizes {
            let (align, within) = (PAGE << shift, if low { 10 * 1024..40 * 1024 } else { 0..u64::MAX });
            let before = map.clone();
            let Ok(base) = map.alloc(size, align, within.clone(), Kind::LoaderReclaimable) else { continue };
            let end = base + size.next_multiple_of(PAGE);
            prop_assert!(base % align == 0 && base >= within.start && end <= within.end);
            prop_assert!(before.regions().iter().any(|r| r.kind == Kind::Usable && r.base <= base && end <= r.end));
            prop_assert!(given.iter().all(|&(b, e)| e <= base || end <= b));
            given.push((base, end));
            check_invariant(&map);
        }
    }
}

#[test]
fn too_many_regions_are_refused() {
    let mut map = Map::new();
    let result = (0..600u64).try_for_each(|i| map.set(i * 2, i * 2 + 1, Kind::Bad));
    assert!(result.is_err());
    check_invariant(&map);
}
