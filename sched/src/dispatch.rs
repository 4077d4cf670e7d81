//! One core: what it runs, and what happens when threads come, go and use up their time.
//!
//! * S1: the queues hold exactly the runnable threads that are not current (Benno), except that a thread whose budget is used up waits
//!   among the throttled until its next period.
//! * S2: a thread is on at most one of: the queue of its priority, the deadline heap, the throttled heap. `Task::place` says which.
//! * S3: a queued normal thread is in the queue of its priority if its generation is the core's, else in that of the first level; one that
//!   inherits (`inherit`) is in that of what it inherits if this is more urgent.
//! * S4: the densities of the threads with a deadline that live here sum up to at most the bound (`budget`).
//!
//! Everything is called by the owning core with interrupts off; `now` never decreases.

use crate::budget::Promises;
use crate::feedback::{OVER, TOP};
use crate::heap::{Heap, Run, Timeout};
use crate::queue::Queue;
use crate::task::{Class, Entity, Kind, Place, Task};
use crate::{NEVER, Tunables};
use abi::task::SchedSpec;
use core::cell::Cell;

/// Urgency of a deadline: above all priorities.
pub(crate) const DEADLINE: u32 = 256;

/// How many queued threads `steal` looks at.
const STEAL_STEPS: u32 = 16;

/// Why a thread can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It was started, or resumed.
    New,
    /// What it waited for has happened. A normal thread earns back a part of the time that it waited.
    Woken,
    /// It comes from another core.
    Arrived,
}

/// Why a thread leaves the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It waits for something.
    Blocked,
    /// Another one is to run: it is queued again, before its equals if its turn is not over.
    Preempted,
    /// It must not run until it is resumed.
    Suspended,
    /// It has ended.
    Ended,
}

/// Whether the current thread can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It goes on.
    Keep,
    /// Another one has to run, or nothing runs: `stop(now, Stop::Preempted)` if there is a current thread, then `pick`.
    Preempt,
}

/// What a thread that ended its period waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodEnd {
    /// When its next period begins.
    pub next: u64,
    /// Periods that passed since it last ended one.
    pub missed: u64,
}

/// One core's scheduler.
#[repr(C, align(64))]
pub struct Core<E> {
    pub(crate) current: Cell<Option<E>>,
    /// Up to when the current thread's time is accounted for.
    pub(crate) since: Cell<u64>,
    /// Priority of the current thread, [`DEADLINE`], or 0 without one.
    pub(crate) urgency: Cell<u32>,
    /// Boosts so far.
    pub(crate) generation: Cell<u32>,
    pub(crate) deadlines: Heap<E, Run>,
    pub(crate) deadlines_len: Cell<u64>,
    pub(crate) queue: Queue<E>,
    pub(crate) throttled: Heap<E, Run>,
    pub(crate) timeouts: Heap<E, Timeout>,
    /// When the next boost is due.
    pub(crate) boost: Cell<u64>,
    pub(crate) promises: Promises,
    pub(crate) tunables: Cell<Tunables>,
    /// The quanta, by themselves for the sake of `ready`; with room for any level that three bits can name.
    pub(crate) quanta: [Cell<u64>; 8],
}

impl<E: Entity> Core<E> {
    /// A core with nothing to run.
    #[must_use]
    pub const fn new(tunables: Tunables) -> Self {
        let tunables = tunables.mended();
        let [q0, q1, q2, q3, q4] = tunables.quanta;
        Self {
            current: Cell::new(None),
            since: Cell::new(0),
            urgency: Cell::new(0),
            generation: Cell::new(0),
            deadlines: Heap::new(),
            deadlines_len: Cell::new(0),
            queue: Queue::new(),
            throttled: Heap::new(),
            timeouts: Heap::new(),
            boost: Cell::new(0),
            promises: Promises::new(),
            tunables: Cell::new(tunables),
            quanta: [
                Cell::new(q0),
                Cell::new(q1),
                Cell::new(q2),
                Cell::new(q3),
                Cell::new(q4),
                Cell::new(q4),
                Cell::new(q4),
                Cell::new(q4),
            ],
        }
    }

    /// Sets the tunables, once the clock's frequency is known. Quanta that threads have already begun keep their length.
    pub fn set_tunables(&self, tunables: Tunables) {
        let tunables = tunables.mended();
        self.tunables.set(tunables);
        for (cell, quantum) in self.quanta.iter().zip(tunables.quanta) {
            cell.set(quantum);
        }
    }

