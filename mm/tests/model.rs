//! Random operations on the frame allocator and on a naive model of it must agree.
//!
//! The model is a map from allocated blocks to orders and a set of free frames. After each step: a block that was handed out was free,
//! aligned and where the request said; a refusal is justified by the model; a wrong free gets the error that the model
//! names. At the end everything is freed and the machine must be as new.
//!
//! Planted bugs that this catches: let `Word::take_block` forget to clear the taken bits, `Span::release` skip `publish`.
#![cfg(not(loom))]

use mm::frames::{Config, Plan, Policy, Request};
use mm::{CoreCache, FrameError, FrameId, Frames, Order, PhysRange, Zone};
use percpu::{CoreId, NodeId, NodeSet};
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::Config as ProptestConfig;
use proptest::{collection, proptest};
use std::collections::{BTreeMap, BTreeSet};

const DMA_END: usize = 4096;

#[derive(Clone, Debug)]
struct Machine {
    memory: Vec<(NodeId, PhysRange)>,
    reserved: Vec<PhysRange>,
    cores: usize,
}

fn range(start: usize, frames: usize) -> PhysRange {
    PhysRange::new(FrameId::new(start), FrameId::new(start + frames))
}

fn node(index: u16) -> NodeId {
    NodeId::new(index)
}

/// A machine with every difficulty: low memory, holes, reserved frames, a node that comes twice, an odd boundary between nodes.
fn odd_machine() -> Machine {
    Machine {
        memory: vec![
            (node(0), range(0, 159)),
            (node(0), range(256, 7000)),
            (node(1), range(7256, 5000)),
            (node(0), range(20_000, 3000)),
            (node(3), range(1_000_003, 4096)),
        ],
        reserved: vec![range(300, 77), range(8000, 1), range(9000, 1024), range(0, 1)],
        cores: 3,
    }
}

