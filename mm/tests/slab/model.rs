//! Random operations on a cache with three cores, beside a model that knows who has which object; and what is refused.
//!
//! The cores take turns on one thread; `stress.rs` lets them run at once. Planted bug that this caught: `Slab::put` that does not look at
//! the bit (a second free goes unnoticed).

use crate::pages::Host;
use core::alloc::Layout;
use core::ptr::NonNull;
use mm::slab::{Cache, Local, LocalSizes, Pages, Sizes, SlabError};
use mm::{FrameId, Order};
use percpu::sync::atomic::{AtomicUsize, Ordering};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::collections::BTreeMap;

const CORES: usize = 3;
const FRESH: u64 = 0xfeed_f00d_dead_beef;

/// Objects that live, built and not yet dropped. One test uses them at a time: the others have types of their own.
static BUILT: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Thing {
    state: u64,
    _rest: [u64; 30],
}

impl Thing {
    fn new() -> Self {
        BUILT.fetch_add(1, Ordering::Relaxed);
        Self { state: FRESH, _rest: [0; 30] }
    }
}

impl Drop for Thing {
    fn drop(&mut self) {
        assert_eq!(self.state, FRESH);
        BUILT.fetch_sub(1, Ordering::Relaxed);
    }
}

type Part<'c> = Box<Local<'c, Thing, Host>>;

fn parts<T: Send, P: Pages>(cache: &Cache<T, P>) -> Vec<Box<Local<'_, T, P>>> {
    let part = |_| {
        let part = Box::new(Local::new(cache));
        // SAFETY: boxed, and every test keeps its parts to the end.
        unsafe { part.enter() };
        part
    };
    (0..CORES).map(part).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { core: usize, count: usize },
    Free { core: usize, pick: usize, count: usize },
    Collect { core: usize },
    Drain { core: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let core = 0..CORES;
    prop_oneof![
        4 => (core.clone(), 1..40_usize).prop_map(|(core, count)| Step::Allocate { core, count }),
        4 => (core.clone(), any::<usize>(), 1..40_usize)
            .prop_map(|(core, pick, count)| Step::Free { core, pick, count }),
        1 => core.clone().prop_map(|core| Step::Collect { core }),
        1 => core.prop_map(|core| Step::Drain { core }),
        1 => Just(Step::Allocate { core: 0, count: 200 }),
    ]
}

/// Who allocated each live object, by address, and how often anything was allocated.
#[derive(Default)]
struct Model {
    live: BTreeMap<usize, (NonNull<Thing>, usize)>,
    allocations: usize,
    most: [usize; CORES],
}

impl Model {
    fn of(&self, core: usize) -> usize {
        self.live.values().filter(|&&(_, owner)| owner == core).count()
    }

