//! Loom models of shootdown: cores with simulated TLBs, and an initiator that uses what it has freed for something else. Preemption bound: 2
//! where a core waits, 3 elsewhere.
//!
//! The freed frame and the freed table are loom cells: a core that still reaches them races with the initiator, which loom reports.
//!
//! Planted bugs that made all or nearly all of them fail once: no total order in `publish`, none in `raise`; the raise after the requests; a
//! raise, or an acknowledgement, without Release; a core that does not enter the set; the feature `early-ack`. Others: see each model.

use super::fake::{Fake, PAGES, Tags};
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

const TAGS: [Tags; 2] = [Tags::Kept, Tags::Ignored];

/// Runs `initiator` on core 0 and `target` on core 1; both serve until both have finished.
fn check(preemptions: usize, tags: Tags, initiator: fn(&Fake), target: fn(&Fake)) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let machine = Arc::new(Fake::new(2, tags));
        let second = {
            let machine = machine.clone();
            thread::spawn(move || {
                target(&machine);
                machine.finish(1, 2, thread::yield_now);
            })
        };
        initiator(&machine);
        machine.finish(0, 2, thread::yield_now);
        second.join().expect("core ends");
    });
}

fn unmap(machine: &Fake) {
    machine.unmap(0, 0);
}

fn unmap_table(machine: &Fake) {
    machine.unmap_table(0);
}

/// A core that switches to the space while a page of it goes: it is asked, or it sees the new tables.
#[test]
fn loom_activation_meets_shootdown() {
    for tags in TAGS {
        check(3, tags, unmap, |machine| {
            machine.activate(1, &machine.a);
            machine.touch(1, 0);
            machine.serve(1);
            machine.touch(1, 0);
        });
    }
}

/// A core that leaves the space and comes back: what it kept is dropped if the space has changed meanwhile.
///
/// Planted: no flush on a stale activation; the generation read before the space is published.
#[test]
fn loom_switch_back_catches_up() {
    for tags in TAGS {
        check(2, tags, unmap, |machine| {
            machine.activate(1, &machine.a);
            machine.touch(1, 0);
            machine.activate(1, &machine.b);
            machine.activate(1, &machine.a);
            machine.touch(1, 0);
        });
    }
}

/// A core that gives up its slot for the space, and its place in the set, and comes back.
#[test]
fn loom_eviction_forgets_what_was_cached() {
    check(2, Tags::Kept, unmap, |machine| {
        machine.activate(1, &machine.a);
        machine.touch(1, 0);
        machine.activate(1, &machine.b);
        machine.activate(1, &machine.c);
        machine.activate(1, &machine.a);
        machine.touch(1, 0);
    });
}

/// A core that idles on the space is left alone, and catches up when it resumes, or activates it.
///
/// Planted: no look at the generation on `resume`; Relaxed in `rest`.
#[test]
fn loom_rest_is_not_disturbed_and_resume_catches_up() {
    check(3, Tags::Kept, unmap, |machine| {
        rest_on_a(machine);
        machine.core(super::fake::id(1)).resume();
        machine.touch(1, 0);
    });
    check(3, Tags::Kept, unmap, |machine| {
        rest_on_a(machine);
        machine.activate(1, &machine.a);
        machine.touch(1, 0);
    });
}

fn rest_on_a(machine: &Fake) {
    machine.activate(1, &machine.a);
    machine.touch(1, 0);
    machine.core(super::fake::id(1)).rest();
}

/// A freed table is walked by no core: not by one that idles on the space, nor by one that has not quite left it.
///
/// Planted: no `leaving`; Relaxed in `left`; no request to who idles on the space; an answer that does not leave it; acknowledgement and
/// invalidation merely swapped.
#[test]
fn loom_freed_table_is_not_walked() {
    check(3, Tags::Kept, unmap_table, |machine| {
        machine.activate(1, &machine.a);
        machine.core(super::fake::id(1)).rest();
        // What a processor does ahead of need, also while the core idles.
        machine.touch(1, 0);
        machine.serve(1);
        machine.touch(1, 1);
    });
    for tags in TAGS {
        check(3, tags, unmap_table, |machine| {
            machine.activate(1, &machine.a);
            machine.activate(1, &machine.b);
        });
    }
}

/// Two cores use the space and take a page out of it each: both end, and neither page is used after its shootdown.
///
/// Planted: an initiator that waits does not serve; the list of pages believed by a core that is more than one change behind.
#[test]
fn loom_two_initiators_end() {
    let run = |machine: &Fake, own: usize| {
        machine.activate(own, &machine.a);
        (0..PAGES).for_each(|page| _ = machine.touch(own, page));
        machine.unmap(own, own);
        (0..PAGES).for_each(|page| _ = machine.touch(own, page));
    };
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || {
        let machine = Arc::new(Fake::new(2, Tags::Kept));
        let second = {
            let machine = machine.clone();
            thread::spawn(move || {
                run(&machine, 1);
                machine.finish(1, 2, thread::yield_now);
            })
        };
        run(&machine, 0);
        machine.finish(0, 2, thread::yield_now);
        second.join().expect("core ends");
    });
}
