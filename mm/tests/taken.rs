//! Frames that are in use when the allocator is made, and come back one by one.
#![cfg(not(loom))]

use mm::frames::{Config, Plan};
use mm::{CoreCache, FrameError, FrameId, Frames, Order, PhysRange};
use percpu::{CoreId, NodeId};

const BASE: usize = 1 << 18;
const CHUNKS: usize = 4;

fn range(start: usize, frames: usize) -> PhysRange {
    PhysRange::new(FrameId::new(BASE + start), FrameId::new(BASE + start + frames))
}

/// A part of a chunk, a whole one, and a hole beside and inside what is taken.
#[test]
fn taken_frames_come_back_one_by_one() {
    let memory = [(NodeId::new(0), range(0, CHUNKS * 512))];
    let (taken, reserved) = ([range(70, 3), range(512, 512), range(1024, 10)], [range(1030, 100)]);
    let config =
        Config { memory: &memory, reserved: &reserved, taken: &taken, distance: &|_, _| 10, cores: 1 };
    let plan = Plan::new(&config).expect("one range");
    let mut words = vec![0; plan.metadata_bytes(NodeId::new(0)) / 8];
    let mut words = Some(words.as_mut_slice());
    let frames = Frames::new(&config, &plan, |_, _| words.take().expect("one node")).expect("enough");
    let mut cache = CoreCache::new(CoreId::new(0), NodeId::new(0));
    let whole = CHUNKS * 512 - 100;
    let out: Vec<FrameId> = [(70, 3), (512, 512), (1024, 6)]
        .into_iter()
        .flat_map(|(start, count)| (start..start + count).map(|frame| FrameId::new(BASE + frame)))
        .collect();
    assert_eq!((frames.stats().frames, frames.stats().free), (whole, whole - out.len()));
    // Everything that is free is got, and nothing of it was taken.
    let mut got = Vec::new();
    while let Ok(frame) = frames.get(&mut cache, Order::FRAME) {
        assert!(!out.contains(&frame), "{frame:?} is in use");
        got.push(frame);
    }
    assert_eq!(got.len(), whole - out.len());
    got.into_iter().for_each(|frame| assert_eq!(frames.put(&mut cache, frame, Order::FRAME), Ok(())));
    for &frame in &out {
        assert_eq!(frames.put(&mut cache, frame, Order::FRAME), Ok(()), "{frame:?}");
        assert_eq!(frames.put(&mut cache, frame, Order::FRAME), Err(FrameError::DoubleFree));
    }
    frames.drain(&mut cache);
    assert_eq!(frames.stats().free, whole);
    // The chunk that was taken whole serves large blocks again, as do the others without a hole.
    let blocks = std::iter::from_fn(|| frames.get(&mut cache, Order::HUGE).ok());
    assert_eq!(blocks.count(), CHUNKS - 1);
}
