//! What single threads see of a table.

use crate::SLOTS;
use crate::change::{Capability, Gone};
use crate::drain::Drained;
use crate::memory::Memory;
use crate::revoke::{Purged, Sentence, purge};
use crate::scene::{Count, Pool, World, lone_table, table_in};
use crate::table::{Entry, Table};
use crate::word::{Meta, SlotId};
use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use std::vec::Vec;

const KIND: ObjectKind = ObjectKind::Thread;

fn table(limit: usize) -> &'static Table<Pool> {
    lone_table(512, limit)
}

fn age(table: &Table<Pool>, handle: Handle, generation: u32) {
    table.slot(handle).age(Meta::dead(SlotId::of(handle), generation));
}

/// For what is derived where nothing is doomed.
fn no_more(gone: Gone) {
    panic!("{gone:?} was not doomed");
}

fn capability(object: u64) -> Capability {
    Capability { kind: KIND, rights: Rights::ALL, object, badge: object + 1 }
}

#[test]
fn a_handle_names_what_was_put_in() {
    let table = table(10);
    let handle = table.insert(capability(0xffff_8000_0000_1040)).unwrap();
    let found = table.lookup(handle, KIND, Rights::CONTROL.with(Rights::OBSERVE)).unwrap();
    assert_eq!((found.object, found.rights), (0xffff_8000_0000_1040, Rights::ALL));
    let (badged, badge) = table.lookup_badged(handle, KIND, Rights::NONE).unwrap();
    assert_eq!((badged, badge), (found, 0xffff_8000_0000_1041));
    let entry = Entry { kind: KIND, rights: Rights::ALL, object: found.object, badge };
    assert_eq!(table.entry(handle), Ok(entry));
    assert_eq!((table.count(), table.limit()), (1, 10));
}

#[test]
fn refusals_say_why() {
    let table = table(10);
    let weak = Capability { rights: Rights::OBSERVE, ..capability(1) };
    let handle = table.insert(weak).unwrap();
    let refused = |handle, kind, rights| {
        let plain = table.lookup(handle, kind, rights).unwrap_err();
        assert_eq!(table.lookup_badged(handle, kind, rights).unwrap_err(), plain);
        plain
    };
    assert_eq!(refused(handle, KIND, Rights::CONTROL), Error::MissingRight);
    assert_eq!(refused(handle, KIND, Rights::OBSERVE.with(Rights::MAP)), Error::MissingRight);
    assert_eq!(refused(handle, ObjectKind::Process, Rights::CONTROL), Error::WrongType);
    assert_eq!(refused(Handle::NONE, KIND, Rights::NONE), Error::BadHandle);
    let later = Handle::new(handle.index(), handle.generation() + 1);
    assert_eq!(refused(later, KIND, Rights::NONE), Error::BadHandle);
}

/// Rights without a bit in a slot are had by nobody and kept by nobody.
///
/// Planted: no comparison with `Rights::ALL` in `matches`.
#[test]
fn rights_that_do_not_exist_are_not_had() {
    let table = table(10);
    let handle = table.insert(Capability { rights: Rights(0xffff), ..capability(1) }).unwrap();
    assert_eq!(table.entry(handle).unwrap().rights, Rights::ALL);
    for bit in (0..16).filter(|bit| Rights::ALL.0 >> bit & 1 == 0) {
        assert_eq!(table.lookup(handle, KIND, Rights(1 << bit)), Err(Error::MissingRight));
    }
}

/// C2: no bit of a handle can stand in for what the slot lacks.
///
/// Planted: no comparison of the bits above the slot's number, and of those below.
#[test]
fn one_wrong_bit_is_a_bad_handle() {
    let table = table(10);
    let handles: Vec<_> = (0..3).map(|object| table.insert(capability(object)).unwrap()).collect();
    let _ = table.delete(handles[1]).unwrap();
    for handle in handles {
        for bit in 0..64 {
            let wrong = Handle(handle.0 ^ 1 << bit);
            for &kind in ObjectKind::ALL {
                let live = wrong.generation() == 1 && matches!(wrong.index(), 32 | 96);
                assert_eq!(
                    table.lookup(wrong, kind, Rights::NONE).is_ok(),
                    live && kind == KIND,
                    "{wrong:?}"
                );
                assert_eq!(table.entry(wrong).is_ok(), live);
            }
        }
    }
}

/// C2, where there is no leaf, and in a leaf whose slots were never used.
///
/// Planted: an empty leaf of zeros.
#[test]
fn nothing_is_found_where_nothing_is() {
    let table = table(SLOTS);
    for leaves in 0..3 {
        for number in 0..SLOTS {
            for generation in [0, 1, u32::MAX] {
                let handle = SlotId::new(number).handle(generation);
                let used = generation == 1 && (1..=leaves).contains(&number);
                let found =
                    ObjectKind::ALL.iter().any(|&kind| table.lookup(handle, kind, Rights::NONE).is_ok());
                assert_eq!(found, used, "{handle:?}");
            }
        }
        let _ = table.insert(capability(0)).unwrap();
    }
}

