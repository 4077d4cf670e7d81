//! Blocks of every order on every core, given back on any, and what is refused.

use mm::frames::Request;
use mm::{FrameError, FrameId, Order};
use percpu::CoreId;
use percpu::sync::atomic::{AtomicU64, Ordering};
use x86_64::PhysAddr;

use super::bed::{self, Blame, Gate, Scratch, get, order, put};
use super::{Bed, Result, ensure, failed};
use crate::{cores, layout, machine, memory, start};

/// The orders of the single-core tests: up to 2 MiB, in each of which memory is handled in its own way.
pub(super) const ORDERS: u8 = 10;

/// The first word of a frame, through the direct map.
pub(super) fn word(frame: FrameId) -> &'static AtomicU64 {
    let at = layout::direct(PhysAddr::new(frame.address())).as_ptr::<AtomicU64>();
    // SAFETY: the tests ask this of frames that the allocator gave them: mapped memory that holds nobody's values. Atomic, so that
    // even a frame that was given out twice is not a data race.
    unsafe { &*at }
}

/// The frames of a block.
pub(super) fn frames_of(first: FrameId, order: Order) -> impl Iterator<Item = FrameId> {
    (first.number()..first.number() + order.frames()).map(FrameId::new)
}

/// What a core writes into the frames of its blocks.
fn mark(core: CoreId, order: u8) -> u64 {
    0x5eed << 32 | u64::from(core.raw()) << 8 | u64::from(order)
}

/// Every core takes a block of every order at the same time: aligned, near, its own; and gives them back.
///
/// Planted: `Word::take_block` does not clear the blocks of one order that it takes; every core's cache has node 0 as home.
pub(super) fn each_core(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let (taken, checked) = (Gate::new(), Gate::new());
    let blame = Blame::new();
    bed.crew.run(&all, |held| {
        let core = held.core();
        let mut blocks = [None; ORDERS as usize];
        for (number, block) in (0..ORDERS).zip(&mut blocks) {
            *block = get(order(number), Request::LOCAL).ok();
            blame.note(judge(core, number, *block));
        }
        blame.note(meet(&taken, all.len()));
        for (number, block) in (0..ORDERS).zip(&blocks) {
            blame.note(block.map_or(Ok(()), |block| still_own(core, number, block)));
        }
        blame.note(meet(&checked, all.len()));
        for (number, block) in (0..ORDERS).zip(&blocks) {
            blame.note(block.map_or(Ok(()), |block| give_back(block, number)));
        }
    });
    blame.verdict()
}

fn meet(gate: &Gate, count: usize) -> Result {
    ensure!(gate.pass(count), "the cores did not meet");
    Ok(())
}

fn judge(core: CoreId, number: u8, block: Option<FrameId>) -> Result {
    let Some(block) = block else {
        return Err(failed(format_args!("{core} gets no block of order {number}")));
    };
    ensure!(block.is_aligned(order(number)), "{core} got {block:?} for order {number}: not aligned");
    let topology = machine::topology();
    let home = topology.node_of(core);
    let populated = topology.nodes().filter(|&node| memory::frames().node_stats(node).frames > 0);
    let (node, best) = (bed::node_at(block.address()), bed::nearest(home, populated));
    ensure!(
        Some(topology.distance(home, node)) == best,
        "{core} on {home} got {block:?} on {node}, order {number}"
    );
    for frame in frames_of(block, order(number)) {
        // ORDER: Relaxed; `meet` publishes it.
        word(frame).store(mark(core, number), Ordering::Relaxed);
    }
    Ok(())
}

fn still_own(core: CoreId, number: u8, block: FrameId) -> Result {
    for frame in frames_of(block, order(number)) {
        // ORDER: Relaxed; after `meet`.
        let found = word(frame).load(Ordering::Relaxed);
        ensure!(
            found == mark(core, number),
            "{frame:?} of {core}, order {number}, holds {found:#x}: given out twice"
        );
    }
    Ok(())
}

pub(super) fn give_back(block: FrameId, number: u8) -> Result {
    let refused = put(block, order(number));
    ensure!(refused.is_ok(), "giving back {block:?} of order {number}: {refused:?}");
    Ok(())
}

/// Blocks of a core in the test below: one of each order, then single frames.
const BATCH: usize = 64;
const ROUNDS: usize = 3;

fn order_of(index: usize) -> u8 {
    u8::try_from(index).ok().filter(|&number| number < ORDERS).unwrap_or(0)
}

