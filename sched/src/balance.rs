//! Who takes threads from whom: pure functions over what the cores show of themselves. The kernel asks and moves; what a thread's affinity
//! allows is checked there, by whoever hands it over.
//!
//! A reserved core neither takes nor gives: what runs there is bound to it alone. When a core becomes reserved, its owner sends the
//! others away (`Core::steal` until there is none).

/// What is known of another core. It may be stale; a wrong move costs a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Threads that could run there, the current one included.
    pub load: u32,
    /// Distance of its node from the own one, as in the SLIT: the own node's is the smallest.
    pub distance: u8,
    /// Whether it is reserved.
    pub reserved: bool,
}

/// The core that one which has nothing to run asks for a thread: of those that can spare one the nearest, of these the busiest; on a tie the
/// first.
pub fn victim<C>(others: impl Iterator<Item = (C, View)>) -> Option<C> {
    let can_spare = others.filter(|(_, view)| view.load > 1 && !view.reserved);
    can_spare.min_by_key(|(_, view)| (view.distance, u32::MAX - view.load)).map(|(core, _)| core)
}

/// The core that one with `load` threads hands a thread to: the idlest, of these the nearest; none if that would only turn the difference
/// round.
pub fn taker<C>(load: u32, others: impl Iterator<Item = (C, View)>) -> Option<C> {
    let open = others.filter(|(_, view)| !view.reserved);
    let idlest = open.min_by_key(|(_, view)| (view.load, view.distance));
    idlest.filter(|(_, view)| view.load + 1 < load).map(|(core, _)| core)
}

#[cfg(test)]
mod tests {
    use super::{View, taker, victim};
    use proptest::prelude::{ProptestConfig, any};
    use proptest::{collection, prop_assert, proptest};

    /// Nodes in a row.
    fn distance(a: u16, b: u16) -> u8 {
        10 + 10 * a.abs_diff(b) as u8
    }

    /// A machine: load, node, and whether it is reserved, of each core.
    type Machine = Vec<(u32, u16, bool)>;

    /// The others, as a core sees them.
    fn seen(machine: &Machine, from: usize) -> impl Iterator<Item = (usize, View)> + '_ {
        let own = machine[from].1;
        let others = machine.iter().enumerate().filter(move |&(index, _)| index != from);
        others.map(move |(index, &(load, node, reserved))| {
            (index, View { load, distance: distance(own, node), reserved })
        })
    }

    /// Planted: the busiest first, whatever its distance.
    #[test]
    fn thieves_ask_the_busiest_of_the_nearest_node_first() {
        let mut machine: Machine = [(0, 0), (2, 0), (3, 0), (9, 2), (4, 1), (5, 1), (1, 0)]
            .map(|(load, node)| (load, node, false))
            .into();
        let mut asked = Vec::new();
        while let Some(next) = victim(seen(&machine, 0)) {
            asked.push(next);
            machine[next].0 = 0;
        }
        assert_eq!(asked, [2, 1, 5, 4, 3]);
    }

    /// Planted: either function that does not look at `reserved`.
    #[test]
    fn reserved_cores_neither_take_nor_give() {
        let machine: Machine = [(0, 0, true), (5, 0, true), (3, 0, false), (0, 0, false)].into();
        assert_eq!(victim(seen(&machine, 3)), Some(2));
        assert_eq!(taker(3, seen(&machine, 2)), Some(3));
    }

    /// Planted: a difference of one that counts as uneven.
    #[test]
    fn nothing_moves_between_even_cores() {
        let machine: Machine = [(2, 0, false), (1, 0, false), (1, 1, false)].into();
        assert_eq!(taker(2, seen(&machine, 0)), None);
        assert_eq!(taker(3, seen(&machine, 0)), Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Each core handing over in turn ends, leaves reserved cores alone, and leaves the others even.
        ///
        /// Planted: a difference of one that counts as uneven.
        #[test]
        fn balancing_ends_evenly(cores in collection::vec((0..20_u32, 0..4_u16, any::<u8>()), 0..16)) {
            let mut machine: Machine = cores.into_iter().map(|(load, node, dice)| (load, node, dice < 40)).collect();
            let before = machine.clone();
            let mut moves = 0;
            loop {
                let open = (0..machine.len()).filter(|&from| !machine[from].2);
                let step = open.into_iter().find_map(|from| taker(machine[from].0, seen(&machine, from)).map(|to| (from, to)));
                let Some((from, to)) = step else { break };
                machine[from].0 -= 1;
                machine[to].0 += 1;
                moves += 1;
                prop_assert!(moves < 1000, "{machine:?}");
            }
            for (core, was) in machine.iter().zip(&before) {
                prop_assert!(!core.2 || core.0 == was.0);
            }
            let open = || machine.iter().filter(|core| !core.2).map(|core| core.0);
            prop_assert!(open().max().unwrap_or(0) <= open().min().unwrap_or(0) + 1, "{machine:?}");
        }
    }
}
