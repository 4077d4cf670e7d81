//! Threads take objects, and give back their own and each other's; nobody may ever hold what another holds.
//!
//! Each object names its user, by compare-exchange when it is taken. Half of the objects travel to another thread and are freed there. In the
//! end every frame is back. The kernel's test `slabs.cross_core` does the same on all cores.
use crate::pages::Host;
use core::alloc::Layout;
use core::ptr::NonNull;
use mm::slab::{Cache, Local, LocalSizes, Sizes};
use percpu::sync::atomic::{AtomicUsize, Ordering};
use perf::prng::Prng;
use std::sync::{Barrier, Mutex};

const THREADS: usize = 4;
const STEPS: usize = if cfg!(miri) { 150 } else { 400_000 };

struct Thing {
    user: AtomicUsize,
    mark: [usize; 5],
}

/// An object on its way to another thread.
struct Parcel<T>(NonNull<T>);

// SAFETY: whoever has the parcel has the object alone.
unsafe impl<T> Send for Parcel<T> {}

type Mail<T> = [Mutex<Vec<Parcel<T>>>; THREADS];

fn claim(thing: NonNull<Thing>, me: usize) {
    // SAFETY: it was just handed out.
    let thing = unsafe { thing.as_ref() };
    // ORDER: Relaxed: the test is about the value alone.
    assert_eq!(
        thing.user.compare_exchange(0, me + 1, Ordering::Relaxed, Ordering::Relaxed),
        Ok(0),
        "two users"
    );
    assert_eq!(thing.mark, [7; 5], "not as it was built");
}

fn free(part: &Local<'_, Thing, Host>, thing: NonNull<Thing>) {
    // SAFETY: it is ours.
    assert_ne!(unsafe { thing.as_ref() }.user.swap(0, Ordering::Relaxed), 0, "it was free");
    // SAFETY: ours, as it was built, and forgotten with this.
    assert_eq!(unsafe { part.free(thing) }, Ok(()));
}

fn worker(part: &Local<'_, Thing, Host>, me: usize, mail: &Mail<Thing>) {
    let mut prng = Prng::stream(11, u32::try_from(me).expect("few"));
    let mut live: Vec<NonNull<Thing>> = Vec::new();
    for _ in 0..STEPS {
        let up = live.len() < 300 && prng.bits() % 16 < 9;
        if up && let Ok(thing) = part.allocate() {
            claim(thing, me);
            live.push(thing);
        } else if !live.is_empty() {
            let thing = live.swap_remove(prng.below(live.len() as u64) as usize);
            if prng.bits() & 1 == 0 {
                mail[prng.below(THREADS as u64) as usize].lock().expect("no poison").push(Parcel(thing));
            } else {
                free(part, thing);
            }
        }
        if prng.bits().is_multiple_of(8) {
            let arrived = core::mem::take(&mut *mail[me].lock().expect("no poison"));
            arrived.into_iter().for_each(|parcel| free(part, parcel.0));
        }
        if prng.bits().is_multiple_of(4096) {
            part.drain();
        }
    }
    live.into_iter().for_each(|thing| free(part, thing));
}

#[test]
fn slab_objects_have_one_user() {
    let host = Host::new(200);
    let cache = Cache::new(host.clone(), || Thing { user: AtomicUsize::new(0), mark: [7; 5] });
    let mail: Mail<Thing> = core::array::from_fn(|_| Mutex::new(Vec::new()));
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for me in 0..THREADS {
            let (cache, mail, barrier) = (&cache, &mail, &barrier);
            scope.spawn(move || {
                let part = Box::new(Local::new(cache));
                // SAFETY: boxed, and dropped after the last barrier.
                unsafe { part.enter() };
                worker(&part, me, mail);
                barrier.wait();
                let rest = core::mem::take(&mut *mail[me].lock().expect("no poison"));
                rest.into_iter().for_each(|parcel| free(&part, parcel.0));
                barrier.wait();
                part.drain();
                barrier.wait();
                if me == 0 {
                    let stats = cache.stats();
                    assert_eq!((stats.current_allocated, stats.refused, stats.frames), (0, 0, 0));
                }
                barrier.wait();
            });
        }
    });
    assert_eq!(host.frames(), 0, "every frame is back");
}

type SizedMail = [Mutex<Vec<(Parcel<u8>, Layout)>>; 2];

fn post(part: &LocalSizes<'_, Host>, layout: Layout, mail: &Mutex<Vec<(Parcel<u8>, Layout)>>) {
    let Ok(at) = part.allocate(layout) else { return };
    // SAFETY: just handed out.
    unsafe { at.write_bytes(layout.size() as u8, layout.size()) };
    mail.lock().expect("no poison").push((Parcel(at), layout));
}

fn receive(part: &LocalSizes<'_, Host>, mail: &Mutex<Vec<(Parcel<u8>, Layout)>>) {
    let arrived = core::mem::take(&mut *mail.lock().expect("no poison"));
    for (Parcel(at), layout) in arrived {
        // SAFETY: whoever has the parcel has the memory.
        let content = unsafe { core::slice::from_raw_parts(at.as_ptr(), layout.size()) };
        assert!(content.iter().all(|&byte| byte == layout.size() as u8), "{layout:?} was overwritten");
        // SAFETY: as above; freed once.
        assert_eq!(unsafe { part.free(at, layout) }, Ok(()));
    }
}

fn traveller(part: &LocalSizes<'_, Host>, me: usize, mail: &SizedMail) {
    let mut prng = Prng::stream(5, u32::try_from(me).expect("few"));
    for _ in 0..STEPS / 40 {
        for _ in 0..20 {
            let layout = Layout::from_size_align(1 + prng.below(5000) as usize, 8).expect("small");
            post(part, layout, &mail[1 - me]);
        }
        receive(part, &mail[me]);
    }
}

/// The same with memory of all sizes, which travels always.
#[test]
fn slab_sizes_travel() {
    let host = Host::new(4000);
    let sizes = Sizes::new(host.clone());
    let mail: SizedMail = core::array::from_fn(|_| Mutex::new(Vec::new()));
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        for me in 0..2 {
            let (sizes, mail, barrier) = (&sizes, &mail, &barrier);
            scope.spawn(move || {
                let part = Box::new(LocalSizes::new(sizes));
                // SAFETY: boxed, and dropped after the last barrier.
                unsafe { part.enter() };
                traveller(&part, me, mail);
                barrier.wait();
                receive(&part, &mail[me]);
                barrier.wait();
                part.drain();
                barrier.wait();
            });
        }
    });
    assert_eq!(host.frames(), 0, "every frame is back");
}
