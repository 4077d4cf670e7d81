//! Loom models: every interleaving (up to a bound on preemptions) of two cores on a handful of chunks.
//!
//! A chunk has four words here. After each execution the machine is quiescent and [`Span::walk`] checks M2–M4; frames that were
//! handed out are checked against each other. Run: `RUSTFLAGS="--cfg loom" cargo test -p mm --release --lib`.
//!
//! Planted bugs that were seen to fail: `Span::pool` without its second look (`a_free_meets_a_release`), `Span::put_shared` without
//! `promote` (`two_frees_complete_a_chunk`), `Chunk::give_open` first word first (`a_word_is_reused_while_its_block_is_freed`),
//! `Index::unmark` without its second look (`the_upper_level_keeps_up`), `Word::collect` that stores 0 instead of clearing what it
//! read (`a_free_meets_a_collection_of_its_word`), `Span::reserve` that stores instead of exchanging
//! (`two_cores_want_the_last_pooled_chunk`), `Span::split_huge` that publishes `Pooled` before it writes the words
//! (`a_split_meets_another_core_that_looks_for_frames`), that compares without claiming (`two_splits_of_one_block_race`) or that puts a
//! chunk with free frames on no list (`a_split_that_gives_back_meets_another_core_that_looks_for_frames`),
//! `Frames::merge` that stores its state without a reservation (`a_merge_meets_another_core_that_looks_for_frames`).

use super::index::Index;
use super::span::Span;
use super::{Config, CoreCache, Frames, Plan};
use crate::error::FrameError;
use crate::id::{CHUNK_FRAMES, CHUNK_ORDER, FrameId, Order, PhysRange, WORDS};
use loom::thread;
use percpu::sync::atomic::AtomicU64;
use percpu::{CoreId, NodeId};
use std::sync::Arc;
use std::vec::Vec;

/// A multiple of 64 chunks, so that indexes hold no unused numbers.
const BASE: usize = 1 << 20;

type Machine = Arc<Frames<'static>>;

fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(f);
}

/// A machine with so many chunks in its lower zone, and one in its upper.
fn machine(chunks: usize) -> Machine {
    let memory =
        [(NodeId::new(0), PhysRange::new(FrameId::new(BASE), FrameId::new(BASE + chunks * CHUNK_FRAMES)))];
    let config = Config { memory: &memory, reserved: &[], taken: &[], distance: &|_, _| 10, cores: 0 };
    let plan = Plan::new(&config).expect("one range");
    let words = |_, bytes: usize| Vec::leak(std::vec![0; bytes / size_of::<u64>()]);
    Arc::new(Frames::new(&config, &plan, words).expect("enough"))
}

fn cache(core: u16) -> CoreCache<'static> {
    CoreCache::new(CoreId::new(core), NodeId::new(0))
}

fn order(order: u8) -> Order {
    Order::new(order).expect("small")
}

/// Everything is back and on the right lists.
fn check(frames: &Frames<'_>, free: usize) {
    frames.spans.iter().for_each(Span::walk);
    assert_eq!(frames.stats().free, free);
    assert_eq!(frames.stats().held_chunks, 0);
}

/// Both cores allocate from the one chunk there is, pooled or whole. Nobody gets what the other has.
fn two_cores_want_the_last_chunk(pooled: bool) {
    model(2, move || {
        let frames = machine(1);
        let mut mine = cache(0);
        if pooled {
            assert!(frames.get(&mut mine, order(6)).is_ok());
            frames.drain(&mut mine);
        }
        let other = Arc::clone(&frames);
        let thread = thread::spawn(move || {
            let mut cache = cache(1);
            let got = other.get(&mut cache, order(0));
            other.drain(&mut cache);
            got
        });
        let first = frames.get(&mut mine, order(6));
        frames.drain(&mut mine);
        let second = thread.join().expect("no panic");
        if let (Ok(block), Ok(frame)) = (first, second) {
            assert!(frame < block || frame.number() >= block.number() + 64, "{block:?} {frame:?}");
        }
        let taken = usize::from(first.is_ok()) * 64 + usize::from(second.is_ok()) + usize::from(pooled) * 64;
        check(&frames, CHUNK_FRAMES - taken);
    });
}

#[test]
fn two_cores_want_the_last_whole_chunk() {
    two_cores_want_the_last_chunk(false);
}

#[test]
fn two_cores_want_the_last_pooled_chunk() {
    two_cores_want_the_last_chunk(true);
}

/// A second block of a word is freed while the owner collects the first: it must not be lost.
#[test]
fn a_free_meets_a_collection_of_its_word() {
    model(3, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let blocks: Vec<_> = (0..8).map(|_| frames.get(&mut mine, order(5)).expect("free")).collect();
        assert_eq!(frames.put(&mut cache(1), blocks[2], order(5)), Ok(()));
        let (other, block) = (Arc::clone(&frames), blocks[3]);
        let thread = thread::spawn(move || other.put(&mut cache(1), block, order(5)));
        assert!(frames.get(&mut mine, order(5)).is_ok());
        assert_eq!(thread.join().expect("no panic"), Ok(()));
        frames.drain(&mut mine);
        check(&frames, 32);
    });
}

