//! The machines the kernel is tested on: one table.

use crate::qemu::{Accelerator, Qemu};
use crate::topology::{Mebibytes, Node, Tables, Topology};
use abi::boot::{ApicMode, Mitigate};

/// Which of the kernel's tests run on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// All.
    Whole,
    /// Those that show that every core is up and itself; the rest depends little on the machine's shape.
    Basic,
    /// Those that go to ring 3 and back, or change what programs see.
    Border,
}

impl Table {
    /// The filter that selects these tests.
    pub(super) fn filter(self) -> String {
        match self {
            Self::Whole => String::new(),
            Self::Basic => BASIC.join(","),
            Self::Border => BORDER.join(","),
        }
    }
}

/// The kernel's tests of [`Table::Border`], as words of its filter.
const BORDER: &[&str] = &["border.", "speculation.", "protection.", "user.", "tlb.", "memory.footprint"];

/// The kernel's tests of [`Table::Basic`], as words of its filter.
pub(super) const BASIC: &[&str] = &["cores.identity", "cores.own_node", "apic.setup", "clock.frequency"];

/// One machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// What it is called in the names of tests.
    pub name: &'static str,
    /// Its shape.
    pub topology: Topology,
    /// Which interrupt controller mode the kernel is told to use.
    pub apic: ApicMode,
    /// What the kernel is told to do about the CPU's weaknesses.
    pub mitigations: Mitigate,
    /// Whether it makes sense only with an emulated x2APIC.
    pub x2apic: Need,
    /// Which tests run on it.
    pub table: Table,
}

/// Whether something is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Needed.
    Yes,
    /// Not needed.
    No,
}

impl Machine {
    fn new(name: &'static str, table: Table, topology: Topology) -> Self {
        let mitigations = Mitigate::Auto;
        Self { name, topology, apic: ApicMode::Auto, mitigations, x2apic: Need::No, table }
    }

    /// The interrupt controller mode the kernel should report on this QEMU.
    pub(super) fn expected_apic(&self, qemu: &Qemu, accelerator: Accelerator) -> &'static str {
        let x2apic = self.apic == ApicMode::Auto && qemu.has_x2apic(accelerator);
        if x2apic { "x2apic" } else { "xapic" }
    }

    /// Emulation that suits the machine: threads of their own give real races, as long as the host is not swamped.
    pub(super) fn accelerator(&self) -> Accelerator {
        if self.topology.cores() <= 8 { Accelerator::TcgMulti } else { Accelerator::TcgSingle }
    }
}

/// Nodes from pairs of cores and MiB.
fn nodes(list: &[(u32, u64)]) -> Topology {
    Topology::of(list.iter().map(|&(cores, mem)| Node { cores, mem: Mebibytes::new(mem) }).collect())
}

/// `count` equal nodes.
fn equal(count: usize, cores: u32, mem: u64) -> Topology {
    nodes(&vec![(cores, mem); count])
}

/// All of them, small ones first.
pub(super) fn all() -> Vec<Machine> {
    let plain = |name, table, topology| Machine::new(name, table, topology);
    let needing_x2apic = |machine| Machine { x2apic: Need::Yes, ..machine };
    vec![
        plain("smp1", Table::Whole, equal(1, 1, 512)),
        plain("smp2", Table::Whole, equal(2, 1, 512)),
        plain("smp4", Table::Whole, equal(2, 2, 512)),
        plain("smp8", Table::Whole, equal(2, 4, 1024)),
        plain("smp16", Table::Basic, equal(4, 4, 256)),
        plain("smp32", Table::Basic, equal(4, 8, 256)),
        plain("one-node", Table::Basic, Topology { tables: Tables::Srat, ..equal(1, 2, 512) }),
        plain("three-nodes", Table::Basic, equal(3, 2, 256)),
        plain("four-nodes", Table::Basic, equal(4, 1, 256)),
        plain("memoryless", Table::Basic, nodes(&[(2, 1024), (2, 0)])),
        plain("coreless", Table::Basic, nodes(&[(2, 512), (0, 512)])),
        plain("uneven", Table::Basic, uneven()),
        plain("sparse", Table::Basic, equal(2, 3, 512)),
        plain("threads", Table::Basic, Topology { threads_per_core: 2, ..equal(2, 4, 512) }),
        plain(
            "hmat",
            Table::Basic,
            Topology { tables: Tables::Hmat, ..nodes(&[(2, 512), (2, 512), (0, 256)]) },
        ),
        plain("512m", Table::Basic, equal(1, 2, 512)),
        plain("8g", Table::Basic, equal(2, 2, 4096)),
        Machine { apic: ApicMode::Xapic, ..plain("xapic", Table::Whole, equal(2, 2, 512)) },
        Machine { mitigations: Mitigate::All, ..plain("isolated", Table::Border, equal(2, 2, 512)) },
        needing_x2apic(plain("x2apic", Table::Basic, equal(2, 2, 512))),
        needing_x2apic(plain("smp64", Table::Basic, equal(4, 16, 512))),
        needing_x2apic(plain("smp288", Table::Basic, equal(2, 144, 2048))),
    ]
}

/// Nodes of different size at different distances, and distances that differ by direction.
fn uneven() -> Topology {
    let distances = vec![vec![10, 15, 30], vec![15, 10, 21], vec![32, 21, 10]];
    Topology { distances: Some(distances), ..nodes(&[(5, 1024), (1, 256), (2, 512)]) }
}

#[cfg(test)]
mod tests {
    use super::{BASIC, all};

    #[test]
    fn names_are_distinct_and_machines_possible() {
        let machines = all();
        let mut names: Vec<_> = machines.iter().map(|machine| machine.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), machines.len());
        for machine in machines {
            assert!(machine.topology.validated().is_ok(), "{}", machine.name);
        }
        assert!(!BASIC.is_empty());
    }
}