    /// The thread that has the core.
    #[inline]
    pub fn current(&self) -> Option<E> {
        self.current.get()
    }

    /// Threads that could run, the current one included.
    pub fn load(&self) -> usize {
        let waiting = u64::from(self.queue.len()) + self.deadlines_len.get();
        waiting as usize + usize::from(self.current.get().is_some())
    }

    /// Normal threads that could run, the current one included: what a balancer can move and a thief can take (`weight - 1` of them).
    pub fn weight(&self) -> usize {
        let current = self.current.get().is_some_and(|e| e.task().kind.get() == Kind::Normal);
        self.queue.normal() as usize + usize::from(current)
    }

    /// Whether a thread that must not wait could run: one with a deadline, or a real-time one.
    #[inline]
    pub fn has_urgent(&self) -> bool {
        self.has_above(SchedSpec::REAL_TIME_LOWEST as u32 - 1)
    }

    /// Whether a thread could run that has a deadline or a priority above this one, as [`Task::priority`](crate::Task::priority) tells it.
    #[inline]
    pub fn has_above(&self, priority: u32) -> bool {
        self.deadlines_len.get() > 0 || self.queue.top().is_some_and(|top| u32::from(top) > priority)
    }

    /// Parts per million of the core's time that deadlines have been promised, rounded up.
    pub fn promised(&self) -> u64 {
        self.promises.parts_per_million()
    }

    /// `e`, which lives here and is on no queue, can run.
    #[inline]
    pub fn ready(&self, e: E, now: u64, why: Ready) -> Decision {
        let task = e.task();
        if !self.is_simple(task, now, why) {
            return self.ready_slowly(e, now, why);
        }
        let priority = task.priority.get();
        self.enqueue_last(e, priority);
        self.against(u32::from(priority))
    }

    /// Whether a thread that can run has neither a budget nor a new level; a normal one has then earned what it has to.
    #[inline(always)]
    fn is_simple(&self, task: &Task<E>, now: u64, why: Ready) -> bool {
        let kind = task.kind.get();
        if kind != Kind::Normal {
            return kind == Kind::RealTime;
        }
        let boosted = task.generation.get() != self.generation.get();
        !boosted && (why != Ready::Woken || self.earn(task, now))
    }

    /// `e`, which lives here, is on no queue and has been woken, takes the core from the current thread if it is more urgent: as `ready`, `stop`
    /// and `pick`. `false`, and nothing has changed, if it is not, and where more would have to be done.
    ///
    /// The last decision was obeyed: nobody who is queued is more urgent than the current thread.
    #[inline(always)]
    pub fn overtake(&self, e: E, now: u64) -> bool {
        let Some(current) = self.current.get() else { return false };
        let task = e.task();
        let urgency = u32::from(task.priority.get());
        if urgency <= self.urgency.get() || !self.is_simple(task, now, Ready::Woken) {
            return false;
        }
        self.step_aside(current, now);
        task.turn.set(0);
        self.run(e, urgency, now);
        true
    }

    /// `stop` of the current thread, which is preempted: shorter for one that has no budget and whose turn is surely not over, as a turn is never
    /// shorter than the first quantum.
    #[inline(always)]
    fn step_aside(&self, e: E, now: u64) {
        let task = e.task();
        let ran = now.saturating_sub(self.since.get());
        let turn = task.turn.get().saturating_add(ran);
        let short = match task.kind.get() {
            Kind::RealTime => turn != OVER,
            Kind::Normal => task.left.get() > ran && turn < self.quanta[0].get(),
            _ => false,
        };
        if !short {
            return self.stop(now, Stop::Preempted);
        }
        self.account(task, now);
        task.place.set(Place::Queued);
        self.queue.push_first(e, task.priority.get());
    }

    /// `ready` for a thread that has a budget or inherits, or whose level changes.
    #[inline(never)]
    fn ready_slowly(&self, e: E, now: u64, why: Ready) -> Decision {
        let task = e.task();
        match task.kind.get() {
            Kind::Normal => {}
            Kind::Inheriting => return self.ready_inheriting(e, now, why),
            Kind::RealTime | Kind::Limited | Kind::Deadline => return self.ready_budgeted(e, now),
        }
        if self.is_stale(task) {
            self.lift(task);
        } else if why == Ready::Woken {
            self.rise(task, now);
        }
        self.enqueue_last(e, task.priority.get());
        self.against(task.priority())
    }

