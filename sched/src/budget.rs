//! Budgets, periods and deadlines.
//!
//! A thread with a budget has `left` of it until `renewal`, when the next period begins. Used up, it waits among the throttled until then.
//! A thread with a deadline competes by the absolute one, `due`. It is a constant-bandwidth server with a hard budget: whatever it does, in
//! any time its demand is at most its density, budget / deadline, so that no thread can make another miss. Where a thread stopped in
//! mid-period and comes back with more left than its density gives until `due`, `due` is moved back, and the renewal with it.
//!
//! Admission: densities, rounded up to 2^-32, must sum up to the bound at most; that suffices for deadlines before the period's end.
//! Source: L. Abeni, G. Buttazzo, "Integrating multimedia applications in hard real-time systems", RTSS 1998; J. Liu, "Real-Time
//! Systems", 2000, §6.2 (density). What a thread leaves behind counts until its last deadline: until then it may be used already.

use crate::dispatch::{Core, DEADLINE, Decision, PeriodEnd};
use crate::feedback::{OVER, TOP};
use crate::task::{Class, Entity, Kind, Place, Task, UNSEEN};
use crate::{NEVER, Tunables};
use abi::error::Error;
use abi::task::SchedSpec;
use core::cell::Cell;

/// All of a core's time, as a density.
const WHOLE: u64 = 1 << 32;
const MILLION: u64 = 1_000_000;

/// What a core has promised.
pub(crate) struct Promises {
    /// Densities of the threads that live here.
    given: Cell<u64>,
    /// Densities of those that have left or were made smaller, until `lingering_until`.
    lingering: Cell<u64>,
    lingering_until: Cell<u64>,
}

impl Promises {
    pub(crate) const fn new() -> Self {
        Self { given: Cell::new(0), lingering: Cell::new(0), lingering_until: Cell::new(0) }
    }

    pub(crate) fn parts_per_million(&self) -> u64 {
        (self.given.get().saturating_mul(MILLION)).div_ceil(WHOLE)
    }

    /// Exchanges a promise whose last deadline is `due` for another.
    fn exchange(&self, old: u64, new: u64, due: u64, now: u64, bound: u64) -> Result<(), Error> {
        if now >= self.lingering_until.get() {
            self.lingering.set(0);
        }
        let shrunk = if due > now { old.saturating_sub(new) } else { 0 };
        let given = self.given.get().saturating_sub(old).saturating_add(new);
        let lingering = self.lingering.get().saturating_add(shrunk);
        if new > old && given.saturating_add(lingering) > bound {
            return Err(Error::NotAdmitted);
        }
        self.given.set(given);
        self.linger(shrunk, due);
        Ok(())
    }

    fn linger(&self, density: u64, due: u64) {
        if density > 0 {
            self.lingering.set(self.lingering.get().saturating_add(density));
            self.lingering_until.set(self.lingering_until.get().max(due));
        }
    }
}

/// A [`SchedSpec`] that makes sense.
#[derive(Clone, Copy)]
struct Plan {
    class: Class,
    priority: u8,
    budget: u64,
    period: u64,
    deadline: u64,
}

impl Plan {
    fn decode(spec: &SchedSpec, tunables: &Tunables) -> Result<Self, Error> {
        let &SchedSpec { class, priority, budget, period, deadline } = spec;
        let limits = budget >= tunables.least_budget && budget <= period;
        let urgent = u8::try_from(priority).ok().filter(|_| priority >= SchedSpec::REAL_TIME_LOWEST);
        match (class, urgent) {
            (SchedSpec::NORMAL, _) if (priority, budget, period, deadline) == (0, 0, 0, 0) => {
                Ok(Self { class: Class::Normal, priority: TOP, budget, period, deadline })
            }
            (SchedSpec::REAL_TIME, Some(priority)) if (budget, period, deadline) == (0, 0, 0) => {
                Ok(Self { class: Class::RealTime, priority, budget, period, deadline })
            }
            (SchedSpec::REAL_TIME, Some(priority)) if limits && deadline == 0 => {
                Ok(Self { class: Class::Limited, priority, budget, period, deadline })
            }
            (SchedSpec::DEADLINE, _) if priority == 0 && limits && (budget..=period).contains(&deadline) => {
                Ok(Self { class: Class::Deadline, priority: 0, budget, period, deadline })
            }
            _ => Err(Error::BadArgument),
        }
    }

