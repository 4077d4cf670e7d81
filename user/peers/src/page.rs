//! A page that all parties share: what each is told to do, and what has come of it. Words of 32 bits, for that is what `rt` maps.
//!
//! All of them run on one core, and whoever writes is not interrupted by whoever reads: the order of plain accesses is enough.

use abi::cap::Handle;
use abi::ipc::WORDS;
use rt::sync::atomic::{AtomicU32, Ordering};

use crate::model::{Operation, Outcome, Patience};

/// The page.
pub(crate) type Words = [AtomicU32; rt::memory::PAGE / 4];

/// Words of each party.
const SHARE: usize = 64;

const OPERATION: usize = 0;
const AT: usize = 1;
const PATIENCE: usize = 2;
const SEED: usize = 3;
const DEADLINE: usize = 4;
const HANDLE: usize = 6;
const OWN: usize = 8;
const DONE: usize = 16;
const STATUS: usize = 18;
const TAG: usize = 20;
const BADGE: usize = 22;
const VALUE: usize = 24;
const MESSAGE: usize = 26;
/// After the last message word.
const END: usize = MESSAGE + 2 * WORDS;

const _: () = assert!(END <= SHARE);

/// What a party is told, in the words of [`Operation`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) number: u32,
    pub(crate) at: usize,
    pub(crate) patience: u32,
    pub(crate) seed: u32,
    /// When an operation that ends soon does.
    pub(crate) deadline: u64,
    /// The reply that it is about.
    pub(crate) handle: Handle,
}

impl Order {
    /// The order to do something.
    pub(crate) fn new(operation: Operation, deadline: u64, handle: Handle) -> Self {
        let (number, at, patience, seed) = match operation {
            Operation::Send { to, patience, seed } => (0, to, patience, seed),
            Operation::Receive { from, patience } => (1, from, patience, 0),
            Operation::Reply { seed } => (2, 0, Patience::Endless, seed),
            Operation::Call { to, patience, seed } => (3, to, patience, seed),
            Operation::ReplyReceive { from, patience, seed } => (4, from, patience, seed),
            Operation::Save => (5, 0, Patience::Endless, 0),
            Operation::Answer { seed, .. } => (6, 0, Patience::Endless, seed),
            Operation::Drop { .. } => (7, 0, Patience::Endless, 0),
            Operation::Nameless { call } => (8, 0, Patience::Endless, call),
            Operation::Senseless { call } => (9, 0, Patience::Endless, call),
        };
        Self { number, at, patience: patience as u32, seed, deadline, handle }
    }
}

/// One party's part of the page.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    words: &'static Words,
    first: usize,
}

impl Share {
    pub(crate) fn of(words: &'static Words, party: usize) -> Self {
        Self { words, first: party * SHARE }
    }

    fn get(self, at: usize) -> u32 {
        // ORDER: Relaxed: one core.
        self.words.get(self.first + at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn set(self, at: usize, value: u32) {
        if let Some(word) = self.words.get(self.first + at) {
            // ORDER: Relaxed: one core.
            word.store(value, Ordering::Relaxed);
        }
    }

    fn get_long(self, at: usize) -> u64 {
        u64::from(self.get(at + 1)) << 32 | u64::from(self.get(at))
    }

    fn set_long(self, at: usize, value: u64) {
        self.set(at, value as u32);
        self.set(at + 1, (value >> 32) as u32);
    }

    pub(crate) fn order(self) -> Order {
        Order {
            number: self.get(OPERATION),
            at: self.get(AT) as usize,
            patience: self.get(PATIENCE),
            seed: self.get(SEED),
            deadline: self.get_long(DEADLINE),
            handle: Handle(self.get_long(HANDLE)),
        }
    }

    pub(crate) fn give(self, order: Order) {
        self.set(OPERATION, order.number);
        self.set(AT, order.at as u32);
        self.set(PATIENCE, order.patience);
        self.set(SEED, order.seed);
        self.set_long(DEADLINE, order.deadline);
        self.set_long(HANDLE, order.handle.0);
    }

    /// The party's own thread, as its process knows it.
    pub(crate) fn own(self) -> Handle {
        Handle(self.get_long(OWN))
    }

    pub(crate) fn set_own(self, thread: Handle) {
        self.set_long(OWN, thread.0);
    }

    pub(crate) fn note(self, outcome: &Outcome, value: u64) {
        self.set_long(STATUS, outcome.status);
        self.set_long(TAG, outcome.tag);
        self.set_long(BADGE, outcome.badge);
        self.set_long(VALUE, value);
        for (index, &word) in outcome.words.iter().enumerate() {
            self.set_long(MESSAGE + 2 * index, word);
        }
        self.set(DONE, self.get(DONE).wrapping_add(1));
    }

    pub(crate) fn done(self) -> u32 {
        self.get(DONE)
    }

    /// What the last operation gave besides: a handle.
    pub(crate) fn value(self) -> u64 {
        self.get_long(VALUE)
    }

    pub(crate) fn outcome(self) -> Outcome {
        Outcome {
            status: self.get_long(STATUS),
            tag: self.get_long(TAG),
            badge: self.get_long(BADGE),
            words: core::array::from_fn(|index| self.get_long(MESSAGE + 2 * index)),
        }
    }
}
