//! Loom models of families: revocation against everything else that moves capabilities. Preemption bound: 3.
//!
//! Planted bugs that made them fail once are named at each. What concerns one thread at a time is in `tests/model.rs`.

use crate::change::{Capability, Gone};
use crate::drain::Drained;
use crate::memory::Memory;
use crate::revoke::{self, Purged, Sentence};
use crate::scene::{Count, Pool, World, table_in};
use crate::table::Table;
use crate::ticket::Ticket;
use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use core::ptr;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

const KIND: ObjectKind = ObjectKind::Region;
const OBJECT: u64 = 7;

fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Two tables, the references of one object, and a root in the first table.
struct Scene {
    a: &'static Table<Pool>,
    b: &'static Table<Pool>,
    count: Count,
    root: Handle,
}

impl Scene {
    fn new() -> Arc<Self> {
        let world = World::new();
        let (a, b) = (table_in(&world, 2, 3), table_in(&world, 2, 3));
        let root = a.insert(Capability { kind: KIND, rights: Rights::ALL, object: OBJECT, badge: 0 });
        // Made here, so that both threads are behind it.
        let _ = a.memory().family(OBJECT);
        Arc::new(Self { a, b, count: Count::new(1), root: root.unwrap() })
    }

    fn derive(&self, from: &Table<Pool>, handle: Handle, into: &Table<Pool>) -> Result<Handle, Error> {
        let acquire = |_: &Capability| self.count.acquire();
        let derived = from.derive(handle, into, (Rights::ALL, 0), acquire, |gone| self.release(&gone));
        derived.map_err(|refusal| refusal.settle(|gone| self.release(&gone)))
    }

    /// Has the second table a slot on its free list.
    fn make_room(&self) {
        let spare = Capability { kind: KIND, rights: Rights::ALL, object: OBJECT + 1, badge: 0 };
        let _ = self.b.delete(self.b.insert(spare).unwrap()).unwrap();
    }

    fn pass(&self, from: &Table<Pool>, handle: Handle, into: &Table<Pool>) -> Option<Handle> {
        let acquire = |_: &Capability| self.count.acquire();
        let take_node = || into.memory().take_node();
        from.pass(handle, into, take_node, acquire, |gone| self.release(&gone))
    }

    fn release(&self, gone: &Gone) {
        assert_eq!(gone.object, OBJECT);
        self.count.release();
    }

    /// Revokes what descends from a capability of the first table.
    fn revoke(&self, handle: Handle) -> Result<(), Error> {
        if self.a.doom(handle)? == Sentence::Doomed {
            while revoke::purge(self.a.memory(), OBJECT, 2, |gone| self.release(&gone)) == Purged::More {
                thread::yield_now();
            }
        }
        Ok(())
    }

    /// So many capabilities are left in each table, each with a reference, and as many nodes.
    fn holds(&self, (a, b): (usize, usize), nodes: usize) {
        assert_eq!((self.a.count(), self.b.count()), (a, b));
        assert_eq!(self.count.get(), (a + b) as u64);
        assert_eq!(self.a.memory().world().nodes_out(), nodes);
    }
}

/// The lock lets one in at a time, and who comes later sees what was done before.
///
/// Planted: Relaxed in either place of `with`.
#[test]
fn loom_one_at_a_time() {
    check(3, || {
        let guarded = Arc::new((Ticket::new(), AtomicU32::new(0)));
        let work = |guarded: &(Ticket, AtomicU32)| {
            guarded.0.with(|| {
                // ORDER: Relaxed, both: what the ticket orders is what is looked at.
                let before = guarded.1.load(Ordering::Relaxed);
                // ORDER: Relaxed; as above.
                guarded.1.store(before + 1, Ordering::Relaxed);
            });
        };
        let other = guarded.clone();
        let other = thread::spawn(move || {
            work(&other);
            work(&other);
        });
        work(&guarded);
        other.join().unwrap();
        // ORDER: Relaxed: the other thread has been joined.
        assert_eq!(guarded.1.load(Ordering::Relaxed), 3);
    });
}

/// Whatever is derived of a descendant while the root is revoked goes with it, or is refused.
///
/// Planted: a child that is published although its source is not there any more.
#[test]
fn loom_revoke_meets_derive() {
    check(3, || {
        let scene = Scene::new();
        let child = scene.derive(scene.a, scene.root, scene.a).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || other.derive(other.a, child, other.b));
        scene.revoke(scene.root).unwrap();
        let derived = other.join().unwrap();
        assert!(matches!(derived, Ok(_) | Err(Error::BadHandle)), "{derived:?}");
        scene.holds((1, 0), 1);
    });
}

/// As a derivation, what is passed by the short way goes with its source, or is not made.
///
/// Planted: it is not looked again, with the lock, whether the source is there.
#[test]
fn loom_revoke_meets_pass() {
    check(3, || {
        let scene = Scene::new();
        scene.make_room();
        let child = scene.derive(scene.a, scene.root, scene.a).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || other.pass(other.a, child, other.b));
        scene.revoke(scene.root).unwrap();
        other.join().unwrap();
        scene.holds((1, 0), 1);
    });
}