/// Planted: a generation that stays when the slot is used again.
#[test]
fn a_deleted_handle_stays_bad() {
    let table = table(10);
    let old = table.insert(capability(1)).unwrap();
    assert_eq!(table.delete(old), Ok(Gone { kind: KIND, rights: Rights::ALL, object: 1 }));
    assert_eq!(table.delete(old), Err(Error::BadHandle));
    let new = table.insert(capability(2)).unwrap();
    assert_eq!((new.index(), new.generation()), (old.index(), 2));
    assert_eq!(table.lookup(old, KIND, Rights::NONE), Err(Error::BadHandle));
    assert_eq!(table.delete(old), Err(Error::BadHandle));
    assert_eq!(table.lookup(new, KIND, Rights::NONE).unwrap().object, 2);
    assert_eq!(table.count(), 1);
}

/// C3. Planted: no look at the generation in `put` (an overflow).
#[test]
fn a_slot_is_retired_after_its_last_generation() {
    let table = table(10);
    let first = table.insert(capability(1)).unwrap();
    let _ = table.delete(first).unwrap();
    age(table, first, u32::MAX - 1);
    let last = table.insert(capability(2)).unwrap();
    assert_eq!((last.index(), last.generation()), (first.index(), u32::MAX));
    assert_eq!(table.lookup(last, KIND, Rights::NONE).unwrap().object, 2);
    assert_eq!(table.delete(last).unwrap().object, 2);
    assert_eq!(table.count(), 0);
    let next = table.insert(capability(3)).unwrap();
    assert_ne!(next.index(), first.index());
    assert_eq!(table.lookup(last, KIND, Rights::NONE), Err(Error::BadHandle));
}

#[test]
fn the_limit_counts_what_is_live() {
    let table = table(2);
    let first = table.insert(capability(1)).unwrap();
    let _ = table.insert(capability(2)).unwrap();
    assert_eq!(table.insert(capability(3)), Err(Error::NoSlot));
    let _ = table.delete(first).unwrap();
    let _ = table.insert(capability(3)).unwrap();
    assert_eq!((table.count(), table.memory().out()), (2, 1));
}

#[test]
fn memory_runs_out_at_the_end_of_a_leaf() {
    let table = lone_table(1, SLOTS);
    let handles: Vec<_> = (1..128).map(|object| table.insert(capability(object)).unwrap()).collect();
    for _ in 0..3 {
        assert_eq!(table.insert(capability(0)), Err(Error::NoMemory));
        assert_eq!(table.count(), 127);
    }
    let _ = table.delete(handles[5]).unwrap();
    assert_eq!(table.insert(capability(0)).unwrap().index(), handles[5].index());
}

#[test]
fn every_slot_can_be_used() {
    let table = table(SLOTS);
    let handles: Vec<_> = (1..SLOTS as u64).map(|object| table.insert(capability(object)).unwrap()).collect();
    assert_eq!(table.insert(capability(0)), Err(Error::NoSlot));
    assert_eq!((table.count(), table.memory().out()), (SLOTS - 1, 512));
    for (handle, object) in handles.iter().zip(1..) {
        assert_eq!(table.lookup(*handle, KIND, Rights::NONE).unwrap().object, object);
    }
}

/// With all but a retired slot in use there is none left, whatever the limit says.
#[test]
fn a_retired_slot_is_missing() {
    let table = table(SLOTS);
    let first = table.insert(capability(0)).unwrap();
    let _ = table.delete(first).unwrap();
    age(table, first, u32::MAX - 1);
    let last = table.insert(capability(0)).unwrap();
    let _ = table.delete(last).unwrap();
    for object in 2..SLOTS as u64 {
        let _ = table.insert(capability(object)).unwrap();
    }
    assert_eq!(table.insert(capability(0)), Err(Error::NoSlot));
    assert_eq!(table.count(), SLOTS - 2);
}

#[test]
fn rights_only_shrink() {
    let world = World::new();
    let (from, into) = (table_in(&world, 1, 10), table_in(&world, 1, 10));
    let rights = Rights::GRANT.with(Rights::OBSERVE).with(Rights::MAP);
    let source = from.insert(Capability { rights, ..capability(7) }).unwrap();
    let wanted = Rights::OBSERVE.with(Rights::CONTROL);
    let expected = Capability { kind: KIND, rights: Rights::OBSERVE, object: 7, badge: 99 };
    let derived = from.derive(source, into, (wanted, 99), |made| *made == expected, no_more).unwrap();
    let entry = into.entry(derived).unwrap();
    assert_eq!(entry, Entry { kind: KIND, rights: Rights::OBSERVE, object: 7, badge: 99 });
    let refusal = into.derive(derived, into, (Rights::ALL, 0), |_| panic!("not asked"), no_more).unwrap_err();
    assert_eq!((refusal.error, refusal.reference), (Error::MissingRight, None));
    assert_eq!((from.count(), into.count()), (1, 1));
}

