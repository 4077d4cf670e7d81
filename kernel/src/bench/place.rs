//! Where cases run: representative cores for each placement class, and points of scaling curves.

use percpu::topology::Relation;
use percpu::{CoreId, CoreSet, NodeId};
use perf::bench::{Class, Placement, Site, Value};

use crate::machine;

/// Cores that a matrix shows at most, so that its size stays that of a report.
const MATRIX_CORES: usize = 16;

/// A core as records name it.
pub(super) fn site(core: CoreId) -> Site {
    Site { core: u32::from(core.raw()), node: u32::from(machine::topology().node_of(core).raw()) }
}

/// The boot core, which measures.
pub(super) fn here() -> CoreId {
    machine::boot_core()
}

/// One core alone.
pub(super) fn alone() -> Placement {
    Placement::alone(site(here()))
}

const fn class(relation: Relation) -> Class {
    match relation {
        Relation::Same => Class::SelfCore,
        Relation::Smt => Class::Smt,
        Relation::Llc => Class::Llc,
        Relation::Node => Class::Node,
        Relation::Remote => Class::Remote,
    }
}

/// For each class that the machine has, the first core that stands so to the boot core; itself left out.
pub(super) fn partners() -> impl Iterator<Item = (Class, CoreId)> {
    partners_of(here())
}

/// As [`partners`], seen from another core.
pub(super) fn partners_of(own: CoreId) -> impl Iterator<Item = (Class, CoreId)> {
    let topology = machine::topology();
    [Relation::Smt, Relation::Llc, Relation::Node, Relation::Remote].into_iter().filter_map(move |relation| {
        let partner = topology.cores().find(|&core| topology.relation(own, core) == relation)?;
        Some((class(relation), partner))
    })
}

/// The partner of a class, as [`partners`] enumerates it.
pub(super) fn partner(wanted: Class) -> Option<CoreId> {
    partners().find(|&(class, _)| class == wanted).map(|(_, core)| core)
}

/// The boot core and its partner of a class as a placement, with the class as a parameter value.
pub(super) fn pair(class: Class, partner: CoreId) -> (Placement, Value) {
    (Placement::pair(class, site(here()), site(partner)), Value::Word(class.word()))
}

/// How many cores the points of a scaling curve have: 1, 2, 4, … and all.
pub(super) fn scales() -> impl Iterator<Item = usize> {
    let all = machine::topology().core_count();
    let powers = core::iter::successors(Some(1_usize), |n| n.checked_mul(2)).take_while(move |&n| n < all);
    powers.chain(core::iter::once(all))
}

/// The boot core and the first others, `count` in all.
pub(super) fn first(count: usize) -> CoreSet {
    let others = machine::topology().cores().filter(|&core| core != here());
    core::iter::once(here()).chain(others).take(count).collect()
}

/// The cores that matrices show: all, or evenly spread ones.
pub(super) fn shown() -> impl Iterator<Item = CoreId> + Clone {
    let count = machine::topology().core_count();
    let step = count.div_ceil(MATRIX_CORES);
    (0..count).step_by(step).filter_map(CoreId::from_index)
}

/// The cores of [`shown`] by number, in a buffer that holds as many as there can be.
pub(super) fn labels() -> ([u32; MATRIX_CORES], usize) {
    let mut labels = [0; MATRIX_CORES];
    let mut count = 0;
    for (slot, core) in labels.iter_mut().zip(shown()) {
        *slot = u32::from(core.raw());
        count += 1;
    }
    (labels, count)
}

/// Cells of a matrix of cores.
pub(super) type Cells = [[Option<u64>; MATRIX_CORES]; MATRIX_CORES];

/// The nodes that have memory: by the firmware, or node 0 where it says nothing.
pub(super) fn nodes_with_memory() -> impl Iterator<Item = NodeId> {
    let known = machine::topology().nodes_with_memory();
    machine::topology().nodes().filter(move |&node| known.contains(node) || known.is_empty())
}

/// The nearest node with memory that is not the boot core's own.
pub(super) fn remote_node() -> Option<NodeId> {
    let own = machine::topology().node_of(here());
    machine::topology().nodes_by_distance(own).find(|&n| n != own && nodes_with_memory().any(|m| m == n))
}

/// The first core of a node.
pub(super) fn core_of(node: NodeId) -> Option<CoreId> {
    machine::topology().node_cores(node).lowest()
}
