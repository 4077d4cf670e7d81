//! Memory for tables of tests, and objects that are counted.

use abi::cap::ObjectKind;
use cap::{Doomed, Family, Leaf, LeafAt, Memory, Node, NodeAt, Table, TableAt, Ticket};
use percpu::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

/// What tables have in common between which capabilities are handed on.
#[derive(Debug)]
pub(crate) struct World {
    nodes: AtomicUsize,
    families: Vec<(Ticket, Doomed)>,
}

impl World {
    /// A world of so many objects.
    pub(crate) fn new(objects: usize) -> Arc<Self> {
        let families = (0..objects).map(|_| (Ticket::new(), Doomed::new())).collect();
        Arc::new(Self { nodes: AtomicUsize::new(0), families })
    }

    /// Nodes that are out.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.load(Ordering::Relaxed)
    }
}

/// Memory for a number of leaves. Leaves are freed with the pool: a lookup may still read one that was given back.
#[derive(Debug)]
pub(crate) struct Pool {
    room: usize,
    out: AtomicUsize,
    /// Addresses of all leaves that were ever given.
    given: Mutex<Vec<usize>>,
    world: Arc<World>,
}

/// What a leaf or a node holds when it is given.
const DIRT: u8 = 0x5a;

impl Pool {
    pub(crate) fn new(room: usize, world: &Arc<World>) -> Self {
        Self { room, out: AtomicUsize::new(0), given: Mutex::new(Vec::new()), world: world.clone() }
    }

    /// Leaves that are out.
    pub(crate) fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }
}

impl Memory for Pool {
    fn take(&self) -> Option<NonNull<Leaf>> {
        let more = |out| (out < self.room).then_some(out + 1);
        self.out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        // SAFETY: a leaf has a size.
        let memory = unsafe { alloc::alloc(Layout::new::<Leaf>()) };
        let leaf = NonNull::new(memory).expect("memory");
        // SAFETY: just allocated with this size, and nobody else's.
        unsafe { leaf.write_bytes(DIRT, size_of::<Leaf>()) };
        self.given.lock().unwrap().push(memory.expose_provenance());
        Some(leaf.cast())
    }

    fn leaf(&self, at: LeafAt) -> &Leaf {
        // SAFETY: a table passes its own empty leaf or one that `take` gave; these live as long as the pool, and are atomics that any
        // bytes are valid for.
        unsafe { &*at.pointer() }
    }

    fn give_back(&self, leaf: LeafAt) {
        assert!(self.given.lock().unwrap().contains(&leaf.pointer().addr()));
        self.out.fetch_sub(1, Ordering::Relaxed);
    }

    fn take_node(&self) -> Option<NonNull<Node>> {
        self.world.nodes.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a node has a size.
        let node = NonNull::new(unsafe { alloc::alloc(Layout::new::<Node>()) }).expect("memory");
        // SAFETY: just allocated with this size, and nobody else's.
        unsafe { node.write_bytes(DIRT, size_of::<Node>()) };
        Some(node.cast())
    }

    fn node(&self, at: NodeAt) -> &Node {
        // SAFETY: a tree passes what `take_node` gave and has not given back; a node is atomics that any bytes are valid for.
        unsafe { &*at.pointer() }
    }

    fn give_node(&self, node: NodeAt) {
        self.world.nodes.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: allocated in `take_node` with this layout; given back once.
        unsafe { alloc::dealloc(node.pointer().cast(), Layout::new::<Node>()) };
    }

    fn table(&self, at: TableAt<Self>) -> &Table<Self> {
        // SAFETY: the tables of a world stay where they are while one of them is used.
        unsafe { &*at.pointer() }
    }

    fn family(&self, object: u64) -> Family<'_> {
        let (lock, doomed) = &self.world.families[object as usize];
        Family { lock, doomed }
    }

    fn disarm(&self, _: NonNull<()>) {
        unreachable!("these tests attach no timers")
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for address in self.given.get_mut().unwrap().drain(..) {
            let memory = std::ptr::with_exposed_provenance_mut(address);
            // SAFETY: allocated in `take` with this layout, and the table, which has borrowed or owned the pool, is gone.
            unsafe { alloc::dealloc(memory, Layout::new::<Leaf>()) };
        }
    }
}

/// Objects by number: how many references each has.
#[derive(Debug)]
pub(crate) struct Objects(Vec<AtomicU64>);

impl Objects {
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU64::new(0)).collect())
    }

    /// The kind of an object follows from its number.
    pub(crate) const fn kind(object: u64) -> ObjectKind {
        ObjectKind::ALL[object as usize % ObjectKind::ALL.len()]
    }

    pub(crate) fn count(&self, object: u64) -> u64 {
        self.0[object as usize].load(Ordering::Relaxed)
    }

    /// The first reference.
    pub(crate) fn make(&self, object: u64) {
        assert_eq!(self.0[object as usize].fetch_add(1, Ordering::Relaxed), 0);
    }

    /// One more, if there is one.
    pub(crate) fn acquire(&self, object: u64) -> bool {
        let more = |count| (count != 0).then_some(count + 1);
        self.0[object as usize].fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn release(&self, object: u64) {
        assert_ne!(self.0[object as usize].fetch_sub(1, Ordering::AcqRel), 0, "given up once too often");
    }
}