    fn allocate(&mut self, parts: &[Part<'_>], core: usize, host: &Host) {
        host.turn(core);
        match parts[core].allocate() {
            Ok(object) => {
                let at = object.addr().get();
                let before = self.live.range(..=at).next_back();
                assert!(before.is_none_or(|(&other, _)| other + size_of::<Thing>() <= at), "overlap");
                let after = self.live.range(at + 1..).next();
                assert!(after.is_none_or(|(&other, _)| at + size_of::<Thing>() <= other), "overlap");
                // SAFETY: just handed out, as built.
                let thing = unsafe { &mut *object.as_ptr() };
                assert_eq!(core::mem::replace(&mut thing.state, at as u64), FRESH);
                assert_eq!(host.owner(at), Some(core), "near memory");
                self.live.insert(at, (object, core));
                self.allocations += 1;
                self.most[core] = self.most[core].max(self.of(core));
            }
            Err(error) => {
                assert_eq!(error, SlabError::OutOfMemory);
                assert_eq!(host.left(), 0, "a block is left");
                assert_eq!(
                    self.of(core),
                    host.blocks(core) * Local::<Thing, Host>::per_slab(),
                    "an object is left"
                );
            }
        }
    }

    fn free(&mut self, parts: &[Part<'_>], core: usize, pick: usize, host: &Host) {
        let Some((&at, &(object, _))) = self.live.iter().nth(pick % self.live.len().max(1)) else { return };
        self.live.remove(&at);
        // SAFETY: live, hence ours alone.
        let thing = unsafe { &mut *object.as_ptr() };
        assert_eq!(core::mem::replace(&mut thing.state, FRESH), at as u64, "somebody else wrote to it");
        host.turn(core);
        // SAFETY: allocated from this cache, as built again, and forgotten by the model.
        assert_eq!(unsafe { parts[core].free(object) }, Ok(()));
    }
}

fn run(steps: &[Step]) {
    let host = Host::new(9);
    let cache = Cache::new(host.clone(), Thing::new);
    let parts = parts(&cache);
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Allocate { core, count } => (0..count).for_each(|_| model.allocate(&parts, core, &host)),
            Step::Free { core, pick, count } => {
                (0..count).for_each(|turn| model.free(&parts, core, pick.wrapping_add(turn * 7), &host));
            }
            Step::Collect { core } => {
                parts[core].collect();
            }
            Step::Drain { core } => parts[core].drain(),
        }
        let stats = cache.stats();
        assert!(stats.current_allocated >= model.live.len() * size_of::<Thing>());
        assert!(stats.current_allocated <= stats.peak_allocated);
        assert_eq!(stats.allocation_count, model.allocations);
        assert_eq!((stats.refused, stats.frames), (0, host.frames()));
        assert_eq!(BUILT.load(Ordering::Relaxed), host.all_blocks() * Local::<Thing, Host>::per_slab());
    }
    parts.iter().for_each(|part| {
        part.collect();
    });
    assert_eq!(cache.stats().current_allocated, model.live.len() * size_of::<Thing>());
    while !model.live.is_empty() {
        model.free(&parts, 1, 0, &host);
    }
    parts.iter().for_each(|part| part.drain());
    let stats = cache.stats();
    assert_eq!((stats.current_allocated, stats.frames, host.frames()), (0, 0, 0), "everything is back");
    assert_eq!((stats.free_count, stats.total_freed), (stats.allocation_count, stats.total_allocated));
    let most: usize = model.most.iter().sum();
    assert!(stats.peak_allocated + CORES * 128 * size_of::<Thing>() >= most * size_of::<Thing>());
    assert_eq!(BUILT.load(Ordering::Relaxed), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 128 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn slab_cache_agrees_with_the_model(
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 12 } else { 120 })
    ) {
        run(&steps);
    }

    #[test]
    fn slab_sizes_are_disjoint(
        steps in proptest::collection::vec((any::<u16>(), 0_usize..6_000, 0_u32..8), 1..if cfg!(miri) { 60 } else { 600 })
    ) {
        sizes(&steps);
    }
}

