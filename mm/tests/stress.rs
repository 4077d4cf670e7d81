//! Threads take and give blocks of every order at once; nobody may ever hold a frame that another holds.
//!
//! Each frame has an owner byte, taken by compare-exchange when a block is handed out and cleared before it is given back. Half of the
//! blocks travel to another thread and are freed there. At the end everything is free again, whole, and every block of
//! 2 MiB and of 1 GiB can be had.
//!
//! A planted bug that this catches: let `Span::reserve` store the state instead of comparing it first.
#![cfg(not(loom))]

use mm::frames::{Config, Plan, Request};
use mm::{CoreCache, FrameError, FrameId, Frames, Order, PhysRange};
use percpu::sync::atomic::{AtomicU8, Ordering};
use percpu::{CoreId, NodeId};
use perf::prng::Prng;
use std::sync::Mutex;

const BASE: usize = 1 << 18;

struct Arena {
    owners: Vec<AtomicU8>,
    /// Blocks on their way to another thread.
    mail: Mutex<Vec<(FrameId, Order)>>,
}

impl Arena {
    fn claim(&self, frame: FrameId, order: Order, owner: u8) {
        for index in frame.number() - BASE..frame.number() - BASE + order.frames() {
            // ORDER: Relaxed: the test is about the value alone.
            let claimed = self.owners[index].compare_exchange(0, owner, Ordering::Relaxed, Ordering::Relaxed);
            assert_eq!(claimed, Ok(0), "frame {index:#x} was handed out twice");
        }
    }

    fn release(&self, frame: FrameId, order: Order) {
        for index in frame.number() - BASE..frame.number() - BASE + order.frames() {
            // ORDER: Relaxed: as in `claim`.
            assert_ne!(self.owners[index].swap(0, Ordering::Relaxed), 0, "frame {index:#x} was free");
        }
    }
}

/// A thread's life: a random walk that keeps to its share of memory, with every fourth put left to somebody else.
fn worker<'m>(
    frames: &Frames<'m>,
    arena: &Arena,
    cache: &mut CoreCache<'m>,
    (steps, share, max): (usize, usize, u8),
) {
    let mut prng = Prng::stream(7, u32::from(cache.core().raw()));
    let owner = u8::try_from(cache.core().raw() + 1).expect("few threads");
    let (mut live, mut used) = (Vec::new(), 0);
    for _ in 0..steps {
        if used < share && prng.bits() % 16 < 9 {
            let order = Order::new((prng.bits() % u64::from(max)) as u8 >> (prng.bits() % 4)).expect("small");
            // Held and out of memory are both possible: others' caches, and blocks that nobody can have now.
            if let Ok(frame) = frames.get_from(cache, order, Request::LOCAL) {
                arena.claim(frame, order, owner);
                live.push((frame, order));
                used += order.frames();
            }
        } else if !live.is_empty() {
            let at = prng.below(live.len() as u64) as usize;
            let (frame, order): (FrameId, Order) = live.swap_remove(at);
            used -= order.frames();
            let mut block = Some((frame, order));
            if prng.bits().is_multiple_of(4) {
                let mut mail = arena.mail.lock().expect("no panic inside");
                mail.push((frame, order));
                block = if mail.len() > 64 { Some(mail.swap_remove(0)) } else { None };
            }
            if let Some((frame, order)) = block {
                arena.release(frame, order);
                assert_eq!(frames.put(cache, frame, order), Ok(()), "{frame:?} {order:?}");
            }
        }
        if prng.bits().is_multiple_of(64)
            && let Some(at) = live.iter().position(|&(_, order)| order == Order::HUGE)
        {
            let block = live.swap_remove(at).0;
            live.extend(convert(frames, arena, cache, block, prng.bits()));
        }
        if prng.bits().is_multiple_of(4096) {
            frames.drain(cache);
        }
    }
    for (frame, order) in live {
        arena.release(frame, order);
        assert_eq!(frames.put(cache, frame, order), Ok(()));
    }
    frames.drain(cache);
}

