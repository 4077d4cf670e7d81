//! Random operations on a core and on a naive model of it must agree, in every answer.
//!
//! The model keeps waiting threads in one sorted list, lifts each of them at a boost, and knows no links, bitmaps, heaps or generations.
//! Where threads are equally urgent by deadline or timeout, the model accepts any of them.
//!
//! Planted bugs that this caught: a bit of the bitmap that stays, a link that `push_last`, `unlink`, `rotate` or `splice` forgets, a heap that
//! does not mend ranks after a removal or loses a parent link, `queue_of` without the boost, no earning while waiting, a full quantum on
//! each wake, a period that forgets what ran in it, no throttling on wake or on preemption, a yield at the quantum's exact end that is
//! taken for one before it, `steal` that ignores the affinity or begins at the first level; of inheritance: `queue_of`,
//! `configure`, a yield, or a period that begins without it, who becomes less urgent behind its equals, turns in the upper bands or none in the
//! normal one, no `rise`, no lift after a boost, no new urgency of the current thread, a budget that does not end;
//! the short way of `give_way` for threads with budgets.

mod common;

use abi::error::Error;
use abi::task::SchedSpec;
use common::Ref;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::{collection, proptest};
use sched::{Class, Core, Decision, Entity, NEVER, PeriodEnd, Ready, Stop, Tunables};

const TUNABLES: Tunables =
    Tunables { quanta: [10, 20, 40, 80, 100], boost: 700, rotation: 64, promise: 950_000, least_budget: 3 };
const THREADS: usize = 10;
const DEADLINE: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Current,
    Waiting,
    Throttled,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    spec: SchedSpec,
    place: Place,
    inherited: u32,
    level: usize,
    /// What is left of quantum or budget; `NEVER` without either.
    left: u64,
    turn: u64,
    turn_over: bool,
    ticks: u64,
    switches: u64,
    stopped: u64,
    renewal: u64,
    due: u64,
    missed: u64,
    resting: bool,
    timeout: u64,
}

const THREAD: Thread = Thread {
    spec: SchedSpec { class: SchedSpec::NORMAL, priority: 0, budget: 0, period: 0, deadline: 0 },
    place: Place::Nowhere,
    inherited: 0,
    level: 0,
    left: TUNABLES.quanta[0],
    turn: 0,
    turn_over: false,
    ticks: 0,
    switches: 0,
    stopped: 0,
    renewal: 0,
    due: 0,
    missed: 0,
    resting: false,
    timeout: NEVER,
};

impl Thread {
    fn is_normal(&self) -> bool {
        self.spec.class == SchedSpec::NORMAL
    }

    fn has_deadline(&self) -> bool {
        self.spec.class == SchedSpec::DEADLINE
    }

    fn has_budget(&self) -> bool {
        self.spec.budget > 0
    }

    fn urgency(&self) -> u32 {
        let own = match self.spec.class {
            SchedSpec::NORMAL => 5 - self.level as u32,
            SchedSpec::REAL_TIME => self.spec.priority as u32,
            _ => DEADLINE,
        };
        own.max(self.inherited)
    }

    /// Whether it takes turns with its equals.
    fn is_in_normal_band(&self) -> bool {
        self.urgency() < 64
    }

    fn lift(&mut self) {
        self.level = 0;
        self.left = TUNABLES.quanta[0];
    }

    fn sink(&mut self) {
        self.level = (self.level + 1).min(4);
        self.left = TUNABLES.quanta[self.level];
        self.turn_over |= self.is_in_normal_band();
    }

    fn begin(&mut self, start: u64) {
        self.left = self.spec.budget;
        self.renewal = start + self.spec.period;
        self.due = start + self.spec.deadline;
    }

    /// Begins period after period until one reaches beyond `now`; how many that were.
    fn begin_all(&mut self, now: u64) -> u64 {
        let mut begun = 0;
        while self.renewal <= now {
            self.begin(self.renewal);
            begun += 1;
        }
        begun
    }

