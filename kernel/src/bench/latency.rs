//! Memory itself: moving a line between cores, and reading memory of every node from every node.

use core::ptr::NonNull;

use mm::Order;
use mm::frames::{Policy, Request};
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CoreId, Held, Lock, NodeId, NodeSet};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Site, Value};
use perf::prng::Prng;
use perf::runner::{MatrixHead, Probe, Trouble};

use super::crew::{self, BootOnly, Gate};
use super::place::{self, Cells};
use super::{Lab, Meter, signals};
use crate::memory::Block;
use crate::{cores, machine, start};

/// A line that two cores hand to each other.
pub(super) const CAS: Bench<Lab> = Bench {
    id: "c2c.cas",
    version: 1,
    doc: "handing a cache line to another core and getting it back, by compare-and-swap on either side",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::TIMED,
    classes: &[Class::Smt, Class::Llc, Class::Node, Class::Remote, Class::Matrix],
    batch: 1,
    cases: |_, visit| {
        for home in place::nodes_with_memory() {
            let home = Value::Num(u64::from(home.raw()));
            for (class, partner) in place::partners() {
                let (placement, word) = place::pair(class, partner);
                visit(Case::new(placement).with("to", word).with("home", home));
            }
            let count = place::shown().count();
            if count > 1 {
                let case = Case::new(Placement::matrix(count as u32));
                visit(case.with("to", Value::Word("all")).with("home", home));
            }
        }
    },
    run: cas,
};

/// Samples and warm-up of a matrix cell.
const CELL: usize = 16;
const CELL_WARM_UP: u32 = 4;
/// Values of the line: whose turn it is, or that the exchange is over.
const MINE: u64 = 0;
const YOURS: u64 = 1;
const OVER: u64 = 2;

fn cas(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let home = node(case.params.num("home"))?;
    let block = on_node(Order::FRAME, home).ok_or(Trouble::Skipped("the home node has no free memory"))?;
    let line = block.start().cast::<AtomicU64>();
    // SAFETY: aligned, in a block that nobody else has and that outlives every use below; the write makes it an initialised atomic.
    unsafe { line.write(AtomicU64::new(MINE)) };
    // SAFETY: as above.
    let line: &AtomicU64 = unsafe { &*line };
    if let Some(target) = place::partner(case.placement.class) {
        let meter = BootOnly::new(meter);
        exchange(lab, line, place::here(), target, |held, hand_over| {
            meter.with(held, |meter| meter.windows(&mut (), |()| {}, |()| hand_over(), |()| {}));
        });
        return Ok(());
    }
    let mut cells: Cells = [[None; _]; _];
    for (i, source) in place::shown().enumerate() {
        for (j, target) in place::shown().enumerate().filter(|&(j, _)| j != i) {
            let mut probe: Lock<30, Probe<CELL>> = Lock::new(meter.probe(CELL_WARM_UP));
            exchange(lab, line, source, target, |held, hand_over| {
                probe.with(held, |probe, _| crew::fill(probe, crew::nothing, hand_over));
            });
            cells[i][j] = probe.get_mut().median();
            meter.absorb(probe.get_mut());
        }
    }
    signals::core_matrix(meter, "round trip", &cells);
    Ok(())
}

fn node(number: Option<u64>) -> Result<NodeId, Trouble> {
    number.and_then(|n| NodeId::from_index(n as usize)).ok_or(Trouble::Failed("no such node"))
}

fn on_node(order: Order, node: NodeId) -> Option<Block> {
    Block::on(order, Request::policy(Policy::Bind(NodeSet::one(node))))
}

/// Runs `measure` on `source` with a function that hands the line to `target` and waits until it is back.
fn exchange(
    lab: &mut Lab,
    line: &AtomicU64,
    source: CoreId,
    target: CoreId,
    measure: impl Fn(&mut Held<'_, 0>, &dyn Fn()) + Sync,
) {
    let gate = Gate::new();
    // ORDER: Relaxed; the gate orders it before both sides.
    line.store(MINE, Ordering::Relaxed);
    // ORDER: AcqRel on success pairs with the other side's: each sees what the other did before. Relaxed on failure: it is tried again.
    let swap = |from, to| line.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed);
    lab.crew.run(&[source, target].into_iter().collect(), |held| {
        gate.pass(2);
        if held.core() == source {
            measure(held, &|| {
                // It is our turn: the other side swaps only when it is its own.
                let handed = swap(MINE, YOURS);
                debug_assert!(handed.is_ok());
                // ORDER: Acquire pairs with the other side's swap.
                while line.load(Ordering::Acquire) != MINE {
                    core::hint::spin_loop();
                }
            });
            // ORDER: Release; the other side only ends by it.
            line.store(OVER, Ordering::Release);
            return;
        }
        loop {
            match swap(YOURS, MINE) {
                Err(OVER) => return,
                Ok(_) => {}
                Err(_) => core::hint::spin_loop(),
            }
        }
    });
}

/// Reading memory of a node in an order that no prefetcher guesses.
pub(super) const MEMORY: Bench<Lab> = Bench {
    id: "mem.lat",
    version: 2,
    doc: "one load of a chain of dependent loads through a random cycle over all lines of a block",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::TIMED,
    classes: &[Class::SelfCore, Class::Remote, Class::Matrix],
    batch: 256,
    cases: |_, visit| {
        for (_, size) in SIZES {
            for memory in place::nodes_with_memory() {
                let here = place::site(place::here());
                let there = Site { node: u32::from(memory.raw()), ..here };
                let class = if here.node == there.node { Class::SelfCore } else { Class::Remote };
                let placement = Placement { cores: 1, ..Placement::pair(class, here, there) };
                visit(
                    Case::new(placement)
                        .with("size", Value::Word(size))
                        .with("mem", Value::Num(u64::from(memory.raw()))),
                );
            }
            if place::nodes_with_memory().count() > 1 {
                let count = machine::topology().nodes_with_cores().len() as u32;
                let case = Case::new(Placement::matrix(count));
                visit(case.with("size", Value::Word(size)).with("mem", Value::Word("all")));
            }
        }
    },
    run: memory_latency,
};