/// What is passed by the short way is the source again, and descends from it; where that way does not do, nothing is left of it.
#[test]
fn what_is_passed_is_the_same() {
    let world = World::new();
    let (from, into) = (table_in(&world, 3, 10), table_in(&world, 3, 2));
    let rights = Rights::GRANT.with(Rights::OBSERVE);
    let pass = |source, into: &Table<Pool>, acquired| {
        let given_up = |gone: Gone| assert_eq!((gone.object, gone.rights), (7, rights));
        from.pass(source, into, || into.memory().take_node(), |_| acquired, given_up)
    };
    let source = from.insert(Capability { rights, badge: 5, ..capability(7) }).unwrap();
    let bound = from.insert(Capability { rights: Rights::OBSERVE, ..capability(8) }).unwrap();
    // No slot was ever given back, and the source has no node.
    assert_eq!(pass(source, into, true), None);
    let _ = into.delete(into.insert(capability(9)).unwrap()).unwrap();
    assert_eq!(pass(source, into, true), None);
    let child = from.derive(source, from, (Rights::ALL, 6), |_| true, no_more).unwrap();
    assert_eq!((pass(bound, into, true), pass(Handle(0x1234), into, true)), (None, None));
    assert_eq!((pass(source, into, false), into.count(), world.nodes_out()), (None, 0, 2));
    let passed = pass(child, into, true).unwrap();
    let entry = Entry { kind: KIND, rights, object: 7, badge: 6 };
    assert_eq!((into.entry(passed), into.count(), world.nodes_out()), (Ok(entry), 1, 3));
    assert_eq!(from.doom(child), Ok(Sentence::Doomed));
    // While anything is doomed, the long way helps to take it out.
    let _ = into.delete(into.insert(capability(9)).unwrap()).unwrap();
    assert_eq!((pass(source, into, true), into.count()), (None, 1));
    assert_eq!(purge(from.memory(), 7, 10, drop), Purged::Done);
    assert_eq!((into.entry(passed), into.count(), world.nodes_out()), (Err(Error::BadHandle), 0, 2));
    let passed = pass(source, into, true).unwrap();
    assert_eq!(into.entry(passed), Ok(Entry { badge: 5, ..entry }));
}

#[test]
fn a_refusal_returns_the_reference() {
    let table = table(2);
    let count = Count::new(1);
    let source = table.insert(capability(7)).unwrap();
    // Deleted by somebody else just when the reference has been made.
    let delete = |_: &Capability| {
        assert!(count.acquire());
        table.delete(source).map(|_| count.release()).is_ok()
    };
    let refusal = table.derive(source, table, (Rights::ALL, 0), delete, no_more);
    let mut returned = Vec::new();
    let error = refusal.unwrap_err().settle(|gone| returned.push(gone));
    assert_eq!(
        (error, returned),
        (Error::BadHandle, Vec::from([Gone { kind: KIND, rights: Rights::ALL, object: 7 }]))
    );
    assert_eq!((count.get(), table.count()), (1, 0));
    // The object is being taken down.
    let source = table.insert(capability(8)).unwrap();
    let refusal = table.derive(source, table, (Rights::ALL, 0), |_| false, no_more).unwrap_err();
    assert_eq!((refusal.error, refusal.reference, table.count()), (Error::BadHandle, None, 1));
    // No room: no reference is made.
    let _ = table.insert(capability(9)).unwrap();
    let refusal =
        table.derive(source, table, (Rights::ALL, 0), |_| panic!("not asked"), no_more).unwrap_err();
    assert_eq!((refusal.error, refusal.reference), (Error::NoSlot, None));
}

#[test]
fn draining_is_bounded_and_complete() {
    let table = table(1000);
    let handles: Vec<_> = (0..300).map(|object| table.insert(capability(object)).unwrap()).collect();
    let _ = table.delete(handles[100]).unwrap();
    let (mut drained, mut calls) = (Vec::new(), 0);
    loop {
        let before = drained.len();
        let state = table.drain(16, |gone| drained.push(gone.object));
        calls += 1;
        assert!(drained.len() - before <= 16 && table.count() == 299 - drained.len());
        assert_eq!(table.insert(capability(0)), Err(Error::NoSlot));
        if state == Drained::Done {
            break;
        }
    }
    drained.sort_unstable();
    let all: Vec<_> = (0..300).filter(|&object| object != 100).collect();
    assert_eq!(drained, all);
    // A look at each of the 300 slots, three leaves, and the end.
    assert_eq!((calls, table.memory().out()), (304_usize.div_ceil(16), 0));
    assert!(handles.iter().all(|&handle| table.entry(handle) == Err(Error::BadHandle)));
    assert_eq!(table.drain(1, |_| panic!("nothing is left")), Drained::Done);
}

#[test]
fn an_unused_table_has_no_leaf_to_give_back() {
    let table = table(5);
    assert_eq!(table.drain(1, |_| panic!("nothing is there")), Drained::Done);
    assert_eq!(table.memory().out(), 0);
}
