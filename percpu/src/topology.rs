//! Which cores, nodes and memory the machine has, and how far apart they are.
//!
//! [`Topology::fill`] builds it once, in place, from the list of cores, the raw SRAT, SLIT and HMAT, and the layout of APIC ids;
//! everything may be missing. Afterwards it is read-only.
//!
//! * T2: core ids are dense and ascend with the APIC id, so the threads of a core, of a cache, of an interrupt cluster and (on
//!   ordinary firmware) of a node have neighbouring ids.
//! * T3: node ids are dense and ascend with the proximity domain. A domain without a present core and without memory is no node.
//! * T4: sibling threads share a cache group, and a cache group lies inside one node. Where the hardware shares a cache across
//!   nodes (sub-NUMA clustering), the group is cut at the node border, so the placement classes nest.

mod build;
pub mod cpuid;
pub mod table;

pub use build::{Notes, Sources, TableState};
pub use cpuid::{HardwareIds, IdLayout};
pub use table::MemoryKind;

use crate::id::{CoreId, MAX_CORES, MAX_NODES, NodeId};
use crate::set::{CoreSet, NodeSet};
use core::fmt;

/// Memory ranges that are kept; further ones are counted in [`Notes`].
pub const MAX_RANGES: usize = 256;

/// A core's interrupt id, xAPIC or x2APIC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct ApicId(pub u32);

/// A proximity domain: the firmware's number of a node, sparse and arbitrary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Domain(pub u32);

macro_rules! group_id {
    ($(#[$doc:meta])* $name:ident, $tag:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u16);

        impl $name {
            /// The number as it goes over the wire.
            #[must_use]
            pub const fn raw(self) -> u16 {
                self.0
            }
        }

        tagged_debug!($name, $tag);
    };
}

macro_rules! tagged_debug {
    ($name:ident, $tag:literal) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "{}"), self.0)
            }
        }
    };
}

tagged_debug!(ApicId, "A");
tagged_debug!(Domain, "D");
group_id! { /** A package (socket), dense from zero. Written `P0`. */ PackageId, "P" }
group_id! { /** A group of cores that share the last-level cache inside one node, dense from zero. Written `L0`. */ LlcId, "L" }
group_id! { /** A group of sibling threads, dense from zero. Written `S0`. */ SmtId, "S" }

/// How near two cores are: the smallest thing that holds both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// They are the same.
    Same,
    /// Threads of one core.
    Smt,
    /// Cores under one last-level cache.
    Llc,
    /// Cores of one node.
    Node,
    /// Cores of different nodes.
    Remote,
}

/// What is known of one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CoreInfo {
    /// Its interrupt id.
    pub apic: ApicId,
    /// Its node.
    pub node: NodeId,
    /// Its package.
    pub package: PackageId,
    /// Its last-level cache group.
    pub llc: LlcId,
    /// Its sibling group.
    pub smt: SmtId,
}

/// A range of physical memory and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
    /// Its node.
    pub node: NodeId,
    /// What it may hold.
    pub kind: MemoryKind,
}

/// Part of a set of cores that one logical interrupt message reaches in x2APIC cluster mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster: the core's APIC id without its low four bits.
    pub number: u32,
    /// The members, one bit for each value of the low four bits.
    pub members: u16,
}

impl Cluster {
    /// The logical destination that names these members, Intel SDM vol. 3 §12.12.10.2.
    #[must_use]
    pub const fn destination(self) -> u32 {
        self.number << 16 | self.members as u32
    }
}

/// Node-to-node values of one kind in units of a common base; 0 is "unknown".
#[derive(Clone, Debug)]
struct Attribute {
    base_unit: u64,
    values: [[u16; MAX_NODES]; MAX_NODES],
}

impl Attribute {
    const UNKNOWN: Self = Self { base_unit: 0, values: [[0; MAX_NODES]; MAX_NODES] };

