//! A process of the race: its threads, and what they do at random.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use alloc::vec::Vec;
use perf::prng::Prng;
use rt::handle::{Core, Owned, Process, Result, Typed};
use rt::memory;
use rt::start::Start;
use rt::sync::atomic::Ordering;

use super::{BROKEN, ENOUGH, PLACES, PROCESSES, Page, Plan, Tally, of_badge, spawn};
use crate::{Check, done, ensure};

/// Turns of a loop between two steps, at most.
const PAUSE: u64 = 16;

/// What a worker does with a capability, of 16: that is used, or else derived, granted, transferred; the rest of it, deleted.
const USED: u64 = 8;
const DERIVED: u64 = USED + 3;
const GRANTED: u64 = DERIVED + 2;
const MOVED: u64 = GRANTED + 2;

/// A process's part.
pub(crate) fn work(start: &Start) -> Check {
    let (number, seed) = (start.number("number", 0) as usize, start.number("seed", 1));
    let plan = Plan::of(start);
    let region = start.regions().next().ok_or(3_u64)?;
    let page = Page(done!(memory::words(region)));
    let mut workers = Vec::new();
    for place in (number..plan.workers).step_by(PROCESSES) {
        let random = Prng::stream(seed, place as u32);
        let mut worker = Worker { page, plan, number, place, random, tally: Tally::default() };
        workers.push(done!(spawn(plan.core(place), move || worker.run())));
    }
    for worker in workers {
        done!(worker.join())?;
    }
    Ok(())
}

struct Worker {
    page: Page,
    plan: Plan,
    /// Of its process.
    number: usize,
    /// Of all.
    place: usize,
    random: Prng,
    tally: Tally,
}

impl Worker {
    fn run(&mut self) -> Check {
        let result = self.steps();
        if result.is_err() {
            self.page.set(BROKEN, 1);
        }
        result
    }

    fn steps(&mut self) -> Check {
        while self.page.get(ENOUGH) == 0 && self.page.get(BROKEN) == 0 {
            let at = Page::place(self.number, self.random.below(PLACES as u64));
            let known = self.page.handle(at);
            if known != Handle::NONE {
                self.step(at, Core(known))?;
                self.page.set_tally(self.place, self.tally);
            }
            self.plan.rest(self.random.below(PAUSE));
        }
        Ok(())
    }

    fn step(&mut self, at: usize, known: Core) -> Check {
        let Some(badge) = self.used(known)? else {
            // Perhaps there is another by now: it is lost, until it is revoked.
            self.page.set_handle(at, Handle::NONE);
            return Ok(());
        };
        let kind = self.random.below(16);
        if kind < USED {
            return Ok(());
        }
        self.tally.passes += 1;
        match self.pass(kind, known, badge) {
            Ok(None) => {}
            Ok(Some((process, handle))) => {
                self.page.set_handle(Page::place(process, self.random.below(PLACES as u64)), handle);
                if process == self.number {
                    self.used(Core(handle))?;
                }
            }
            Err(Error::BadHandle) => self.tally.late += 1,
            // Full; ended.
            Err(Error::NoSlot | Error::WrongState) => {}
            Err(error) => done!(Err(error)),
        }
        Ok(())
    }

    /// Derives, grants, transfers or deletes; in which process the result is, if there is any.
    fn pass(&mut self, kind: u64, known: Core, badge: u64) -> Result<Option<(usize, Handle)>> {
        let number = self.random.below(PROCESSES as u64) as usize;
        let peer = Process(self.page.handle(Page::peer(self.number, number)));
        match kind {
            USED..DERIVED => {
                known.derive(Rights::ALL, badge).map(|new| Some((self.number, new.keep().handle())))
            }
            DERIVED..GRANTED => peer.grant(known, Rights::ALL, badge).map(|handle| Some((number, handle))),
            GRANTED..MOVED => peer.transfer(known).map(|handle| Some((number, handle))),
            _ => {
                drop(Owned::new(known));
                Ok(None)
            }
        }
    }

    /// Uses a capability, and returns its badge if it was there and is a leader's.
    fn used(&mut self, known: Core) -> core::result::Result<Option<u64>, u64> {
        let over = self.page.over();
        let told = self.page.told(self.place);
        self.tally.uses += 1;
        if known.about_in(told).is_err() {
            self.tally.vain += 1;
            return Ok(None);
        }
        // ORDER: Relaxed, both: this thread's call has written them; if somebody has wiped them meanwhile, they say nothing.
        let (low, high) = (told[2].load(Ordering::Relaxed), told[3].load(Ordering::Relaxed));
        let badge = u64::from(high) << 32 | u64::from(low);
        let Some((root, round)) = of_badge(badge) else { return Ok(None) };
        ensure!(round >= over[root]);
        Ok(Some(badge))
    }
}
