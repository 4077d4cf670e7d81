//! Filling a [`Topology`] in place; what the sources lack gets the answer that is true of a plain machine.

use super::table::{Affinity, Hmat, Matrix, Measure, Slit, Srat, TableError};
use super::{
    ApicId, Attribute, Domain, HardwareIds, LlcId, MAX_RANGES, MemoryRange, PackageId, SmtId, Topology,
};
use crate::id::{MAX_NODES, NodeId};
use crate::set::CoreSet;

/// The firmware's tables, as raw bytes that begin at their header.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// System Resource Affinity Table.
    pub srat: Option<&'a [u8]>,
    /// System Locality Information Table.
    pub slit: Option<&'a [u8]>,
    /// Heterogeneous Memory Attribute Table.
    pub hmat: Option<&'a [u8]>,
}

/// What became of a table.
///
/// `repr(u8)` makes `Absent` a zero byte, so that a blank topology is all zeroes and takes no room in the kernel image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TableState {
    /// The firmware has none.
    Absent,
    /// It is used.
    Used,
    /// It is not used, because it is wrong.
    Rejected(TableError),
}

/// What was missing, rejected or dropped while filling; worth a line in the log each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notes {
    /// What became of the SRAT.
    pub srat: TableState,
    /// What became of the SLIT.
    pub slit: TableState,
    /// What became of the HMAT.
    pub hmat: TableState,
    /// Cores beyond [`MAX_CORES`](crate::MAX_CORES).
    pub dropped_cores: usize,
    /// Affinity entries whose domain is beyond [`MAX_NODES`]; their cores and memory count as node 0's.
    pub dropped_nodes: usize,
    /// Memory ranges beyond [`MAX_RANGES`], overlapping another or reaching past the address space.
    pub dropped_ranges: usize,
    /// Cores that a used SRAT does not mention; they count as node 0's.
    pub cores_without_node: usize,
}

impl Notes {
    pub(super) const NONE: Self = Self {
        srat: TableState::Absent,
        slit: TableState::Absent,
        hmat: TableState::Absent,
        dropped_cores: 0,
        dropped_nodes: 0,
        dropped_ranges: 0,
        cores_without_node: 0,
    };
}

/// The distance between different nodes where nobody says.
const REMOTE_DISTANCE: u8 = 20;

fn note<T>(table: Option<Result<T, TableError>>) -> (Option<T>, TableState) {
    match table {
        None => (None, TableState::Absent),
        Some(Ok(table)) => (Some(table), TableState::Used),
        Some(Err(error)) => (None, TableState::Rejected(error)),
    }
}

impl Topology {
    /// Fills a blank topology: `cores` are the APIC ids that the MADT lists as usable, in any order; `ids` divides an APIC id, see
    /// [`IdLayout::ids`](super::IdLayout::ids).
    ///
    /// In place, because it is too large for a kernel stack.
    pub fn fill(
        &mut self,
        sources: &Sources<'_>,
        cores: impl IntoIterator<Item = ApicId>,
        ids: impl Fn(ApicId) -> HardwareIds,
    ) {
        let (srat, srat_state) = note(sources.srat.map(Srat::parse));
        let (slit, slit_state) = note(sources.slit.map(Slit::parse));
        let (hmat, hmat_state) = note(sources.hmat.map(Hmat::parse));
        self.notes = Notes { srat: srat_state, slit: slit_state, hmat: hmat_state, ..Notes::NONE };
        self.fill_cores(cores);
        self.fill_nodes(srat);
        self.fill_core_nodes(srat);
        self.fill_memory(srat);
        self.fill_groups(ids);
        self.fill_distances(slit);
        if let Some(hmat) = hmat {
            self.fill_attributes(hmat);
        }
    }

    /// T2: ascending APIC ids, each once.
    fn fill_cores(&mut self, cores: impl IntoIterator<Item = ApicId>) {
        let mut count = 0;
        for apic in cores {
            match self.cores.get_mut(count) {
                Some(slot) => {
                    slot.apic = apic;
                    count += 1;
                }
                None => self.notes.dropped_cores += 1,
            }
        }
        self.cores[..count].sort_unstable_by_key(|core| core.apic);
        let mut kept = 0;
        for at in 0..count {
            if kept == 0 || self.cores[kept - 1].apic != self.cores[at].apic {
                self.cores[kept] = self.cores[at];
                kept += 1;
            }
        }
        self.core_count = kept;
    }

    /// T3: ascending domains that have a present core or memory; one node if there is none.
    fn fill_nodes(&mut self, srat: Option<Srat<'_>>) {
        self.node_count = 0;
        for affinity in srat.into_iter().flat_map(Srat::entries) {
            match affinity {
                Affinity::Core { apic, domain } if self.core_by_apic(apic).is_some() => self.add_node(domain),
                Affinity::Memory { length: 1.., domain, .. } => self.add_node(domain),
                _ => {}
            }
        }
        if self.node_count == 0 {
            self.add_node(Domain(0));
        }
    }

    fn add_node(&mut self, domain: Domain) {
        let Err(at) = self.domains[..self.node_count].binary_search(&domain) else { return };
        if self.node_count == MAX_NODES {
            self.notes.dropped_nodes += 1;
            return;
        }
        self.domains[at..=self.node_count].rotate_right(1);
        self.domains[at] = domain;
        self.node_count += 1;
    }