/// A remote free against the owner's collecting and taking.
#[test]
fn a_free_meets_a_collection() {
    model(2, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let blocks: Vec<_> = (0..4).map(|_| frames.get(&mut mine, order(6)).expect("free")).collect();
        let (other, block) = (Arc::clone(&frames), blocks[1]);
        let thread = thread::spawn(move || other.put(&mut cache(1), block, order(6)));
        // All are taken: this succeeds only with what the other gives back.
        let again = frames.get(&mut mine, order(5));
        assert_eq!(thread.join().expect("no panic"), Ok(()));
        if let Ok(frame) = again {
            assert!(frame == block || frame.number() == block.number() + 32);
        }
        frames.drain(&mut mine);
        check(&frames, if again.is_ok() { 32 } else { 64 });
    });
}

/// A remote free against the owner's giving the chunk back: the chunk must end on a list.
#[test]
fn a_free_meets_a_release() {
    model(3, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let blocks: Vec<_> = (0..4).map(|_| frames.get(&mut mine, order(6)).expect("free")).collect();
        let (other, block) = (Arc::clone(&frames), blocks[2]);
        let thread = thread::spawn(move || other.put(&mut cache(1), block, order(6)));
        frames.drain(&mut mine);
        assert_eq!(thread.join().expect("no panic"), Ok(()));
        check(&frames, 64);
    });
}

/// Two frees make the chunk whole: one of them, and only one, moves it to the whole index.
#[test]
fn two_frees_complete_a_chunk() {
    model(2, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let first = frames.get(&mut mine, order(6)).expect("free");
        let second = frames.get(&mut mine, order(6)).expect("free");
        frames.drain(&mut mine);
        let other = Arc::clone(&frames);
        let thread = thread::spawn(move || other.put(&mut cache(1), second, order(6)));
        assert_eq!(frames.put(&mut mine, first, order(6)), Ok(()));
        assert_eq!(thread.join().expect("no panic"), Ok(()));
        check(&frames, CHUNK_FRAMES);
    });
}

/// A block of two words is freed while another core already reuses, and frees, its first word.
#[test]
fn a_word_is_reused_while_its_block_is_freed() {
    model(3, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let long = frames.get(&mut mine, order(7)).expect("free");
        let rest = frames.get(&mut mine, order(7)).expect("free");
        let other = Arc::clone(&frames);
        let thread = thread::spawn(move || other.put(&mut cache(1), long, order(7)));
        if let Ok(word) = frames.get(&mut mine, order(6)) {
            assert_eq!(frames.put(&mut mine, word, order(6)), Ok(()));
        }
        assert_eq!(thread.join().expect("no panic"), Ok(()));
        frames.drain(&mut mine);
        assert_eq!(frames.put(&mut mine, rest, order(7)), Ok(()));
        frames.drain(&mut mine);
        check(&frames, CHUNK_FRAMES);
    });
}

/// Two frees of one frame race: never do both succeed and leave it in two hands.
#[test]
fn two_frees_of_one_frame_race() {
    model(3, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let frame = frames.get(&mut mine, order(0)).expect("free");
        frames.drain(&mut mine);
        let other = Arc::clone(&frames);
        let thread = thread::spawn(move || other.put(&mut cache(1), frame, order(0)));
        let here = frames.put(&mut mine, frame, order(0));
        let there = thread.join().expect("no panic");
        assert!(here.is_ok() != there.is_ok(), "{here:?} {there:?}");
        check(&frames, CHUNK_FRAMES);
    });
}

/// A block is split, and its last frame given back, while another core looks for a frame: it finds that one or none.
fn a_split_meets_another_core(split: fn(&Frames<'static>, &mut CoreCache<'static>, FrameId, FrameId)) {
    model(2, move || {
        let frames = machine(1);
        let mut mine = cache(0);
        let block = frames.get(&mut mine, CHUNK_ORDER).expect("free");
        let other = Arc::clone(&frames);
        let thread = thread::spawn(move || {
            let mut cache = cache(1);
            let got = other.get(&mut cache, order(0));
            other.drain(&mut cache);
            got
        });
        let last = FrameId::new(block.number() + CHUNK_FRAMES - 1);
        split(&frames, &mut mine, block, last);
        let got = thread.join().expect("no panic");
        assert!(got.is_err() || got == Ok(last), "{got:?} is not free");
        frames.drain(&mut mine);
        check(&frames, usize::from(got.is_err()));
    });
}

/// The memory of a split block is published whole: another core that finds a frame of it, freed meanwhile, finds no other.
#[test]
fn a_split_meets_another_core_that_looks_for_frames() {
    a_split_meets_another_core(|frames, mine, block, last| {
        assert_eq!(frames.split(mine, block), Ok(()));
        assert_eq!(frames.put(mine, last, order(0)), Ok(()));
    });
}

