//! Who has called whom in a stretch, made of the blocks that were executed in it.

use std::collections::BTreeMap;

/// How a block ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    Call,
    Return,
    Neither,
}

/// A block that was executed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) at: u64,
    /// What was executed before it.
    pub(crate) before: u64,
    pub(crate) ending: Ending,
    /// It is where a page fault is handled, whatever the block before has ended with.
    pub(crate) faulted: bool,
}

/// The functions of a stretch, by who has called them, and the blocks.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    blocks: BTreeMap<u64, u64>,
}

#[derive(Debug, Default)]
struct Node {
    at: u64,
    caller: usize,
    /// Instructions of its own.
    own: u64,
    /// With those of whom it called.
    all: u64,
    called: BTreeMap<u64, usize>,
}

impl Tree {
    /// The tree of the blocks of a stretch, after which so many instructions were executed. Where the kernel gives a stack up, callers are
    /// named that nobody returns to: it was they who led there.
    pub(crate) fn of(steps: &[Step], after: u64) -> Self {
        let mut tree = Self::default();
        let Some(first) = steps.first() else { return tree };
        tree.nodes.push(Node { at: first.at, ..Node::default() });
        let (mut here, mut ending) = (0, Ending::Neither);
        for (index, step) in steps.iter().enumerate() {
            here = match ending {
                _ if step.faulted && index != 0 => tree.called(here, step.at),
                Ending::Call => tree.called(here, step.at),
                Ending::Return => tree.nodes[here].caller,
                Ending::Neither => here,
            };
            let next = steps.get(index + 1).map_or(after, |next| next.before);
            let instructions = next - step.before;
            tree.nodes[here].own += instructions;
            *tree.blocks.entry(step.at).or_default() += instructions;
            ending = step.ending;
        }
        // Those who were called come behind their callers.
        for index in (0..tree.nodes.len()).rev() {
            let Node { own, caller, .. } = tree.nodes[index];
            tree.nodes[index].all += own;
            if index != 0 {
                tree.nodes[caller].all += tree.nodes[index].all;
            }
        }
        tree
    }

    fn called(&mut self, caller: usize, at: u64) -> usize {
        let new = self.nodes.len();
        let found = *self.nodes[caller].called.entry(at).or_insert(new);
        if found == new {
            self.nodes.push(Node { at, caller, ..Node::default() });
        }
        found
    }

    /// The way on which most was executed: from each function to the one of those called that has the largest part, as long as that is
    /// a quarter of everything.
    pub(crate) fn heaviest(&self) -> Vec<(u64, u64)> {
        let mut way = Vec::new();
        let mut next = self.nodes.first();
        let everything = next.map_or(0, |node| node.all);
        while let Some(node) = next.filter(|node| node.all * 4 >= everything) {
            way.push((node.at, node.all));
            next = node.called.values().map(|&index| &self.nodes[index]).max_by_key(|node| node.all);
        }
        way
    }

    /// The blocks, and how many instructions were executed in each.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u64, u64)> {
        self.blocks.iter().map(|(&at, &instructions)| (at, instructions))
    }
}
