//! Topology from tables that QEMU made, from tables made here, and from noise.
//!
//! How the files in `fixtures/` were dumped is told in `fixtures/README.md`; each test repeats the machine's command line.

use percpu::topology::table::TableError;
use percpu::topology::{ApicId, Cluster, Domain, IdLayout, MemoryKind, Relation, Sources, TableState};
use percpu::{CoreId, CoreSet, NodeId, Topology};
use proptest::collection::vec;
use proptest::prelude::{any, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};

/// Heap memory, as the kernel uses a static: a topology is too large for some stacks.
fn fill(sources: &Sources<'_>, cores: impl IntoIterator<Item = u32>, layout: IdLayout) -> Box<Topology> {
    let mut topology = Box::new(Topology::BLANK);
    topology.fill(sources, cores.into_iter().map(ApicId), |apic| layout.ids(apic));
    topology
}

/// The enabled APIC ids of a MADT: entry types 0 and 9, ACPI 6.5 §5.2.12.2 and §5.2.12.12.
fn madt_cores(madt: &[u8]) -> Vec<u32> {
    let mut ids = Vec::new();
    let mut rest = &madt[44..];
    while let [kind, length, ..] = *rest {
        let u32_at = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        match kind {
            0 if u32_at(4) & 1 != 0 => ids.push(rest[3].into()),
            9 if u32_at(8) & 1 != 0 => ids.push(u32_at(4)),
            _ => {}
        }
        rest = &rest[length.into()..];
    }
    ids
}

fn n(node: u16) -> NodeId {
    NodeId::new(node)
}

fn c(core: u16) -> CoreId {
    CoreId::new(core)
}

fn order(topology: &Topology, from: u16) -> Vec<u16> {
    topology.nodes_by_distance(n(from)).map(NodeId::raw).collect()
}

fn cores_of(topology: &Topology, node: u16) -> Vec<u16> {
    topology.node_cores(n(node)).iter().map(CoreId::raw).collect()
}