/// What a split gives back is found by another core, and nothing else.
#[test]
fn a_split_that_gives_back_meets_another_core_that_looks_for_frames() {
    a_split_meets_another_core(|frames, mine, block, _| {
        let mut keep = [u64::MAX; WORDS];
        keep[WORDS - 1] = u64::MAX >> 1;
        assert_eq!(frames.split_keeping(mine, block, &keep), Ok(()));
    });
}

/// A free that is over, as far as its frame is concerned, still lifts the chunk while the frame's new owner merges.
#[test]
fn a_merge_meets_a_free_that_lifts_the_chunk() {
    model(3, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let block = frames.get(&mut mine, CHUNK_ORDER).expect("free");
        assert_eq!(frames.split(&mut mine, block), Ok(()));
        let other = Arc::clone(&frames);
        let thread = thread::spawn(move || other.put(&mut cache(1), block, order(0)));
        // Before the frame is this core's there is nothing that it might merge.
        let early = frames.get(&mut mine, order(0));
        frames.drain(&mut mine);
        if early.is_ok() {
            assert_eq!(frames.merge(&mut mine, block), Ok(()));
        }
        assert_eq!(thread.join().expect("no panic"), Ok(()));
        if early.is_err() {
            assert_eq!(frames.get(&mut mine, order(0)), Ok(block));
            assert_eq!(frames.merge(&mut mine, block), Ok(()));
        }
        assert_eq!(frames.put(&mut mine, block, CHUNK_ORDER), Ok(()));
        frames.drain(&mut mine);
        check(&frames, CHUNK_FRAMES);
    });
}

/// Another core has seen a free frame and wants to reserve the chunk, when the frame's new owner merges.
#[test]
fn a_merge_meets_another_core_that_looks_for_frames() {
    model(3, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let block = frames.get(&mut mine, CHUNK_ORDER).expect("free");
        assert_eq!(frames.split(&mut mine, block), Ok(()));
        assert_eq!(frames.put(&mut mine, block, order(0)), Ok(()));
        let other = Arc::clone(&frames);
        let thread = thread::spawn(move || {
            let mut cache = cache(1);
            let got = other.get(&mut cache, order(0));
            other.drain(&mut cache);
            got
        });
        let got = frames.get(&mut mine, order(0));
        frames.drain(&mut mine);
        let early = got.map(|_| frames.merge(&mut mine, block));
        let theirs = thread.join().expect("no panic");
        assert!(got.is_err() || theirs.is_err(), "both have {got:?}");
        match early {
            Ok(Ok(())) => {}
            // Now everything is this core's, whichever got the frame, unless nobody did.
            Err(_) if theirs.is_err() => assert_eq!(frames.get(&mut mine, order(0)), Ok(block)),
            Err(_) | Ok(Err(FrameError::Held)) => {}
            Ok(Err(error)) => panic!("{error}"),
        }
        if early != Ok(Ok(())) {
            assert_eq!(frames.merge(&mut mine, block), Ok(()));
        }
        assert_eq!(frames.put(&mut mine, block, CHUNK_ORDER), Ok(()));
        frames.drain(&mut mine);
        check(&frames, CHUNK_FRAMES);
    });
}

/// Of two cores that both take themselves for the owner of a block, one splits it.
#[test]
fn two_splits_of_one_block_race() {
    model(3, || {
        let frames = machine(1);
        let mut mine = cache(0);
        let block = frames.get(&mut mine, CHUNK_ORDER).expect("free");
        let other = Arc::clone(&frames);
        let thread = thread::spawn(move || other.split(&mut cache(1), block));
        let here = frames.split(&mut mine, block);
        if here.is_ok() {
            assert_eq!(frames.put(&mut mine, block, order(0)), Ok(()));
        }
        let there = thread.join().expect("no panic");
        assert!(here.is_ok() != there.is_ok(), "{here:?} {there:?}");
        frames.drain(&mut mine);
        check(&frames, usize::from(here.is_ok()));
    });
}

fn index(len: usize) -> Arc<Index<'static>> {
    let words = (0..Index::words(len)).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    Arc::new(Index::new(Vec::leak(words), len))
}

/// A claim of two whole words against one of a single member: the loser's part comes back.
#[test]
fn a_long_claim_meets_a_short_one() {
    model(3, || {
        let index = index(128);
        index.set_run(0, 7);
        let other = Arc::clone(&index);
        let thread = thread::spawn(move || other.take());
        let run = index.take_run(7, 0);
        let one = thread.join().expect("no panic");
        assert!(run.is_none() || one.is_none(), "both were served: {one:?}");
        assert_eq!(index.len(), 128 - if run.is_some() { 128 } else { usize::from(one.is_some()) });
        assert_eq!(index.next(0).is_some(), index.len() > 0);
    });
}

/// One core empties a word while another fills it: the upper level must not forget it.
#[test]
fn the_upper_level_keeps_up() {
    model(3, || {
        let index = index(128);
        index.set(70);
        let other = Arc::clone(&index);
        let thread = thread::spawn(move || other.set(71));
        assert!(index.clear(70));
        thread.join().expect("no panic");
        assert_eq!(index.next(0), Some(71));
    });
}
