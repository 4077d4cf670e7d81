//! Loom models of the words of frames: the lock of a page table, a table that is taken out, and counts of shared pages. No bound on
//! preemptions.
//!
//! What a lock or a count guards is a loom cell: an access that is not ordered before the next owner's is a race, which loom reports. A
//! taken-out table's frame is used again when the other core has left the kernel, as its epoch would tell.
//!
//! Planted bugs that were seen to fail: see the models that name some. Relaxed in `set_stale` fails none: who finds the word looks again and
//! reads nothing through it.

use super::info::{FrameInfo, Way, Word};
use crate::id::Order;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// A frame, with what is in it.
struct Frame {
    info: FrameInfo,
    content: UnsafeCell<u32>,
}

// SAFETY: whether the accesses to the content are ordered is what the models find out.
unsafe impl Sync for Frame {}
// SAFETY: as above.
unsafe impl Send for Frame {}

impl Frame {
    fn new() -> Self {
        Self { info: FrameInfo::new(), content: UnsafeCell::new(0) }
    }

    fn table(count: usize) -> Self {
        let frame = Self::new();
        frame.info.set_table(Word::new(count));
        frame
    }

    fn write(&self, value: u32) {
        // SAFETY: loom checks that nobody else accesses it now.
        self.content.with_mut(|content| unsafe { *content = value });
    }

    fn read(&self) -> u32 {
        // SAFETY: as above.
        self.content.with(|content| unsafe { *content })
    }
}

/// Two cores change entries under one lock: neither change, nor its count, is lost.
///
/// Planted: Relaxed in `unlock`; `lock` that does not look at the bit.
#[test]
fn loom_one_at_a_time_has_a_table() {
    loom::model(|| {
        let table = Arc::new(Frame::table(0));
        let change = |table: &Frame| {
            let word = table.info.lock().expect("nobody takes it out");
            table.write(table.read() + 1);
            table.info.unlock(word.add(1));
        };
        let other = {
            let table = table.clone();
            thread::spawn(move || change(&table))
        };
        change(&table);
        other.join().expect("no panic");
        assert_eq!((table.info.table(), table.read()), (Word::new(2), 2));
    });
}

/// The place where a table is found without a lock, and the table.
struct Tree {
    /// 1 while it leads to `table`.
    entry: AtomicUsize,
    table: Frame,
    /// Whether the other core is still in the kernel.
    inside: AtomicUsize,
}

/// As `Space::find`: whether there was a table, to which an entry has been added.
fn find(tree: &Tree) -> bool {
    loop {
        // ORDER: Acquire: as in `Table::get`.
        if tree.entry.load(Ordering::Acquire) == 0 {
            return false;
        }
        if let Some(word) = tree.table.info.lock() {
            // ORDER: Relaxed: the lock orders it.
            assert_eq!(tree.entry.load(Ordering::Relaxed), 1, "A2: what can be locked is in its place");
            tree.table.write(tree.table.read() + 1);
            tree.table.info.unlock(word.add(1));
            return true;
        }
        thread::yield_now();
    }
}

/// A table is taken out while another core finds it: that core adds an entry before, and then the table stays; or it finds nothing. Nobody
/// writes to the frame when it is used for something else.
///
/// Planted: `lock` that does not look at the tag, or not at the bit.
#[test]
fn loom_a_table_that_is_taken_out_is_not_entered() {
    loom::model(|| {
        let tree = Arc::new(Tree {
            entry: AtomicUsize::new(1),
            table: Frame::table(0),
            inside: AtomicUsize::new(1),
        });
        let other = {
            let tree = tree.clone();
            thread::spawn(move || {
                let found = find(&tree);
                // ORDER: Release: as an epoch's exit: our accesses come before what follows the grace period.
                tree.inside.store(0, Ordering::Release);
                found
            })
        };
        let word = tree.table.info.lock().expect("nobody else takes it out");
        let empty = word.count() == 0;
        if empty {
            // ORDER: Release: as in `Table::set`.
            tree.entry.store(0, Ordering::Release);
            tree.table.info.set_stale(None, Order::FRAME, Way::Later);
            // ORDER: Acquire pairs with the Release above.
            while tree.inside.load(Ordering::Acquire) != 0 {
                thread::yield_now();
            }
            tree.table.info.set_table(Word::new(7));
            tree.table.write(100);
        } else {
            tree.table.info.unlock(word);
        }
        let found = other.join().expect("no panic");
        assert_eq!(found, !empty, "either it was empty or it was found");
        assert_eq!(tree.table.read(), if empty { 100 } else { 1 });
    });
}

/// Both mappings of a shared frame go: exactly one core gives it back, after the other is done with it.
#[test]
fn loom_the_last_reference_gives_a_frame_back() {
    loom::model(|| {
        let frame = Arc::new(Frame::new());
        frame.info.share();
        let drop_one = |frame: &Frame| {
            assert_eq!(frame.read(), 0, "not used for something else");
            let last = frame.info.unshare();
            if last {
                frame.write(1);
            }
            last
        };
        let other = {
            let frame = frame.clone();
            thread::spawn(move || drop_one(&frame))
        };
        let here = drop_one(&frame);
        let there = other.join().expect("no panic");
        assert!(here != there, "one gives it back");
    });
}

/// A core that writes takes the frame for its own only when the other mapping's core is done with it. Else it copies.
#[test]
fn loom_a_sole_owner_writes_in_place() {
    loom::model(|| {
        let frame = Arc::new(Frame::new());
        frame.info.share();
        let other = {
            let frame = frame.clone();
            thread::spawn(move || {
                assert_eq!(frame.read(), 0, "the other's write is not seen");
                if frame.info.unshare() {
                    frame.write(2);
                }
            })
        };
        if frame.info.is_sole() {
            frame.write(1);
            assert_eq!(frame.read(), 1);
        } else {
            assert_eq!(frame.read(), 0);
            if frame.info.unshare() {
                frame.write(2);
            }
        }
        other.join().expect("no panic");
    });
}

/// A frame is shared once more while another mapping goes: no reference is lost.
#[test]
fn loom_a_share_meets_the_end_of_another() {
    loom::model(|| {
        let frame = Arc::new(Frame::new());
        frame.info.share();
        let other = {
            let frame = frame.clone();
            thread::spawn(move || frame.info.unshare())
        };
        frame.info.share();
        assert!(!other.join().expect("no panic"), "two are left");
        assert!(!frame.info.unshare() && frame.info.is_sole() && frame.info.unshare());
    });
}