    /// Density in units of 2^-32, rounded up.
    fn density(&self) -> u128 {
        if !self.has_deadline() {
            return 0;
        }
        (u128::from(self.spec.budget) << 32).div_ceil(u128::from(self.spec.deadline))
    }
}

#[derive(Debug)]
struct Model {
    threads: [Thread; THREADS],
    /// Waiting threads, the first of the most urgent first; those with a deadline in no order.
    waiting: Vec<usize>,
    current: Option<usize>,
    since: u64,
    next_boost: u64,
    lingering: Vec<(u128, u64)>,
    /// Two came back from being throttled at the same time: their order is not said.
    ambiguous: bool,
}

fn decide(preempt: bool) -> Decision {
    if preempt { Decision::Preempt } else { Decision::Keep }
}

impl Model {
    fn new() -> Self {
        Self {
            threads: [THREAD; THREADS],
            waiting: vec![],
            current: None,
            since: 0,
            next_boost: 0,
            lingering: vec![],
            ambiguous: false,
        }
    }

    fn insert_last(&mut self, it: usize) {
        let urgency = self.threads[it].urgency();
        let at = self.waiting.iter().position(|&other| self.threads[other].urgency() < urgency);
        self.waiting.insert(at.unwrap_or(self.waiting.len()), it);
        self.threads[it].place = Place::Waiting;
        (self.threads[it].turn, self.threads[it].turn_over) = (0, false);
    }

    fn insert_first(&mut self, it: usize) {
        let urgency = self.threads[it].urgency();
        let at = self.waiting.iter().position(|&other| self.threads[other].urgency() <= urgency);
        self.waiting.insert(at.unwrap_or(self.waiting.len()), it);
        self.threads[it].place = Place::Waiting;
    }

    fn normals(&self) -> usize {
        self.waiting.iter().filter(|&&it| self.threads[it].is_in_normal_band()).count()
    }

    fn turn_length(&self) -> u64 {
        let mut divisor = 1;
        while divisor < self.normals() as u64 {
            divisor *= 2;
        }
        (TUNABLES.rotation / divisor).max(TUNABLES.quanta[0])
    }

    /// Whether the thread has to go behind its equals.
    fn is_turn_over(&self, it: usize) -> bool {
        let thread = &self.threads[it];
        thread.turn_over || thread.is_in_normal_band() && thread.turn >= self.turn_length()
    }

    fn beats_current(&self, it: usize) -> bool {
        let Some(current) = self.current else { return true };
        let (new, old) = (&self.threads[it], &self.threads[current]);
        new.urgency() > old.urgency() || new.has_deadline() && old.has_deadline() && new.due < old.due
    }

    fn ready(&mut self, it: usize, now: u64, why: Ready) -> Decision {
        let thread = &mut self.threads[it];
        if thread.has_budget() {
            return self.ready_budgeted(it, now);
        }
        if thread.is_normal() && why == Ready::Woken {
            thread.left = thread.left.saturating_add((now - thread.stopped) / 8);
            while thread.level > 0 && thread.left > TUNABLES.quanta[thread.level] {
                thread.left -= TUNABLES.quanta[thread.level];
                thread.level -= 1;
            }
            thread.left = thread.left.min(TUNABLES.quanta[thread.level]);
        }
        self.insert_last(it);
        decide(self.beats_current(it))
    }

    fn ready_budgeted(&mut self, it: usize, now: u64) -> Decision {
        let thread = &mut self.threads[it];
        if now >= thread.renewal {
            if thread.resting {
                thread.missed += thread.begin_all(now) - 1;
            } else {
                thread.begin(now);
            }
            thread.resting = false;
        } else if thread.left == 0 {
            thread.place = Place::Throttled;
            return Decision::Keep;
        } else if thread.has_deadline() {
            // The first moment until which the density gives what is left.
            let fits =
                |due: u64| due.saturating_sub(now) * thread.spec.budget >= thread.left * thread.spec.deadline;
            while !fits(thread.due) {
                thread.due += 1;
            }
            thread.renewal = thread.renewal.max(thread.due);
        }
        self.insert_last(it);
        decide(self.beats_current(it))
    }

