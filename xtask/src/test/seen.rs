//! The machine as the kernel reports it, compared with the machine that was asked for.

use crate::topology::{Topology, count};
use perf::record::Record;
use std::collections::BTreeMap;

/// Bytes of a node that firmware, loader and the holes below 1 MiB may take from what the kernel can use.
const RESERVED: u64 = 8 << 20;

/// What the kernel said about the machine.
#[derive(Debug, Default)]
pub(super) struct Seen {
    machine: Option<(u32, u32, String)>,
    nodes: BTreeMap<u32, (u64, Vec<u8>)>,
    /// Node by APIC id.
    cores: BTreeMap<u32, u32>,
    /// Cores reported more than once.
    repeated: Vec<u32>,
}

impl Seen {
    /// Takes note of a record, if it is about the machine.
    pub(super) fn note(&mut self, record: &Record<'_>) {
        match record {
            Record::Machine(machine) => {
                self.machine = Some((machine.cores, machine.nodes, machine.apic.to_owned()));
            }
            Record::Node(node) => {
                self.nodes.insert(node.id, (node.memory, node.distances.to_vec()));
            }
            Record::Core(core) => {
                let earlier = self.cores.insert(core.apic_id, core.node);
                self.repeated.extend(earlier.map(|_| core.apic_id));
            }
            _ => {}
        }
    }

    /// Every difference between what was asked for and what was reported.
    pub(super) fn differences(&self, asked: &Topology, apic: &str) -> Vec<String> {
        let Some((cores, nodes, mode)) = &self.machine else {
            return vec![String::from("the kernel reported no machine")];
        };
        let mut found = Vec::new();
        let mut differ = |what: &str, asked: String, seen: String| {
            if asked != seen {
                found.push(format!("{what}: asked for {asked}, the kernel reports {seen}"));
            }
        };
        differ("cores", asked.cores().to_string(), cores.to_string());
        differ("nodes", asked.nodes.len().to_string(), nodes.to_string());
        differ("interrupt controller", apic.to_owned(), mode.clone());
        differ("cores reported twice", String::from("[]"), format!("{:?}", self.repeated));
        let expected: BTreeMap<u32, u32> = apic_ids(asked).into_iter().zip(nodes_of_cores(asked)).collect();
        differ("node of each APIC id", format!("{expected:?}"), format!("{:?}", self.cores));
        for (id, node) in (0..).zip(&asked.nodes) {
            let Some((memory, distances)) = self.nodes.get(&id) else {
                differ(&format!("node {id}"), String::from("one"), String::from("none"));
                continue;
            };
            if *memory > node.mem.bytes() || *memory + RESERVED < node.mem.bytes() {
                differ(&format!("bytes of node {id}"), node.mem.bytes().to_string(), memory.to_string());
            }
            let row: Vec<u8> = (0..asked.nodes.len()).map(|to| asked.distance(count(id), to)).collect();
            differ(&format!("distances of node {id}"), format!("{row:?}"), format!("{distances:?}"));
        }
        found
    }
}

fn nodes_of_cores(topology: &Topology) -> impl Iterator<Item = u32> {
    topology.node_of_cores().into_iter().map(|node| u32::try_from(node).unwrap_or(u32::MAX))
}

/// The APIC ids of QEMU's cores in order: each level of the topology takes whole bits (Intel SDM volume 3, section
/// 10.9.1), so a package of three cores leaves every fourth id unused.
fn apic_ids(topology: &Topology) -> Vec<u32> {
    let (package, threads) = (topology.package(), topology.threads_per_core);
    let thread_bits = threads.next_power_of_two().trailing_zeros();
    let core_bits = (package / threads).next_power_of_two().trailing_zeros();
    let id = |number: u32| {
        let (socket, inside) = (number / package, number % package);
        (socket << (core_bits + thread_bits)) | ((inside / threads) << thread_bits) | (inside % threads)
    };
    (0..topology.cores()).map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::{Seen, apic_ids};
    use crate::topology::{Mebibytes, Topology};
    use perf::record::{Core, Machine, Node, Record};

    fn topology() -> Topology {
        Topology::even(4, 2, Mebibytes::new(1024)).unwrap()
    }

    /// What a kernel says that sees 4 cores on 2 nodes of 512 MiB, except that `change` has changed its node 1.
    fn seen(change: impl Fn(&mut Node<'_>)) -> Seen {
        let mut seen = Seen::default();
        seen.note(&Record::Machine(Machine {
            cpu: "",
            vendor: "",
            features: "",
            hypervisor: "",
            mitigations: "",
            apic: "x2apic",
            tsc_hz: 1,
            tsc_source: "",
            cores: 4,
            nodes: 2,
            memory: 0,
            kernel_memory: 0,
            boot_ticks: 0,
        }));
        for id in 0..2 {
            let distances: &[u8] = if id == 0 { &[10, 20] } else { &[20, 10] };
            let mut node = Node { id, ranges: 1, memory: 511 << 20, distances };
            if id == 1 {
                change(&mut node);
            }
            seen.note(&Record::Node(node));
        }
        for id in 0..4 {
            seen.note(&Record::Core(Core { id, apic_id: id, node: id / 2, package: 0, llc: 0, smt: 0 }));
        }
        seen
    }

    #[test]
    fn the_same_machine() {
        assert_eq!(seen(|_| {}).differences(&topology(), "x2apic"), Vec::<String>::new());
    }

    #[test]
    fn each_difference_is_found() {
        assert_eq!(seen(|_| {}).differences(&topology(), "xapic").len(), 1);
        assert_eq!(seen(|node| node.memory = 500 << 20).differences(&topology(), "x2apic").len(), 1);
        assert_eq!(seen(|node| node.memory = 513 << 20).differences(&topology(), "x2apic").len(), 1);
        assert_eq!(seen(|node| node.distances = &[21, 10]).differences(&topology(), "x2apic").len(), 1);
        assert_eq!(seen(|node| node.id = 2).differences(&topology(), "x2apic").len(), 1);
        let wrong = Topology::even(4, 1, Mebibytes::new(1024)).unwrap();
        assert!(seen(|_| {}).differences(&wrong, "x2apic").len() >= 3);
        assert_eq!(Seen::default().differences(&topology(), "x2apic").len(), 1);
    }

    #[test]
    fn a_core_reported_twice() {
        let mut seen = seen(|_| {});
        seen.note(&Record::Core(Core { id: 4, apic_id: 3, node: 1, package: 0, llc: 0, smt: 0 }));
        assert_eq!(seen.differences(&topology(), "x2apic").len(), 1);
    }

    #[test]
    fn ids_have_holes() {
        let mut sparse = Topology::even(6, 2, Mebibytes::new(1024)).unwrap();
        assert_eq!(apic_ids(&sparse), [0, 1, 2, 4, 5, 6]);
        sparse.threads_per_core = 2;
        sparse.cores_per_package = Some(6);
        assert_eq!(apic_ids(&sparse), [0, 1, 2, 3, 4, 5]);
        let many = Topology::even(288, 2, Mebibytes::new(4096)).unwrap();
        assert_eq!(apic_ids(&many)[143..146], [143, 256, 257]);
    }
}
