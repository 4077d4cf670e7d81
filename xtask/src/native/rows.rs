//! The table of the native lane.

use super::contest::{self, Amount, Contestant, Match, Samples};
use super::peers::{self, Arena, GIB, Peer, Visit};
use super::work::{self, Setup, Work};
use super::{HostClock, Native, capabilities, slabs};
use mm::bench::{self, Block, FrameSource, Walk};
use mm::{FrameId, Order};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Site, Unit, Value};
use perf::clock::Clock;
use perf::prng::Prng;
use perf::runner::{Meter, Trouble};
use perf::stats::median;
use std::time::Duration;

pub(super) const NATIVE: Lanes = Lanes::NONE.with(abi::boot::Lane::Native);
pub(super) const SITE: Site = Site { core: 0, node: 0 };
/// Frames of the arenas of rows that count: 4 GiB.
const FRAMES: usize = 4 * GIB;
const NO_BLOCK: Block = Block { frame: FrameId::new(0), order: Order::FRAME };
/// Windows of a contest can be long; more warm-up than this would only cost time.
const MAX_WARM_UP: u32 = 5;

pub(super) type NativeMeter<'a> = Meter<'a, HostClock>;

/// A timed row.
pub(super) const fn timed(
    id: &'static str,
    doc: &'static str,
    cases: fn(&Native, &mut dyn FnMut(Case)),
    run: perf::bench::Run<Native>,
) -> Bench<Native> {
    Bench {
        id,
        version: 1,
        doc,
        quantity: Quantity::Time,
        direction: Direction::Smaller,
        scope: Scope::Operation,
        lanes: NATIVE,
        classes: &[Class::SelfCore, Class::Scaling],
        batch: 1,
        cases,
        run,
    }
}

/// A row that measures no time: what is left of memory after a long mix, and what the allocator itself takes.
const fn counted(
    id: &'static str,
    doc: &'static str,
    (quantity, direction): (Quantity, Direction),
    run: perf::bench::Run<Native>,
) -> Bench<Native> {
    Bench {
        id,
        version: 1,
        doc,
        quantity,
        direction,
        scope: Scope::Operation,
        lanes: NATIVE,
        classes: &[Class::SelfCore],
        batch: 1,
        cases: with_peers_alone,
        run,
    }
}

/// Every row of the native lane.
pub const TABLE: &[Bench<Native>] = &[
    Bench {
        id: "clock.overhead",
        version: 1,
        doc: "an empty timed window of the host's clock",
        quantity: Quantity::Time,
        direction: Direction::Neutral,
        scope: Scope::Operation,
        lanes: NATIVE,
        classes: &[Class::SelfCore],
        batch: 1,
        cases: |_, visit| visit(Case::new(Placement::alone(SITE))),
        run: clock_overhead,
    },
    timed(
        "frame.pair",
        "one block taken and given back, again and again",
        |native, visit| {
            for order in [0, 3, 9] {
                contests(native, Work::Pair, order, 4, visit);
            }
        },
        |native, case, meter| contest(native, case, meter, Work::Pair),
    ),
    timed(
        "frame.burst",
        "64 frames taken, given back last to first; per frame",
        |native, visit| {
            contests(native, Work::Burst, 0, 4, visit);
        },
        |native, case, meter| contest(native, case, meter, Work::Burst),
    ),
    timed(
        "frame.bulk",
        "half of memory taken frame by frame, given back in order; per frame",
        |native, visit| {
            contests(native, Work::Bulk, 0, 4, visit);
        },
        |native, case, meter| contest(native, case, meter, Work::Bulk),
    ),
    timed(
        "frame.put-random",
        "one's own frames given back in random order, into chunks that no core has reserved",
        |native, visit| {
            contests(native, Work::PutRandom, 0, 4, visit);
        },
        |native, case, meter| contest(native, case, meter, Work::PutRandom),
    ),
    timed(
        "frame.aged",
        "batches of 4096 (order 9: 256) from memory full of random holes; per block",
        |native, visit| {
            for gib in [1, 2, 4, 8] {
                contests(native, Work::Aged, 0, gib, visit);
            }
            contests(native, Work::Aged, 9, 4, visit);
        },
        |native, case, meter| contest(native, case, meter, Work::Aged),
    ),
    timed(
        "frame.mixed",
        "a random block of the mix replaced, memory half full",
        |native, visit| {
            contests(native, Work::Mixed, 0, 4, visit);
        },
        |native, case, meter| contest(native, case, meter, Work::Mixed),
    ),
    counted(
        "frame.whole-replace",
        "2 MiB blocks to be had after a random half was freed and 8 x the rest replaced frame by frame, of those possible",
        (Quantity::Share, Direction::Greater),
        |native, case, meter| census(native, case, meter, Replaced, false),
    ),
    counted(
        "frame.whole-walk",
        "2 MiB blocks to be had after a million mixed operations between 30 and 70 % full, of those possible",
        (Quantity::Share, Direction::Greater),
        |native, case, meter| census(native, case, meter, Walked, false),
    ),
    counted(
        "frame.refill",
        "blocks of order 9 to be had after a long mix was freed, of all",
        (Quantity::Share, Direction::Greater),
        |native, case, meter| census(native, case, meter, Walked, true),
    ),
    Bench {
        id: "frame.metadata",
        version: 1,
        doc: "bytes of metadata for 4 GiB",
        quantity: Quantity::Bytes,
        direction: Direction::Smaller,
        scope: Scope::Operation,
        lanes: NATIVE,
        classes: &[Class::SelfCore],
        batch: 1,
        cases: |_, visit| visit(Case::new(Placement::alone(SITE)).with("gib", Value::Num(4))),
        run: metadata,
    },
    slabs::PAIR,
    slabs::BURSTS,
    slabs::MIXED,
    slabs::CROSS,
    capabilities::LOOKUP,
];

