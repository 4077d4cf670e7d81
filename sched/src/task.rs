//! The part of a thread that belongs to the scheduler.
//!
//! Three cache lines: the first is all that queueing, switching and accounting touch for a thread without budget, the second serves
//! budgets and deadlines, the third the timeout. Only the core that the thread lives on touches any of it.

use crate::NEVER;
use crate::feedback;
use core::cell::Cell;

/// A cheap reference to a thread.
pub trait Entity: Copy + Eq {
    /// What the scheduler knows of it; always the same for equal references.
    fn task(&self) -> &Task<Self>;
}

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// Shares what is left, by the feedback queue.
    Normal,
    /// A fixed priority.
    RealTime,
    /// A fixed priority, and a budget for each period.
    Limited,
    /// Earliest deadline first, with a budget for each period.
    Deadline,
}

/// As what the queues treat a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// [`Class::Normal`].
    Normal,
    /// [`Class::RealTime`].
    RealTime,
    /// [`Class::Limited`].
    Limited,
    /// [`Class::Deadline`].
    Deadline,
    /// Of any class but `Deadline`, and more urgent than that for the time being (`inherit`).
    Inheriting,
}

impl Class {
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Normal => Kind::Normal,
            Self::RealTime => Kind::RealTime,
            Self::Limited => Kind::Limited,
            Self::Deadline => Kind::Deadline,
        }
    }
}

/// Where a thread is (S2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    /// On no queue: it blocks, is new, or lives elsewhere.
    Nowhere,
    /// It has the core.
    Current,
    /// In the first-in-first-out queue of its priority.
    Queued,
    /// Among the runnable with a deadline.
    Due,
    /// Its budget is used up; it waits for the next period.
    Throttled,
}

/// The generation of a thread that no core has looked at yet: its first core takes it for boosted, to the first level and a full quantum.
pub(crate) const UNSEEN: u32 = u32::MAX;

/// Links of a queue (`next`, `prev`) or of a heap (`left`, `right`).
#[repr(C)]
pub struct Links<E> {
    pub(crate) next: Cell<Option<E>>,
    pub(crate) prev: Cell<Option<E>>,
}

/// What a heap needs beyond [`Links`].
#[repr(C)]
pub struct Stem<E> {
    pub(crate) parent: Cell<Option<E>>,
    /// What the heap is ordered by.
    pub(crate) key: Cell<u64>,
    /// Length of the shortest way down to a missing child; 0 only for what is in no heap.
    pub(crate) rank: Cell<u32>,
}

impl<E> Links<E> {
    /// In nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: Cell::new(None), prev: Cell::new(None) }
    }
}

impl<E> Stem<E> {
    /// In no heap.
    #[must_use]
    pub const fn new() -> Self {
        Self { parent: Cell::new(None), key: Cell::new(NEVER), rank: Cell::new(0) }
    }

    /// Whether it is in a heap.
    #[must_use]
    pub fn is_in(&self) -> bool {
        self.rank.get() != 0
    }
}

impl<E> Default for Links<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Default for Stem<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// The part of a thread that belongs to the scheduler; lies in the thread's control block.
///
/// | line | fields |
/// |---|---|
/// | 0 | links of the run queue, ticks left, turn, accounting, kind, priority, level, place |
/// | 1 | deadline heap, budget, period, deadline, renewal, class, what is inherited |
/// | 2 | timeout |
///
/// The offsets hold for references of eight bytes.
#[repr(C, align(64))]
pub struct Task<E> {
    pub(crate) links: Links<E>,
    /// Ticks until the level's quantum or the period's budget is used up; [`NEVER`] for real time without budget.
    pub(crate) left: Cell<u64>,
    /// Ticks used since the thread was last queued behind its equals; [`feedback::OVER`] when it has to go there.
    pub(crate) turn: Cell<u64>,
    pub(crate) ticks: Cell<u64>,
    pub(crate) switches: Cell<u64>,
    /// When it last gave the core up to wait.
    pub(crate) stopped: Cell<u64>,
    /// The core's count of boosts that `level` and `left` date from.
    pub(crate) generation: Cell<u32>,
    pub(crate) kind: Cell<Kind>,
    /// The queue that it belongs to, unless a boost came in between or it inherits; for a deadline 0.
    pub(crate) priority: Cell<u8>,
    pub(crate) level: Cell<u8>,
    pub(crate) place: Cell<Place>,