/// `-smp 8,sockets=2,cores=2,threads=2`, two nodes of 1 GiB, one per socket, HMAT with access latency 5/10 and bandwidth 200M/100M.
#[test]
fn two_even_nodes_with_hmat() {
    let sources = Sources {
        srat: Some(include_bytes!("fixtures/two-hmat.srat")),
        slit: None,
        hmat: Some(include_bytes!("fixtures/two-hmat.hmat")),
    };
    let cores = madt_cores(include_bytes!("fixtures/two-hmat.madt"));
    let topology = fill(&sources, cores, IdLayout { smt: 1, llc: 2, package: 2 });
    assert_eq!((topology.core_count(), topology.node_count()), (8, 2));
    assert_eq!([cores_of(&topology, 0), cores_of(&topology, 1)], [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
    let relations = [0, 1, 2, 4].map(|other| topology.relation(c(0), c(other)));
    assert_eq!(relations, [Relation::Same, Relation::Smt, Relation::Llc, Relation::Remote]);
    assert_eq!((topology.distance(n(0), n(0)), topology.distance(n(0), n(1))), (10, 20));
    assert_eq!(
        (topology.latency_ps(n(0), n(0)), topology.latency_ps(n(0), n(1))),
        (Some(5000), Some(10_000))
    );
    assert_eq!(
        (topology.bandwidth_mb_s(n(1), n(1)), topology.bandwidth_mb_s(n(1), n(0))),
        (Some(200), Some(100))
    );
    assert_eq!(topology.notes().hmat, TableState::Used);
    assert_eq!(topology.notes().slit, TableState::Absent);
    assert_eq!(topology.range_of(0).map(|range| range.node), Some(n(0)));
    assert_eq!(topology.range_of((2 << 30) - 1).map(|range| range.node), Some(n(1)));
    assert_eq!(topology.range_of(1 << 40), None);
}

/// Four nodes: cores 0–3 and 1 GiB; cores 4–5 only; 4 GiB only; cores 6–7 and 1 GiB. Distances 0–1 15, 0–2 17, 0–3 40, 1–2 21, 1–3 31, 2–3 25.
#[test]
fn uneven_nodes_one_without_memory_one_without_cores() {
    let sources = Sources {
        srat: Some(include_bytes!("fixtures/uneven.srat")),
        slit: Some(include_bytes!("fixtures/uneven.slit")),
        hmat: None,
    };
    let cores = madt_cores(include_bytes!("fixtures/uneven.madt"));
    let topology = fill(&sources, cores, IdLayout { smt: 0, llc: 1, package: 1 });
    assert_eq!(topology.node_count(), 4);
    let cores = [0, 1, 2, 3].map(|node| cores_of(&topology, node));
    assert_eq!(cores, [vec![0, 1, 2, 3], vec![4, 5], vec![], vec![6, 7]]);
    assert_eq!(topology.nodes_with_cores().bits(), 0b1011);
    assert_eq!(topology.nodes_with_memory().bits(), 0b1101);
    assert_eq!(order(&topology, 0), [0, 1, 2, 3]);
    assert_eq!(order(&topology, 1), [1, 0, 2, 3]);
    assert_eq!(order(&topology, 3), [3, 2, 1, 0]);
    assert_eq!((topology.distance(n(2), n(3)), topology.distance(n(3), n(0))), (25, 40));
    assert_eq!(topology.relation(c(0), c(1)), Relation::Llc);
    assert_eq!(topology.relation(c(0), c(2)), Relation::Node);
    assert_eq!(topology.mates(c(0), Relation::Node), CoreSet::first(4));
    // Memory of node 2 reaches above the hole below 4 GiB.
    assert_eq!(topology.range_of(4 << 30).map(|range| range.node), Some(n(2)));
    let bytes = |node| -> u64 {
        topology
            .memory()
            .iter()
            .filter(|range| range.node == n(node))
            .map(|range| range.end - range.start)
            .sum()
    };
    assert_eq!([bytes(1), bytes(2), bytes(3)], [0, 4 << 30, 1 << 30]);
}

/// `-smp 288,sockets=4,cores=72`: APIC ids above 255, 128 to a socket of which 72 are there.
#[test]
fn x2apic_ids_with_gaps() {
    let sources = Sources { srat: Some(include_bytes!("fixtures/x2apic.srat")), ..Sources::default() };
    let cores = madt_cores(include_bytes!("fixtures/x2apic.madt"));
    assert_eq!(cores.iter().max(), Some(&(3 * 128 + 71)));
    let topology = fill(&sources, cores.into_iter().rev(), IdLayout { smt: 0, llc: 7, package: 7 });
    assert_eq!((topology.core_count(), topology.node_count()), (288, 4));
    assert_eq!(cores_of(&topology, 1), (72..144).collect::<Vec<_>>());
    assert_eq!(topology.core_by_apic(ApicId(128)), Some(c(72)));
    assert_eq!(topology.core_by_apic(ApicId(72)), None);
    assert_eq!(topology.notes().cores_without_node, 0);
    let set: CoreSet = [c(70), c(71), c(72), c(73)].into_iter().collect();
    let clusters: Vec<Cluster> = topology.clusters(&set).collect();
    let expected = [Cluster { number: 4, members: 0b1100_0000 }, Cluster { number: 8, members: 0b11 }];
    assert_eq!(clusters, expected);
    assert_eq!(clusters[1].destination(), 8 << 16 | 0b11);
}

/// `-m 1G,slots=2,maxmem=4G`: a window for memory that may be plugged later.
#[test]
fn a_plug_window_is_told_from_memory() {
    let sources = Sources { srat: Some(include_bytes!("fixtures/hotplug.srat")), ..Sources::default() };
    let topology = fill(&sources, madt_cores(include_bytes!("fixtures/hotplug.madt")), IdLayout::ALONE);
    assert_eq!(topology.node_count(), 2);
    let plug: Vec<_> = topology.memory().iter().filter(|range| range.kind == MemoryKind::Hotplug).collect();
    assert!(plug.len() == 1 && plug[0].start >= 4 << 30, "{plug:?}");
}

/// A table around `body`: header with signature, length, revision and a checksum that is right.
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 36];
    bytes[..4].copy_from_slice(signature);
    bytes.extend_from_slice(body);
    let length = u32::try_from(bytes.len()).expect("a small table");
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    bytes[8] = revision;
    bytes[9] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)).wrapping_neg();
    bytes
}

fn x2apic_entry(apic: u32, domain: u32) -> Vec<u8> {
    let words = [0, domain, apic, 1, 0, 0];
    let mut entry: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    entry[0..2].copy_from_slice(&[2, 24]);
    entry
}

fn memory_entry(base: u64, length: u64, domain: u32) -> Vec<u8> {
    let mut entry = vec![0; 40];
    entry[0..2].copy_from_slice(&[1, 40]);
    entry[2..6].copy_from_slice(&domain.to_le_bytes());
    entry[8..16].copy_from_slice(&base.to_le_bytes());
    entry[16..24].copy_from_slice(&length.to_le_bytes());
    entry[28] = 1;
    entry
}

fn srat(entries: &[Vec<u8>]) -> Vec<u8> {
    table(b"SRAT", 3, &[vec![0; 12], entries.concat()].concat())
}

