//! What shootdown does step by step, on a machine of simulated cores.

use super::fake::{Fake, Tags, id, page_of};
use super::shootdown::Change;
use super::{Batch, SLOTS, SpaceId, SpaceIds, SpaceTlb};
use crate::id::FrameId;
use percpu::CoreSet;
use percpu::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::vec::Vec;

/// Runs `unmap` on core 0 while the others serve.
fn with_servers(machine: &Fake, f: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for core in 1..super::Machine::core_count(machine) {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    machine.serve(core);
                    thread::yield_now();
                }
            });
        }
        f();
        over.store(true, Ordering::Release);
    });
}

#[test]
fn a_space_on_no_core_costs_nothing_elsewhere() {
    let machine = Fake::new(2, Tags::Kept);
    machine.unmap(0, 0);
    let counts = machine.counts(0);
    assert_eq!((counts.initiated, counts.messages, counts.flushes, counts.pages), (1, 0, 0, 0));
    assert_eq!(machine.a.generation(), 1);
}

#[test]
fn only_cores_that_use_the_space_are_asked() {
    let machine = Fake::new(5, Tags::Kept);
    machine.activate(0, &machine.a);
    machine.activate(1, &machine.a);
    machine.activate(2, &machine.a);
    machine.activate(2, &machine.b);
    machine.activate(3, &machine.a);
    machine.core(id(3)).rest();
    for core in [0, 1, 3] {
        assert!(machine.touch(core, 0) && machine.touch(core, 1));
    }
    with_servers(&machine, || machine.unmap(0, 0));
    let counts = machine.counts(0);
    assert_eq!((counts.messages, counts.interrupts, counts.skipped, counts.pages), (1, 1, 2, 1));
    assert_eq!(machine.sent.load(Ordering::Relaxed), 1);
    let served: Vec<u64> = (0..5).map(|core| machine.counts(core).served).collect();
    assert_eq!(served, [0, 1, 0, 0, 0]);
    machine.activate(2, &machine.a);
    machine.core(id(3)).resume();
    for core in [0, 1, 2, 3] {
        assert!(!machine.touch(core, 0) && machine.touch(core, 1), "C{core}");
    }
    assert_eq!((machine.counts(2).flushes, machine.counts(3).flushes), (1, 1));
}

#[test]
fn freed_tables_reach_idle_cores_once() {
    let machine = Fake::new(2, Tags::Kept);
    machine.activate(1, &machine.a);
    machine.core(id(1)).rest();
    with_servers(&machine, || machine.unmap_table(0));
    assert_eq!((machine.counts(0).messages, machine.counts(1).served), (1, 1));
    assert!(!machine.core(id(1)).is_current(machine.a.id()), "an idle core goes to the kernel's tables");
    with_servers(&machine, || machine.unmap_table(0));
    assert_eq!((machine.counts(0).messages, machine.counts(0).skipped), (1, 1));
}

#[test]
fn a_switch_keeps_what_is_valid() {
    let machine = Fake::new(1, Tags::Kept);
    for space in [&machine.a, &machine.b, &machine.a, &machine.c, &machine.a] {
        machine.activate(0, space);
    }
    assert_eq!(machine.counts(0).flushes, 0);
    assert!(machine.touch(0, 0));
}

#[test]
fn slots_are_used_in_turn_and_sets_follow() {
    let machine = Fake::new(1, Tags::Kept);
    let ids = SpaceIds::new();
    let spaces: Vec<SpaceTlb> = (0..=SLOTS).map(|_| SpaceTlb::new(ids.take(), FrameId::new(9))).collect();
    for space in &spaces {
        machine.activate(0, space);
    }
    let members: Vec<bool> = spaces.iter().map(|space| space.cores().contains(id(0))).collect();
    assert!(!members[0] && members[1..].iter().all(|&member| member), "{members:?}");
    // The current one is never given up, whoever's turn it is.
    for space in spaces.iter().cycle().take(4 * SLOTS) {
        machine.activate(0, space);
        assert!(space.cores().contains(id(0)) && machine.core(id(0)).is_current(space.id()));
        assert_eq!(spaces.iter().filter(|space| space.cores().contains(id(0))).count(), SLOTS);
    }
}

#[test]
fn forgetting_leaves_nothing() {
    let machine = Fake::new(1, Tags::Kept);
    for last in [&machine.a, &machine.b] {
        machine.activate(0, &machine.a);
        machine.activate(0, last);
        assert!(machine.a.cores().contains(id(0)));
        machine.core(id(0)).forget(&machine.a);
        assert_eq!(machine.a.cores().snapshot(), CoreSet::EMPTY);
        assert!(!machine.core(id(0)).is_current(machine.a.id()));
        assert_eq!(machine.core(id(0)).is_current(last.id()), last.id() != machine.a.id());
        machine.core(id(0)).forget(&machine.a);
    }
}

/// Requests of two initiators can arrive in the other order than their generations; the list of the later one is not enough then.
#[test]
fn requests_out_of_order_lose_nothing() {
    let machine = Fake::new(1, Tags::Kept);
    machine.activate(0, &machine.a);
    assert!(machine.touch(0, 0) && machine.touch(0, 1));
    let batches = [0, 1].map(|page| {
        machine.clear(page);
        page_of(page)
    });
    let core = machine.core(id(0));
    for generation in [2, 1] {
        let batch = &batches[usize::try_from(generation).unwrap() - 1];
        machine.a.raise(if generation == 2 { 2 } else { 0 });
        core.answer(&Change { space: &machine.a, batch, generation });
        assert!(!machine.touch(0, 0) && !machine.touch(0, 1), "after the request of generation {generation}");
    }
    let counts = machine.counts(0);
    assert_eq!((counts.served, counts.flushes, counts.pages), (2, 1, 0), "the second finds all done");
}

#[test]
fn all_cores_shoot_at_once() {
    const CORES: usize = 3;
    const ROUNDS: u64 = if cfg!(miri) { 3 } else { 100 };
    let machine = Fake::new(CORES, Tags::Kept);
    let pause: fn() = thread::yield_now;
    thread::scope(|scope| {
        for core in 0..CORES {
            let machine = &machine;
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    machine.activate(core, &machine.a);
                    let mut batch = Batch::new();
                    batch.add_all();
                    machine.shoot(core, &batch);
                }
                machine.finish(core, CORES, pause);
            });
        }
    });
    assert_eq!(machine.a.generation(), CORES as u64 * ROUNDS);
    let sent: u64 = (0..CORES).map(|core| machine.counts(core).messages).sum();
    let served: u64 = (0..CORES).map(|core| machine.counts(core).served).sum();
    assert_eq!(sent, served);
}

#[test]
fn ids_are_tagged_and_new() {
    let ids = SpaceIds::new();
    let (first, second) = (ids.take(), ids.take());
    assert!(first != second && first != SpaceId::NONE);
    assert_eq!(std::format!("{first:?} {}", second.raw()), "S1 2");
}