    /// The key is the absolute deadline while the thread is runnable, and the renewal while it is throttled.
    pub(crate) stem: Stem<E>,
    pub(crate) budget: Cell<u64>,
    pub(crate) period: Cell<u64>,
    /// Relative to the start of a period.
    pub(crate) deadline: Cell<u64>,
    /// Absolute end of the present period.
    pub(crate) renewal: Cell<u64>,
    /// Periods that ended before the thread said so.
    pub(crate) missed: Cell<u32>,
    /// The thread has ended its period and waits for the next.
    pub(crate) resting: Cell<bool>,
    pub(crate) class: Cell<Class>,
    /// The least priority of its queue for the time being (`inherit`); 0 if it inherits none.
    pub(crate) inherited: Cell<u8>,

    pub(crate) timeout_links: Links<E>,
    /// The key is [`NEVER`] while no timeout is armed.
    pub(crate) timeout_stem: Stem<E>,
    /// Absolute deadline of the present period, for [`Class::Deadline`].
    pub(crate) due: Cell<u64>,
}

const _: () = {
    type Sample = Task<&'static u64>;
    assert!(size_of::<Sample>() == 192);
    assert!(core::mem::offset_of!(Sample, stem) == 64);
    assert!(core::mem::offset_of!(Sample, timeout_links) == 128);
};

impl<E> Task<E> {
    /// A normal thread that has not run.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            links: Links::new(),
            left: Cell::new(0),
            turn: Cell::new(0),
            ticks: Cell::new(0),
            switches: Cell::new(0),
            stopped: Cell::new(0),
            generation: Cell::new(UNSEEN),
            kind: Cell::new(Kind::Normal),
            priority: Cell::new(feedback::TOP),
            level: Cell::new(0),
            place: Cell::new(Place::Nowhere),
            stem: Stem::new(),
            budget: Cell::new(0),
            period: Cell::new(0),
            deadline: Cell::new(0),
            renewal: Cell::new(0),
            missed: Cell::new(0),
            resting: Cell::new(false),
            class: Cell::new(Class::Normal),
            inherited: Cell::new(0),
            timeout_links: Links::new(),
            timeout_stem: Stem::new(),
            due: Cell::new(0),
        }
    }

    /// How the thread is scheduled, whatever it inherits.
    pub fn class(&self) -> Class {
        self.class.get()
    }

    /// Its present priority, as `ThreadInfo` tells it: 1 to 5 for normal threads (5 is the first level), 64 to 255 for real time, 256 with
    /// a deadline; no less than what it inherits. Exact for threads that run or have run since the last boost.
    pub fn priority(&self) -> u32 {
        match self.class.get() {
            Class::Deadline => crate::dispatch::DEADLINE,
            _ => u32::from(self.priority.get().max(self.inherited.get())),
        }
    }

    /// As [`priority`](Self::priority), whatever it inherits; 0 with a deadline.
    pub fn own_priority(&self) -> u32 {
        u32::from(self.priority.get())
    }

    /// The priority that it inherits, 0 for none.
    pub fn inherited(&self) -> u32 {
        u32::from(self.inherited.get())
    }

    /// Whether it has a budget for each period.
    pub(crate) fn has_budget(&self) -> bool {
        matches!(self.class.get(), Class::Limited | Class::Deadline)
    }

    /// Ticks that the thread has run, up to the last time that the core accounted for it.
    pub fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    /// How often the thread was switched to.
    pub fn switches(&self) -> u64 {
        self.switches.get()
    }

    /// The timeout that is armed; [`NEVER`] for none.
    pub fn timeout(&self) -> u64 {
        self.timeout_stem.key.get()
    }

    /// Whether the thread waits for the core or for its next period: [`crate::Core::remove`] would take it out.
    pub fn is_queued(&self) -> bool {
        matches!(self.place.get(), Place::Queued | Place::Due | Place::Throttled)
    }
}

impl<E> Default for Task<E> {
    fn default() -> Self {
        Self::new()
    }
}