    fn get(&self, from: NodeId, to: NodeId) -> Option<u64> {
        match self.values[from.index()][to.index()] {
            0 => None,
            value => Some(u64::from(value).saturating_mul(self.base_unit)),
        }
    }
}

/// The machine: read-only once filled.
#[derive(Clone, Debug)]
pub struct Topology {
    core_count: usize,
    node_count: usize,
    range_count: usize,
    notes: Notes,
    cores: [CoreInfo; MAX_CORES],
    domains: [Domain; MAX_NODES],
    node_cores: [CoreSet; MAX_NODES],
    ranges: [MemoryRange; MAX_RANGES],
    distances: [[u8; MAX_NODES]; MAX_NODES],
    /// Each row: all nodes, nearest first.
    order: [[u8; MAX_NODES]; MAX_NODES],
    latency: Attribute,
    bandwidth: Attribute,
}

// It lies in a static and is filled in place; this is what it costs the kernel image's zeroed memory.
const _: () = assert!(size_of::<Topology>() < 64 << 10);
const _: () = assert!(size_of::<CoreInfo>() == 12);

impl Topology {
    /// No core and no node: the blank to be filled.
    pub const BLANK: Self = Self {
        core_count: 0,
        node_count: 0,
        range_count: 0,
        notes: Notes::NONE,
        cores: [CoreInfo {
            apic: ApicId(0),
            node: NodeId::new(0),
            package: PackageId(0),
            llc: LlcId(0),
            smt: SmtId(0),
        }; MAX_CORES],
        domains: [Domain(0); MAX_NODES],
        node_cores: [CoreSet::EMPTY; MAX_NODES],
        ranges: [MemoryRange { start: 0, end: 0, node: NodeId::new(0), kind: MemoryKind::Fixed }; MAX_RANGES],
        distances: [[0; MAX_NODES]; MAX_NODES],
        order: [[0; MAX_NODES]; MAX_NODES],
        latency: Attribute::UNKNOWN,
        bandwidth: Attribute::UNKNOWN,
    };

    /// The number of cores; their ids are below it.
    #[must_use]
    pub const fn core_count(&self) -> usize {
        self.core_count
    }

    /// The number of nodes; their ids are below it. A filled topology has at least one.
    #[must_use]
    pub const fn node_count(&self) -> usize {
        self.node_count
    }

