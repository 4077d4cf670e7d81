//! Loom models of tables with three slots in two leaves. Preemption bound: 3.
//!
//! Planted bugs that made them fail once are named at each; where a model needs an ordering, Relaxed in its place.

use crate::change::Capability;
use crate::drain::Drained;
use crate::scene::{Count, Pool, lone_table};
use crate::table::Table;
use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::vec::Vec;

const KIND: ObjectKind = ObjectKind::Region;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn table() -> &'static Table<Pool> {
    lone_table(4, 3)
}

/// A capability whose words all follow from the object.
fn capability(object: u64) -> Capability {
    Capability { kind: KIND, rights: rights(object), object, badge: !object }
}

fn rights(object: u64) -> Rights {
    Rights(object as u16 & Rights::ALL.0)
}

/// Looks a handle up in both ways; says which object it found.
fn find(table: &Table<Pool>, handle: Handle) -> Option<u64> {
    let badged = table.lookup_badged(handle, KIND, Rights::NONE).inspect(|(found, badge)| {
        assert_eq!((found.rights, *badge), (rights(found.object), !found.object));
    });
    let plain = table.lookup(handle, KIND, Rights::NONE).inspect(|found| {
        assert_eq!(found.rights, rights(found.object));
    });
    match (badged, plain) {
        (Ok((first, _)), Ok(second)) => {
            assert_eq!(first, second);
            Some(first.object)
        }
        (first, Err(Error::BadHandle)) => first.ok().map(|(found, _)| found.object),
        (Err(Error::BadHandle), Ok(found)) => Some(found.object),
        other => panic!("{other:?}"),
    }
}

/// A handle names what it was made for or nothing, while its slot is used again; so does a handle that was guessed before it was made.
///
/// Planted: no second look at `meta`, in either lookup; `object` loaded before `meta`; a generation that stays; Relaxed in `meta`, `object`,
/// `badge`, each store of `publish`, and `set_link`.
#[test]
fn loom_lookup_meets_delete_and_reuse() {
    check(|| {
        let table = Arc::new(table());
        let old = table.insert(capability(0x101)).unwrap();
        let guessed = Handle::new(old.index(), old.generation() + 1);
        let changer = {
            let table = table.clone();
            thread::spawn(move || {
                assert_eq!(table.delete(old).unwrap().object, 0x101);
                assert_eq!(table.insert(capability(0x202)).unwrap(), guessed);
            })
        };
        assert!(matches!(find(&table, old), None | Some(0x101)));
        assert!(matches!(find(&table, guessed), None | Some(0x202)));
        changer.join().unwrap();
        assert_eq!((find(&table, old), find(&table, guessed)), (None, Some(0x202)));
    });
}

/// Of two deleters one has the reference, and the slot is free once.
///
/// Planted: a comparison and a store instead of the exchange in `take`.
#[test]
fn loom_two_deletes_have_one_winner() {
    check(|| {
        let table = Arc::new(table());
        let handle = table.insert(capability(7)).unwrap();
        let other = {
            let table = table.clone();
            thread::spawn(move || table.delete(handle).is_ok())
        };
        let own = table.delete(handle).is_ok();
        assert_ne!(own, other.join().unwrap());
        assert_eq!(table.count(), 0);
        let again: Vec<_> = (0..3).map(|object| table.insert(capability(object)).unwrap()).collect();
        assert!((0..3).all(|object| find(&table, again[object as usize]) == Some(object)));
    });
}

/// Nothing is derived from what was gone when the reference was made, and every reference has one owner.
///
/// Planted: no second look at the source; a claim that is kept; Relaxed in `replace`.
#[test]
fn loom_derive_meets_delete() {
    check(|| {
        let shared = Arc::new((table(), Count::new(2), AtomicBool::new(false)));
        let source = shared.0.insert(capability(u64::from(Rights::GRANT.0))).unwrap();
        let deleter = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (table, count, gone) = &*shared;
                let _ = table.delete(source).unwrap();
                gone.store(true, Ordering::Release);
                count.release();
            })
        };
        let (table, count, gone) = &*shared;
        let mut late = false;
        let acquire = |_: &Capability| {
            late = gone.load(Ordering::Acquire);
            count.acquire()
        };
        let wanted = (Rights::ALL, !u64::from(Rights::GRANT.0));
        let derived = table.derive(source, table, wanted, acquire, |_| panic!("nothing is doomed"));
        let derived = derived.map_err(|refusal| refusal.settle(|_| count.release()));
        deleter.join().unwrap();
        assert!(!(late && derived.is_ok()));
        assert_eq!(count.get(), 1 + u64::from(derived.is_ok()));
        assert_eq!(table.count(), usize::from(derived.is_ok()));
        match derived {
            Ok(handle) => assert_eq!(find(table, handle), Some(u64::from(Rights::GRANT.0))),
            Err(error) => assert_eq!(error, Error::BadHandle),
        }
    });
}

