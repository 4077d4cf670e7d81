//! Memory and objects for the tests of this crate, without unsafe code: leaves are leaked, and found again by their addresses.

use crate::memory::{LeafAt, Memory};
use crate::slot::Leaf;
use crate::table;
use core::ptr::{self, NonNull};
use percpu::sync::atomic::{AtomicU64, Ordering};
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;

/// Memory for a number of leaves.
#[derive(Debug)]
pub(crate) struct Pool {
    room: usize,
    /// Every leaf that was ever given: a lookup that has begun may still read one that was given back.
    given: Mutex<Vec<&'static Leaf>>,
    returned: Mutex<Vec<usize>>,
}

impl Pool {
    pub(crate) const fn new(room: usize) -> Self {
        Self { room, given: Mutex::new(Vec::new()), returned: Mutex::new(Vec::new()) }
    }

    /// Leaves that are out.
    pub(crate) fn out(&self) -> usize {
        self.given.lock().unwrap().len() - self.returned.lock().unwrap().len()
    }
}

impl Memory for Pool {
    fn take(&self) -> Option<NonNull<Leaf>> {
        if self.out() == self.room {
            return None;
        }
        let leaf: &'static Leaf = Box::leak(Box::new(Leaf::new()));
        self.given.lock().unwrap().push(leaf);
        Some(NonNull::from(leaf))
    }

    fn leaf(&self, at: LeafAt) -> &Leaf {
        if ptr::eq(at.pointer(), table::empty()) {
            return table::empty_leaf();
        }
        let given = self.given.lock().unwrap();
        given.iter().copied().find(|leaf| ptr::eq(at.pointer(), *leaf)).expect("a leaf of this pool")
    }

    fn give_back(&self, leaf: LeafAt) {
        let address = leaf.pointer().addr();
        let mut returned = self.returned.lock().unwrap();
        assert!(!returned.contains(&address), "given back once");
        assert!(self.given.lock().unwrap().iter().any(|given| ptr::eq(leaf.pointer(), *given)));
        returned.push(address);
    }
}

/// References to an object.
#[derive(Debug)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn new(references: u64) -> Self {
        Self(AtomicU64::new(references))
    }

    /// One more, unless there is none any more.
    pub(crate) fn acquire(&self) -> bool {
        let more = |count| (count != 0).then_some(count + 1);
        // ORDER: AcqRel: Acquire is what `Table::derive` asks for. Acquire on failure: as good.
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(crate) fn release(&self) {
        // ORDER: AcqRel pairs with itself and `acquire`.
        assert_ne!(self.0.fetch_sub(1, Ordering::AcqRel), 0, "a reference is given up once");
    }

    pub(crate) fn get(&self) -> u64 {
        // ORDER: Acquire pairs with `release`.
        self.0.load(Ordering::Acquire)
    }
}