/// Blocks that are read: one that fits the caches of a large core, one that does not.
const SIZES: [(Order, &str); 2] = [(FOUR_MIB, "4m"), (SIXTY_FOUR_MIB, "64m")];
const FOUR_MIB: Order = Order::new(10).expect("10 is an order");
const SIXTY_FOUR_MIB: Order = Order::new(14).expect("14 is an order");
/// Bytes from one link of the chain to where the next may be: a cache line.
const LINE: usize = 64;

/// Links of the block that is to be read from caches.
const CACHED_LINKS: u32 = (FOUR_MIB.frames() * mm::id::FRAME_BYTES / LINE) as u32;

/// A random cycle through all lines of a block: each line begins with the address of the next.
struct Chain {
    _block: Block,
    at: NonNull<Link>,
    /// Links of the whole cycle.
    links: u32,
}

#[repr(C, align(64))]
struct Link {
    next: NonNull<Link>,
}

impl Chain {
    /// Builds the cycle in one pass (Sattolo, "An algorithm to generate a random cyclic permutation", 1986).
    fn new(order: Order, node: NodeId, seed: u64) -> Option<Self> {
        let block = on_node(order, node)?;
        let first = NonNull::new(block.start().cast::<Link>())?;
        let count = order.frames() * mm::id::FRAME_BYTES / LINE;
        // SAFETY: `i < count` keeps the link inside the block, which is ours.
        let link = |i: usize| unsafe { first.add(i) };
        for i in 0..count {
            // SAFETY: inside the block, aligned to a line.
            unsafe { link(i).write(Link { next: link(i) }) };
        }
        let mut prng = Prng::new(seed);
        for i in (1..count).rev() {
            let j = prng.below(i as u64) as usize;
            // SAFETY: both inside the block and initialised; `j < i`, so they are different links.
            unsafe { core::ptr::swap(link(i).as_ptr(), link(j).as_ptr()) };
        }
        Some(Self { _block: block, at: first, links: u32::try_from(count).ok()? })
    }

    /// Follows a short chain round once, so that its lines are where the measuring core keeps what it reads; a long one would only push
    /// itself out again.
    fn warm(&mut self) {
        if self.links <= CACHED_LINKS {
            self.follow(self.links);
        }
    }

    /// Follows the chain.
    #[inline(always)]
    fn follow(&mut self, links: u32) {
        for _ in 0..links {
            // SAFETY: every link of the block leads to another one of it.
            self.at = unsafe { self.at.read_volatile() }.next;
        }
    }
}

fn memory_latency(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let size = case.params.word("size");
    let order = SIZES.iter().find(|(_, word)| Some(*word) == size).map(|&(order, _)| order);
    let order = order.ok_or(Trouble::Failed("no such size"))?;
    if case.placement.class == Class::Matrix {
        return memory_matrix(lab, order, meter);
    }
    let node = node(case.params.num("mem"))?;
    let mut chain =
        Chain::new(order, node, lab.seed).ok_or(Trouble::Skipped("no free block of this size there"))?;
    chain.warm();
    let batch = meter.batch();
    meter.windows(&mut chain, |_| {}, |chain| chain.follow(batch), |_| {});
    Ok(())
}

fn memory_matrix(lab: &mut Lab, order: Order, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    const NODES: usize = 16;
    let mut cells = [[None; NODES]; NODES];
    let (mut rows, mut cols) = ([0; NODES], [0; NODES]);
    let from = machine::topology().nodes_with_cores();
    for (j, memory) in place::nodes_with_memory().enumerate().take(NODES) {
        cols[j] = u32::from(memory.raw());
        let Some(mut chain) = Chain::new(order, memory, lab.seed) else { continue };
        for (i, node) in from.iter().enumerate().take(NODES) {
            rows[i] = u32::from(node.raw());
            let Some(core) = place::core_of(node) else { continue };
            let mut shared: Lock<30, _> =
                Lock::new((meter.probe::<CELL>(CELL_WARM_UP), Follower(&mut chain)));
            let batch = meter.batch();
            cores::call(core, |held| {
                shared.with(held, |(probe, chain), _| {
                    chain.0.warm();
                    crew::fill(probe, crew::nothing, || chain.0.follow(batch));
                });
            });
            let (probe, _) = shared.get_mut();
            cells[i][j] = probe.median();
            meter.absorb(probe);
        }
    }
    if cells.iter().flatten().all(Option::is_none) {
        return Err(Trouble::Skipped("no node has a free block of this size"));
    }
    let unit = Quantity::Time.unit(start::params().lane);
    let (rows, cols) =
        (&rows[..from.len().min(NODES)], &cols[..place::nodes_with_memory().count().min(NODES)]);
    let head = MatrixHead {
        name: "load",
        unit,
        row_axis: "node of the core",
        col_axis: "node of the memory",
        rows,
        cols,
    };
    meter.matrix(&head, &mut |i, j| cells[i][j]);
    Ok(())
}

/// A chain on its way to another core.
struct Follower<'a>(&'a mut Chain);

// SAFETY: the block is plain memory that every core reaches at the same address; the reference is exclusive.
unsafe impl Send for Follower<'_> {}
