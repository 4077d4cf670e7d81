use super::{ADDRESS, Features, HHDM, LARGE, NO_EXECUTE, PRESENT, TableMemory, Tables, WRITABLE, index};
use crate::image::Plan;
use crate::image::tests::{Header, elf};
use crate::map::{Kind, Map, Region};
use crate::{PAGE, Refusal};
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
use std::boxed::Box;
use std::vec::Vec;

/// Tables numbered from 1; the address of a table is its number times the page size.
#[derive(Default)]
struct Heap(Vec<Box<[u64; 512]>>);

impl TableMemory for Heap {
    fn new_table(&mut self) -> Result<u64, Refusal> {
        self.0.push(Box::new([0; 512]));
        Ok(self.0.len() as u64 * PAGE)
    }

    fn table(&mut self, at: u64) -> &mut [u64; 512] {
        &mut self.0[(at / PAGE - 1) as usize]
    }
}

/// What the processor would do: the physical address and the leaf entry.
fn walk(tables: &mut Tables<Heap>, virt: u64) -> Option<(u64, u64)> {
    let mut table = tables.root;
    for level in (0..4).rev() {
        let entry = tables.memory.table(table)[index(virt, level)];
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || entry & LARGE != 0 {
            let offset = virt & ((1 << (12 + 9 * level)) - 1);
            return Some(((entry & ADDRESS) + offset, entry));
        }
        table = entry & ADDRESS;
    }
    None
}

fn tables(gib_pages: bool) -> Tables<Heap> {
    Tables::new(Heap::default(), Features { gib_pages, no_execute: true }).unwrap()
}

#[test]
fn image_pages_have_the_permissions_of_their_segment() {
    let base = 0xffff_ffff_8000_0000;
    let headers = [
        Header::load(4, 0x1000, base, 0x10, 0x10),
        Header::load(5, 0x1000, base + 0x1000, 0x1800, 0x1800),
        Header::load(6, 0x1000, base + 0x4000, 0x10, 0x2000),
    ];
    let plan = Plan::parse(&elf(base + 0x1000, &headers)).unwrap();
    let mut tables = tables(true);
    tables.map_image(&plan, 0x70_0000).unwrap();
    let bits = |tables: &mut Tables<Heap>, page: u64| {
        walk(tables, base + page * PAGE).map(|(at, entry)| (at, entry & (WRITABLE | NO_EXECUTE)))
    };
    let expected = [NO_EXECUTE, 0, 0, u64::MAX, WRITABLE | NO_EXECUTE, WRITABLE | NO_EXECUTE, u64::MAX];
    for (page, expected) in (0..).zip(expected) {
        let want = (expected != u64::MAX).then_some((0x70_0000 + page * PAGE, expected));
        assert_eq!(bits(&mut tables, page), want, "page {page}");
    }
}

#[test]
fn mapping_twice_is_caught() {
    let mut tables = tables(false);
    tables.map_run(0, 0x20_0000).unwrap();
    assert!(tables.map_run(0, 0x20_0000).is_err());
}

fn regions() -> impl Strategy<Value = Vec<(u64, bool)>> {
    proptest::collection::vec((1u64..2000, any::<bool>()), 1..12)
}

proptest! {
    /// Every page of the map is in the direct map exactly when its kind says so, and at its own address.
    #[test]
    fn direct_map_has_what_the_revision_says(
        lens in regions(), kinds in proptest::collection::vec(0u64..7, 12), revision in 1u64..4, gib in any::<bool>(),
    ) {
        const KINDS: [Kind; 7] = [
            Kind::Usable, Kind::Reserved, Kind::AcpiReclaimable, Kind::AcpiNvs, Kind::Bad, Kind::LoaderReclaimable,
            Kind::ExecutableAndModules,
        ];
        let (mut map, mut at) = (Map::new(), 0x1_3fff_0000u64);
        let mut all = Vec::new();
        for (&(pages, hole), &kind) in lens.iter().zip(&kinds) {
            at += if hole { 3 * PAGE } else { 0 };
            let region = Region { base: at, end: at + pages * PAGE, kind: KINDS[kind as usize] };
            map.set(region.base, region.end, region.kind).unwrap();
            all.push(region);
            at = region.end;
        }
        let mut tables = tables(gib);
        tables.map_direct(&map, revision).unwrap();
        for region in &all {
            let mapped = match region.kind {
                Kind::Reserved | Kind::Bad => false,
                Kind::AcpiReclaimable | Kind::AcpiNvs => revision < 3,
                _ => true,
            };
            for page in [region.base, (region.base + region.end) / 2 / PAGE * PAGE, region.end - PAGE] {
                prop_assert_eq!(walk(&mut tables, HHDM + page).map(|(at, _)| at), mapped.then_some(page));
            }
        }
        prop_assert_eq!(walk(&mut tables, HHDM + 0x5000).is_some(), revision < 3);
        prop_assert_eq!(walk(&mut tables, HHDM + at), None);
        prop_assert_eq!(walk(&mut tables, 0x5000), None);
    }
}
