//! A core that runs threads in simulated time, as a kernel would.

use crate::common::Ref;
use sched::{Core, Decision, NEVER, Ready, Stop, Tunables};

/// What a simulated thread does whenever it has the core.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Habit {
    /// Computes for ever.
    Hog,
    /// Computes for `work` ticks whenever it is woken, every `every` ticks.
    Periodic { work: u64, every: u64 },
    /// Gives the core up each `work` ticks, and comes back after `rest` ticks.
    Dodger { work: u64, rest: u64 },
    /// Yields each `work` ticks.
    Yielder { work: u64 },
}

/// A thread of a simulation and what is known of it.
pub(crate) struct Life {
    pub(crate) habit: Habit,
    /// Ticks until it does what its habit says.
    pub(crate) work: u64,
    pub(crate) ran: u64,
    pub(crate) released: u64,
    next_release: u64,
    /// Periods that the core said were missed.
    pub(crate) missed: u64,
    /// Longest time from a wake to the core.
    pub(crate) worst_wait: u64,
    /// Longest time from a wake to the end of the work.
    pub(crate) worst_response: u64,
    woken: Option<u64>,
}

/// One core in simulated time.
pub(crate) struct World {
    pub(crate) core: Box<Core<Ref>>,
    pub(crate) now: u64,
    pub(crate) lives: Vec<Life>,
    /// Interrupts that the timer made.
    pub(crate) interrupts: u64,
}

impl World {
    pub(crate) fn new(tunables: Tunables) -> Self {
        Self { core: Box::new(Core::new(tunables)), now: 0, lives: Vec::new(), interrupts: 0 }
    }

    /// A thread that is woken first at `start`.
    pub(crate) fn add(&mut self, habit: Habit, start: u64) -> Ref {
        let thread = Ref::new(self.lives.len());
        self.core.arm(thread, start);
        self.lives.push(Life {
            habit,
            work: 0,
            ran: 0,
            released: 0,
            next_release: start,
            missed: 0,
            worst_wait: 0,
            worst_response: 0,
            woken: None,
        });
        thread
    }

    /// Ticks that the current thread computes until it does something.
    fn work(&self) -> u64 {
        self.core.current().map_or(NEVER, |current| self.lives[current.id()].work)
    }

    /// Runs until `end`: from event to event, of the threads or of the timer.
    pub(crate) fn run(&mut self, end: u64) {
        while self.now < end {
            let event = self.core.next_event().max(self.now);
            let next = end.min(event).min(self.now.saturating_add(self.work()));
            if let Some(current) = self.core.current() {
                let life = &mut self.lives[current.id()];
                life.ran += next - self.now;
                life.work = life.work.saturating_sub(next - self.now);
            }
            self.now = next;
            if self.work() == 0 {
                self.act();
            }
            if self.core.next_event() <= self.now {
                self.interrupt();
            }
        }
    }

    fn interrupt(&mut self) {
        self.interrupts += 1;
        let mut decision = self.core.tick(self.now);
        while let Some(thread) = self.core.expired(self.now) {
            let life = &mut self.lives[thread.id()];
            life.released += 1;
            life.woken = Some(self.now);
            life.work = match life.habit {
                Habit::Hog => NEVER,
                Habit::Periodic { work, .. } | Habit::Dodger { work, .. } | Habit::Yielder { work } => work,
            };
            if self.core.ready(thread, self.now, Ready::Woken) == Decision::Preempt {
                decision = Decision::Preempt;
            }
        }
        if decision == Decision::Preempt {
            self.core.stop(self.now, Stop::Preempted);
            self.pick();
        }
    }

    fn pick(&mut self) {
        if let Some(thread) = self.core.pick(self.now) {
            self.note_start(thread);
        }
    }

    fn note_start(&mut self, thread: Ref) {
        let life = &mut self.lives[thread.id()];
        if let Some(woken) = life.woken {
            life.worst_wait = life.worst_wait.max(self.now - woken);
        }
        // The response is noted at the end of the work.
        if !matches!(life.habit, Habit::Periodic { .. }) {
            life.woken = None;
        }
    }

    /// The current thread does what its habit says.
    fn act(&mut self) {
        let Some(thread) = self.core.current() else { return };
        let now = self.now;
        let life = &mut self.lives[thread.id()];
        let again = match life.habit {
            Habit::Hog => return,
            Habit::Yielder { work } => {
                life.work = work;
                if self.core.has_equal()
                    && let Some(next) = self.core.yield_now(now)
                {
                    self.note_start(next);
                }
                return;
            }
            Habit::Dodger { rest, .. } => now + rest,
            Habit::Periodic { every, .. } => {
                let woken = life.woken.take().expect("it was woken");
                life.worst_response = life.worst_response.max(now - life.next_release.min(woken));
                life.next_release += every;
                match self.core.end_period(now) {
                    Some(end) => {
                        life.missed += end.missed;
                        end.next
                    }
                    None => life.next_release,
                }
            }
        };
        self.core.stop(now, Stop::Blocked);
        self.core.arm(thread, again);
        self.pick();
    }
}
