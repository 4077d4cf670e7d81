//! Blocks of 2 MiB made into single frames and back.

use mm::frames::Request;
use mm::{FrameError, FrameId, Order};
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CoreId, IrqOff};

use super::bed::{self, Blame, Gate, Scratch, put};
use super::frames::{frames_of, word};
use super::{Bed, Result, ensure, failed};
use crate::{cores, machine, memory};

const ROUNDS: u64 = 4;

fn split(frame: FrameId) -> core::result::Result<(), FrameError> {
    IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.split(cache, frame)))
}

fn merge(frame: FrameId) -> core::result::Result<(), FrameError> {
    IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.merge(cache, frame)))
}

fn mark(core: CoreId, round: u64) -> u64 {
    0x5711_7000 | round << 16 | u64::from(core.raw())
}

/// Every core splits a block at the same time, merges it and splits it again; then its neighbour gives the frames back one by one, and
/// the chunks are whole again.
///
/// Planted: `Span::split_huge` leaves the chunk `Held`; `Chunk::allot` leaves the later frames' `cont` bits set; `Frames::merge` takes the
/// chunk without its check.
pub(super) fn split_merge(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let blocks = Scratch::new(machine::topology().core_count(), |_| AtomicU64::new(0))?;
    memory::drain_all(&mut bed.crew);
    let before = memory::frames().stats();
    for round in 0..ROUNDS {
        let blame = Blame::new();
        let gate = Gate::new();
        bed.crew.run(&all, |held| {
            let core = held.core();
            let block = bed::get(Order::HUGE, Request::LOCAL);
            // ORDER: Relaxed; the gate, and the end of the call, publish it.
            blocks[core.index()].store(block.map_or(0, |block| block.number() as u64), Ordering::Relaxed);
            blame.note(block.map_or(Ok(()), |block| convert(core, round, block)));
            blame.note(if gate.pass(all.len()) {
                block.map_or(Ok(()), |block| still_own(core, round, block))
            } else {
                Err(failed(format_args!("the cores did not meet")))
            });
        });
        let count = blocks.len();
        bed.crew.run(&all, |held| {
            // ORDER: Relaxed; the start of this call comes after the end of the one above.
            let block = blocks[(held.core().index() + 1) % count].load(Ordering::Relaxed) as usize;
            if block != 0 {
                blame.note(free_singly(FrameId::new(block)));
            }
        });
        blame.verdict()?;
        // ORDER: Relaxed; as above.
        let served = blocks.iter().filter(|block| block.load(Ordering::Relaxed) != 0).count();
        ensure!(served != 0, "no core gets a block of {:?}", Order::HUGE);
        memory::drain_all(&mut bed.crew);
        let after = memory::frames().stats();
        ensure!(after == before, "round {round}: before {before:?}, after {after:?}");
    }
    Ok(())
}

fn convert(core: CoreId, round: u64, block: FrameId) -> Result {
    let inside = FrameId::new(block.number() + 1);
    expect("split a later frame", split(inside), Err(FrameError::Interior))?;
    expect("merge a block", merge(block), Err(FrameError::WrongOrder))?;
    expect("split", split(block), Ok(()))?;
    expect("split again", split(block), Err(FrameError::WrongOrder))?;
    expect("free the block", put(block, Order::HUGE), Err(FrameError::WrongOrder))?;
    expect("merge", merge(block), Ok(()))?;
    expect("free a frame of it", put(inside, Order::FRAME), Err(FrameError::Interior))?;
    expect("split the merged", split(block), Ok(()))?;
    for frame in frames_of(block, Order::HUGE) {
        // ORDER: Relaxed; the gate publishes it.
        word(frame).store(mark(core, round), Ordering::Relaxed);
    }
    Ok(())
}

fn expect(
    what: &str,
    found: core::result::Result<(), FrameError>,
    expected: core::result::Result<(), FrameError>,
) -> Result {
    ensure!(found == expected, "{what}: {found:?}, expected {expected:?}");
    Ok(())
}

fn still_own(core: CoreId, round: u64, block: FrameId) -> Result {
    for frame in frames_of(block, Order::HUGE) {
        // ORDER: Relaxed; after the gate.
        let found = word(frame).load(Ordering::Relaxed);
        ensure!(found == mark(core, round), "{frame:?} of {core} holds {found:#x}: in two hands");
    }
    Ok(())
}

/// One frame goes back, the rest is no block; then all others go back too.
fn free_singly(block: FrameId) -> Result {
    let lost = FrameId::new(block.number() + 100);
    expect("free a frame", put(lost, Order::FRAME), Ok(()))?;
    expect("merge all but one", merge(block), Err(FrameError::DoubleFree))?;
    for frame in frames_of(block, Order::HUGE).filter(|&frame| frame != lost) {
        expect("free a frame", put(frame, Order::FRAME), Ok(()))?;
    }
    Ok(())
}
