//! Splitting a block of 2 MiB and merging it again: what is refused, with which error, and that a refusal changes nothing.
//!
//! Planted bugs that this catches: `Frames::merge` with a reserve instead of giving up the core's own slot.
#![cfg(not(loom))]

use mm::frames::{Config, Plan};
use mm::{CoreCache, FrameError, FrameId, Frames, Order, PhysRange};
use percpu::{CoreId, NodeId};

const BASE: usize = 1 << 18;

/// So many chunks, and two cores.
fn with_chunks(chunks: usize, test: impl for<'m> FnOnce(&Frames<'m>, [CoreCache<'m>; 2])) {
    let end = FrameId::new(BASE + chunks * 512);
    let memory = [(NodeId::new(0), PhysRange::new(FrameId::new(BASE), end))];
    let config = Config { memory: &memory, reserved: &[], taken: &[], distance: &|_, _| 10, cores: 2 };
    let plan = Plan::new(&config).expect("one range");
    let mut words = vec![0; plan.metadata_bytes(NodeId::new(0)) / 8];
    let mut words = Some(words.as_mut_slice());
    let frames = Frames::new(&config, &plan, |_, _| words.take().expect("one node")).expect("enough");
    test(&frames, [0, 1].map(|core| CoreCache::new(CoreId::new(core), NodeId::new(0))));
}

fn frames_of(block: FrameId) -> impl Iterator<Item = FrameId> {
    (block.number()..block.number() + 512).map(FrameId::new)
}

#[test]
fn a_block_is_split_merged_and_freed_either_way() {
    with_chunks(4, |frames, [mut one, mut other]| {
        let fresh = frames.stats();
        let block = frames.get(&mut one, Order::HUGE).expect("free");
        assert_eq!(frames.split(&mut one, block), Ok(()));
        assert_eq!(frames.split(&mut one, block), Err(FrameError::WrongOrder), "split already");
        assert_eq!(frames.put(&mut one, block, Order::HUGE), Err(FrameError::WrongOrder));
        assert_eq!(frames.stats().split_chunks, 1);
        assert_eq!(frames.stats().free, fresh.free - 512);
        assert_eq!(frames.merge(&mut other, block), Ok(()), "on another core");
        assert_eq!(frames.merge(&mut other, block), Err(FrameError::WrongOrder), "merged already");
        assert_eq!(frames.put(&mut one, block, Order::FRAME), Err(FrameError::WrongOrder));
        assert_eq!(frames.split(&mut other, block), Ok(()));
        for frame in frames_of(block) {
            let cache = if frame.number() % 3 == 0 { &mut other } else { &mut one };
            assert_eq!(frames.put(cache, frame, Order::FRAME), Ok(()));
        }
        assert_eq!(frames.merge(&mut one, block), Err(FrameError::DoubleFree));
        frames.drain(&mut one);
        frames.drain(&mut other);
        assert_eq!(frames.stats(), fresh);
        assert_eq!(frames.split(&mut one, block), Err(FrameError::DoubleFree));
        assert_eq!(frames.merge(&mut one, block), Err(FrameError::DoubleFree));
    });
}

#[test]
fn what_is_no_whole_chunk_of_single_frames_is_refused() {
    with_chunks(1, |frames, [mut one, mut other]| {
        let block = frames.get(&mut one, Order::HUGE).expect("free");
        assert_eq!(frames.split(&mut one, block), Ok(()));
        let inside = FrameId::new(block.number() + 64);
        assert_eq!(frames.merge(&mut one, inside), Err(FrameError::Interior));
        assert_eq!(frames.split(&mut one, inside), Err(FrameError::Interior));
        assert_eq!(frames.merge(&mut one, FrameId::new(0)), Err(FrameError::Foreign));
        for missing in frames_of(block).step_by(73) {
            assert_eq!(frames.put(&mut other, missing, Order::FRAME), Ok(()));
            let before = frames.stats();
            assert_eq!(frames.merge(&mut one, block), Err(FrameError::DoubleFree), "{missing:?} is free");
            assert_eq!(frames.stats(), before);
            assert_eq!(frames.get(&mut other, Order::FRAME), Ok(missing));
            frames.drain(&mut other);
        }
        let pair = FrameId::new(block.number() + 8);
        for frame in [pair, FrameId::new(pair.number() + 1)] {
            assert_eq!(frames.put(&mut one, frame, Order::FRAME), Ok(()));
        }
        assert_eq!(frames.get(&mut other, Order::new(1).expect("small")), Ok(pair));
        frames.drain(&mut other);
        assert_eq!(frames.merge(&mut one, block), Err(FrameError::WrongOrder));
    });
}

/// All frames of the one chunk come from a reserved slot: its core gives it up to merge them, any other core has to wait.
#[test]
fn a_reserved_chunk_is_merged_by_its_own_core_only() {
    with_chunks(64, |frames, [mut one, mut other]| {
        let first = frames.get(&mut one, Order::FRAME).expect("free");
        for at in 1..512 {
            assert_eq!(frames.get(&mut one, Order::FRAME), Ok(FrameId::new(first.number() + at)));
        }
        assert_eq!(one.held_chunks(), 1);
        assert_eq!(frames.merge(&mut other, first), Err(FrameError::Held));
        assert_eq!(one.held_chunks(), 1);
        assert_eq!(frames.merge(&mut one, first), Ok(()));
        assert_eq!(one.held_chunks(), 0);
        let next = frames.get(&mut one, Order::FRAME).expect("free");
        assert!(next.number() >= first.number() + 512, "{next:?} lies in the merged block");
        assert_eq!(frames.put(&mut other, first, Order::HUGE), Ok(()));
        assert_eq!(frames.put(&mut one, next, Order::FRAME), Ok(()));
        frames.drain(&mut one);
        frames.drain(&mut other);
        assert_eq!(frames.stats().whole_chunks, 64);
    });
}