fn plain_machine() -> Machine {
    Machine {
        memory: vec![(node(0), range(1 << 20, 2 * CHUNKS * 512)), (node(1), range(2 << 20, CHUNKS * 512))],
        reserved: vec![],
        cores: 2,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Get { core: usize, order: u8, request: Request },
    Put { core: usize, pick: usize },
    PutWrong { core: usize, frame: usize, order: u8 },
    Twice { core: usize, other: usize, pick: usize },
    Split { core: usize, pick: usize },
    Merge { core: usize, pick: usize },
    Drain { core: usize },
}

fn nodes() -> impl Strategy<Value = NodeSet> {
    (1u64..16).prop_map(NodeSet::from_bits)
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        4 => Just(Policy::Local),
        1 => Just(Policy::LocalOnly),
        1 => (0u16..4).prop_map(|n| Policy::Prefer(node(n))),
        1 => nodes().prop_map(Policy::Bind),
        1 => nodes().prop_map(Policy::Interleave),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let zone = prop_oneof![8 => Just(Zone::Normal), 1 => Just(Zone::Dma), 1 => Just(Zone::Huge)];
    (zone, policy()).prop_map(|(zone, policy)| Request { zone, policy })
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![6 => Just(0u8), 6 => 1u8..9, 2 => 9u8..13, 1 => 13u8..16];
    prop_oneof![
        30 => (0usize..4, order, request()).prop_map(|(core, order, request)| Step::Get { core, order, request }),
        24 => (0usize..4, any::<usize>()).prop_map(|(core, pick)| Step::Put { core, pick }),
        2 => (0usize..4, 0usize..30_000, 0u8..11)
            .prop_map(|(core, frame, order)| Step::PutWrong { core, frame, order }),
        2 => (0usize..4, 0usize..4, any::<usize>()).prop_map(|(core, other, pick)| Step::Twice { core, other, pick }),
        1 => (0usize..4, any::<usize>()).prop_map(|(core, pick)| Step::Split { core, pick }),
        1 => (0usize..4, any::<usize>()).prop_map(|(core, pick)| Step::Merge { core, pick }),
        1 => (0usize..4).prop_map(|core| Step::Drain { core }),
    ]
}

struct Model {
    managed: BTreeMap<usize, NodeId>,
    free: BTreeSet<usize>,
    blocks: BTreeMap<usize, u8>,
}

impl Model {
    fn new(machine: &Machine) -> Self {
        let mut managed = BTreeMap::new();
        let mut owner: BTreeMap<usize, NodeId> = BTreeMap::new();
        for &(node, range) in &machine.memory {
            for frame in range.start.number()..range.end.number() {
                // A chunk shared by two nodes belongs to the lower one.
                if *owner.entry(frame / 512).or_insert(node) == node {
                    managed.insert(frame, node);
                }
            }
        }
        managed.retain(|&frame, _| !machine.reserved.iter().any(|range| range.contains(FrameId::new(frame))));
        Self { free: managed.keys().copied().collect(), managed, blocks: BTreeMap::new() }
    }

    fn take(&mut self, frame: FrameId, order: u8, request: &Request, home: NodeId) {
        let first = frame.number();
        assert!(first.is_multiple_of(1 << order), "{frame:?} is not aligned to order {order}");
        for frame in first..first + (1 << order) {
            assert!(self.free.remove(&frame), "F{frame:#x} was not free");
            let at = self.managed[&frame];
            let allowed = match request.policy {
                Policy::Local | Policy::Prefer(_) => true,
                Policy::LocalOnly => at == home,
                Policy::Bind(set) | Policy::Interleave(set) => set.contains(at),
            };
            assert!(allowed, "F{frame:#x} lies on {at:?}: {request:?}");
            assert_eq!(frame < DMA_END, request.zone == Zone::Dma, "F{frame:#x}: {request:?}");
        }
        self.blocks.insert(first, order);
    }

    fn has(&self, order: u8, request: &Request, home: NodeId) -> bool {
        let size = 1usize << order;
        let zone = |frame: usize| match request.zone {
            Zone::Dma => frame < DMA_END,
            Zone::Normal => frame >= DMA_END,
            // Where the upper zone starts is the allocator's business.
            Zone::Huge => false,
        };
        let node = |node: NodeId| match request.policy {
            Policy::Local | Policy::Prefer(_) => true,
            Policy::LocalOnly => node == home,
            Policy::Bind(set) | Policy::Interleave(set) => set.contains(node),
        };
        let starts = self.free.iter().copied().filter(|start| start.is_multiple_of(size));
        // Blocks do not cross the boundary between the zones, which only orders above 9 can tell.
        order <= 9
            && starts
                .filter(|&start| zone(start) && node(self.managed[&start]))
                .any(|start| self.free.range(start..start + size).count() == size)
    }

    /// Chunks of which every frame is allocated on its own.
    fn single_chunks(&self) -> Vec<usize> {
        let mut counts = BTreeMap::new();
        for &frame in self.blocks.iter().filter(|&(_, &order)| order == 0).map(|(frame, _)| frame) {
            *counts.entry(frame / 512).or_insert(0) += 1;
        }
        counts.into_iter().filter(|&(_, count)| count == 512).map(|(chunk, _)| chunk * 512).collect()
    }

    /// Why the chunk cannot be merged, by its first frame that is not a block of its own.
    fn judge_merge(&self, chunk: usize) -> FrameError {
        if self.blocks.get(&chunk).is_some_and(|&order| order >= 9) {
            return FrameError::WrongOrder;
        }
        let mut frame = chunk;
        loop {
            match self.blocks.get(&frame) {
                Some(0) => frame += 1,
                // The head of a block looks like a single frame; the one after it does not.
                Some(_) => return FrameError::WrongOrder,
                None if self.managed.contains_key(&frame) => return FrameError::DoubleFree,
                None => return FrameError::Foreign,
            }
        }
    }

    fn judge(&self, frame: usize, order: u8) -> FrameError {
        let size = 1usize << order;
        let inside = self.blocks.range(..=frame).next_back().filter(|&(&first, &o)| frame < first + (1 << o));
        if !frame.is_multiple_of(size) {
            return FrameError::Interior;
        }
        match inside {
            _ if !self.managed.contains_key(&frame) => FrameError::Foreign,
            None => FrameError::DoubleFree,
            Some((&first, _)) if first != frame => FrameError::Interior,
            Some(_) => FrameError::WrongOrder,
        }
    }
}

fn with_frames<R>(machine: &Machine, f: impl for<'m> FnOnce(&Frames<'m>, &mut [CoreCache<'m>]) -> R) -> R {
    let distance = |a: NodeId, b: NodeId| if a == b { 10 } else { 20 };
    let config = Config {
        memory: &machine.memory,
        reserved: &machine.reserved,
        taken: &[],
        distance: &distance,
        cores: machine.cores,
    };
    let plan = Plan::new(&config).expect("the machine is valid");
    let mut memory: BTreeMap<NodeId, Vec<u64>> =
        plan.nodes().iter().map(|node| (node, vec![0xdead_beef; plan.metadata_bytes(node) / 8])).collect();
    let mut slices: BTreeMap<NodeId, &mut [u64]> =
        memory.iter_mut().map(|(&node, words)| (node, words.as_mut_slice())).collect();
    let frames =
        Frames::new(&config, &plan, |node, _| slices.remove(&node).expect("asked once")).expect("enough");
    let homes = [node(0), node(1), node(3), node(2)];
    let mut caches: Vec<_> =
        (0u16..).zip(homes).map(|(core, home)| CoreCache::new(CoreId::new(core), home)).collect();
    f(&frames, &mut caches)
}

fn run(machine: &Machine, steps: &[Step]) {
    with_frames(machine, |frames, caches| {
        let mut model = Model::new(machine);
        assert_eq!(frames.stats().free, model.free.len());
        assert_eq!(frames.stats().frames, model.free.len());
        let fresh = frames.stats();
        for step in steps {
            act(frames, caches, &mut model, step);
            assert_eq!(frames.stats().free, model.free.len(), "{step:?}");
        }
        for (frame, order) in core::mem::take(&mut model.blocks) {
            let order = Order::new(order).expect("small");
            assert_eq!(frames.put(&mut caches[0], FrameId::new(frame), order), Ok(()));
        }
        caches.iter_mut().for_each(|cache| frames.drain(cache));
        assert_eq!(frames.stats(), fresh, "everything freed, nothing held: as new");
    });
}

fn act<'m>(frames: &Frames<'m>, caches: &mut [CoreCache<'m>], model: &mut Model, step: &Step) {
    match *step {
        Step::Get { core, order, request } => {
            let home = caches[core].home();
            let want = Order::new(order).expect("small");
            match frames.get_from(&mut caches[core], want, request) {
                Ok(frame) => model.take(frame, order, &request, home),
                Err(FrameError::OutOfMemory) => {
                    assert!(!model.has(order, &request, home), "false out of memory");
                }
                Err(FrameError::Held) => {
                    caches.iter_mut().for_each(|cache| frames.drain(cache));
                    match frames.get_from(&mut caches[core], want, request) {
                        Ok(frame) => model.take(frame, order, &request, home),
                        Err(error) => {
                            assert_eq!(error, FrameError::OutOfMemory);
                            assert!(!model.has(order, &request, home), "false out of memory");
                        }
                    }
                }
                Err(error) => assert_eq!(error, FrameError::NoNode),
            }
        }
        Step::Put { core, pick } => {
            let Some((&frame, &order)) = model.blocks.iter().nth(pick % model.blocks.len().max(1)) else {
                return;
            };
            let done = frames.put(&mut caches[core], FrameId::new(frame), Order::new(order).expect("small"));
            assert_eq!(done, Ok(()));
            model.blocks.remove(&frame);
            model.free.extend(frame..frame + (1 << order));
        }
        Step::PutWrong { core, frame, order } => {
            if model.blocks.get(&frame) != Some(&order) {
                let done =
                    frames.put(&mut caches[core], FrameId::new(frame), Order::new(order).expect("small"));
                let error = done.expect_err("a wrong free is refused");
                if order < 9 {
                    assert_eq!(error, model.judge(frame, order), "F{frame:#x} O{order}");
                }
            }
        }
        Step::Twice { core, other, pick } => {
            let Some((&frame, &order)) = model.blocks.iter().nth(pick % model.blocks.len().max(1)) else {
                return;
            };
            let block = (FrameId::new(frame), Order::new(order).expect("small"));
            assert_eq!(frames.put(&mut caches[core], block.0, block.1), Ok(()));
            assert_eq!(frames.put(&mut caches[other], block.0, block.1), Err(FrameError::DoubleFree));
            model.blocks.remove(&frame);
            model.free.extend(frame..frame + (1 << order));
        }
        Step::Split { core, pick } => split(frames, &mut caches[core], model, pick),
        Step::Merge { core, pick } => merge(frames, caches, model, (core, pick)),
        Step::Drain { core } => frames.drain(&mut caches[core]),
    }
}

/// Splits a block of a chunk, or is refused for a block of another order.
fn split<'m>(frames: &Frames<'m>, cache: &mut CoreCache<'m>, model: &mut Model, pick: usize) {
    let huge: Vec<_> =
        model.blocks.iter().filter(|&(_, &order)| order == 9).map(|(&frame, _)| frame).collect();
    if let Some(&frame) = huge.get(pick % huge.len().max(1)) {
        // By the pick, all, none or some are kept.
        let keep = [u64::MAX, 0, 0x5555_0000_ffff_0001, 1 << 63][pick / 7 % 4];
        let keeps = |at: usize| keep >> (at % 64) & 1 == 1;
        assert_eq!(frames.split_keeping(cache, FrameId::new(frame), &[keep; 8]), Ok(()));
        model.blocks.remove(&frame);
        model.blocks.extend((frame..frame + 512).filter(|&at| keeps(at)).map(|at| (at, 0)));
        model.free.extend((frame..frame + 512).filter(|&at| !keeps(at)));
    } else if let Some((&frame, &order)) = model.blocks.iter().nth(pick % model.blocks.len().max(1)) {
        let wrong = if frame.is_multiple_of(512) { FrameError::WrongOrder } else { FrameError::Interior };
        assert_eq!(frames.split(cache, FrameId::new(frame)), Err(wrong), "F{frame:#x} O{order}");
    }
}

/// Merges a chunk of single frames, once nobody else holds it; or is refused for any other chunk.
fn merge<'m>(
    frames: &Frames<'m>,
    caches: &mut [CoreCache<'m>],
    model: &mut Model,
    (core, pick): (usize, usize),
) {
    let single = model.single_chunks();
    if let Some(&chunk) = single.get(pick % single.len().max(1)) {
        let mut done = frames.merge(&mut caches[core], FrameId::new(chunk));
        if done == Err(FrameError::Held) {
            caches.iter_mut().for_each(|cache| frames.drain(cache));
            done = frames.merge(&mut caches[core], FrameId::new(chunk));
        }
        assert_eq!(done, Ok(()), "F{chunk:#x}");
        (chunk..chunk + 512).for_each(|frame| {
            model.blocks.remove(&frame);
        });
        model.blocks.insert(chunk, 9);
    } else if let Some((&frame, _)) = model.blocks.iter().nth(pick % model.blocks.len().max(1)) {
        let chunk = frame / 512 * 512;
        // A later part of a block of several chunks: the block does not start here.
        let interior =
            model.blocks.range(..chunk).next_back().is_some_and(|(&at, &order)| at + (1 << order) > chunk);
        let expected = if interior { FrameError::Interior } else { model.judge_merge(chunk) };
        assert_eq!(frames.merge(&mut caches[core], FrameId::new(chunk)), Err(expected), "F{chunk:#x}");
    }
}

const CASES: u32 = if cfg!(miri) { 2 } else { 96 };
const STEPS: usize = if cfg!(miri) { 24 } else { 600 };
/// Chunks of the plain machine's second node; the first has twice as many.
const CHUNKS: usize = if cfg!(miri) { 2 } else { 32 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    // Thirty thousand frames in the model's trees take Miri hours; the plain machine runs the same code.
    #[cfg_attr(miri, ignore)]
    #[test]
    fn an_odd_machine_agrees_with_the_model(steps in collection::vec(step(), 1..STEPS)) {
        run(&odd_machine(), &steps);
    }

    #[test]
    fn a_plain_machine_agrees_with_the_model(steps in collection::vec(step(), 1..STEPS)) {
        run(&plain_machine(), &steps);
    }
}