    fn charge(&mut self, now: u64) {
        let Some(current) = self.current else { return };
        let ran = now - self.since;
        self.since = now;
        let thread = &mut self.threads[current];
        thread.ticks += ran;
        thread.turn += ran;
        if thread.left != NEVER {
            thread.left = thread.left.saturating_sub(ran);
        }
    }

    fn settle(&mut self, now: u64) {
        let ran = now - self.since;
        self.charge(now);
        let Some(current) = self.current else { return };
        let thread = &mut self.threads[current];
        if thread.has_budget() && thread.renewal <= now {
            thread.missed += thread.begin_all(now);
            let start = thread.renewal - thread.spec.period;
            thread.left -= thread.left.min(ran).min(now - start);
        }
    }

    fn stop(&mut self, now: u64, why: Stop) {
        if why == Stop::Preempted {
            self.settle(now);
        } else {
            self.charge(now);
        }
        let Some(it) = self.current.take() else { return };
        let thread = &mut self.threads[it];
        thread.place = Place::Nowhere;
        if why != Stop::Preempted {
            thread.stopped = now;
            return;
        }
        if thread.left == 0 && thread.has_budget() {
            thread.place = Place::Throttled;
            return;
        }
        if thread.left == 0 {
            thread.sink();
        }
        if thread.has_deadline() {
            self.insert_first(it);
        } else if self.is_turn_over(it) {
            self.insert_last(it);
        } else {
            self.insert_first(it);
        }
    }

    /// Those of the waiting that may be picked.
    fn candidates(&self) -> Vec<usize> {
        let least = self.waiting.iter().map(|&it| &self.threads[it]).filter(|thread| thread.has_deadline());
        let Some(least) = least.map(|thread| thread.due).min() else {
            return self.waiting.first().copied().into_iter().collect();
        };
        let due = |it: &usize| self.threads[*it].has_deadline() && self.threads[*it].due == least;
        self.waiting.iter().copied().filter(due).collect()
    }

    fn run(&mut self, it: usize, now: u64) {
        self.waiting.retain(|&other| other != it);
        self.threads[it].place = Place::Current;
        self.threads[it].switches += 1;
        self.current = Some(it);
        self.since = now;
    }

    fn equal(&self) -> Option<usize> {
        let current = self.current.filter(|&it| !self.threads[it].has_deadline())?;
        let urgency = self.threads[current].urgency();
        self.waiting.iter().copied().find(|&it| self.threads[it].urgency() == urgency)
    }

    fn boost(&mut self, now: u64) {
        self.next_boost = now + TUNABLES.boost;
        for thread in self.threads.iter_mut().filter(|thread| thread.is_normal()) {
            thread.lift();
        }
    }

    /// Begins the periods that are due, the earliest first.
    fn replenish(&mut self, now: u64) {
        let throttled = |thread: &Thread| thread.place == Place::Throttled && thread.renewal <= now;
        let mut due: Vec<usize> = (0..THREADS).filter(|&it| throttled(&self.threads[it])).collect();
        due.sort_by_key(|&it| self.threads[it].renewal);
        self.ambiguous |=
            due.windows(2).any(|pair| self.threads[pair[0]].renewal == self.threads[pair[1]].renewal);
        for it in due {
            let thread = &mut self.threads[it];
            let begun = thread.begin_all(now);
            thread.missed += if thread.resting { 0 } else { begun };
            thread.resting = false;
            self.insert_last(it);
        }
    }