fn sizes(steps: &[(u16, usize, u32)]) {
    let sizes = Sizes::new(Host::new(200));
    let parts: [LocalSizes<'_, Host>; 2] = core::array::from_fn(|_| LocalSizes::new(&sizes));
    // SAFETY: the array stays where it is to the end.
    parts.iter().for_each(|part| unsafe { part.enter() });
    let mut live: Vec<(NonNull<u8>, Layout, u8)> = Vec::new();
    let check = |(at, layout, mark): (NonNull<u8>, Layout, u8)| {
        // SAFETY: live memory of this size.
        let content = unsafe { core::slice::from_raw_parts(at.as_ptr(), layout.size()) };
        assert!(content.iter().all(|&byte| byte == mark), "{layout:?} was overwritten");
    };
    for &(choice, size, align) in steps {
        let part = &parts[usize::from(choice >> 8) % 2];
        if choice % 3 == 0 && !live.is_empty() {
            let item = live.swap_remove(usize::from(choice) % live.len());
            check(item);
            // SAFETY: live, hence freed once.
            assert_eq!(unsafe { part.free(item.0, item.1) }, Ok(()));
        } else {
            let layout = Layout::from_size_align(size, 1 << align).expect("small");
            let at = part.allocate(layout).expect("room");
            assert!(at.addr().get().is_multiple_of(layout.align()), "{layout:?}");
            let mark = (choice % 251) as u8;
            // SAFETY: just handed out.
            unsafe { at.write_bytes(mark, size) };
            live.push((at, layout, mark));
        }
    }
    live.iter().for_each(|&item| check(item));
    assert!(sizes.stats().allocation_count - sizes.stats().free_count >= live.len());
    for (at, layout, _) in live {
        // SAFETY: live, hence freed once.
        assert_eq!(unsafe { parts[0].free(at, layout) }, Ok(()));
    }
    parts.iter().for_each(LocalSizes::drain);
    let stats = sizes.stats();
    assert_eq!((stats.current_allocated, stats.frames, stats.refused), (0, 0, 0));
}

#[test]
fn slab_nothing_before_entering() {
    let cache = Cache::new(Host::new(1), || 0_u64);
    let part = Local::new(&cache);
    assert_eq!(part.allocate(), Err(SlabError::NotEntered));
    let sizes = Sizes::new(Host::new(1));
    let part = LocalSizes::new(&sizes);
    for bytes in [1, 10_000] {
        assert_eq!(
            part.allocate(Layout::from_size_align(bytes, 1).expect("small")),
            Err(SlabError::NotEntered)
        );
    }
}

#[test]
fn slab_exhaustion_is_an_answer() {
    let cache = Cache::new(Host::new(1), || [0_u64; 64]);
    let parts = parts(&cache);
    let all: Vec<_> = core::iter::from_fn(|| parts[0].allocate().ok()).collect();
    assert_eq!(all.len(), Local::<[u64; 64], Host>::per_slab());
    assert_eq!(parts[0].allocate(), Err(SlabError::OutOfMemory));
    assert_eq!(parts[1].allocate(), Err(SlabError::OutOfMemory));
    for object in all {
        // SAFETY: allocated above, freed once.
        assert_eq!(unsafe { parts[2].free(object) }, Ok(()));
    }
    assert!(parts[0].allocate().is_ok(), "what came home can be had again");
    assert_eq!(cache.stats().peak_allocated, Local::<[u64; 64], Host>::per_slab() * 512);
}

#[test]
fn slab_wrong_frees_are_refused() {
    let (ours, theirs) = (Cache::new(Host::new(4), || [0_u64; 8]), Cache::new(Host::new(4), || [0_u64; 8]));
    let (own, other) = (parts(&ours), parts(&theirs));
    let object = own[0].allocate().expect("room");
    for part in &other {
        // SAFETY: it breaks the obligation on purpose; the memory is readable, so that the breach is noticed.
        assert_eq!(unsafe { part.free(object) }, Err(SlabError::Foreign));
    }
    // SAFETY: inside the object; the breach is noticed as above.
    let inside = unsafe { object.cast::<u8>().add(8) }.cast();
    // SAFETY: as above.
    assert_eq!(unsafe { own[1].free(inside) }, Err(SlabError::Interior));
    // SAFETY: allocated above.
    assert_eq!(unsafe { own[1].free(object) }, Ok(()));
    // SAFETY: a second free, noticed as above.
    assert_eq!(unsafe { own[2].free(object) }, Err(SlabError::DoubleFree));
    assert_eq!((own[0].collect(), ours.stats().refused, theirs.stats().refused), (1, 2, 3));
    own.iter().chain(&other).for_each(|part| part.drain());
    assert_eq!((ours.stats().frames, theirs.stats().frames), (0, 0));
}

#[test]
fn slab_second_free_is_found_when_it_leaves_the_magazine() {
    let cache = Cache::new(Host::new(4), || [0_u64; 8]);
    let parts = parts(&cache);
    let object = parts[0].allocate().expect("room");
    for _ in 0..2 {
        // SAFETY: the second one breaks the obligation on purpose; the object is not taken out again.
        assert_eq!(unsafe { parts[0].free(object) }, Ok(()));
    }
    parts[0].drain();
    assert_eq!((cache.stats().refused, cache.stats().frames), (1, 0));
}

#[test]
fn slab_memory_is_charged() {
    use mm::bank::{Bank, BankError};
    use mm::slab::Banked;
    let root = Bank::root(1 << 20);
    let bank = root.child(3 * 4096).expect("room");
    {
        let host = Host::new(100);
        let cache = Cache::new(Banked::new(host.clone(), &bank), || [0_u64; 8]);
        let part = Box::new(Local::new(&cache));
        // SAFETY: boxed until the end.
        unsafe { part.enter() };
        let all: Vec<_> = core::iter::from_fn(|| part.allocate().ok()).collect();
        assert_eq!((bank.stats().used, host.frames()), (3 * 4096, 3));
        assert_eq!(bank.destroy(), Err(BankError::Charged));
        for object in all {
            // SAFETY: allocated above, freed once.
            assert_eq!(unsafe { part.free(object) }, Ok(()));
        }
        part.drain();
        assert_eq!((bank.stats().used, host.frames()), (0, 0));
    }
    assert_eq!(root.stats().used, 3 * 4096);
    assert_eq!(bank.destroy(), Ok(()));
    assert_eq!(root.stats().used, 0, "every byte is back");
}

#[test]
fn slab_pages_fake_is_aligned() {
    let host = Host::new(1);
    let order = Order::new(3).expect("small");
    let block = Pages::take(&host, order).expect("one is left");
    assert!(FrameId::containing(block.addr().get() as u64).is_aligned(order));
    assert!(Pages::take(&host, order).is_none());
    // SAFETY: taken above.
    unsafe { Pages::give(&host, block, order) };
}