/// Splits a block, and merges it again: at once, or after some of its frames have gone back and others, perhaps the same, have come
/// instead. Returns what the thread has then.
fn convert<'m>(
    frames: &Frames<'m>,
    arena: &Arena,
    cache: &mut CoreCache<'m>,
    block: FrameId,
    bits: u64,
) -> Vec<(FrameId, Order)> {
    let owner = u8::try_from(cache.core().raw() + 1).expect("few threads");
    let missing = usize::try_from(bits % 7).expect("small");
    assert_eq!(frames.split(cache, block), Ok(()));
    let all = (block.number()..block.number() + Order::HUGE.frames()).map(FrameId::new);
    for frame in all.clone().take(missing) {
        arena.release(frame, Order::FRAME);
        assert_eq!(frames.put(cache, frame, Order::FRAME), Ok(()));
    }
    let mut blocks: Vec<_> = all.skip(missing).collect();
    for _ in 0..missing {
        if let Ok(frame) = frames.get(cache, Order::FRAME) {
            arena.claim(frame, Order::FRAME, owner);
            blocks.push(frame);
        }
    }
    let chunk = PhysRange::new(block, FrameId::new(block.number() + Order::HUGE.frames()));
    let inside = |frame: &FrameId| chunk.contains(*frame);
    let whole = blocks.iter().filter(|frame| inside(frame)).count() == Order::HUGE.frames();
    // Otherwise the missing frames may be another thread's, which breaks the contract.
    let merged = whole.then(|| frames.merge(cache, block));
    assert!(matches!(merged, None | Some(Ok(()) | Err(FrameError::Held))), "{block:?} {merged:?}");
    let merged = merged == Some(Ok(()));
    if merged {
        blocks.retain(|frame| !inside(frame));
    }
    let singles = blocks.into_iter().map(|frame| (frame, Order::FRAME));
    singles.chain(merged.then_some((block, Order::HUGE))).collect()
}

fn stress(threads: u16, chunks: usize, steps: usize, max_order: u8) {
    let total = chunks * Order::HUGE.frames();
    let memory = [(NodeId::new(0), PhysRange::new(FrameId::new(BASE), FrameId::new(BASE + total)))];
    let config = Config {
        memory: &memory,
        reserved: &[],
        taken: &[],
        distance: &|_, _| 10,
        cores: usize::from(threads),
    };
    let plan = Plan::new(&config).expect("one range");
    let mut words = vec![0; plan.metadata_bytes(NodeId::new(0)) / 8];
    let mut words = Some(words.as_mut_slice());
    let frames = Frames::new(&config, &plan, |_, _| words.take().expect("one node")).expect("enough");
    let fresh = frames.stats();
    let arena =
        Arena { owners: (0..total).map(|_| AtomicU8::new(0)).collect(), mail: Mutex::new(Vec::new()) };
    std::thread::scope(|scope| {
        for core in 0..threads {
            let (frames, arena) = (&frames, &arena);
            scope.spawn(move || {
                let mut cache = CoreCache::new(CoreId::new(core), NodeId::new(0));
                worker(frames, arena, &mut cache, (steps, total / usize::from(threads), max_order));
            });
        }
    });
    let mut cache = CoreCache::new(CoreId::new(0), NodeId::new(0));
    for (frame, order) in arena.mail.into_inner().expect("threads have ended") {
        assert_eq!(frames.put(&mut cache, frame, order), Ok(()));
    }
    frames.drain(&mut cache);
    assert_eq!(frames.stats(), fresh, "everything is free and whole again");
    for order in [Order::HUGE, Order::GIANT] {
        let count = total / order.frames();
        let blocks: Vec<_> = (0..count).map(|_| frames.get(&mut cache, order)).collect();
        assert!(blocks.iter().all(Result::is_ok), "{order:?}: {blocks:?}");
        assert_eq!(frames.get(&mut cache, order), Err(FrameError::OutOfMemory));
        blocks
            .into_iter()
            .flatten()
            .for_each(|block| assert_eq!(frames.put(&mut cache, block, order), Ok(())));
        frames.drain(&mut cache);
    }
}

const STEPS: usize = if cfg!(miri) { 40 } else { 150_000 };

#[test]
fn four_threads_share_two_gibibytes() {
    let (chunks, orders) = if cfg!(miri) { (4, 10) } else { (1024, 16) };
    stress(4, chunks, STEPS, orders);
}

#[test]
fn small_orders_only() {
    stress(3, if cfg!(miri) { 2 } else { 64 }, STEPS, 9);
}

#[test]
fn more_threads_than_chunks() {
    stress(6, 2, STEPS / 4, 9);
}