fn slit(count: u64, distances: &[u8]) -> Vec<u8> {
    table(b"SLIT", 1, &[count.to_le_bytes().to_vec(), distances.to_vec()].concat())
}

#[test]
fn no_tables_make_one_node() {
    let topology = fill(&Sources::default(), [4, 0, 2, 2], IdLayout::ALONE);
    assert_eq!((topology.core_count(), topology.node_count()), (3, 1));
    assert_eq!(topology.core_by_apic(ApicId(4)), Some(c(2)));
    assert_eq!((topology.distance(n(0), n(0)), order(&topology, 0)), (10, vec![0]));
    assert_eq!(topology.notes().cores_without_node, 0);
}

#[test]
fn sparse_domains_become_dense_and_unknown_entries_are_passed_over() {
    // A generic initiator (type 5, 32 bytes), an absent core's domain, an empty range's domain.
    let initiator = [vec![5, 32], vec![0xff; 30]].concat();
    let entries = [
        memory_entry(1 << 32, 1 << 30, 700),
        initiator,
        x2apic_entry(0, 9),
        x2apic_entry(99, 50),
        memory_entry(0, 0, 60),
        x2apic_entry(1, 700),
    ];
    let bytes = srat(&entries);
    let sources = Sources { srat: Some(&bytes), ..Sources::default() };
    let topology = fill(&sources, [0, 1, 2], IdLayout::ALONE);
    assert_eq!([topology.domain(n(0)), topology.domain(n(1))], [Domain(9), Domain(700)]);
    assert_eq!(topology.node_count(), 2);
    assert_eq!(topology.node_by_domain(Domain(700)), Some(n(1)));
    assert_eq!((topology.node_of(c(0)), topology.node_of(c(1)), topology.node_of(c(2))), (n(0), n(1), n(0)));
    assert_eq!(topology.notes().cores_without_node, 1);
}

#[test]
fn a_cache_shared_across_nodes_is_cut_at_the_border() {
    let bytes = srat(&[x2apic_entry(0, 0), x2apic_entry(1, 1), x2apic_entry(2, 0), x2apic_entry(3, 1)]);
    let sources = Sources { srat: Some(&bytes), ..Sources::default() };
    let topology = fill(&sources, 0..4, IdLayout { smt: 0, llc: 2, package: 2 });
    assert_eq!(topology.relation(c(0), c(1)), Relation::Remote);
    assert_eq!(topology.relation(c(0), c(2)), Relation::Llc);
    assert_eq!(topology.core(c(0)).package, topology.core(c(1)).package);
}

#[test]
fn overlapping_memory_is_dropped_and_adjacent_memory_joined() {
    let entries = [
        memory_entry(0x1000, 0x1000, 0),
        memory_entry(0x2000, 0x1000, 0),
        memory_entry(0x2800, 0x1000, 1),
        memory_entry(u64::MAX - 5, 100, 1),
        memory_entry(0, 0x1000, 1),
    ];
    let bytes = srat(&entries);
    let topology = fill(&Sources { srat: Some(&bytes), ..Sources::default() }, [0], IdLayout::ALONE);
    let ranges: Vec<_> = topology.memory().iter().map(|range| (range.start, range.end, range.node)).collect();
    assert_eq!(ranges, [(0, 0x1000, n(1)), (0x1000, 0x3000, n(0))]);
    assert_eq!(topology.notes().dropped_ranges, 2);
}

#[test]
fn wrong_tables_are_rejected_whole() {
    let good = slit(2, &[10, 21, 21, 10]);
    let mut flipped = good.clone();
    flipped[45] ^= 1;
    let cases: [(Vec<u8>, TableError); 7] = [
        (good[..good.len() - 1].to_vec(), TableError::Truncated),
        (flipped, TableError::Checksum),
        (table(b"SLOT", 1, &[0; 12]), TableError::Signature),
        (slit(3, &[10, 21, 21, 10]), TableError::Truncated),
        (slit(u64::MAX, &[10]), TableError::Truncated),
        (slit(2, &[10, 9, 21, 10]), TableError::Values),
        (slit(0, &[]), TableError::Values),
    ];
    for (bytes, error) in cases {
        let topology = fill(&Sources { slit: Some(&bytes), ..Sources::default() }, [0], IdLayout::ALONE);
        assert_eq!(topology.notes().slit, TableState::Rejected(error), "{bytes:?}");
    }
    let broken_chain = srat(&[vec![1, 0]]);
    let topology = fill(&Sources { srat: Some(&broken_chain), ..Sources::default() }, [0], IdLayout::ALONE);
    assert_eq!(topology.notes().srat, TableState::Rejected(TableError::Truncated));
    let old = table(b"HMAT", 1, &[0; 4]);
    let topology = fill(&Sources { hmat: Some(&old), ..Sources::default() }, [0], IdLayout::ALONE);
    assert_eq!(topology.notes().hmat, TableState::Rejected(TableError::Revision));
}