    fn tick(&mut self, now: u64) -> Decision {
        self.settle(now);
        self.replenish(now);
        if now >= self.next_boost {
            self.boost(now);
        }
        let Some(current) = self.current else { return decide(!self.waiting.is_empty()) };
        let thread = &mut self.threads[current];
        if thread.left == 0 && thread.has_budget() {
            return Decision::Preempt;
        }
        if thread.left == 0 {
            thread.sink();
        }
        let beaten = self.waiting.iter().any(|&it| self.beats_current(it));
        let rotated = self.equal().is_some() && self.is_turn_over(current);
        if !(beaten || rotated) && self.threads[current].turn_over {
            (self.threads[current].turn, self.threads[current].turn_over) = (0, false);
        }
        decide(beaten || rotated)
    }

    fn promised(&self) -> u128 {
        self.threads.iter().map(Thread::density).sum()
    }

    fn configure(&mut self, it: usize, spec: SchedSpec, now: u64) -> Result<Decision, Error> {
        let old = self.threads[it];
        let new = Thread { spec, ..old };
        // Promises that were given back are forgotten together, at the last of their deadlines.
        if self.lingering.iter().all(|&(_, until)| now >= until) {
            self.lingering.clear();
        }
        let lingering: u128 = self.lingering.iter().map(|&(density, _)| density).sum();
        let shrunk = if old.due > now { old.density().saturating_sub(new.density()) } else { 0 };
        let bound = (u128::from(TUNABLES.promise) << 32) / 1_000_000;
        if new.density() > old.density()
            && self.promised() - old.density() + new.density() + lingering > bound
        {
            return Err(Error::NotAdmitted);
        }
        if shrunk > 0 {
            self.lingering.push((shrunk, old.due));
        }
        if old.place == Place::Current {
            self.settle(now);
        }
        self.waiting.retain(|&other| other != it);
        let thread = &mut self.threads[it];
        thread.spec = spec;
        (thread.turn, thread.turn_over, thread.missed, thread.resting) = (0, false, 0, false);
        let was_promised = old.has_deadline() && now < thread.due;
        if thread.has_deadline() && was_promised {
            (thread.left, thread.renewal) = (0, thread.due);
        } else if thread.has_budget() {
            thread.begin(now);
        } else if thread.is_normal() {
            thread.lift();
        } else {
            thread.left = NEVER;
        }
        Ok(match old.place {
            Place::Nowhere => Decision::Keep,
            Place::Current => self.tick(now),
            Place::Waiting | Place::Throttled => self.ready(it, now, Ready::New),
        })
    }

    fn inherit(&mut self, it: usize, inherited: u32, now: u64) -> Decision {
        if inherited == self.threads[it].inherited {
            return Decision::Keep;
        }
        let waits = self.threads[it].place == Place::Waiting && !self.threads[it].has_deadline();
        if self.threads[it].place == Place::Current {
            self.settle(now);
        }
        let before = self.threads[it].urgency();
        self.threads[it].inherited = inherited;
        if self.threads[it].place == Place::Current {
            return self.tick(now);
        }
        if waits {
            self.waiting.retain(|&other| other != it);
            if self.threads[it].urgency() > before {
                self.insert_last(it);
            } else {
                self.insert_first(it);
            }
        }
        decide(waits && self.beats_current(it))
    }

    fn end_period(&mut self, now: u64) -> Option<PeriodEnd> {
        let current = self.current.filter(|&it| self.threads[it].has_budget())?;
        self.settle(now);
        let thread = &mut self.threads[current];
        (thread.left, thread.resting) = (0, true);
        Some(PeriodEnd { next: thread.renewal, missed: std::mem::take(&mut thread.missed) })
    }

