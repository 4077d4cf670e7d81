//! The machine to emulate: nodes, their cores and memory, distances; from flags or from a TOML file.
//!
//! [`Topology::validate`] is the only gate: what it lets through is a machine QEMU can build, and every refusal
//! names the change that would make it pass.

use crate::error::{Class, Error, Result};
use serde::Deserialize;
use std::fmt;
use std::path::Path;

/// Most cores the q35 machine of QEMU is asked for.
pub const MAX_CORES: u32 = 288;
/// Most NUMA nodes QEMU knows (`MAX_NODES` in `include/sysemu/numa.h`).
pub const MAX_NODES: usize = 128;
/// Distance of a node to itself (ACPI 6.5, section 5.2.17).
pub const LOCAL_DISTANCE: u8 = 10;
/// Distance QEMU and ACPI assume where nothing is said.
pub const DEFAULT_DISTANCE: u8 = 20;
/// Least memory of a machine; below it the loader has no room for kernel, stacks and tables.
const MIN_TOTAL: Mebibytes = Mebibytes(64);

/// A memory size in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Mebibytes(u64);

impl Mebibytes {
    /// So many MiB.
    #[must_use]
    pub const fn new(mebibytes: u64) -> Self {
        Self(mebibytes)
    }

    /// The number of MiB.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 << 20
    }

    /// Reads `512M`, `4G` or a bare number of MiB.
    fn parse(text: &str) -> Option<Self> {
        let (digits, scale) = match text.as_bytes().last()? {
            b'M' | b'm' => (&text[..text.len() - 1], 1),
            b'G' | b'g' => (&text[..text.len() - 1], 1024),
            _ => (text, 1),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        digits.parse::<u64>().ok()?.checked_mul(scale).filter(|&size| size < 1 << 40).map(Self)
    }
}

impl TryFrom<String> for Mebibytes {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for Mebibytes {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::parse(text)
            .ok_or_else(|| format!("`{text}` is not a memory size; write for example 512M or 4G"))
    }
}

impl fmt::Display for Mebibytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 != 0 && self.0.is_multiple_of(1024) {
            write!(out, "{}G", self.0 / 1024)
        } else {
            write!(out, "{}M", self.0)
        }
    }
}

/// One NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Cores (hardware threads) on the node; zero for a memory-only node.
    #[serde(default)]
    pub cores: u32,
    /// Memory of the node; zero for a node of cores only.
    #[serde(default = "no_memory")]
    pub mem: Mebibytes,
}

fn no_memory() -> Mebibytes {
    Mebibytes(0)
}

/// Whether the machine describes its nodes to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tables {
    /// SRAT and SLIT if there is more than one node, nothing otherwise.
    #[default]
    Auto,
    /// SRAT even for a single node.
    Srat,
    /// SRAT, SLIT and HMAT.
    Hmat,
}

/// A machine: the contents of a `--topology` file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The nodes in the order of their ids.
    #[serde(rename = "node")]
    pub nodes: Vec<Node>,
    /// One row for each node; 10 to itself. Absent: 20 between all nodes.
    pub distances: Option<Vec<Vec<u8>>>,
    /// Hardware threads of a physical core.
    #[serde(default = "one")]
    pub threads_per_core: u32,
    /// Hardware threads of a package. A number that is no power of two leaves holes in the APIC ids. Absent: the largest
    /// that keeps every package inside one node.
    pub cores_per_package: Option<u32>,
    /// Which tables describe the nodes.
    #[serde(default)]
    pub tables: Tables,
}

fn one() -> u32 {
    1
}

impl Topology {
    /// `cores` and `memory` spread over `nodes` nodes as evenly as they go, the rest to the first nodes.
    ///
    /// # Errors
    /// [`Class::BadTopology`]: no such machine.
    pub fn even(cores: u32, nodes: u32, memory: Mebibytes) -> Result<Self> {
        if nodes == 0 || nodes > cores {
            return Err(bad(format!("{cores} cores cannot be spread over {nodes} nodes"))
                .next("ask for 1 to --smp nodes, or describe nodes without cores in a --topology file"));
        }
        let share = |total: u64, index: u32| {
            total / u64::from(nodes) + u64::from(u64::from(index) < total % u64::from(nodes))
        };
        let node = |index| Node {
            cores: u32::try_from(share(u64::from(cores), index)).unwrap_or(u32::MAX),
            mem: Mebibytes(share(memory.0, index)),
        };
        Self::of((0..nodes).map(node).collect()).validated()
    }

