//! The frame allocator in the kernel: single operations, scaling, and what a long mixed walk does to the free memory.

use mm::bench::{self, Block as LiveBlock, FrameSource, Walk};
use mm::frames::{CoreCache, Frames, Policy, Request};
use mm::{FrameId, Order};
use percpu::{CoreId, CoreSet, Held, IrqOff, NodeId, NodeSet};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Unit, Value};
use perf::prng::Prng;
use perf::runner::Trouble;

use super::crew::{self, Body};
use super::{Lab, Meter, place};
use crate::memory;

/// Orders that are measured, with the operations in a window. The window must outweigh the clock but not the memory.
const ORDERS: [(Order, u32); 4] = [(Order::FRAME, 64), (ORDER_3, 64), (Order::HUGE, 16), (Order::GIANT, 1)];
const ORDER_3: Order = Order::new(3).expect("3 is an order");
/// Chunks of 2 MiB that a core's cache may hold back, generously.
const CACHED: usize = 32;
/// Most blocks in a window.
const MOST: usize = 64;

/// Taking a block.
pub(super) const ALLOC: Bench<Lab> = Bench {
    id: "frame.alloc",
    version: 1,
    doc: "taking a block of 2^order frames from a node",
    run: |lab, case, meter| single(lab, case, meter, Side::Alloc),
    ..SINGLE
};

/// Giving a block back.
pub(super) const FREE: Bench<Lab> = Bench {
    id: "frame.free",
    version: 1,
    doc: "giving a block of 2^order frames back to its node",
    run: |lab, case, meter| single(lab, case, meter, Side::Free),
    ..SINGLE
};

/// Taking a block and giving it back.
pub(super) const PAIR: Bench<Lab> = Bench {
    id: "frame.pair",
    version: 1,
    doc: "taking a block of 2^order frames and giving it back at once",
    run: |lab, case, meter| single(lab, case, meter, Side::Pair),
    ..SINGLE
};

const SINGLE: Bench<Lab> = Bench {
    id: "",
    version: 1,
    doc: "",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore, Class::Remote, Class::Scaling],
    batch: MOST as u32,
    cases: |_, visit| {
        for (order, batch) in ORDERS {
            let case = |mem: &'static str, cores: usize, placement| {
                let params = Case::new(placement).with("order", Value::Num(order.get() as u64));
                params.with("mem", Value::Word(mem)).with("cores", Value::Num(cores as u64)).batch(batch)
            };
            visit(case("local", 1, Placement::alone(place::site(owner(order)))));
            if let Some(node) = place::remote_node() {
                let near = place::site(place::here());
                let far = perf::bench::Site { node: u32::from(node.raw()), ..near };
                visit(case("remote", 1, Placement { cores: 1, ..Placement::pair(Class::Remote, near, far) }));
            }
            if order != Order::GIANT {
                for cores in place::scales().filter(|&n| n > 1) {
                    visit(case("local", cores, Placement::scaling(cores as u32)));
                }
            }
        }
    },
    run: |_, _, _| Err(Trouble::Failed("a row without a body")),
};

/// Which half of a block's life is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Alloc,
    Free,
    Pair,
}

/// This core's part of the kernel's allocator, asked for near memory: what almost every caller in the kernel does.
struct Near<'a> {
    frames: &'static Frames<'static>,
    cache: &'a mut CoreCache<'static>,
    refused: bool,
}

impl FrameSource for Near<'_> {
    #[inline(always)]
    fn get(&mut self, order: Order) -> Option<FrameId> {
        self.frames.get(self.cache, order).ok()
    }

    #[inline(always)]
    fn put(&mut self, frame: FrameId, order: Order) {
        self.refused |= self.frames.put(self.cache, frame, order).is_err();
    }

    fn drain(&mut self) {
        self.frames.drain(self.cache);
    }
}

/// The same, asked for memory where a request says.
struct Away<'a> {
    near: Near<'a>,
    request: Request,
}

impl FrameSource for Away<'_> {
    #[inline(always)]
    fn get(&mut self, order: Order) -> Option<FrameId> {
        self.near.frames.get_from(self.near.cache, order, self.request).ok()
    }

    #[inline(always)]
    fn put(&mut self, frame: FrameId, order: Order) {
        self.near.put(frame, order);
    }
}