    /// Normal threads that wait at the lowest level, the first first, then the levels above.
    fn stealable(&self) -> Vec<usize> {
        let mut found: Vec<usize> =
            self.waiting.iter().copied().filter(|&it| self.threads[it].is_in_normal_band()).collect();
        found.sort_by_key(|&it| self.threads[it].urgency());
        found
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ready { thread: usize, why: Ready },
    Overtake(usize),
    Pass(u64),
    Tick,
    Switch,
    Stop(Stop),
    Yield,
    Remove(usize),
    Configure { thread: usize, spec: SchedSpec },
    Inherit { thread: usize, urgency: u32 },
    Steal { modulus: usize },
    Arm { thread: usize, after: u64 },
    Disarm(usize),
    Expire,
    EndPeriod,
}

fn spec() -> impl Strategy<Value = SchedSpec> {
    let budgeted = (3..60_u64, 1..4_u64, 1..4_u64, 1..200_u64);
    prop_oneof![
        4 => Just(SchedSpec::default()),
        2 => prop_oneof![64..67_u64, 190..194_u64, Just(255)]
            .prop_map(|priority| SchedSpec { class: SchedSpec::REAL_TIME, priority, ..SchedSpec::default() }),
        2 => (64..67_u64, 3..60_u64, 1..200_u64).prop_map(|(priority, budget, more)| {
            SchedSpec { class: SchedSpec::REAL_TIME, priority, budget, period: budget + more, deadline: 0 }
        }),
        3 => budgeted.prop_map(|(budget, twice, thrice, more)| {
            let deadline = budget * twice + more % 7;
            SchedSpec { class: SchedSpec::DEADLINE, priority: 0, budget, period: deadline * thrice + more, deadline }
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let why = prop_oneof![1 => Just(Ready::New), 3 => Just(Ready::Woken), 1 => Just(Ready::Arrived)];
    let stop = prop_oneof![4 => Just(Stop::Blocked), 1 => Just(Stop::Suspended), 1 => Just(Stop::Ended)];
    let ticks = prop_oneof![6 => 0..30_u64, 2 => 30..300_u64, 1 => 300..3000_u64];
    let thread = any::<usize>().prop_map(|thread| thread % THREADS);
    let inherited =
        prop_oneof![4 => Just(0), 3 => 1..6_u32, 2 => 64..67_u32, 1 => 190..194_u32, 1 => Just(DEADLINE)];
    prop_oneof![
        8 => (thread.clone(), why).prop_map(|(thread, why)| Step::Ready { thread, why }),
        6 => thread.clone().prop_map(Step::Overtake),
        8 => ticks.clone().prop_map(Step::Pass),
        6 => Just(Step::Tick),
        6 => Just(Step::Switch),
        4 => stop.prop_map(Step::Stop),
        4 => Just(Step::Yield),
        2 => thread.clone().prop_map(Step::Remove),
        3 => (thread.clone(), spec()).prop_map(|(thread, spec)| Step::Configure { thread, spec }),
        4 => (thread.clone(), inherited).prop_map(|(thread, urgency)| Step::Inherit { thread, urgency }),
        1 => (1..4_usize).prop_map(|modulus| Step::Steal { modulus }),
        2 => (thread.clone(), ticks).prop_map(|(thread, after)| Step::Arm { thread, after }),
        1 => thread.prop_map(Step::Disarm),
        2 => Just(Step::Expire),
        2 => Just(Step::EndPeriod),
    ]
}

/// A core, its model, and the time.
struct Pair {
    core: Box<Core<Ref>>,
    model: Model,
    threads: [Ref; THREADS],
    now: u64,
    /// Nothing but the passing of time can end the current thread's turn: the last decision was obeyed.
    settled: bool,
}

impl Pair {
    fn new() -> Self {
        Self {
            core: Box::new(Core::new(TUNABLES)),
            model: Model::new(),
            threads: std::array::from_fn(Ref::new),
            now: 0,
            settled: true,
        }
    }

    fn agree(&mut self, real: Decision, model: Decision) {
        assert_eq!(real, model);
        self.settled &= real == Decision::Keep;
    }

    /// The core picks, and the model agrees that this one may be picked.
    fn pick(&mut self) {
        let picked = self.core.pick(self.now);
        self.follow(picked);
    }

    fn follow(&mut self, picked: Option<Ref>) {
        let candidates = self.model.candidates();
        match picked {
            Some(thread) => {
                assert!(candidates.contains(&thread.id()), "{thread:?}, but {candidates:?}");
                self.model.run(thread.id(), self.now);
            }
            None => assert!(candidates.is_empty(), "{candidates:?}"),
        }
        self.settled = true;
    }

    fn switch(&mut self, why: Stop) {
        if why == Stop::Blocked && self.settled {
            let next = self.core.give_way(self.now);
            self.model.stop(self.now, why);
            return self.follow(next);
        }
        self.core.stop(self.now, why);
        self.model.stop(self.now, why);
        self.pick();
    }

    fn place(&self, thread: usize) -> Place {
        self.model.threads[thread].place
    }

    fn step(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Ready { thread, why } if self.place(thread) == Place::Nowhere => {
                let real = self.core.ready(self.threads[thread], now, why);
                let model = self.model.ready(thread, now, why);
                self.agree(real, model);
            }
            Step::Ready { .. } => {}
            Step::Overtake(thread) => self.overtake(thread),
            Step::Pass(ticks) => self.now += ticks,
            Step::Tick => self.tick(),
            Step::Switch => self.switch(Stop::Preempted),
            Step::Stop(why) => self.switch(why),
            Step::Yield => self.yield_now(),
            Step::Remove(thread) if self.place(thread) != Place::Current => {
                self.core.remove(self.threads[thread]);
                self.model.waiting.retain(|&other| other != thread);
                self.model.threads[thread].place = Place::Nowhere;
            }
            Step::Remove(_) => {}
            Step::Configure { thread, spec } => {
                let real = self.core.configure(self.threads[thread], &spec, now);
                assert_eq!(real, self.model.configure(thread, spec, now), "{spec:?}");
                self.settled &= real != Ok(Decision::Preempt);
            }
            Step::Inherit { thread, urgency } => {
                let real = self.core.inherit(self.threads[thread], urgency, now);
                // A deadline is not inherited, but the highest priority below.
                let model = self.model.inherit(thread, urgency.min(255), now);
                self.agree(real, model);
            }
            Step::Steal { modulus } => self.steal(modulus),
            Step::Arm { thread, after } => {
                self.core.arm(self.threads[thread], now + after);
                self.model.threads[thread].timeout = now + after;
            }
            Step::Disarm(thread) => {
                self.core.disarm(self.threads[thread]);
                self.model.threads[thread].timeout = NEVER;
            }
            Step::Expire => self.expire(),
            Step::EndPeriod => {
                let end = self.core.end_period(now);
                assert_eq!(end, self.model.end_period(now));
                if end.is_some() {
                    self.switch(Stop::Blocked);
                }
            }
        }
    }

    fn tick(&mut self) {
        let due = self.core.next_event() <= self.now;
        let (real, model) = (self.core.tick(self.now), self.model.tick(self.now));
        assert!(due || !self.settled || real == Decision::Keep, "{real:?} before the event");
        self.agree(real, model);
    }

    /// A thread is woken and takes the core at once, or is ready as any other.
    fn overtake(&mut self, it: usize) {
        if self.place(it) != Place::Nowhere || !self.settled {
            return;
        }
        let overtakes = self.core.overtake(self.threads[it], self.now);
        let thread = self.model.threads[it];
        let must = thread.spec.class == SchedSpec::REAL_TIME && !thread.has_budget() && thread.inherited == 0;
        let alone = self.model.current.is_none();
        let decision = self.model.ready(it, self.now, Ready::Woken);
        if !overtakes {
            assert!(alone || !must || decision == Decision::Keep, "{it} is simple, and more urgent");
            let real = self.core.ready(self.threads[it], self.now, Ready::Woken);
            return self.agree(real, decision);
        }
        assert!(!alone && decision == Decision::Preempt, "{it} is not more urgent");
        self.model.stop(self.now, Stop::Preempted);
        assert_eq!(self.model.candidates(), [it]);
        self.model.run(it, self.now);
    }

    fn yield_now(&mut self) {
        let equal = self.model.equal();
        assert_eq!(self.core.has_equal(), equal.is_some());
        let next = self.core.yield_now(self.now);
        assert_eq!(next.is_some(), equal.is_some());
        let Some(next) = next else { return };
        // A yield is a switch at the end of a turn; with quantum or budget used up to anyone, else to the equal.
        let current = self.model.current.expect("it has an equal");
        self.model.threads[current].turn_over = true;
        let limited = self.model.threads[current].has_budget();
        if !limited {
            self.model.charge(self.now);
        }
        let spent = limited || self.model.threads[current].left == 0;
        self.model.stop(self.now, Stop::Preempted);
        let expected = if spent { self.model.candidates() } else { Vec::from_iter(equal) };
        assert!(expected.contains(&next.id()), "{next:?}, but {expected:?}");
        self.model.run(next.id(), self.now);
    }

    fn steal(&mut self, modulus: usize) {
        let allowed = |thread: usize| thread.is_multiple_of(modulus);
        let wanted = self.model.stealable().into_iter().find(|&thread| allowed(thread));
        let stolen = self.core.steal(|thread| allowed(thread.id()));
        assert_eq!(stolen.map(Ref::id), wanted);
        let Some(stolen) = stolen else { return };
        self.model.waiting.retain(|&other| other != stolen.id());
        self.model.threads[stolen.id()].place = Place::Nowhere;
        // It comes home at once, because there is one core here.
        assert_eq!(self.core.arrive(stolen, self.now), Ok(()));
    }

    fn expire(&mut self) {
        let threads = &mut self.model.threads;
        let least = threads.iter().map(|thread| thread.timeout).min().unwrap_or(NEVER);
        match self.core.expired(self.now) {
            Some(thread) => {
                assert!(least <= self.now && threads[thread.id()].timeout == least, "{thread:?}");
                threads[thread.id()].timeout = NEVER;
            }
            None => assert!(least > self.now),
        }
    }

    /// What can be seen of the core is what the model says.
    fn compare(&self) {
        let model = &self.model;
        assert_eq!(self.core.audit(), Ok(()));
        assert_eq!(self.core.current().map(Ref::id), model.current);
        assert_eq!(self.core.load(), model.waiting.len() + usize::from(model.current.is_some()));
        let normal =
            model.current.is_some_and(|it| model.threads[it].is_normal() && model.threads[it].inherited == 0);
        assert_eq!(self.core.weight(), model.normals() + usize::from(normal));
        let promised = (model.promised() * 1_000_000).div_ceil(1 << 32);
        assert_eq!(u128::from(self.core.promised()), promised);
        for (thread, theirs) in self.threads.iter().zip(&model.threads) {
            let task = thread.task();
            assert_eq!((task.ticks(), task.switches()), (theirs.ticks, theirs.switches), "{thread:?}");
            assert_eq!(task.timeout(), theirs.timeout);
            assert_eq!(
                task.is_queued(),
                matches!(theirs.place, Place::Waiting | Place::Throttled),
                "{thread:?}"
            );
            if theirs.place == Place::Current {
                assert_eq!(task.priority(), theirs.urgency());
            }
            let class = match theirs.spec.class {
                SchedSpec::NORMAL => Class::Normal,
                SchedSpec::DEADLINE => Class::Deadline,
                _ if theirs.has_budget() => Class::Limited,
                _ => Class::RealTime,
            };
            assert_eq!(task.class(), class);
        }
        let timed = model
            .threads
            .iter()
            .map(|it| it.timeout.min(if it.place == Place::Throttled { it.renewal } else { NEVER }));
        assert!(self.core.next_event() <= timed.min().unwrap_or(NEVER));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn core_and_model_agree(steps in collection::vec(step(), 1..160)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
            pair.compare();
            if pair.model.ambiguous {
                break;
            }
        }
    }
}