#[test]
fn more_than_fits_is_counted() {
    let entries: Vec<_> = (0..70).map(|i| x2apic_entry(i, i)).collect();
    let bytes = srat(&entries);
    let topology = fill(&Sources { srat: Some(&bytes), ..Sources::default() }, 0..1030, IdLayout::ALONE);
    assert_eq!((topology.core_count(), topology.node_count()), (1024, 64));
    assert_eq!((topology.notes().dropped_cores, topology.notes().dropped_nodes), (6, 6));
    assert_eq!(topology.node_of(c(69)), n(0));
}

/// What every topology promises, whatever it was made from.
fn check(topology: &Topology) {
    assert!(topology.node_count() >= 1);
    let mut seen = CoreSet::EMPTY;
    for node in topology.nodes() {
        for core in topology.node_cores(node).iter() {
            assert_eq!(topology.node_of(core), node);
            assert!(!seen.contains(core));
            seen.insert(core);
        }
        assert_eq!(topology.distance(node, node), 10);
        let row: Vec<NodeId> = topology.nodes_by_distance(node).collect();
        assert_eq!((row.len(), row[0]), (topology.node_count(), node));
        assert!(row.windows(2).all(|w| topology.distance(node, w[0]) <= topology.distance(node, w[1])));
    }
    assert_eq!(seen, CoreSet::first(topology.core_count()));
    assert!(topology.memory().windows(2).all(|w| w[0].end <= w[1].start));
    assert!(topology.memory().iter().all(|range| range.start < range.end));
    for core in topology.cores() {
        assert_eq!(topology.core_by_apic(topology.core(core).apic), Some(core));
    }
}

proptest! {
    /// Noise behind a right header: never a panic, always a sound topology.
    #[test]
    fn noise_never_panics(a in vec(any::<u8>(), 0..300), b in vec(any::<u8>(), 0..300), d in vec(any::<u8>(), 0..300), shift in 0u8..33) {
        let (srat, slit, hmat) = (table(b"SRAT", 3, &a), table(b"SLIT", 1, &b), table(b"HMAT", 2, &d));
        let layout = IdLayout { smt: shift / 3, llc: shift / 2, package: shift };
        check(&fill(&Sources { srat: Some(&srat), slit: Some(&slit), hmat: Some(&hmat) }, 0..9, layout));
        check(&fill(&Sources { srat: Some(&a), slit: Some(&b), hmat: Some(&d) }, [], layout));
    }

    /// Real tables with a few bytes changed, so that the noise gets past the outer checks.
    #[test]
    fn damaged_tables_never_panic(edits in vec((any::<prop::sample::Index>(), any::<u8>()), 0..12), cut in any::<prop::sample::Index>()) {
        let damage = |bytes: &[u8]| {
            let mut body = bytes[36..].to_vec();
            for (at, byte) in &edits {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            if edits.len() % 4 == 3 {
                body.truncate(cut.index(body.len()));
            }
            table(bytes[..4].try_into().expect("four bytes"), bytes[8], &body)
        };
        let srat = damage(include_bytes!("fixtures/uneven.srat"));
        let slit = damage(include_bytes!("fixtures/uneven.slit"));
        let hmat = damage(include_bytes!("fixtures/two-hmat.hmat"));
        let sources = Sources { srat: Some(&srat), slit: Some(&slit), hmat: Some(&hmat) };
        check(&fill(&sources, 0..8, IdLayout { smt: 1, llc: 2, package: 3 }));
    }

    /// Any assignment of cores to sparse domains comes back as it was given.
    #[test]
    fn affinity_is_kept(domains in vec(0u32..40, 1..64)) {
        let entries: Vec<_> = (0u32..).zip(&domains).map(|(i, &domain)| x2apic_entry(i * 3, domain * 7)).collect();
        let bytes = srat(&entries);
        let ids = (0u32..).take(domains.len()).map(|i| i * 3);
        let topology = fill(&Sources { srat: Some(&bytes), ..Sources::default() }, ids, IdLayout::ALONE);
        check(&topology);
        prop_assert!(topology.notes().cores_without_node == 0);
        for (core, &domain) in topology.cores().zip(&domains) {
            prop_assert_eq!(topology.domain(topology.node_of(core)), Domain(domain * 7));
        }
    }
}