/// One case for each peer and number of cores.
fn contests(native: &Native, work: Work, order: u8, gib: u64, visit: &mut dyn FnMut(Case)) {
    let needs_orders = order > 0 || work == Work::Mixed;
    for cores in 1..=2u16.min(native.cores()) {
        for peer in Peer::ALL.into_iter().filter(|peer| peer.has_orders() || !needs_orders) {
            let placement =
                if cores == 1 { Placement::alone(SITE) } else { Placement::scaling(u32::from(cores)) };
            let mut case = Case::new(placement);
            if work != Work::Mixed {
                case = case.with("order", Value::Num(u64::from(order)));
            }
            if work == Work::Aged {
                case = case.with("gib", Value::Num(gib));
            }
            case = case.with("cores", Value::Num(u64::from(cores)));
            if let Some(word) = peer.word() {
                case = case.with("peer", Value::Word(word));
            }
            let setup = setup(work, order, gib, cores);
            visit(case.batch(u32::try_from(setup.operations()).unwrap_or(u32::MAX)));
        }
    }
}

fn setup(work: Work, order: u8, gib: u64, threads: u16) -> Setup {
    let frames = usize::try_from(gib).unwrap_or(1) * GIB;
    Setup { work, order: Order::new(order).unwrap_or_default(), frames, threads, seed: 0 }
}

fn with_peers_alone(_: &Native, visit: &mut dyn FnMut(Case)) {
    for peer in Peer::ALL.into_iter().filter(|peer| peer.has_orders()) {
        let case = Case::new(Placement::alone(SITE));
        visit(match peer.word() {
            Some(word) => case.with("peer", Value::Word(word)),
            None => case,
        });
    }
}

fn peer(case: &Case) -> Result<Peer, Trouble> {
    Peer::of(case.params.word("peer")).ok_or(Trouble::Failed("the case names an unknown peer"))
}

fn clock_overhead(_: &mut Native, _: &Case, meter: &mut NativeMeter<'_>) -> Result<(), Trouble> {
    let clock = meter.clock();
    while meter.more() {
        let (start, stop) = (clock.start(), clock.stop());
        meter.window_with_overhead(start, stop);
    }
    Ok(())
}

/// Measures ours, or a peer beside ours: the samples are the named contestant's, the ratio is a metric.
fn contest(native: &mut Native, case: &Case, meter: &mut NativeMeter<'_>, work: Work) -> Result<(), Trouble> {
    let peer = peer(case)?;
    let number = |name| case.params.num(name);
    let order = number("order").and_then(|order| u8::try_from(order).ok()).unwrap_or(0);
    let cores = number("cores").and_then(|cores| u16::try_from(cores).ok()).unwrap_or(1);
    let setup = Setup { seed: native.seed(), ..setup(work, order, number("gib").unwrap_or(4), cores) };
    let both = [Peer::Ours, peer];
    let peers = if peer == Peer::Ours { &both[..1] } else { &both[..] };
    let contestants =
        peers.iter().map(|&peer| Box::new(work::Frames::new(peer, setup)) as Box<dyn Contestant>).collect();
    measure(native, meter, &Match { contestants, operations: setup.operations(), threads: cores })
}