    fn fill_core_nodes(&mut self, srat: Option<Srat<'_>>) {
        self.node_cores = [const { CoreSet::EMPTY }; MAX_NODES];
        let mut known = CoreSet::EMPTY;
        for affinity in srat.into_iter().flat_map(Srat::entries) {
            let Affinity::Core { apic, domain } = affinity else { continue };
            let (Some(core), Some(node)) = (self.core_by_apic(apic), self.node_by_domain(domain)) else {
                continue;
            };
            self.cores[core.index()].node = node;
            known.insert(core);
        }
        for core in self.cores() {
            if !known.contains(core) {
                self.cores[core.index()].node = NodeId::default();
                self.notes.cores_without_node += usize::from(srat.is_some());
            }
            self.node_cores[self.cores[core.index()].node.index()].insert(core);
        }
    }

    fn fill_memory(&mut self, srat: Option<Srat<'_>>) {
        self.range_count = 0;
        for affinity in srat.into_iter().flat_map(Srat::entries) {
            let Affinity::Memory { base, length: length @ 1.., domain, kind } = affinity else { continue };
            let node = self.node_by_domain(domain).unwrap_or_default();
            let added = base
                .checked_add(length)
                .is_some_and(|end| self.add_range(MemoryRange { start: base, end, node, kind }));
            self.notes.dropped_ranges += usize::from(!added);
        }
    }

    /// Keeps the ranges ascending and disjoint, and joins a range to the one it continues.
    fn add_range(&mut self, range: MemoryRange) -> bool {
        let at = self.memory().partition_point(|other| other.start < range.start);
        let clear_before = at == 0 || self.ranges[at - 1].end <= range.start;
        let clear_behind = at == self.range_count || range.end <= self.ranges[at].start;
        if !clear_before || !clear_behind {
            return false;
        }
        if at > 0 {
            let before = &mut self.ranges[at - 1];
            if before.end == range.start && before.node == range.node && before.kind == range.kind {
                before.end = range.end;
                return true;
            }
        }
        if self.range_count == MAX_RANGES {
            return false;
        }
        self.ranges[at..=self.range_count].rotate_right(1);
        self.ranges[at] = range;
        self.range_count += 1;
        true
    }

    /// Dense group numbers by first appearance; T4: a cache group and a sibling group are cut at the node border.
    fn fill_groups(&mut self, ids: impl Fn(ApicId) -> HardwareIds) {
        let (mut packages, mut llcs, mut smts) = (0, 0, 0);
        for at in 0..self.core_count {
            let core = self.cores[at];
            let own = ids(core.apic);
            // The searches go backwards because a core's group is nearly always that of the core before it (T2).
            let before = &self.cores[..at];
            let find = |same: &dyn Fn(HardwareIds) -> bool, border: bool| {
                before
                    .iter()
                    .rev()
                    .find(|other| same(ids(other.apic)) && (!border || other.node == core.node))
            };
            let package = find(&|other| other.package == own.package, false).map(|other| other.package);
            let llc = find(&|other| other.llc == own.llc, true).map(|other| other.llc);
            let smt = find(&|other| other.smt == own.smt, true).map(|other| other.smt);
            let core = &mut self.cores[at];
            core.package = package.unwrap_or_else(|| PackageId(next(&mut packages)));
            core.llc = llc.unwrap_or_else(|| LlcId(next(&mut llcs)));
            core.smt = smt.unwrap_or_else(|| SmtId(next(&mut smts)));
        }
    }

    fn fill_distances(&mut self, slit: Option<Slit<'_>>) {
        for from in self.nodes() {
            for to in self.nodes() {
                let plain = if from == to { Slit::SELF } else { REMOTE_DISTANCE };
                let told = slit.and_then(|slit| slit.distance(self.domain(from), self.domain(to)));
                self.distances[from.index()][to.index()] = told.unwrap_or(plain);
            }
        }
        let count = self.node_count;
        for from in self.nodes() {
            let distances = self.distances[from.index()];
            let row = &mut self.order[from.index()][..count];
            // A `u8` names a node: MAX_NODES is 64.
            for (node, slot) in (0u8..).zip(row.iter_mut()) {
                *slot = node;
            }
            let ring = |node: u8| (usize::from(node) + count - from.index()) % count;
            row.sort_unstable_by_key(|&node| (distances[usize::from(node)], ring(node)));
        }
    }

    /// Access values where given, else those of reads.
    fn fill_attributes(&mut self, hmat: Hmat<'_>) {
        let passes = [
            (Measure::ReadLatency, Measure::ReadBandwidth),
            (Measure::AccessLatency, Measure::AccessBandwidth),
        ];
        let domains = &self.domains[..self.node_count];
        for (latency, bandwidth) in passes {
            for matrix in hmat.matrices() {
                if matrix.measure == latency {
                    self.latency.fill(&matrix, domains);
                } else if matrix.measure == bandwidth {
                    self.bandwidth.fill(&matrix, domains);
                }
            }
        }
    }
}

impl Attribute {
    fn fill(&mut self, matrix: &Matrix<'_>, domains: &[Domain]) {
        if self.base_unit == 0 {
            self.base_unit = matrix.base_unit;
        }
        for (from, to, value) in matrix.entries() {
            let (Ok(from), Ok(to)) = (domains.binary_search(&from), domains.binary_search(&to)) else {
                continue;
            };
            if let Some(value) = rescale(value, matrix.base_unit, self.base_unit) {
                self.values[from][to] = value;
            }
        }
    }
}

/// A value in units of `from` as one in units of `to`, to the nearest; `None` if it does not fit or says nothing.
fn rescale(value: u16, from: u64, to: u64) -> Option<u16> {
    let exact = u128::from(value) * u128::from(from);
    let rounded = (exact + u128::from(to) / 2).checked_div(to.into())?;
    u16::try_from(rounded).ok()
}

fn next(count: &mut u16) -> u16 {
    let number = *count;
    *count += 1;
    number
}