/// What is passed while its source is deleted is on its own then, in a tour that is in order, or is not made.
///
/// Planted: as above.
#[test]
fn loom_delete_meets_pass() {
    check(3, || {
        let scene = Scene::new();
        scene.make_room();
        let child = scene.derive(scene.a, scene.root, scene.a).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || other.pass(other.a, child, other.b));
        scene.release(&scene.a.delete(child).unwrap());
        let left = usize::from(other.join().unwrap().is_some());
        scene.holds((1, left), 1 + left);
        scene.revoke(scene.root).unwrap();
        scene.holds((1, 0), 1);
    });
}

/// A root that is derived of for the first time, while it is deleted: the child, if there is one, is on its own, and its tour is in order.
///
/// Planted: as before; a store instead of the exchange in `tie`.
#[test]
fn loom_first_child_meets_delete() {
    check(3, || {
        let scene = Scene::new();
        let other = scene.clone();
        let other = thread::spawn(move || {
            let gone = other.a.delete(other.root).unwrap();
            other.release(&gone);
            // The slot is used again, by a capability without a node.
            let object = OBJECT + 1;
            other.a.insert(Capability { kind: KIND, rights: Rights::ALL, object, badge: 1 }).unwrap()
        });
        let derived = scene.derive(scene.a, scene.root, scene.b);
        let again = other.join().unwrap();
        assert_eq!(scene.a.delete(again).unwrap().object, OBJECT + 1);
        let left = usize::from(derived.is_ok());
        scene.holds((0, left), left);
        if let Ok(child) = derived {
            let grandchild = scene.derive(scene.b, child, scene.a).unwrap();
            assert_eq!(scene.b.doom(child), Ok(Sentence::Doomed));
            assert_eq!(purge_one(&scene), 1);
            assert_eq!(scene.a.entry(grandchild), Err(Error::BadHandle));
        }
    });
}

fn purge_one(scene: &Scene) -> usize {
    let mut count = 0;
    let purged = revoke::purge(scene.a.memory(), OBJECT, 1, |gone| {
        scene.release(&gone);
        count += 1;
    });
    assert_eq!(purged, Purged::Done);
    count
}

/// The first derivations of two threads share the root's node.
///
/// Planted: a piece that ends with its first capability in `doom_children`.
#[test]
fn loom_two_first_children() {
    check(3, || {
        let scene = Scene::new();
        let other = scene.clone();
        let other = thread::spawn(move || other.derive(other.a, other.root, other.b).unwrap());
        scene.derive(scene.a, scene.root, scene.a).unwrap();
        other.join().unwrap();
        scene.holds((2, 1), 3);
        scene.revoke(scene.root).unwrap();
        scene.holds((1, 0), 1);
    });
}

/// What moves while it is revoked is gone where it was and where it went.
///
/// Planted: a moved node that still names the old slot.
#[test]
fn loom_revoke_meets_move() {
    check(3, || {
        let scene = Scene::new();
        let child = scene.derive(scene.a, scene.root, scene.a).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || other.a.move_to(child, other.b));
        scene.revoke(scene.root).unwrap();
        let moved = other.join().unwrap();
        assert_eq!(scene.a.entry(child), Err(Error::BadHandle));
        assert!(
            moved.is_err_and(|error| error == Error::BadHandle) || scene.b.entry(moved.unwrap()).is_err()
        );
        scene.holds((1, 0), 1);
    });
}

/// A capability that moves is found in one table or, for a moment, in none; never in both.
///
/// Planted: a capability that is published before it is taken out.
#[test]
fn loom_move_meets_use() {
    check(3, || {
        let scene = Scene::new();
        let there = Handle::new(scene.root.index(), scene.root.generation());
        let other = scene.clone();
        let other = thread::spawn(move || {
            // The first of an empty table, as the root was: a handle that can be guessed.
            let arrived = other.b.lookup(there, KIND, Rights::NONE).is_ok();
            thread::yield_now();
            let left = other.a.lookup(other.root, KIND, Rights::NONE).is_ok();
            assert!(!(arrived && left));
        });
        assert_eq!(scene.a.move_to(scene.root, scene.b), Ok(there));
        other.join().unwrap();
        scene.holds((0, 1), 0);
    });
}

/// A root that moves while it is derived of: the child is its child, wherever it is, or was refused.
///
/// Planted: `meta` as it was before the lock was taken.
#[test]
fn loom_move_meets_derive() {
    check(3, || {
        let scene = Scene::new();
        let other = scene.clone();
        let other = thread::spawn(move || other.derive(other.a, other.root, other.a));
        let root = scene.a.move_to(scene.root, scene.b).unwrap();
        let child = other.join().unwrap();
        let nodes = if child.is_ok() { 2 } else { 0 };
        scene.holds((usize::from(child.is_ok()), 1), nodes);
        if scene.b.doom(root).unwrap() == Sentence::Doomed {
            assert_eq!(purge_one(&scene), usize::from(child.is_ok()));
        }
        scene.holds((0, 1), nodes / 2);
    });
}