/// Measures one contestant or two; the samples are the last one's, the ratio of the two is a metric.
pub(super) fn measure(native: &Native, meter: &mut NativeMeter<'_>, game: &Match) -> Result<(), Trouble> {
    let plan = meter.plan();
    let amount = Amount {
        windows: plan.samples,
        warm_up: plan.warm_up.min(MAX_WARM_UP),
        budget: Duration::from_nanos(plan.budget.map_or(u64::MAX, |ticks| ticks.count())),
        overhead: Duration::from_nanos(meter.calibration().min.count()),
    };
    let mut samples =
        contest::run(game, amount, native.cpus()).ok_or(Trouble::Failed("memory ran out inside a window"))?;
    let theirs = samples.pop().unwrap_or_default();
    if theirs.is_empty() {
        return Err(Trouble::Skipped("the time budget ended before the first sample"));
    }
    theirs.iter().for_each(|&value| meter.value(value));
    if let Some(mut ours) = samples.pop() {
        compare(meter, &mut ours, theirs);
    }
    Ok(())
}

/// Reports our median of the same windows and what part of the peer's it is.
fn compare(meter: &mut NativeMeter<'_>, ours: &mut Samples, mut theirs: Samples) {
    let (Some(ours), Some(theirs)) = (median(ours), median(&mut theirs)) else { return };
    meter.metric("nearfield.p50", ours, Unit::Picoseconds);
    let ratio = u128::from(ours) * 1_000_000 / u128::from(theirs.max(1));
    meter.metric("nearfield.ratio", u64::try_from(ratio).unwrap_or(u64::MAX), Unit::Millionths);
}

/// A long mix that ends with blocks in use.
trait Mix {
    fn run<S: FrameSource>(&self, source: &mut S, live: &mut Vec<Block>, prng: &mut Prng);
}

/// Memory filled with single frames, a random half given back, and each of the others replaced eight times.
struct Replaced;

impl Mix for Replaced {
    fn run<S: FrameSource>(&self, source: &mut S, live: &mut Vec<Block>, prng: &mut Prng) {
        let half = FRAMES / 2;
        live.resize(FRAMES, NO_BLOCK);
        let mut walk = Walk::new(live);
        while walk.frames() < FRAMES && walk.grow(source, Order::FRAME) {}
        while walk.frames() > half && walk.shrink(source, prng).is_some() {}
        walk.replace(source, 8 * half, prng);
        let left = walk.blocks().len();
        live.truncate(left);
    }
}

/// A million steps with mixed orders between 30 and 70 % full.
struct Walked;

impl Mix for Walked {
    fn run<S: FrameSource>(&self, source: &mut S, live: &mut Vec<Block>, prng: &mut Prng) {
        live.resize(FRAMES, NO_BLOCK);
        let mut walk = Walk::new(live);
        walk.fill(source, FRAMES / 2, prng);
        walk.drift(source, (FRAMES * 3 / 10, FRAMES * 7 / 10), 1_000_000, prng);
        let left = walk.blocks().len();
        live.truncate(left);
    }
}

/// Runs a mix, optionally frees it, and takes every block of order 9 that can be had. Gives that number and what is possible.
struct Census<M> {
    mix: M,
    free_all: bool,
    seed: u64,
}

impl<M: Mix> Visit<(usize, usize)> for Census<M> {
    fn visit<S: FrameSource>(self, source: &mut S) -> (usize, usize) {
        let (mut live, mut prng) = (Vec::new(), Prng::new(self.seed));
        self.mix.run(source, &mut live, &mut prng);
        if self.free_all {
            live.drain(..).for_each(|block| source.put(block.frame, block.order));
        }
        source.drain();
        let used: usize = live.iter().map(|block| block.order.frames()).sum();
        let mut huge = vec![FrameId::new(0); FRAMES / Order::HUGE.frames()];
        let had = bench::get_all(source, Order::HUGE, &mut huge);
        (had, (FRAMES - used) / Order::HUGE.frames())
    }
}

fn census<M: Mix>(
    native: &mut Native,
    case: &Case,
    meter: &mut NativeMeter<'_>,
    mix: M,
    free_all: bool,
) -> Result<(), Trouble> {
    let arena = Arena::new(peer(case)?, FRAMES);
    let (had, ideal) = arena.enter(0, Census { mix, free_all, seed: native.seed() });
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    meter.value(count(had * 1_000_000 / ideal.max(1)));
    meter.metric("blocks", count(had), Unit::Count);
    meter.metric("blocks.ideal", count(ideal), Unit::Count);
    Ok(())
}

fn metadata(_: &mut Native, _: &Case, meter: &mut NativeMeter<'_>) -> Result<(), Trouble> {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let bytes = peers::metadata_bytes(FRAMES);
    meter.value(count(bytes));
    meter.metric("share-of-memory", count(bytes * 1_000_000 / (FRAMES * 4096)), Unit::Millionths);
    Ok(())
}
