//! Policies and zones: a block lies where it was asked for.

use mm::frames::{Policy, Request, Stats};
use mm::{FrameError, FrameId, Order, Zone};
use percpu::{CoreId, NodeId, NodeSet};

use super::bed::{self, Blame, get, order};
use super::frames::give_back;
use super::pressure::Hoard;
use super::{Bed, Result, Verdict, ensure, failed};
use crate::{cores, machine, memory};

/// One order for each way in which memory is handled: single frames, blocks of a chunk, chunks.
const ORDERS: [u8; 3] = [0, 4, 9];
/// Blocks that an interleaved request takes from each node.
const TURNS: usize = 3;

/// The nodes whose memory the allocator manages.
fn populated() -> NodeSet {
    machine::topology().nodes().filter(|&node| memory::frames().node_stats(node).frames > 0).collect()
}

/// A core of every node that has cores, which is where the policies are relative to.
fn first_cores() -> impl Iterator<Item = CoreId> {
    let topology = machine::topology();
    topology.nodes().filter_map(|node| topology.node_cores(node).lowest())
}

/// Every policy, from a core of every node, for every kind of block.
///
/// Planted: `Frames::targets` lets `Bind` go anywhere; never turns for `Interleave`; starts from home for `Prefer`.
pub(super) fn policies(_: &mut Bed) -> Result {
    for core in first_cores() {
        let blame = Blame::new();
        cores::call(core, |_| blame.note(ORDERS.iter().try_for_each(|&number| from(core, number))));
        blame.verdict()?;
    }
    Ok(())
}

/// Takes a block, gives it back, and says on which node it was.
fn probe(number: u8, policy: Policy) -> core::result::Result<NodeId, FrameError> {
    let block = get(order(number), Request::policy(policy))?;
    let node = bed::node_at(block.address());
    bed::put(block, order(number)).map(|()| node)
}

fn from(core: CoreId, number: u8) -> Result {
    let (topology, all) = (machine::topology(), populated());
    let home = topology.node_of(core);
    let expect = |policy: Policy, right: &dyn Fn(NodeId) -> bool| -> Result {
        let found = probe(number, policy);
        ensure!(found.is_ok_and(right), "{core} on {home}, order {number}, {policy:?}: {found:?}");
        Ok(())
    };
    let as_near_as = |from: NodeId, set: NodeSet| {
        let best = bed::nearest(from, set.iter());
        move |node: NodeId| set.contains(node) && Some(topology.distance(from, node)) == best
    };
    expect(Policy::Local, &as_near_as(home, all))?;
    for node in all.iter() {
        expect(Policy::Prefer(node), &|found| found == node)?;
        expect(Policy::Bind(NodeSet::one(node)), &|found| found == node)?;
        let mut rest = all;
        rest.remove(node);
        if !rest.is_empty() {
            expect(Policy::Bind(rest), &as_near_as(home, rest))?;
        }
    }
    if all.contains(home) {
        expect(Policy::LocalOnly, &|found| found == home)?;
    } else {
        refused(number, Policy::LocalOnly)?;
        expect(Policy::Prefer(home), &as_near_as(home, all))?;
    }
    refused(number, Policy::Bind(NodeSet::EMPTY))?;
    refused(number, Policy::Interleave(NodeSet::EMPTY))?;
    interleave(number, all)
}

fn refused(number: u8, policy: Policy) -> Result {
    let found = probe(number, policy);
    ensure!(found == Err(FrameError::NoNode), "order {number}, {policy:?}: {found:?}, expected a refusal");
    Ok(())
}

/// One request after another goes to one node after another.
fn interleave(number: u8, all: NodeSet) -> Result {
    let mut counts = [0_usize; percpu::MAX_NODES];
    for _ in 0..TURNS * all.len() {
        match probe(number, Policy::Interleave(all)) {
            Ok(node) => counts[node.index()] += 1,
            Err(error) => return Err(failed(format_args!("interleaved, order {number}: {error:?}"))),
        }
    }
    for node in all.iter() {
        let count = counts[node.index()];
        ensure!(count == TURNS, "interleaved, order {number}: {count} blocks from {node}, expected {TURNS}");
    }
    Ok(())
}