    /// Puts `e` behind its equals.
    #[inline]
    pub(crate) fn enqueue_last(&self, e: E, priority: u8) {
        let task = e.task();
        task.turn.set(0);
        task.place.set(Place::Queued);
        self.queue.push_last(e, priority);
    }

    /// What a queued thread of an urgency below [`DEADLINE`] means for the current one.
    #[inline]
    pub(crate) fn against(&self, urgency: u32) -> Decision {
        if urgency > self.urgency.get() { Decision::Preempt } else { Decision::Keep }
    }

    /// Whether another thread of the same priority could run: without one `yield_now` changes nothing and the clock need not be read.
    #[inline]
    pub fn has_equal(&self) -> bool {
        u8::try_from(self.urgency.get()).is_ok_and(|priority| self.queue.first(priority).is_some())
    }

    /// Lets the next of the same priority run, if there is one: it is then current, and the one before is queued behind its equals.
    #[inline]
    pub fn yield_now(&self, now: u64) -> Option<E> {
        self.yield_at(|| now).map(|(next, _)| next)
    }

    /// As [`yield_now`](Self::yield_now), and reads the clock only if somebody else can run; the time is the second part of the answer.
    #[inline(always)]
    pub fn yield_at(&self, clock: impl FnOnce() -> u64) -> Option<(E, u64)> {
        let priority = u8::try_from(self.urgency.get()).ok()?;
        let next = self.queue.first(priority)?;
        let e = self.current.get()?;
        let now = clock();
        let task = e.task();
        let ran = now.wrapping_sub(self.since.get());
        let left = task.left.get();
        let simple = matches!(task.kind.get(), Kind::Normal | Kind::RealTime);
        if left <= ran || !simple || self.is_stale(next.task()) {
            return self.yield_slowly(e, next, now).map(|next| (next, now));
        }
        // As `account` and `run` do, but for what a yield leaves as it is.
        task.left.set(left - ran);
        task.ticks.set(task.ticks.get().wrapping_add(ran));
        task.turn.set(0);
        task.place.set(Place::Queued);
        self.queue.rotate(next, e, priority);
        let task = next.task();
        task.place.set(Place::Current);
        task.switches.set(task.switches.get().wrapping_add(1));
        self.current.set(Some(next));
        self.since.set(now);
        Some((next, now))
    }

    /// A yield at the end of a quantum, with a budget, after a boost, or while something is inherited.
    #[cold]
    #[inline(never)]
    fn yield_slowly(&self, e: E, next: E, now: u64) -> Option<E> {
        let task = e.task();
        task.turn.set(OVER);
        if task.class.get() != Class::Limited {
            self.account(task, now);
            if task.left.get() > 0 {
                let urgency = self.urgency.get();
                self.remove(next);
                self.refresh(next.task());
                self.enqueue_last(e, self.queue_of(task));
                self.run(next, urgency, now);
                return Some(next);
            }
        }
        self.stop(now, Stop::Preempted);
        self.pick(now)
    }

    /// A time before which the current thread, which has just been made so, does not have to be interrupted for its own sake: a lower
    /// bound of its part in `next_event` that costs next to nothing.
    #[inline]
    pub fn at_least_until(&self, now: u64) -> u64 {
        self.current.get().map_or(now, |e| self.at_least_for(e, now))
    }

    /// As [`at_least_until`](Self::at_least_until), of the thread that is known to be current.
    #[inline(always)]
    pub fn at_least_for(&self, e: E, now: u64) -> u64 {
        let left = e.task().left.get();
        // A turn is never shorter than the first quantum. Who has no budget, and so is real time, has no turns: what is left began at `NEVER`.
        if left > NEVER / 2 { NEVER } else { now.saturating_add(left.min(self.quanta[0].get())) }
    }

    /// When something is due at the latest that is not the current thread's own: a timeout, or the next period of a throttled thread.
    #[inline(always)]
    pub fn due_for_others(&self) -> u64 {
        self.timeouts.least().min(self.throttled.least())
    }

    /// The current thread leaves the core, which has no current thread until `pick`.
    pub fn stop(&self, now: u64, why: Stop) {
        let Some(e) = self.current.get() else { return };
        let task = e.task();
        let ran = self.account(task, now);
        self.current.set(None);
        self.urgency.set(0);
        task.place.set(Place::Nowhere);
        if why != Stop::Preempted {
            task.stopped.set(now);
            return;
        }
        self.roll(task, now, ran);
        self.requeue(e);
    }