/// Each reference of what is deleted and revoked at once is given up once, and what the deleted had derived is revoked too.
///
/// Planted: `pop` that takes what somebody else has taken; a node that is removed twice.
#[test]
fn loom_revoke_meets_delete() {
    check(3, || {
        let scene = Scene::new();
        let child = scene.derive(scene.a, scene.root, scene.a).unwrap();
        scene.derive(scene.a, child, scene.b).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || {
            let _ = other.a.delete(child).map(|gone| other.release(&gone));
        });
        scene.revoke(scene.root).unwrap();
        other.join().unwrap();
        scene.holds((1, 0), 1);
    });
}

/// Nothing that a revocation has promised to be gone is found afterwards.
#[test]
fn loom_revoke_meets_use() {
    check(3, || {
        let scene = Scene::new();
        let child = scene.derive(scene.a, scene.root, scene.b).unwrap();
        let shared = Arc::new((scene, AtomicBool::new(false)));
        let other = shared.clone();
        let other = thread::spawn(move || {
            // ORDER: Acquire pairs with Release below: the revocation has returned.
            let over = other.1.load(Ordering::Acquire);
            let found = other.0.b.lookup(child, KIND, Rights::NONE);
            assert!(!(over && found.is_ok()));
        });
        shared.0.revoke(shared.0.root).unwrap();
        // ORDER: Release pairs with Acquire above.
        shared.1.store(true, Ordering::Release);
        other.join().unwrap();
    });
}

/// The table of a process that ends is drained while what is in it is revoked from elsewhere: all is given back once, and the table is not
/// touched after it is empty.
///
/// Planted: as before.
#[test]
fn loom_revoke_meets_drain() {
    check(3, || {
        let scene = Scene::new();
        let child = scene.derive(scene.a, scene.root, scene.b).unwrap();
        scene.derive(scene.b, child, scene.a).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || {
            while other.b.drain(2, |gone| other.release(&gone)) == Drained::More {
                thread::yield_now();
            }
            other.b.memory().world().forget(other.b);
        });
        scene.revoke(scene.root).unwrap();
        other.join().unwrap();
        assert_eq!(scene.b.memory().out(), 0);
        scene.holds((1, 0), 1);
    });
}

/// The slot of what is deleted is not given up before its node is: the table may be gone when a revocation comes to it.
///
/// Planted: a slot that is given up before the node is taken out.
#[test]
fn loom_delete_meets_drain() {
    check(3, || {
        let scene = Scene::new();
        let child = scene.derive(scene.a, scene.root, scene.b).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || {
            let _ = other.b.delete(child).map(|gone| other.release(&gone));
        });
        while scene.b.drain(2, |gone| scene.release(&gone)) == Drained::More {
            thread::yield_now();
        }
        scene.b.memory().world().forget(scene.b);
        scene.revoke(scene.root).unwrap();
        other.join().unwrap();
        scene.holds((1, 0), 1);
    });
}

/// Two revocations, of a capability and of one above it: both find all gone that they are for.
///
/// Planted: Relaxed in either place of `Ticket::with`.
#[test]
fn loom_revoke_meets_revoke() {
    check(3, || {
        let scene = Scene::new();
        let child = scene.derive(scene.a, scene.root, scene.a).unwrap();
        let grandchild = scene.derive(scene.a, child, scene.b).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || {
            if other.revoke(child).is_ok() {
                assert_eq!(other.b.entry(grandchild), Err(Error::BadHandle));
            }
        });
        scene.revoke(scene.root).unwrap();
        assert_eq!(scene.b.entry(grandchild), Err(Error::BadHandle));
        other.join().unwrap();
        scene.holds((1, 0), 1);
    });
}

/// A timer runs out while its capability is deleted: it is either disarmed, or takes what was derived along.
///
/// Planted: `armed` that is not asked; a node that is removed twice.
#[test]
fn loom_timer_meets_delete() {
    check(3, || {
        let scene = Scene::new();
        let child = scene.derive(scene.a, scene.root, scene.a).unwrap();
        scene.derive(scene.a, child, scene.b).unwrap();
        let timer = ptr::NonNull::<u64>::dangling().cast();
        let attached = scene.a.attach(child, Some(timer)).unwrap();
        let other = scene.clone();
        let other = thread::spawn(move || {
            let _ = other.a.delete(child).map(|gone| other.release(&gone));
        });
        // The timer keeps a reference to the object.
        assert!(scene.count.acquire());
        let armed = || scene.a.memory().world().disarmed().is_empty();
        let sink = |gone| scene.release(&gone);
        let fired = revoke::expire(scene.a.memory(), OBJECT, attached, armed, sink).is_some();
        while revoke::purge(scene.a.memory(), OBJECT, 1, |gone| scene.release(&gone)) == Purged::More {}
        scene.count.release();
        other.join().unwrap();
        assert_eq!(scene.a.memory().world().disarmed().len(), usize::from(!fired));
        scene.holds((1, usize::from(!fired)), 1 + usize::from(!fired));
    });
}
