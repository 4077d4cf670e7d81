//! Memory and objects for the tests of this crate, without unsafe code: what has an address is leaked, and found again by it.

use crate::memory::{LeafAt, Memory, NodeAt, TableAt};
use crate::slot::Leaf;
use crate::table::{self, Table};
use crate::ticket::Ticket;
use crate::tree::{Doomed, Family, Node};
use core::ptr::{self, NonNull};
use percpu::sync::atomic::{AtomicU64, Ordering};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

/// What tables have in common between which capabilities are handed on.
#[derive(Debug, Default)]
pub(crate) struct World {
    nodes: Mutex<Vec<&'static Node>>,
    nodes_returned: Mutex<Vec<usize>>,
    families: Mutex<BTreeMap<u64, (&'static Ticket, &'static Doomed)>>,
    tables: Mutex<Vec<&'static Table<Pool>>>,
    disarmed: Mutex<Vec<usize>>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Nodes that are out.
    pub(crate) fn nodes_out(&self) -> usize {
        self.nodes.lock().unwrap().len() - self.nodes_returned.lock().unwrap().len()
    }

    /// A table is drained: nobody is to come to it by a node any more.
    #[cfg(loom)]
    pub(crate) fn forget(&self, table: &Table<Pool>) {
        self.tables.lock().unwrap().retain(|known| !ptr::eq(*known, table));
    }

    /// Timers that have been disarmed, in order.
    #[cfg(loom)]
    pub(crate) fn disarmed(&self) -> Vec<usize> {
        self.disarmed.lock().unwrap().clone()
    }
}

/// Memory for a number of leaves.
#[derive(Debug)]
pub(crate) struct Pool {
    room: usize,
    /// Every leaf that was ever given: a lookup that has begun may still read one that was given back.
    given: Mutex<Vec<&'static Leaf>>,
    returned: Mutex<Vec<usize>>,
    world: Arc<World>,
}

impl Pool {
    pub(crate) fn new(room: usize, world: &Arc<World>) -> Self {
        let world = world.clone();
        Self { room, given: Mutex::new(Vec::new()), returned: Mutex::new(Vec::new()), world }
    }

    /// Leaves that are out.
    pub(crate) fn out(&self) -> usize {
        self.given.lock().unwrap().len() - self.returned.lock().unwrap().len()
    }

    #[cfg(loom)]
    pub(crate) fn world(&self) -> &World {
        &self.world
    }
}

/// A table in a world.
pub(crate) fn table_in(world: &Arc<World>, leaves: usize, limit: usize) -> &'static Table<Pool> {
    let table: &'static Table<Pool> = Box::leak(Box::new(Table::new(Pool::new(leaves, world), limit)));
    world.tables.lock().unwrap().push(table);
    table
}

/// The only table of a world.
pub(crate) fn lone_table(leaves: usize, limit: usize) -> &'static Table<Pool> {
    table_in(&World::new(), leaves, limit)
}

impl Memory for Pool {
    fn take(&self) -> Option<NonNull<Leaf>> {
        if self.out() == self.room {
            return None;
        }
        let leaf: &'static Leaf = Box::leak(Box::new(Leaf::new()));
        self.given.lock().unwrap().push(leaf);
        Some(NonNull::from(leaf))
    }

    fn leaf(&self, at: LeafAt) -> &Leaf {
        if ptr::eq(at.pointer(), table::empty()) {
            return table::empty_leaf();
        }
        let given = self.given.lock().unwrap();
        given.iter().copied().find(|leaf| ptr::eq(at.pointer(), *leaf)).expect("a leaf of this pool")
    }

    fn give_back(&self, leaf: LeafAt) {
        let address = leaf.pointer().addr();
        let mut returned = self.returned.lock().unwrap();
        assert!(!returned.contains(&address), "given back once");
        assert!(self.given.lock().unwrap().iter().any(|given| ptr::eq(leaf.pointer(), *given)));
        returned.push(address);
    }

    fn take_node(&self) -> Option<NonNull<Node>> {
        let node: &'static Node = Box::leak(Box::new(Node::new()));
        self.world.nodes.lock().unwrap().push(node);
        Some(NonNull::from(node))
    }

    fn node(&self, at: NodeAt) -> &Node {
        let address = at.pointer().addr();
        assert!(
            !self.world.nodes_returned.lock().unwrap().contains(&address),
            "used after it was given back"
        );
        let nodes = self.world.nodes.lock().unwrap();
        nodes.iter().copied().find(|node| ptr::eq(at.pointer(), *node)).expect("a node of this world")
    }

    fn give_node(&self, node: NodeAt) {
        let address = node.pointer().addr();
        let mut returned = self.world.nodes_returned.lock().unwrap();
        assert!(!returned.contains(&address), "given back once");
        returned.push(address);
    }

    fn table(&self, at: TableAt<Self>) -> &Table<Self> {
        let tables = self.world.tables.lock().unwrap();
        tables.iter().copied().find(|table| ptr::eq(at.pointer(), *table)).expect("a table of this world")
    }

    fn family(&self, object: u64) -> Family<'_> {
        let mut families = self.world.families.lock().unwrap();
        let (lock, doomed) = *families
            .entry(object)
            .or_insert_with(|| (Box::leak(Box::new(Ticket::new())), Box::leak(Box::new(Doomed::new()))));
        Family { lock, doomed }
    }

    fn disarm(&self, timer: NonNull<()>) {
        self.world.disarmed.lock().unwrap().push(timer.as_ptr().addr());
    }
}

/// References to an object.
#[derive(Debug)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn new(references: u64) -> Self {
        Self(AtomicU64::new(references))
    }

    /// One more, unless there is none any more.
    pub(crate) fn acquire(&self) -> bool {
        let more = |count| (count != 0).then_some(count + 1);
        // ORDER: AcqRel: Acquire is what `Table::derive` asks for. Acquire on failure: as good.
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(crate) fn release(&self) {
        // ORDER: AcqRel pairs with itself and `acquire`.
        assert_ne!(self.0.fetch_sub(1, Ordering::AcqRel), 0, "a reference is given up once");
    }

    pub(crate) fn get(&self) -> u64 {
        // ORDER: Acquire pairs with `release`.
        self.0.load(Ordering::Acquire)
    }
}