    /// `stop` of the current thread, which waits, and `pick`; shorter from one real-time thread without budget to the next of its priority.
    ///
    /// The last decision was obeyed: nobody who is queued is more urgent than the current thread.
    #[inline]
    pub fn give_way(&self, now: u64) -> Option<E> {
        self.give_way_shortly(now).or_else(|| {
            self.stop(now, Stop::Blocked);
            self.pick(now)
        })
    }

    /// As [`give_way`](Self::give_way) where that is shorter; `None`, and nothing has changed, where it is not.
    #[inline(always)]
    pub fn give_way_shortly(&self, now: u64) -> Option<E> {
        let e = self.current.get()?;
        let priority = u8::try_from(self.urgency.get()).ok()?;
        let next = self.queue.first(priority)?;
        let (task, other) = (e.task(), next.task());
        if task.kind.get() != Kind::RealTime || other.kind.get() != Kind::RealTime {
            return None;
        }
        // As `account`, but for the turn and what is left, which mean nothing: it will be queued behind its equals.
        let ran = now.wrapping_sub(self.since.get());
        task.ticks.set(task.ticks.get().wrapping_add(ran));
        task.place.set(Place::Nowhere);
        task.stopped.set(now);
        self.queue.take_first(next, priority);
        other.place.set(Place::Current);
        other.switches.set(other.switches.get().wrapping_add(1));
        self.current.set(Some(next));
        self.since.set(now);
        Some(next)
    }

    /// Queues a thread that ran and could run on.
    fn requeue(&self, e: E) {
        let task = e.task();
        if task.left.get() == 0 {
            if task.has_budget() {
                return self.throttle(e);
            }
            self.sink(task);
        }
        if task.kind.get() == Kind::Deadline {
            return self.enqueue_due(e);
        }
        let priority = self.queue_of(task);
        if task.turn.get() >= self.turn_of(task) {
            return self.enqueue_last(e, priority);
        }
        task.place.set(Place::Queued);
        self.queue.push_first(e, priority);
    }

    /// Makes the most urgent thread current. There is no current thread before (`stop`, or nothing ran).
    #[inline]
    pub fn pick(&self, now: u64) -> Option<E> {
        debug_assert!(self.current.get().is_none(), "S1: the current thread was stopped");
        if self.queue.high() | self.deadlines_len.get() != 0 {
            return self.pick_urgent(now);
        }
        let priority = self.queue.low().checked_ilog2()? as u8 % 64;
        let e = self.queue.pop(priority)?;
        if e.task().generation.get() != self.generation.get() {
            return self.run_lifted(e, now);
        }
        self.run(e, u32::from(priority), now);
        Some(e)
    }

    /// The end of a `pick` of a thread that was boosted while it waited.
    #[cold]
    #[inline(never)]
    fn run_lifted(&self, e: E, now: u64) -> Option<E> {
        self.lift(e.task());
        self.run(e, e.task().priority(), now);
        Some(e)
    }

    /// `pick` from the upper bands.
    #[inline(never)]
    fn pick_urgent(&self, now: u64) -> Option<E> {
        if let Some(e) = self.deadlines.pop() {
            self.deadlines_len.set(self.deadlines_len.get().wrapping_sub(1));
            self.run(e, DEADLINE, now);
            return Some(e);
        }
        let priority = self.queue.top()?;
        let e = self.queue.pop(priority)?;
        self.refresh(e.task());
        self.run(e, u32::from(priority), now);
        Some(e)
    }

    /// Makes `e`, which was just taken off its queue, current.
    #[inline]
    fn run(&self, e: E, urgency: u32, now: u64) {
        let task = e.task();
        task.place.set(Place::Current);
        task.switches.set(task.switches.get().wrapping_add(1));
        self.current.set(Some(e));
        self.urgency.set(urgency);
        self.since.set(now);
    }

    /// Takes `e` out of whatever queue it waits in. Nothing happens to a thread that is in none.
    pub fn remove(&self, e: E) {
        let task = e.task();
        match task.place.get() {
            Place::Nowhere | Place::Current => return,
            Place::Queued => self.queue.unlink(e, self.queue_of(task)),
            Place::Due => {
                self.deadlines.remove(e);
                self.deadlines_len.set(self.deadlines_len.get().wrapping_sub(1));
            }
            Place::Throttled => self.throttled.remove(e),
        }
        task.place.set(Place::Nowhere);
    }