    /// What was missing, rejected or dropped.
    #[must_use]
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }

    /// All core ids, ascending.
    pub fn cores(&self) -> impl DoubleEndedIterator<Item = CoreId> + use<> {
        // There are no more, which the compiler does not know: it looks at every number otherwise.
        (0..self.core_count.min(MAX_CORES)).filter_map(CoreId::from_index)
    }

    /// All node ids, ascending.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.node_count).filter_map(NodeId::from_index)
    }

    /// What is known of a core.
    ///
    /// # Panics
    /// When the machine has no such core.
    #[must_use]
    pub fn core(&self, core: CoreId) -> &CoreInfo {
        &self.cores[..self.core_count][core.index()]
    }

    /// The node of a core.
    ///
    /// # Panics
    /// When the machine has no such core.
    #[must_use]
    pub fn node_of(&self, core: CoreId) -> NodeId {
        self.core(core).node
    }

    /// The core with this APIC id.
    #[must_use]
    pub fn core_by_apic(&self, apic: ApicId) -> Option<CoreId> {
        let cores = &self.cores[..self.core_count];
        cores.binary_search_by_key(&apic, |core| core.apic).ok().and_then(CoreId::from_index)
    }

    /// The firmware's number of a node.
    #[must_use]
    pub fn domain(&self, node: NodeId) -> Domain {
        self.domains[node.index()]
    }

    /// The node with this firmware number.
    #[must_use]
    pub fn node_by_domain(&self, domain: Domain) -> Option<NodeId> {
        self.domains[..self.node_count].binary_search(&domain).ok().and_then(NodeId::from_index)
    }

    /// The cores of a node; empty for a node that is only memory.
    #[must_use]
    pub fn node_cores(&self, node: NodeId) -> &CoreSet {
        &self.node_cores[node.index()]
    }

    /// The nodes that have cores.
    #[must_use]
    pub fn nodes_with_cores(&self) -> NodeSet {
        self.nodes().filter(|&node| !self.node_cores(node).is_empty()).collect()
    }

    /// The nodes that the firmware gives memory; without an SRAT none, although node 0 then has all of it.
    #[must_use]
    pub fn nodes_with_memory(&self) -> NodeSet {
        self.memory().iter().map(|range| range.node).collect()
    }

    /// The affinity ranges, ascending and disjoint. They say whose memory is whose; the memory map says what is there.
    #[must_use]
    pub fn memory(&self) -> &[MemoryRange] {
        &self.ranges[..self.range_count]
    }

    /// The affinity range that holds a physical address. Memory that no range covers counts as node 0's.
    #[must_use]
    pub fn range_of(&self, address: u64) -> Option<&MemoryRange> {
        let ranges = self.memory();
        let after = ranges.partition_point(|range| range.start <= address);
        ranges[..after].last().filter(|range| address < range.end)
    }

    /// The relative distance between two nodes: 10 is a node to itself, 255 is out of reach.
    #[must_use]
    pub fn distance(&self, from: NodeId, to: NodeId) -> u8 {
        self.distances[from.index()][to.index()]
    }

    /// All nodes, nearest to `from` first; nodes of equal distance start behind `from` in a ring, to spread the load.
    pub fn nodes_by_distance(&self, from: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let row = &self.order[from.index()][..self.node_count];
        row.iter().filter_map(|&node| NodeId::from_index(node.into()))
    }

    /// Latency of an access from a core of `from` to memory of `to` in picoseconds, if the firmware says.
    #[must_use]
    pub fn latency_ps(&self, from: NodeId, to: NodeId) -> Option<u64> {
        self.latency.get(from, to)
    }

    /// Bandwidth from cores of `from` to memory of `to` in megabytes per second, if the firmware says.
    #[must_use]
    pub fn bandwidth_mb_s(&self, from: NodeId, to: NodeId) -> Option<u64> {
        self.bandwidth.get(from, to)
    }

    /// How near two cores are.
    ///
    /// # Panics
    /// When the machine has no such core.
    #[must_use]
    pub fn relation(&self, a: CoreId, b: CoreId) -> Relation {
        let (x, y) = (self.core(a), self.core(b));
        match () {
            () if a == b => Relation::Same,
            () if x.smt == y.smt => Relation::Smt,
            () if x.llc == y.llc => Relation::Llc,
            () if x.node == y.node => Relation::Node,
            () => Relation::Remote,
        }
    }

    /// The cores that stand to `core` at most as `relation` says, itself included: its siblings, its cache group, its node.
    ///
    /// # Panics
    /// When the machine has no such core.
    #[must_use]
    pub fn mates(&self, core: CoreId, relation: Relation) -> CoreSet {
        let near = |&other: &CoreId| self.relation(core, other) <= relation;
        match relation {
            Relation::Remote => CoreSet::first(self.core_count),
            _ => self.node_cores(self.node_of(core)).iter().filter(near).collect(),
        }
    }

    /// Divides a set of cores into interrupt clusters, one step per cluster (T2).
    ///
    /// # Panics
    /// When the set has a core that the machine has not.
    pub fn clusters<'a>(&'a self, set: &'a CoreSet) -> impl Iterator<Item = Cluster> + 'a {
        let mut cores = set.iter_first(self.core_count()).map(|core| self.core(core).apic.0).peekable();
        core::iter::from_fn(move || {
            let first = cores.next()?;
            let number = first >> 4;
            let mut members = 1u16 << (first & 0xf);
            while let Some(apic) = cores.next_if(|apic| apic >> 4 == number) {
                members |= 1 << (apic & 0xf);
            }
            Some(Cluster { number, members })
        })
    }
}