/// The object's last reference goes while another is to be made of it: one of both happens.
///
/// Planted: a claim that is kept.
#[test]
fn loom_derive_meets_the_last_reference() {
    check(|| {
        let shared = Arc::new((table(), Count::new(1)));
        let source = shared.0.insert(capability(u64::from(Rights::GRANT.0))).unwrap();
        let deleter = {
            let shared = shared.clone();
            thread::spawn(move || {
                let _ = shared.0.delete(source).unwrap();
                shared.1.release();
            })
        };
        let (table, count) = &*shared;
        let derived = table.derive(
            source,
            table,
            (Rights::NONE, 0),
            |_| count.acquire(),
            |_| panic!("nothing is doomed"),
        );
        let derived = derived.map_err(|refusal| refusal.settle(|_| count.release())).is_ok();
        deleter.join().unwrap();
        assert_eq!((count.get(), table.count()), (u64::from(derived), usize::from(derived)));
    });
}

/// The first of the free list is taken, and put back with another behind it and as many live as before, while somebody has looked at it.
///
/// Planted: a head that does not count its changes; Relaxed in `replace`.
#[test]
fn loom_free_list_survives_reuse_of_its_head() {
    check(|| {
        let table = Arc::new(table());
        let [kept, second, first] = [0, 1, 2].map(|object| table.insert(capability(object)).unwrap());
        let _ = (table.delete(second).unwrap(), table.delete(first).unwrap());
        let other = {
            let table = table.clone();
            thread::spawn(move || {
                let first = table.insert(capability(10)).unwrap();
                // There are three slots: one of the threads may find none.
                let second = table.insert(capability(11)).ok();
                let _ = (table.delete(kept).unwrap(), table.delete(first).unwrap());
                second
            })
        };
        let own = table.insert(capability(12)).ok();
        let second = other.join().unwrap();
        let third = table.insert(capability(13)).unwrap();
        let holds =
            |handle: Option<Handle>, object| handle.is_none_or(|handle| find(&table, handle) == Some(object));
        assert!(holds(own, 12) && holds(second, 11) && holds(Some(third), 13));
        assert_eq!(table.count(), 1 + usize::from(own.is_some()) + usize::from(second.is_some()));
    });
}

/// Two inserters need the same new leaf, and the limit is between them.
#[test]
fn loom_inserters_meet_in_a_new_leaf() {
    check(|| {
        let table = Arc::new(lone_table(2, 1));
        let other = {
            let table = table.clone();
            thread::spawn(move || table.insert(capability(1)))
        };
        let own = table.insert(capability(2));
        let other = other.join().unwrap();
        match (own, other) {
            (Ok(handle), Err(Error::NoSlot)) => assert_eq!(find(&table, handle), Some(2)),
            (Err(Error::NoSlot), Ok(handle)) => assert_eq!(find(&table, handle), Some(1)),
            both => panic!("{both:?}"),
        }
        assert_eq!((table.count(), table.memory().out()), (1, 1));
    });
}

/// As before with room for both: one leaf is shown, a second is given back.
///
/// Planted: a second leaf that is not given back; Relaxed in `place`, and in `slot_at`.
#[test]
fn loom_inserters_share_a_new_leaf() {
    check(|| {
        let table = Arc::new(table());
        let _ = table.insert(capability(1)).unwrap();
        let other = {
            let table = table.clone();
            thread::spawn(move || table.insert(capability(2)).unwrap())
        };
        let own = table.insert(capability(3)).unwrap();
        let other = other.join().unwrap();
        assert_eq!((find(&table, own), find(&table, other)), (Some(3), Some(2)));
        assert_eq!((table.count(), table.memory().out()), (3, 2));
    });
}

/// What is inserted, looked up and deleted beside a drain is drained, deleted or refused; then all memory is back.
///
/// Planted: leaves that are given back while a slot is claimed.
#[test]
fn loom_drain_meets_insert_and_delete() {
    check(|| {
        let shared = Arc::new((table(), Count::new(2)));
        let first = shared.0.insert(capability(1)).unwrap();
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (table, count) = &*shared;
                if table.insert(capability(2)).is_err() {
                    count.release();
                }
                assert!(matches!(find(table, first), None | Some(1)));
                let _ = table.delete(first).map(|_| count.release());
            })
        };
        let (table, count) = &*shared;
        while table.drain(2, |_| count.release()) == Drained::More {
            thread::yield_now();
        }
        other.join().unwrap();
        assert_eq!((count.get(), table.count(), table.memory().out()), (0, 0, 0));
        assert_eq!(table.insert(capability(3)), Err(Error::NoSlot));
    });
}