    fn density(&self) -> u64 {
        if self.class == Class::Deadline { density(self.budget, self.deadline) } else { 0 }
    }
}

/// Budget / deadline, rounded up to 2^-32. The budget is at most the deadline, which is not zero.
fn density(budget: u64, deadline: u64) -> u64 {
    let scaled = u128::from(budget) * u128::from(WHOLE);
    u64::try_from(scaled.div_ceil(u128::from(deadline.max(1)))).unwrap_or(WHOLE)
}

fn density_of<E>(task: &Task<E>) -> u64 {
    if task.class.get() == Class::Deadline { density(task.budget.get(), task.deadline.get()) } else { 0 }
}

impl<E: Entity> Core<E> {
    fn bound(&self) -> u64 {
        self.tunables.get().promise * WHOLE / MILLION
    }

    /// Says how `e`, which lives here, is scheduled from now on. A deadline that replaces another one holds from the end of the present
    /// period.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for a spec that makes no sense, [`Error::NotAdmitted`] if a deadline cannot be promised beside the others.
    pub fn configure(&self, e: E, spec: &SchedSpec, now: u64) -> Result<Decision, Error> {
        let plan = Plan::decode(spec, &self.tunables.get())?;
        let task = e.task();
        self.promises.exchange(density_of(task), plan.density(), task.due.get(), now, self.bound())?;
        let place = task.place.get();
        if place == Place::Current {
            self.settle(now);
        }
        self.remove(e);
        self.apply(task, plan, now);
        match place {
            Place::Nowhere => return Ok(Decision::Keep),
            Place::Current => self.urgency.set(task.priority()),
            Place::Queued | Place::Due | Place::Throttled => return Ok(self.enqueue_again(e, now)),
        }
        Ok(self.tick(now))
    }

    fn enqueue_again(&self, e: E, now: u64) -> Decision {
        self.ready(e, now, crate::Ready::New)
    }

    fn apply(&self, task: &Task<E>, plan: Plan, now: u64) {
        let promised_before = task.class.get() == Class::Deadline && now < task.due.get();
        let budgeted = plan.budget > 0;
        task.class.set(plan.class);
        task.kind.set(plan.class.kind());
        task.priority.set(plan.priority);
        task.budget.set(plan.budget);
        task.period.set(plan.period);
        task.deadline.set(plan.deadline);
        task.resting.set(false);
        task.missed.set(0);
        task.turn.set(0);
        task.left.set(if budgeted { 0 } else { OVER });
        // The generation before the core's: a normal thread starts anew at the first level.
        task.generation.set(self.generation.get().wrapping_sub(1));
        self.refresh(task);
        task.show_kind();
        if budgeted && plan.class == Class::Deadline && promised_before {
            task.renewal.set(task.due.get());
        } else if budgeted {
            self.begin(task, now);
        }
    }

    /// `e`, which is on no queue here and not current, ends or goes to another core: gives back what it was promised.
    pub fn leave(&self, e: E) {
        let task = e.task();
        let old = density_of(task);
        self.promises.given.set(self.promises.given.get().saturating_sub(old));
        self.promises.linger(old, task.due.get());
        self.refresh(task);
    }

    /// `e`, which was configured elsewhere and has left there, comes to live here.
    ///
    /// # Errors
    /// [`Error::NotAdmitted`] if its deadline cannot be promised here beside the others; it then does not live here.
    pub fn arrive(&self, e: E, now: u64) -> Result<(), Error> {
        let task = e.task();
        self.promises.exchange(0, density_of(task), 0, now, self.bound())?;
        if task.generation.get() != UNSEEN {
            task.generation.set(self.generation.get());
        }
        Ok(())
    }

    /// Begins a period at `start`.
    fn begin(&self, task: &Task<E>, start: u64) {
        task.left.set(task.budget.get());
        task.renewal.set(start.saturating_add(task.period.get()));
        task.due.set(start.saturating_add(task.deadline.get()));
    }

    /// Begins the period that `now`, at or after the renewal, lies in; how many lay wholly in between.
    fn begin_latest(&self, task: &Task<E>, now: u64) -> u64 {
        let late = now.saturating_sub(task.renewal.get());
        let skipped = late / task.period.get().max(1);
        self.begin(task, now - late % task.period.get().max(1));
        skipped
    }