    /// Charges the current thread for the time since it was last charged, which is the answer.
    #[inline]
    fn account(&self, task: &Task<E>, now: u64) -> u64 {
        let ran = now.saturating_sub(self.since.get());
        self.since.set(now);
        task.ticks.set(task.ticks.get().wrapping_add(ran));
        task.left.set(task.left.get().saturating_sub(ran));
        task.turn.set(task.turn.get().saturating_add(ran));
        ran
    }

    /// Brings the current thread's accounting up to date, for one who wants to read it.
    pub fn settle(&self, now: u64) {
        if let Some(e) = self.current.get() {
            let ran = self.account(e.task(), now);
            self.roll(e.task(), now, ran);
        }
    }

    /// A time of `next_event` has come: charges the current thread, begins periods that are due, boosts. Timeouts are for `expired`.
    pub fn tick(&self, now: u64) -> Decision {
        self.settle(now);
        self.replenish(now);
        if now >= self.boost.get() {
            self.boost(now);
        }
        if let Some(e) = self.current.get() { self.judge(e) } else { self.against_idle() }
    }

    fn against_idle(&self) -> Decision {
        let work = self.deadlines.first().is_some() || self.queue.top().is_some();
        if work { Decision::Preempt } else { Decision::Keep }
    }

    /// Whether the current thread, whose account is up to date, can go on.
    fn judge(&self, e: E) -> Decision {
        let task = e.task();
        if task.left.get() == 0 {
            if task.has_budget() {
                return Decision::Preempt;
            }
            self.sink(task);
            self.urgency.set(task.priority());
        }
        if task.kind.get() == Kind::Deadline {
            let earlier = self.deadlines.least() < task.due.get();
            return if earlier { Decision::Preempt } else { Decision::Keep };
        }
        let urgency = self.urgency.get();
        let top = self.queue.top().map_or(0, u32::from);
        let turn_over = top == urgency && task.turn.get() >= self.turn_of(task);
        if self.deadlines.first().is_some() || top > urgency || turn_over {
            return Decision::Preempt;
        }
        if task.turn.get() == OVER {
            task.turn.set(0);
        }
        Decision::Keep
    }

    /// When `tick` has to be called at the latest, or `expired` has something; [`NEVER`] if nothing is timed. May lie in the past.
    pub fn next_event(&self) -> u64 {
        let timed = self.due_for_others();
        let Some(e) = self.current.get() else { return timed };
        let task = e.task();
        let charged = self.since.get();
        let own = if self.takes_turns(task) { self.feedback_event(task) } else { NEVER };
        let own = match task.kind.get() {
            Kind::Normal | Kind::RealTime => own,
            _ if !task.has_budget() => own,
            _ => own.min(charged.saturating_add(task.left.get())).min(task.renewal.get()),
        };
        timed.min(own)
    }

    /// Gives a normal thread that waits here to a thief: one for which `allowed` holds, of those that wait at the lowest level the one
    /// that was queued first, whose cached data are the oldest. Looks at a bounded number. The thread has left this core (`leave`).
    pub fn steal(&self, allowed: impl Fn(E) -> bool) -> Option<E> {
        let mut steps = STEAL_STEPS;
        for priority in 1..=TOP {
            let mut at = self.queue.first(priority);
            while let Some(e) = at {
                if allowed(e) {
                    self.remove(e);
                    self.leave(e);
                    return Some(e);
                }
                steps -= 1;
                if steps == 0 {
                    return None;
                }
                at = self.queue.after(e);
            }
        }
        None
    }

    /// Has `expired` tell of `e` at a time; a timeout that was armed before is forgotten. [`NEVER`] arms none.
    pub fn arm(&self, e: E, at: u64) {
        self.disarm(e);
        if at != NEVER {
            self.timeouts.insert(e, at);
        }
    }

    /// Forgets the timeout of `e`, if one is armed.
    #[inline(always)]
    pub fn disarm(&self, e: E) {
        if e.task().timeout_stem.key.get() != NEVER {
            self.disarm_armed(e);
        }
    }

    #[inline(never)]
    fn disarm_armed(&self, e: E) {
        self.timeouts.remove(e);
        e.task().timeout_stem.key.set(NEVER);
    }

    /// A thread whose timeout has come, the earliest first; its timeout is then forgotten.
    pub fn expired(&self, now: u64) -> Option<E> {
        if self.timeouts.least() > now {
            return None;
        }
        let e = self.timeouts.first()?;
        self.disarm(e);
        Some(e)
    }
}