/// Runs `f` with this core's way to the allocator.
///
/// # Panics
/// If the allocator refuses a block that it had handed out.
#[inline(always)]
fn near<R>(irq: &IrqOff, f: impl FnOnce(&mut Near<'_>) -> R) -> R {
    memory::with(irq, |frames, cache| {
        let mut source = Near { frames, cache, refused: false };
        let result = f(&mut source);
        assert!(!source.refused, "the allocator refused a block that it had handed out");
        result
    })
}

/// As [`near`], for memory where the request says.
#[inline(always)]
fn away<R>(irq: &IrqOff, request: Request, f: impl FnOnce(&mut Away<'_>) -> R) -> R {
    memory::with(irq, |frames, cache| {
        let mut source = Away { near: Near { frames, cache, refused: false }, request };
        let result = f(&mut source);
        assert!(!source.near.refused, "the allocator refused a block that it had handed out");
        result
    })
}

/// One window of blocks of one order.
struct Blocks {
    order: Order,
    batch: usize,
    side: Side,
    /// Where the memory is to be, if not near.
    request: Option<Request>,
}

/// Does to the blocks what `side` says; whether memory sufficed.
#[inline(always)]
fn act<S: FrameSource>(source: &mut S, side: Side, order: Order, blocks: &mut [FrameId]) -> bool {
    match side {
        Side::Alloc => bench::get_all(source, order, blocks) == blocks.len(),
        Side::Free => {
            bench::put_all(source, order, blocks);
            true
        }
        Side::Pair => bench::pairs(source, order, blocks.len()),
    }
}

impl Blocks {
    /// [`act`] with the order as a constant, as it is wherever the kernel allocates.
    #[inline(always)]
    fn act(&self, irq: &IrqOff, side: Side, blocks: &mut [FrameId]) -> bool {
        match (self.request, self.order) {
            (Some(request), order) => away(irq, request, |source| act(source, side, order, blocks)),
            (None, Order::FRAME) => near(irq, |source| act(source, side, Order::FRAME, blocks)),
            (None, ORDER_3) => near(irq, |source| act(source, side, ORDER_3, blocks)),
            (None, Order::HUGE) => near(irq, |source| act(source, side, Order::HUGE, blocks)),
            (None, order) => near(irq, |source| act(source, side, order, blocks)),
        }
    }
}

const ENOUGH: &str = "memory sufficed for these blocks before";

impl Body for Blocks {
    type State = [FrameId; MOST];

    fn state(&self, held: &Held<'_, 0>) -> Option<Self::State> {
        let mut blocks = [FrameId::default(); MOST];
        let fits = self.act(held, Side::Alloc, &mut blocks[..self.batch]);
        // Of a window that did not fit, the first blocks were handed out: `get_all` has left the others as they were.
        let got = blocks.iter().take_while(|&&block| block != FrameId::default()).count();
        self.act(held, Side::Free, &mut blocks[..got]);
        fits.then_some(blocks)
    }

    fn before(&self, blocks: &mut Self::State, held: &mut Held<'_, 0>) {
        if self.side == Side::Free {
            assert!(self.act(held, Side::Alloc, &mut blocks[..self.batch]), "{ENOUGH}");
        }
    }

    #[inline(always)]
    fn timed(&self, blocks: &mut Self::State, held: &mut Held<'_, 0>, _batch: u32) {
        assert!(self.act(held, self.side, &mut blocks[..self.batch]), "{ENOUGH}");
    }

    fn after(&self, blocks: &mut Self::State, held: &mut Held<'_, 0>) {
        if self.side == Side::Alloc {
            self.act(held, Side::Free, &mut blocks[..self.batch]);
        }
    }

    fn close(&self, _blocks: Self::State, held: &mut Held<'_, 0>) {
        near(held, |source| source.drain());
    }
}

/// A core whose own node has a free block of this order, the boot core if there is none: a node of a small machine may lack a whole GiB.
fn owner(order: Order) -> CoreId {
    let topology = crate::machine::topology();
    let near = topology.nodes_by_distance(topology.node_of(place::here()));
    let has = |node: &NodeId| {
        memory::Block::on(order, Request::policy(Policy::Bind(NodeSet::one(*node)))).is_some()
    };
    let on = |node: NodeId| {
        if node == topology.node_of(place::here()) { Some(place::here()) } else { place::core_of(node) }
    };
    near.filter(|&node| on(node).is_some()).find(has).and_then(on).unwrap_or(place::here())
}

fn single(lab: &mut Lab, case: &Case, meter: &mut Meter<'_>, side: Side) -> Result<(), Trouble> {
    let order = case.params.num("order").and_then(|n| u8::try_from(n).ok()).and_then(Order::new);
    let order = order.ok_or(Trouble::Failed("no such order"))?;
    let cores = case.params.num("cores").unwrap_or(1) as usize;
    let request = match case.params.word("mem") {
        Some("remote") => {
            let node = place::remote_node().ok_or(Trouble::Skipped("no other node has memory"))?;
            Some(Request::policy(Policy::Bind(NodeSet::one(node))))
        }
        _ => None,
    };
    let body = Blocks { order, batch: meter.batch() as usize, side, request };
    // All windows are open at once, and each core's cache holds a few blocks besides.
    let needed = cores * (meter.batch() as usize + CACHED);
    if order == Order::HUGE && memory::frames().free_blocks(order) < needed {
        return Err(Trouble::Skipped("the windows of all cores together need more memory"));
    }
    let set = match cores {
        1 if case.placement.class == Class::SelfCore => CoreSet::one(owner(order)),
        _ => place::first(cores),
    };
    crew::measure(lab, &set, meter, &body)
}

/// A long random mix, and what is left of the large blocks.
pub(super) const CHURN: Bench<Lab> = Bench {
    id: "frame.churn",
    version: 1,
    doc: "replacing a random block of a half-full node by one of its order, the walk's bookkeeping included",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 16,
    cases: |_, visit| visit(Case::new(place::alone())),
    run: churn,
};

/// Frames that the walk must at least hold for its mix to be one: 16 MiB.
const CHURN_LEAST: usize = 4096;
/// Replacements after which the free memory is looked at, timed or not.
const CHURN_STEPS: u64 = 1_000_000;

fn churn(lab: &mut Lab, _: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let node = crate::machine::topology().node_of(place::here());
    let request = Request::policy(Policy::LocalOnly);
    let half = memory::frames().node_stats(node).free / 2;
    if half < CHURN_LEAST {
        return Err(Trouble::Skipped("the boot core's node has hardly any memory"));
    }
    // The mix averages twelve frames a block, so this many entries are plenty.
    let count = half / 4;
    let room = Order::for_bytes(count * size_of::<LiveBlock>()).and_then(memory::Block::new);
    let mut room = room.ok_or(Trouble::Skipped("no memory to keep track of the live blocks"))?;
    let mut walk = Walk::new(live(&mut room, count));
    let mut prng = Prng::new(lab.seed);
    IrqOff::with(|irq| {
        away(irq, request, |source| walk.fill(source, half, &mut prng));
        let batch = meter.batch() as usize;
        let mut steps = 0;
        let mut replace = |count: usize| {
            steps += count as u64;
            away(irq, request, |source| walk.replace(source, count, &mut prng));
        };
        meter.windows(&mut (), |()| {}, |()| replace(batch), |()| {});
        while steps < CHURN_STEPS {
            steps += 1000;
            away(irq, request, |source| walk.replace(source, 1000, &mut prng));
        }
        near(irq, |source| source.drain());
        let stats = memory::frames().node_stats(node);
        meter.metric("replacements", steps, Unit::Count);
        meter.metric("whole_chunks", stats.whole_chunks as u64, Unit::Count);
        meter.metric("whole_chunks_ideal", stats.ideal_chunks() as u64, Unit::Count);
        let share = stats.whole_chunks as u64 * 1_000_000 / (stats.ideal_chunks() as u64).max(1);
        meter.metric("whole_chunks_share", share, Unit::Millionths);
        let refused = walk.refused;
        away(irq, request, |source| walk.clear(source));
        near(irq, |source| source.drain());
        match refused {
            0 => Ok(()),
            _ => Err(Trouble::Failed("a replacement found no block of the order that was just given back")),
        }
    })
}

/// The room as a list of blocks.
fn live(room: &mut memory::Block, count: usize) -> &mut [LiveBlock] {
    let at = room.start().cast::<LiveBlock>();
    for i in 0..count {
        // SAFETY: the caller sized the room for `count` blocks.
        let slot = unsafe { at.add(i) };
        // SAFETY: as above; the room is exclusively borrowed.
        unsafe { slot.write(LiveBlock { frame: FrameId::default(), order: Order::FRAME }) };
    }
    // SAFETY: `count` initialised blocks, borrowed as long as the room.
    unsafe { core::slice::from_raw_parts_mut(at, count) }
}