/// What one core takes another gives back; afterwards everything is as before, and whole chunks are whole again.
///
/// Planted: `Span::put_shared` does not promote a chunk whose last frame came back; loses every 64th frame.
pub(super) fn cross_core(bed: &mut Bed) -> Result {
    let count = machine::topology().core_count();
    let before = memory::frames().stats();
    let blocks = Scratch::new(count * BATCH, |_| AtomicU64::new(0))?;
    let held = memory::frames().stats();
    let all = cores::all_online();
    let blame = Blame::new();
    for round in 0..ROUNDS {
        bed.crew.run(&all, |held| {
            let own = held.core().index() * BATCH..(held.core().index() + 1) * BATCH;
            for (index, slot) in blocks[own].iter().enumerate() {
                let block = get(order(order_of(index)), Request::LOCAL);
                // ORDER: Relaxed, here and below: the completion of one call comes before the start of the next.
                slot.store(block.map_or(0, |block| block.number() as u64), Ordering::Relaxed);
            }
        });
        bed.crew.run(&all, |held| {
            let other = (held.core().index() + 1 + round) % count;
            for (index, slot) in blocks[other * BATCH..(other + 1) * BATCH].iter().enumerate() {
                // ORDER: Relaxed; see above.
                let block = FrameId::new(slot.load(Ordering::Relaxed) as usize);
                blame.note(if block.number() == 0 {
                    Err(failed(format_args!("no block of order {}", order_of(index))))
                } else {
                    give_back(block, order_of(index))
                });
            }
        });
    }
    blame.verdict()?;
    memory::drain_all(&mut bed.crew);
    let after = memory::frames().stats();
    ensure!(after.free == held.free, "{} frames free before, {} after", held.free, after.free);
    drop(blocks);
    memory::drain_all(&mut bed.crew);
    let after = memory::frames().stats();
    ensure!(after == before, "before {before:?}, after {after:?}");
    Ok(())
}

/// A wrong free is refused with the right reason, on the same core and on another, and changes nothing.
///
/// Planted: `Chunk::give` accepts whatever it is given; `Span::hold` takes every chunk for allocated.
pub(super) fn errors(bed: &mut Bed) -> Result {
    let cores = machine::topology().core_count();
    for away in [0, cores - 1] {
        let core = CoreId::from_index(away).expect("one of the machine's cores");
        for number in 0..ORDERS {
            wrong_frees(core, number)?;
        }
        foreign(core)?;
    }
    memory::drain_all(&mut bed.crew);
    Ok(())
}

/// `put` on another core.
fn put_on(core: CoreId, frame: FrameId, number: u8) -> core::result::Result<(), FrameError> {
    let outcome = percpu::Lock::<100, _>::new(Ok(()));
    cores::call(core, |held| {
        let done = put(frame, order(number));
        outcome.with(held, |slot, _| *slot = done);
    });
    let mut outcome = outcome;
    *outcome.get_mut()
}

/// A wrong free on a core: the right error, and not a frame more or less.
fn refuse(core: CoreId, frame: FrameId, number: u8, expected: FrameError) -> Result {
    let before = memory::frames().stats();
    let outcome = put_on(core, frame, number);
    let after = memory::frames().stats();
    ensure!(
        outcome == Err(expected),
        "{core} gives {frame:?} back with order {number}: {outcome:?}, expected {expected:?}"
    );
    ensure!(before == after, "{frame:?}, order {number}, refused, but {before:?} is now {after:?}");
    Ok(())
}

fn wrong_frees(core: CoreId, number: u8) -> Result {
    let Ok(block) = get(order(number), Request::LOCAL) else {
        return Err(failed(format_args!("no block of order {number}")));
    };
    // A neighbour that stays allocated, so that the chunk stays split and the errors below stay what they are.
    let neighbour = get(Order::FRAME, Request::LOCAL);
    let judged = while_allocated(core, block, number).and_then(|()| {
        give_back(block, number)?;
        refuse(core, block, number, FrameError::DoubleFree)?;
        refuse(machine::boot_core(), block, number, FrameError::DoubleFree)
    });
    let neighbour = neighbour.map_or(Ok(()), |frame| give_back(frame, 0));
    judged.and(neighbour)
}

fn while_allocated(core: CoreId, block: FrameId, number: u8) -> Result {
    let second = FrameId::new(block.number() + 1);
    if number > 0 {
        refuse(core, second, 0, FrameError::Interior)?;
        refuse(core, second, number, FrameError::Interior)?;
        refuse(core, block, number - 1, FrameError::WrongOrder)?;
    }
    if block.is_aligned(order(number + 1)) {
        refuse(core, block, number + 1, FrameError::WrongOrder)?;
    }
    Ok(())
}

/// The kernel's image, and what lies beyond all memory.
fn foreign(core: CoreId) -> Result {
    let image = FrameId::containing(start::handover().image.as_u64());
    let last = start::handover().ranges.all().iter().map(|(range, _)| range.end).max();
    refuse(core, image, 0, FrameError::Foreign)?;
    for beyond in [last.unwrap_or_default(), FrameId::new(1 << 40)] {
        refuse(core, beyond, 0, FrameError::Foreign)?;
    }
    Ok(())
}
