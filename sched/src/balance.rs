//! Who takes threads from whom: pure functions over a snapshot of all cores. The kernel asks and moves; what a thread's affinity allows is
//! checked there, by whoever hands it over.
//!
//! A reserved core neither takes nor gives: what runs there is bound to it alone. When a core becomes reserved, its owner sends the
//! others away (`Core::steal` until there is none).

/// What is known of a core. Snapshots may be stale; a wrong move costs a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Normal threads that could run there, the current one included (`Core::weight`).
    pub weight: u32,
    /// Node, as an index of [`Distances`].
    pub node: u16,
    /// Whether it is reserved.
    pub reserved: bool,
}

/// A thread to be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Index of the core that gives.
    pub from: usize,
    /// Index of the core that takes.
    pub to: usize,
}

/// How many more threads a core of another node must have before the balancer moves one: memory stays behind.
const REMOTE_SLACK: u32 = 2;

/// The core that `thief`, which has nothing to run, asks next: the busiest of its own node that can spare a thread, then by distance.
/// `skip` says which were asked in vain. `distance` is the machine's, of nodes; on a tie the lower index wins.
pub fn victim(
    thief: usize,
    cores: &[View],
    distance: impl Fn(u16, u16) -> u8,
    skip: impl Fn(usize) -> bool,
) -> Option<usize> {
    let own = cores.get(thief).filter(|own| !own.reserved)?;
    let can_spare =
        |&(index, core): &(usize, &View)| index != thief && core.weight > 1 && !core.reserved && !skip(index);
    let far = |node: u16| if node == own.node { 0 } else { u16::from(distance(own.node, node)) + 1 };
    let candidates = cores.iter().enumerate().filter(can_spare);
    candidates.min_by_key(|(_, core)| (far(core.node), u32::MAX - core.weight)).map(|(index, _)| index)
}

/// The move that evens the cores out most, and notes it in `cores`; `None` when they are even. Call until then, or until enough has been
/// moved. Within a node cores differ by one in the end, between nodes by [`REMOTE_SLACK`] more.
pub fn step(cores: &mut [View], distance: impl Fn(u16, u16) -> u8) -> Option<Move> {
    let found = within(cores).or_else(|| across(cores, distance))?;
    cores[found.from].weight -= 1;
    cores[found.to].weight += 1;
    Some(found)
}

fn open(cores: &[View]) -> impl Iterator<Item = (usize, &View)> {
    cores.iter().enumerate().filter(|(_, core)| !core.reserved)
}

/// The most uneven pair of one node. Cores of a node are neighbours.
fn within(cores: &[View]) -> Option<Move> {
    let mut base = 0;
    let pairs = cores.chunk_by(|a, b| a.node == b.node).filter_map(|node| {
        let first = base;
        base += node.len();
        let (from, busy) = best(open(node).map(|(index, core)| (core.weight, (index, core))))?;
        let (to, idle) = open(node).min_by_key(|(_, core)| core.weight)?;
        Some((busy.weight - idle.weight, Move { from: first + from, to: first + to }))
    });
    best(pairs.filter(|&(uneven, _)| uneven > 1))
}

/// The busiest of all and the idlest of the others, the nearest of them.
fn across(cores: &[View], distance: impl Fn(u16, u16) -> u8) -> Option<Move> {
    let (from, busy) = best(open(cores).map(|(index, core)| (core.weight, (index, core))))?;
    let others = open(cores).filter(|(_, core)| core.node != busy.node);
    let (to, idle) = others.min_by_key(|(_, core)| (core.weight, distance(busy.node, core.node)))?;
    (busy.weight > idle.weight + 1 + REMOTE_SLACK).then_some(Move { from, to })
}

/// The first of those with the highest score.
fn best<T>(scored: impl Iterator<Item = (u32, T)>) -> Option<T> {
    let pick = |best: (u32, T), next: (u32, T)| if next.0 > best.0 { next } else { best };
    scored.reduce(pick).map(|(_, it)| it)
}

#[cfg(test)]
mod tests {
    use super::{Move, REMOTE_SLACK, View, step, victim};
    use proptest::prelude::{ProptestConfig, any};
    use proptest::{collection, prop_assert, proptest};

    fn view(weight: u32, node: u16) -> View {
        View { weight, node, reserved: false }
    }

    /// Nodes in a row.
    fn distance(a: u16, b: u16) -> u8 {
        10 + 10 * a.abs_diff(b) as u8
    }

    /// All victims that a thief asks, one after the other.
    fn victims(thief: usize, cores: &[View]) -> Vec<usize> {
        let mut asked = Vec::new();
        while let Some(next) = victim(thief, cores, distance, |core| asked.contains(&core)) {
            asked.push(next);
        }
        asked
    }

    #[test]
    fn thieves_ask_the_busiest_of_the_nearest_node_first() {
        let cores = [view(0, 0), view(2, 0), view(3, 0), view(9, 2), view(4, 1), view(5, 1), view(1, 0)];
        assert_eq!(victims(0, &cores), [2, 1, 5, 4, 3]);
        assert_eq!(victims(6, &cores), [2, 1, 5, 4, 3]);
        assert_eq!(victims(3, &cores), [5, 4, 2, 1]);
        assert_eq!(victims(7, &cores), [], "there is no such core");
    }

    /// Planted: `victim` that does not look at `reserved`.
    #[test]
    fn reserved_cores_neither_take_nor_give() {
        let mut cores = [view(0, 0), view(5, 0), view(3, 0)];
        cores[1].reserved = true;
        assert_eq!(victims(0, &cores), [2]);
        assert_eq!(victims(1, &cores), []);
        assert_eq!(step(&mut cores, distance), Some(Move { from: 2, to: 0 }));
        assert_eq!(step(&mut cores, distance), None);
    }

    #[test]
    fn nodes_are_evened_out_inside_first() {
        let mut cores = [view(1, 0), view(3, 0), view(12, 1), view(12, 1)];
        assert_eq!(step(&mut cores, distance), Some(Move { from: 1, to: 0 }));
        assert_eq!(step(&mut cores, distance), Some(Move { from: 2, to: 0 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Balancing ends, loses no thread, leaves reserved cores alone, and leaves the others as even as it says.
        ///
        /// Planted: `within` that forgets where the node's cores begin, two threads of difference that count as even.
        #[test]
        fn balancing_ends_evenly(cores in collection::vec((0..20_u32, 0..4_u16, any::<u8>()), 0..16)) {
            let mut cores: Vec<View> =
                cores.into_iter().map(|(weight, node, dice)| View { weight, node, reserved: dice < 40 }).collect();
            cores.sort_by_key(|core| core.node);
            let before = cores.clone();
            let mut moves = 0;
            while step(&mut cores, distance).is_some() {
                moves += 1;
                prop_assert!(moves < 1000, "{cores:?}");
            }
            let sum = |cores: &[View]| cores.iter().map(|core| core.weight).sum::<u32>();
            prop_assert!(sum(&cores) == sum(&before));
            for (a, was) in cores.iter().zip(&before) {
                prop_assert!(!a.reserved || a.weight == was.weight);
                for b in cores.iter().filter(|b| !a.reserved && !b.reserved) {
                    let slack = if a.node == b.node { 1 } else { 1 + REMOTE_SLACK };
                    prop_assert!(a.weight <= b.weight + slack, "{cores:?}");
                }
            }
        }
    }
}