    fn note_missed(task: &Task<E>, periods: u64) {
        let missed = u64::from(task.missed.get()).saturating_add(periods);
        task.missed.set(u32::try_from(missed).unwrap_or(u32::MAX));
    }

    /// Begins the present period of a thread that has a budget and ran for the last `ran` ticks, if its last one is over. What it ran in
    /// the new one counts.
    pub(crate) fn roll(&self, task: &Task<E>, now: u64, ran: u64) {
        let never = matches!(task.kind.get(), Kind::Normal | Kind::RealTime);
        if never || !task.has_budget() || now < task.renewal.get() {
            return;
        }
        Self::note_missed(task, self.begin_latest(task, now).saturating_add(1));
        let into = task.period.get().saturating_sub(task.renewal.get().saturating_sub(now));
        task.left.set(task.left.get().saturating_sub(ran.min(into)));
    }

    pub(crate) fn throttle(&self, e: E) {
        e.task().place.set(Place::Throttled);
        self.throttled.insert(e, e.task().renewal.get());
    }

    pub(crate) fn enqueue_due(&self, e: E) {
        e.task().place.set(Place::Due);
        self.deadlines.insert(e, e.task().due.get());
        self.deadlines_len.set(self.deadlines_len.get().wrapping_add(1));
    }

    /// `ready` for a thread with a budget.
    pub(crate) fn ready_budgeted(&self, e: E, now: u64) -> Decision {
        let task = e.task();
        if now >= task.renewal.get() {
            if task.resting.get() {
                let skipped = self.begin_latest(task, now);
                Self::note_missed(task, skipped);
            } else {
                self.begin(task, now);
            }
            task.resting.set(false);
        } else if task.left.get() == 0 {
            self.throttle(e);
            return Decision::Keep;
        } else if task.class.get() == Class::Deadline {
            self.postpone(task, now);
        }
        self.enqueue_budgeted(e)
    }

    /// Queues a thread that has budget left.
    fn enqueue_budgeted(&self, e: E) -> Decision {
        let task = e.task();
        let urgency = self.urgency.get();
        let preempt = if task.class.get() == Class::Deadline {
            self.enqueue_due(e);
            urgency < DEADLINE
                || self.current.get().is_none_or(|current| task.due.get() < current.task().due.get())
        } else {
            let priority = self.queue_of(task);
            self.enqueue_last(e, priority);
            u32::from(priority) > urgency
        };
        if preempt { Decision::Preempt } else { Decision::Keep }
    }

    /// Moves the deadline of a thread that stopped in mid-period back to where what is left fits its density.
    fn postpone(&self, task: &Task<E>, now: u64) {
        let (left, deadline, budget) = (task.left.get(), task.deadline.get(), task.budget.get().max(1));
        let length = (u128::from(left) * u128::from(deadline)).div_ceil(u128::from(budget));
        let due = now.saturating_add(u64::try_from(length).unwrap_or(NEVER));
        if due > task.due.get() {
            task.due.set(due);
            task.renewal.set(task.renewal.get().max(due));
        }
    }

    /// Begins the periods of throttled threads that are due.
    pub(crate) fn replenish(&self, now: u64) {
        while self.throttled.least() <= now {
            let Some(e) = self.throttled.pop() else { return };
            let task = e.task();
            let skipped = self.begin_latest(task, now);
            if !task.resting.replace(false) {
                Self::note_missed(task, skipped.saturating_add(1));
            }
            // The decision is `tick`'s, over all that has become ready.
            let _ = self.enqueue_budgeted(e);
        }
    }

    /// The current thread has done this period's work: what is left of its budget is gone, and it waits for the next period. The caller
    /// stops it as blocked and has it ready again, as woken, at `next`. `None` if the thread has no periods.
    pub fn end_period(&self, now: u64) -> Option<PeriodEnd> {
        let e = self.current.get()?;
        let task = e.task();
        if !task.has_budget() {
            return None;
        }
        self.settle(now);
        task.left.set(0);
        task.resting.set(true);
        Some(PeriodEnd { next: task.renewal.get(), missed: u64::from(task.missed.replace(0)) })
    }
}
