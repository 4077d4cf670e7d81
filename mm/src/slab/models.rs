//! Loom models of the way home. Preemption bound: 3.
//!
//! A slab has eight objects here, a magazine two. Memory that was given back is zeroed and never used again: whoever frees into it finds
//! nobody's header. Planted bugs that made them fail once: Relaxed instead of Release in `Returns::push` and instead of Acquire in
//! `Returns::take` (a race on the link); `push` that stores instead of exchanging, and `take` that loads and then stores (objects are
//! lost); `Home::settle` that retires a slab one object early (an object in use is nobody's).

use super::{Cache, Local, Pages};
use crate::id::{FRAME_BYTES, Order};
use core::alloc::Layout;
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;
use std::alloc;
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;

/// Words of an object: few of them fill a slab.
const WORDS: usize = 2000;

/// Written by every user of an object, so that loom sees whether one comes after the other.
struct Thing {
    used: UnsafeCell<u32>,
    _rest: [u64; WORDS],
}

impl Thing {
    fn new() -> Self {
        Self { used: UnsafeCell::new(0), _rest: [0; WORDS] }
    }
}

/// Blocks from the host's allocator, given back to it at the end of an execution only.
#[derive(Clone)]
struct Host(std::sync::Arc<Mutex<(usize, Vec<usize>)>>);

fn layout(order: Order) -> Layout {
    let bytes = order.frames() * FRAME_BYTES;
    Layout::from_size_align(bytes, bytes).expect("a block has a layout")
}

impl Host {
    fn new() -> Self {
        Self(std::sync::Arc::new(Mutex::new((0, Vec::new()))))
    }

    fn out(&self) -> usize {
        self.0.lock().expect("no poison").0
    }
}

// SAFETY: the host's allocator gives memory with just these properties.
unsafe impl Pages for Host {
    fn take(&self, order: Order) -> Option<NonNull<u8>> {
        let mut state = self.0.lock().expect("no poison");
        state.0 += 1;
        // SAFETY: a block is not empty.
        NonNull::new(unsafe { alloc::alloc_zeroed(layout(order)) })
    }

    unsafe fn give(&self, start: NonNull<u8>, order: Order) {
        let mut state = self.0.lock().expect("no poison");
        state.0 -= 1;
        assert!(!state.1.contains(&start.addr().get()), "a block is given back once");
        // Kept until the process ends, so that an address names one slab; whoever comes to it finds nobody's.
        state.1.push(start.addr().get());
        // SAFETY: obligation 1 of `give`: nobody uses it any more.
        unsafe { start.write_bytes(0, order.frames() * FRAME_BYTES) };
    }
}

type Things = Cache<Thing, Host>;

/// An object on its way to another core.
struct Parcel(NonNull<Thing>);

// SAFETY: whoever has the parcel has the object alone.
unsafe impl Send for Parcel {}

fn check(model: impl Fn(&'static Things, &Host) + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.check(move || {
        let host = Host::new();
        model(Box::leak(Box::new(Cache::new(host.clone(), Thing::new))), &host);
    });
}

fn part(cache: &'static Things) -> &'static Local<'static, Thing, Host> {
    let part = Box::leak(Box::new(Local::new(cache)));
    // SAFETY: leaked.
    unsafe { part.enter() };
    part
}

fn take(part: &Local<'_, Thing, Host>) -> NonNull<Thing> {
    let thing = part.allocate().expect("the host has memory");
    touch(thing);
    thing
}

/// Uses an object, which is ours.
fn touch(thing: NonNull<Thing>) {
    // SAFETY: it is ours.
    let thing = unsafe { thing.as_ref() };
    // SAFETY: as above; loom looks whether that is true.
    thing.used.with_mut(|used| unsafe { *used += 1 });
}

fn free(part: &Local<'_, Thing, Host>, thing: NonNull<Thing>) {
    touch(thing);
    // SAFETY: ours, and forgotten with this.
    assert_eq!(unsafe { part.free(thing) }, Ok(()));
}

/// Frees on a core of its own; returns when everything is on its way.
fn away(cache: &'static Things, parcels: Vec<Parcel>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let part = part(cache);
        parcels.into_iter().for_each(|parcel| free(part, parcel.0));
        assert_eq!(part.collect(), 0);
    })
}

/// Two cores send objects home while the owner collects, takes and gives: nothing is lost, and every frame comes back.
#[test]
fn loom_slab_two_cores_send_home() {
    check(|cache, host| {
        let own = part(cache);
        let [a, b, c] = [take(own), take(own), take(own)];
        let first = away(cache, std::vec![Parcel(a)]);
        let second = away(cache, std::vec![Parcel(b)]);
        own.collect();
        free(own, c);
        first.join().expect("ends");
        second.join().expect("ends");
        own.drain();
        let stats = cache.stats();
        assert_eq!((stats.current_allocated, stats.refused, host.out()), (0, 0, 0));
    });
}

/// The last objects of a slab come home one by one while the owner drains: the slab ends when the last is in, not before.
#[test]
fn loom_slab_ends_after_its_last_object() {
    check(|cache, host| {
        let own = part(cache);
        let [a, b] = [take(own), take(own)];
        let other = away(cache, std::vec![Parcel(a), Parcel(b)]);
        own.drain();
        assert!(host.out() <= 1);
        other.join().expect("ends");
        own.drain();
        assert_eq!((cache.stats().current_allocated, host.out()), (0, 0));
    });
}

/// An object that came home is handed out again: its new user comes after its last.
#[test]
fn loom_slab_object_is_used_again() {
    check(|cache, host| {
        let own = part(cache);
        let first = take(own);
        let other = away(cache, std::vec![Parcel(first)]);
        // The magazine has one more; the next comes from what is home, or from the slab.
        let all: Vec<_> = (0..4).map(|_| take(own)).collect();
        all.into_iter().for_each(|thing| free(own, thing));
        other.join().expect("ends");
        own.drain();
        assert_eq!((cache.stats().current_allocated, host.out()), (0, 0));
    });
}

/// Cores enter while another sums up: every one that has entered is counted.
#[test]
fn loom_slab_cores_enter() {
    check(|cache, _| {
        let other = thread::spawn(move || {
            take(part(cache));
        });
        take(part(cache));
        assert!(cache.stats().allocation_count >= 1);
        other.join().expect("ends");
        assert_eq!(cache.stats().allocation_count, 2);
    });
}