    /// These nodes, everything else as it comes.
    #[must_use]
    pub fn of(nodes: Vec<Node>) -> Self {
        Self { nodes, distances: None, threads_per_core: 1, cores_per_package: None, tables: Tables::Auto }
    }

    /// The machine described by a TOML file.
    ///
    /// # Errors
    /// [`Class::BadTopology`]: unreadable, not such a file, or no such machine.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            bad(format!("cannot read the topology file {}: {error}", path.display()))
                .next("give the path of a file such as the one in `cargo xtask run --help`")
        })?;
        Self::parse(&text).map_err(|error| error.within(&path.display().to_string()))
    }

    /// The machine described by TOML text.
    ///
    /// # Errors
    /// [`Class::BadTopology`]: not such a text, or no such machine.
    pub fn parse(text: &str) -> Result<Self> {
        let topology: Self = toml::from_str(text).map_err(|error| {
            bad(format!("this is no topology: {}", error.to_string().trim_end()))
                .next("compare with the example in `cargo xtask run --help`")
        })?;
        topology.validated()
    }

    /// Number of cores (hardware threads).
    #[must_use]
    pub fn cores(&self) -> u32 {
        self.nodes.iter().map(|node| node.cores).fold(0, u32::saturating_add)
    }

    /// Memory of all nodes.
    #[must_use]
    pub fn memory(&self) -> Mebibytes {
        Mebibytes(self.nodes.iter().map(|node| node.mem.0).fold(0, u64::saturating_add))
    }

    /// The distance from one node to another.
    #[must_use]
    pub fn distance(&self, from: usize, to: usize) -> u8 {
        match &self.distances {
            Some(rows) => rows[from][to],
            None if from == to => LOCAL_DISTANCE,
            None => DEFAULT_DISTANCE,
        }
    }

    /// Hardware threads of a package: what was asked for, or the largest number that keeps packages inside nodes.
    #[must_use]
    pub fn package(&self) -> u32 {
        let divisor = self.nodes.iter().map(|node| node.cores).fold(0, gcd).max(1);
        self.cores_per_package.unwrap_or(divisor)
    }

    /// The node of every core, by QEMU's core number.
    #[must_use]
    pub fn node_of_cores(&self) -> Vec<usize> {
        let cores = |(id, node): (usize, &Node)| std::iter::repeat_n(id, count(node.cores));
        self.nodes.iter().enumerate().flat_map(cores).collect()
    }

    /// The topology, if QEMU can build it.
    ///
    /// # Errors
    /// [`Class::BadTopology`], naming the change that would make it pass.
    pub fn validated(self) -> Result<Self> {
        self.validate_sizes()?;
        self.validate_packages()?;
        self.validate_distances()?;
        Ok(self)
    }

    fn validate_sizes(&self) -> Result<()> {
        let cores =
            self.nodes.iter().try_fold(0_u32, |sum, node| sum.checked_add(node.cores)).unwrap_or(u32::MAX);
        if self.nodes.is_empty() || self.nodes.len() > MAX_NODES {
            return Err(bad(format!("{} nodes are asked for", self.nodes.len()))
                .next(format!("describe 1 to {MAX_NODES} nodes")));
        }
        if cores == 0 || cores > MAX_CORES {
            return Err(
                bad(format!("{cores} cores are asked for")).next(format!("ask for 1 to {MAX_CORES} cores"))
            );
        }
        if self.memory() < MIN_TOTAL {
            return Err(bad(format!("{} of memory are too little to boot", self.memory()))
                .next(format!("give the machine at least {MIN_TOTAL}")));
        }
        match self.nodes.iter().position(|node| node.cores == 0 && node.mem.0 == 0) {
            Some(id) => Err(bad(format!("node {id} has neither cores nor memory"))
                .next("give the node one of them, or leave it out")),
            None => Ok(()),
        }
    }

    fn validate_packages(&self) -> Result<()> {
        let (package, threads) = (self.package(), self.threads_per_core);
        if threads == 0 || package == 0 || !package.is_multiple_of(threads) {
            return Err(bad(format!(
                "a package of {package} threads cannot hold cores of {threads} threads"
            ))
            .next("make cores_per_package a multiple of threads_per_core"));
        }
        if !self.cores().is_multiple_of(package) {
            return Err(bad(format!("{} cores do not fill packages of {package}", self.cores()))
                .next("choose a cores_per_package that divides the number of cores"));
        }
        Ok(())
    }

    fn validate_distances(&self) -> Result<()> {
        let Some(rows) = &self.distances else { return Ok(()) };
        let nodes = self.nodes.len();
        if rows.len() != nodes || rows.iter().any(|row| row.len() != nodes) {
            return Err(bad(format!("the distances of {nodes} nodes are not {nodes} rows of {nodes}"))
                .next("write one row for each node with one number for each node"));
        }
        for (from, row) in rows.iter().enumerate() {
            for (to, &value) in row.iter().enumerate() {
                if (from == to) != (value == LOCAL_DISTANCE) || value < LOCAL_DISTANCE || value == u8::MAX {
                    return Err(bad(format!("distance {value} from node {from} to node {to}"))
                        .next("use 10 from a node to itself and 11 to 254 between nodes"));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.len();
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        let cores = self.cores();
        write!(out, "{cores} core{}, ", plural(cores.into()))?;
        write!(out, "{nodes} node{}, {}", if nodes == 1 { "" } else { "s" }, self.memory())
    }
}

/// A `u32` as a number of things in memory.
#[must_use]
pub fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn gcd(left: u32, right: u32) -> u32 {
    if right == 0 { left } else { gcd(right, left % right) }
}

fn bad(what: String) -> Error {
    Error::new(Class::BadTopology, what)
}

#[cfg(test)]
mod tests {
    use super::{Mebibytes, Node, Topology};
    use crate::error::Class;

    #[test]
    fn memory_sizes() {
        for (text, mebibytes) in [("512M", 512), ("4G", 4096), ("64", 64), ("0", 0)] {
            assert_eq!(text.parse(), Ok(Mebibytes::new(mebibytes)), "{text}");
        }
        for text in ["", "G", "-1G", "4T", "1.5G", "+3", "99999999999999999999G"] {
            assert!(text.parse::<Mebibytes>().is_err(), "{text}");
        }
        assert_eq!(
            (Mebibytes::new(4096).to_string(), Mebibytes::new(100).to_string()),
            ("4G".into(), "100M".into())
        );
    }

    #[test]
    fn even_spreads_everything() {
        let topology = Topology::even(10, 4, Mebibytes::new(1026)).unwrap();
        let nodes: Vec<_> = topology.nodes.iter().map(|node| (node.cores, node.mem.count())).collect();
        assert_eq!(nodes, [(3, 257), (3, 257), (2, 256), (2, 256)]);
        assert_eq!((topology.cores(), topology.package()), (10, 1));
        assert_eq!(topology.node_of_cores(), [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn reads_a_file_with_everything() {
        let text = "cores_per_package = 3\ntables = \"hmat\"\ndistances = [[10, 15], [17, 10]]\n\
                    [[node]]\ncores = 6\nmem = \"1G\"\n[[node]]\nmem = \"512M\"\n";
        let topology = Topology::parse(text).unwrap();
        assert_eq!(topology.nodes[1], Node { cores: 0, mem: Mebibytes::new(512) });
        assert_eq!((topology.distance(0, 1), topology.distance(1, 0), topology.package()), (15, 17, 3));
    }

    #[test]
    fn refuses_what_cannot_be_built() {
        let node = "[[node]]\ncores = 2\nmem = \"1G\"\n";
        let refused = [
            "",
            "[[node]]\n",
            "[[node]]\ncores = 1\nmem = \"1M\"\n",
            "[[node]]\ncores = 4000000000\nmem = \"1G\"\n[[node]]\ncores = 4000000000\n",
            "[[node]]\ncores = 1\nmem = \"1G\"\nspeed = 3\n",
            "[[node]]\ncores = 1\nmem = 1024\n",
            &format!("{node}[[node]]\n"),
            &format!("distances = [[10]]\n{node}{node}"),
            &format!("distances = [[10, 9], [20, 10]]\n{node}{node}"),
            &format!("distances = [[10, 10], [20, 10]]\n{node}{node}"),
            &format!("distances = [[11, 20], [20, 10]]\n{node}{node}"),
            &format!("threads_per_core = 0\n{node}"),
            &format!("threads_per_core = 2\ncores_per_package = 1\n{node}"),
            &format!("cores_per_package = 3\n{node}"),
        ];
        for text in refused {
            let error = Topology::parse(text).expect_err(text);
            assert_eq!(error.class(), Class::BadTopology, "{text}");
            assert!(error.to_string().contains("next:"), "{text}");
        }
        assert!(Topology::even(1, 2, Mebibytes::new(512)).is_err());
        assert!(Topology::even(289, 1, Mebibytes::new(512)).is_err());
        assert!(Topology::even(0, 0, Mebibytes::new(512)).is_err());
    }
}