/// When a node is full, the next nearest serves who prefers it, and who insists on it is told that there is no more.
///
/// Planted: `NodeTable::by_distance` in the order of numbers (needs three nodes at distances that differ); `Bind` goes anywhere.
pub(super) fn fallback(_: &mut Bed) -> Result {
    let all = populated();
    if all.len() < 2 {
        return Err(Verdict::Skipped("needs memory on two nodes"));
    }
    for full in all.iter() {
        let mut hoard = Hoard::new();
        hoard.fill(Order::MAX, Request::policy(Policy::Bind(NodeSet::one(full))));
        let judged = when_full(full, all);
        hoard.release()?;
        judged?;
    }
    Ok(())
}

fn when_full(full: NodeId, all: NodeSet) -> Result {
    let topology = machine::topology();
    let mut rest = all;
    rest.remove(full);
    let best = bed::nearest(full, rest.iter());
    for number in ORDERS {
        let found = probe(number, Policy::Prefer(full));
        let right = found.is_ok_and(|node| Some(topology.distance(full, node)) == best && node != full);
        ensure!(right, "{full} is full, order {number} near it: {found:?}");
        let found = probe(number, Policy::Bind(NodeSet::one(full)));
        ensure!(found == Err(FrameError::OutOfMemory), "{full} is full, order {number} on it: {found:?}");
    }
    Ok(())
}

/// A zone's figures on all nodes.
fn zone_stats(zone: Zone) -> (usize, usize) {
    let add = |(frames, free): (usize, usize), stats: Stats| (frames + stats.frames, free + stats.free);
    machine::topology().nodes().map(|node| memory::frames().zone_stats(node, zone)).fold((0, 0), add)
}

/// The first address above the zone for old devices.
const DMA_END: u64 = 16 << 20;

/// A block comes from the zone that was asked for; normal requests leave the one for old devices alone.
///
/// Planted: `Frames::zone_spans` lets a normal request into the DMA zone; serves `Zone::Huge` from the normal one.
pub(super) fn zones(_: &mut Bed) -> Result {
    for zone in Zone::ALL {
        let (frames, _) = zone_stats(zone);
        for number in ORDERS {
            if frames >= 4 * order(number).frames() {
                from_zone(zone, number)?;
            }
        }
    }
    Ok(())
}

fn from_zone(zone: Zone, number: u8) -> Result {
    let before = Zone::ALL.map(|zone| zone_stats(zone).1);
    let block = match get(order(number), Request::zone(zone)) {
        Ok(block) => block,
        // What there is of a small zone can be in pieces.
        Err(FrameError::OutOfMemory) if zone == Zone::Dma => return Ok(()),
        Err(error) => return Err(failed(format_args!("{zone:?}, order {number}: {error:?}"))),
    };
    let after = Zone::ALL.map(|zone| zone_stats(zone).1);
    let judged = taken_from(zone, number, block, (before, after));
    give_back(block, number)?;
    judged
}

fn taken_from(zone: Zone, number: u8, block: FrameId, (before, after): ([usize; 3], [usize; 3])) -> Result {
    let low = block.address() < DMA_END;
    ensure!(low == (zone == Zone::Dma), "{zone:?}, order {number}: {block:?}");
    let frames = order(number).frames();
    for ((other, before), after) in Zone::ALL.into_iter().zip(before).zip(after) {
        // A normal request may be served from the upper part of a node.
        let either = zone == Zone::Normal && other == Zone::Huge;
        let taken = before - after;
        let right =
            if other == zone { taken == frames || zone == Zone::Normal } else { taken == 0 || either };
        ensure!(right, "{zone:?}, order {number}: {taken} frames less in {other:?}");
    }
    let total = before.iter().sum::<usize>() - after.iter().sum::<usize>();
    ensure!(total == frames, "{zone:?}, order {number}: {total} frames less, expected {frames}");
    Ok(())
}
