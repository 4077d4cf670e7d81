//! Random programs of message calls, compared with the model after each operation.
//!
//! All parties live on one core: actors, the last of them in another process, and a clerk that never waits. The driver, which is least urgent,
//! orders them about and passes no message itself, for whoever served an urgent thread would be as urgent. When it runs, everybody has
//! finished or waits, so what happened does not depend on who ran when. The kernel may pass each message on the fast way or not; what
//! comes of it must be the same, and the digest of a seed with it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use abi::cap::{Handle, Rights};
use abi::task::{CoreMask, Grant, ProcessSpec, SchedSpec, ThreadSpec};
use perf::clock::{Nanos, Ticks};
use perf::prng::Prng;
use rt::handle::{Endpoint, Owned, Process, Region, Thread, Typed};
use rt::ipc::Message;
use rt::process::{Builder as ProcessBuilder, Image};
use rt::start::Start;
use rt::thread::{Builder, Stack};
use rt::time::{self, Deadline};
use rt::{memory, say};

use crate::actor::{Endpoints, act};
use crate::model::{
    ACTORS, CLERK, ENDPOINTS, Model, Operation, Outcome, PARTIES, PROCESSES, Patience, Waiting, badge,
    process_of,
};
use crate::page::{Order, Share, Words};
use crate::{Failure, unexpected};

/// How urgent actors are.
const URGENT: u64 = 100;
/// How urgent the clerk is: less than those who wait for it, and more than the driver.
const LESS_URGENT: u64 = 80;
/// Until an operation gives up that does so soon.
const SOON: Nanos = Nanos::new(20_000);
/// The code that a killed actor ends with.
const KILLED: u64 = 9;
/// Operations after which a program that is brought to its end has to be there.
const MOST_TO_END: usize = 200;
/// Times that the driver sleeps for what has to happen soon.
const MOST_SLEEPS: usize = 1000;
/// In the exit code: it is a digest.
const DIGEST: u64 = 1 << 63;

/// What an actor of this process, or the clerk, works with.
struct Part {
    share: Share,
    endpoints: Endpoints,
    state: bool,
}

extern "C" fn begin(part: u64) -> ! {
    // SAFETY: the address of a part that is never given back.
    let part = unsafe { &*(part as *const Part) };
    act(part.share, part.endpoints, part.state)
}

/// An actor of this process, or the clerk.
struct Actor {
    part: &'static Part,
    stack: Stack,
    thread: Owned<Thread>,
}

/// The last actor, in a process of its own.
struct Other {
    process: Owned<Process>,
    thread: Owned<Thread>,
}

struct Walk {
    prng: Prng,
    model: Model,
    words: &'static Words,
    core: CoreMask,
    actors: Vec<Actor>,
    other: Other,
    /// None until it is hired.
    clerk: Option<Actor>,
    /// Replies that were saved, in the model's order.
    saved: [Vec<Handle>; PROCESSES],
    checked: [u32; PARTIES],
    digest: u64,
    steps: u64,
    /// Whether what is done is told.
    tell: bool,
}

/// Makes `count=` programs of `seed=` on `core=`; gives the digest of all that has come of them. Tells what the one of number `tell=` does.
pub(crate) fn run(start: &Start) -> Result<u64, Failure> {
    let (seed, count) = (start.number("seed", 1), start.number("count", 1000));
    let mut walk = Walk::new(start, Prng::new(seed)).map_err(unexpected)?;
    let tell = Some(start.number("tell", u64::MAX));
    let began = time::now();
    for program in 0..count {
        walk.tell = Some(program) == tell;
        if let Err(why) = walk.program() {
            // Its threads still use it.
            core::mem::forget(walk);
            return Err(format!("program {program} of seed {seed}: {why}"));
        }
    }
    let took = time::now().since(began).unwrap_or(Ticks::new(0));
    let nanos = start.timebase().nanos(took).count().max(1);
    let rate = u128::from(count) * 1_000_000_000 / u128::from(nanos);
    say!("peers: {count} programs, {} operations, {rate} programs a second", walk.steps);
    let digest = walk.digest;
    walk.finish().map_err(unexpected)?;
    Ok(digest | DIGEST)
}

/// What the last actor's process does.
pub(crate) fn other(start: &Start) -> rt::handle::Result<u64> {
    let [region, first, second, meeting] = *start.handles() else { return Ok(1) };
    let share = Share::of(memory::words(Region(region))?, ACTORS - 1);
    let own = start.thread();
    own.bind(&CoreMask::one(start.number("core", 0) as usize))?;
    share.set_own(own.handle());
    Endpoint(meeting).send(&Message::EMPTY.with_caps(&[own.handle()]))?;
    act(share, [Endpoint(first), Endpoint(second)], has_state(ACTORS - 1))
}

impl Walk {
    fn new(start: &Start, prng: Prng) -> rt::handle::Result<Self> {
        let number = start.number("core", 0) as usize;
        let core = CoreMask::one(number);
        start.thread().bind(&core)?;
        let region = Region::create(1)?.keep();
        let words = memory::words(region)?;
        let roots: Endpoints = [Endpoint::create()?.keep(), Endpoint::create()?.keep()];
        let mut walk = Self {
            prng,
            model: Model::new(),
            words,
            core,
            actors: Vec::new(),
            other: Other::new(start, region, &roots, number)?,
            clerk: None,
            saved: [Vec::new(), Vec::new()],
            checked: [0; PARTIES],
            digest: 0,
            steps: 0,
            tell: false,
        };
        walk.other.thread.schedule(&urgency(ACTORS - 1))?;
        let engage = |party| {
            let endpoints = of_party(&roots, party)?;
            let part = &*Box::leak(Box::new(Part {
                share: Share::of(words, party),
                endpoints,
                state: has_state(party),
            }));
            let stack = Stack::new(4)?;
            let thread = walk.hire(party, part, &stack)?;
            Ok(Actor { part, stack, thread })
        };
        let actors: rt::handle::Result<_> = (0..ACTORS - 1).map(engage).collect();
        let clerk = engage(CLERK)?;
        (walk.actors, walk.clerk) = (actors?, Some(clerk));
        Ok(walk)
    }

    /// Starts an actor, which stops itself at once.
    fn hire(&self, party: usize, part: &'static Part, stack: &Stack) -> rt::handle::Result<Owned<Thread>> {
        let flags = if has_state(party) { 0 } else { ThreadSpec::NO_FPU };
        let builder = Builder::default().flags(flags).cores(self.core).schedule(urgency(party));
        // SAFETY: the part is never given back, and the stack's last thread has ended.
        let thread = unsafe { builder.create(begin, core::ptr::from_ref(part) as u64, stack) }?;
        part.share.set_own(thread.handle());
        thread.start()?;
        Ok(thread)
    }

    fn thread(&self, party: usize) -> Thread {
        let clerk = self.clerk.as_ref().filter(|_| party == CLERK);
        self.actors.get(party).or(clerk).map_or(*self.other.thread, |actor| *actor.thread)
    }

    fn share(&self, party: usize) -> Share {
        Share::of(self.words, party)
    }

    /// One program, from nothing to nothing.
    fn program(&mut self) -> Result<(), Failure> {
        for _ in 0..6 + self.prng.below(16) {
            self.step()?;
        }
        self.bring_to_end()?;
        if !self.model.is_clean() {
            return Err(String::from("something is left in the model"));
        }
        for party in 0..ACTORS - 1 {
            if self.model.is_dead(party) {
                self.replace(party).map_err(unexpected)?;
            }
        }
        Ok(())
    }

    /// Tells what is done, if it is asked for.
    fn tell(&self, what: core::fmt::Arguments<'_>) {
        if self.tell {
            say!("peers: {what}");
        }
    }

    fn step(&mut self) -> Result<(), Failure> {
        let party = self.prng.below(ACTORS as u64) as usize;
        match self.prng.below(64) {
            0..3 => self.suspend(party),
            3..7 => self.resume(party),
            7 => self.kill(party),
            8 => self.take_part(),
            _ if self.model.is_idle(party) => {
                let operation = self.draw(party);
                self.perform(party, operation)
            }
            _ => Ok(()),
        }
    }

    fn suspend(&mut self, party: usize) -> Result<(), Failure> {
        if self.model.is_idle(party) || self.model.is_dead(party) || self.model.is_suspended(party) {
            return Ok(());
        }
        self.tell(format_args!("suspend {party}"));
        self.thread(party).suspend().map_err(unexpected)?;
        self.model.suspend(party);
        self.check("suspend")
    }

    fn resume(&mut self, party: usize) -> Result<(), Failure> {
        if !self.model.is_suspended(party) {
            return Ok(());
        }
        self.tell(format_args!("resume {party}"));
        self.thread(party).resume().map_err(unexpected)?;
        self.model.resume(party);
        if self.model.seen(party).1.status == abi::error::Error::PeerGone as u64 {
            // The reply that it waited for may have gone just now: it is told when no core can be at it any more.
            self.let_time_pass();
        }
        self.check("resume")
    }

    /// Kills an actor of this process.
    fn kill(&mut self, party: usize) -> Result<(), Failure> {
        if process_of(party) != 0 || self.model.is_dead(party) {
            return Ok(());
        }
        self.tell(format_args!("kill {party}"));
        self.thread(party).kill(KILLED).map_err(unexpected)?;
        self.model.kill(party);
        self.check("kill")
    }

    /// The clerk sends or receives, if somebody waits for it.
    fn take_part(&mut self) -> Result<(), Failure> {
        let (at, patience) = (self.endpoint(), Patience::None);
        let seed = self.prng.bits() as u32;
        let operation = match self.prng.below(3) {
            0 => Operation::Send { to: at, patience, seed },
            1 => Operation::Receive { from: at, patience },
            _ => Operation::Reply { seed },
        };
        self.perform(CLERK, operation)
    }

    fn endpoint(&mut self) -> usize {
        usize::from(self.prng.below(4) == 0)
    }

    fn patience(&mut self) -> Patience {
        match self.prng.below(64) {
            0..6 => Patience::None,
            6..9 => Patience::Passed,
            9 => Patience::Soon,
            _ => Patience::Endless,
        }
    }

    fn draw(&mut self, party: usize) -> Operation {
        let (at, patience, seed) = (self.endpoint(), self.patience(), self.prng.bits() as u32);
        // What takes the shortest way, if everything else allows it, comes more often.
        let endless = Patience::Endless;
        match (self.prng.below(3), self.model.waits_at(at)) {
            (0, _) if self.model.owes(party) => {
                return Operation::ReplyReceive { from: at, patience: endless, seed };
            }
            (0, Some(Waiting::Receivers)) => return Operation::Call { to: at, patience: endless, seed },
            (0, None) => return Operation::Receive { from: at, patience: endless },
            _ => {}
        }
        let saved = self.model.saved(process_of(party)) as u64;
        match self.prng.below(32) {
            0..9 => Operation::Call { to: at, patience, seed },
            9..12 => Operation::Send { to: at, patience, seed },
            12..19 => Operation::Receive { from: at, patience },
            19..26 => Operation::ReplyReceive { from: at, patience, seed },
            26 => Operation::Reply { seed },
            27 => Operation::Save,
            28..30 if saved > 0 => Operation::Answer { which: self.prng.below(saved) as usize, seed },
            30 if saved > 0 => Operation::Drop { which: self.prng.below(saved) as usize },
            28 => Operation::Nameless { call: self.prng.below(5) as u32 },
            29 => Operation::Senseless { call: self.prng.below(5) as u32 },
            _ => Operation::Save,
        }
    }

    /// Has a party do something, and looks at what has come of it.
    fn perform(&mut self, party: usize, operation: Operation) -> Result<(), Failure> {
        self.steps += 1;
        self.tell(format_args!("{party}: {operation:?}"));
        let process = process_of(party);
        let handle = match operation {
            Operation::Answer { which, .. } | Operation::Drop { which } => self.saved[process].remove(which),
            _ => Handle::NONE,
        };
        let deadline = Deadline::after(SOON);
        let order = Order::new(operation, deadline.0, handle);
        let share = self.share(party);
        share.give(order);
        self.thread(party).resume().map_err(unexpected)?;
        let before = self.model.saved(process);
        self.model.perform(party, operation);
        if order.patience == Patience::Soon as u32 || matches!(operation, Operation::Drop { .. }) {
            self.let_time_pass();
        }
        if self.model.saved(process) > before {
            self.saved[process].push(Handle(share.value()));
        }
        self.check(operation).map_err(|why| format!("{why}, by {party}"))
    }

    /// Sleeps until what has to happen has: a time that is over is noticed by an interrupt, and a reply that nobody has any more ends when
    /// no core can be at it (N1).
    fn let_time_pass(&self) {
        for _ in 0..MOST_SLEEPS {
            if (0..PARTIES).all(|party| self.share(party).done() == self.model.seen(party).0) {
                return;
            }
            time::sleep(Deadline::after(SOON));
        }
    }

    /// Compares what everybody has noted with the model.
    fn check(&mut self, after: impl core::fmt::Debug) -> Result<(), Failure> {
        for party in 0..PARTIES {
            let (done, outcome) = self.model.seen(party);
            let share = self.share(party);
            if share.done() != done {
                return Err(format!(
                    "party {party} has done {} instead of {done} after {after:?}",
                    share.done()
                ));
            }
            if self.checked[party] == done {
                continue;
            }
            self.checked[party] = done;
            let noted = share.outcome();
            if noted != outcome {
                return Err(format!("party {party}: {noted:x?} instead of {outcome:x?} after {after:?}"));
            }
            self.digest = digest(self.digest, party, &noted);
        }
        Ok(())
    }

    /// Has everybody answer, receive and be received until nobody waits.
    fn bring_to_end(&mut self) -> Result<(), Failure> {
        for party in 0..ACTORS {
            self.resume(party)?;
        }
        for _ in 0..MOST_TO_END {
            let Some((party, operation)) = self.next_to_end() else { return Ok(()) };
            self.perform(party, operation)?;
        }
        Err(String::from("the program does not end"))
    }

    fn next_to_end(&mut self) -> Option<(usize, Operation)> {
        let seed = self.steps as u32;
        let owing = (0..PARTIES).find(|&party| self.model.owes(party) && self.model.is_idle(party));
        if let Some(party) = owing {
            return Some((party, Operation::Reply { seed }));
        }
        for process in 0..PROCESSES {
            let party = if process == 0 { CLERK } else { ACTORS - 1 };
            if self.model.saved(process) > 0 && self.model.is_idle(party) {
                return Some((party, Operation::Answer { which: 0, seed }));
            }
        }
        let patience = Patience::None;
        (0..ENDPOINTS).find_map(|at| {
            let operation = match self.model.waits_at(at)? {
                Waiting::Senders => Operation::Receive { from: at, patience },
                Waiting::Receivers => Operation::Send { to: at, patience, seed },
            };
            Some((CLERK, operation))
        })
    }

    fn replace(&mut self, party: usize) -> rt::handle::Result<()> {
        let thread = self.thread(party);
        thread.join(Deadline::NEVER)?;
        let actor = self.actors.get(party).ok_or(abi::error::Error::BadArgument)?;
        let thread = self.hire(party, actor.part, &actor.stack)?;
        if let Some(actor) = self.actors.get_mut(party) {
            actor.thread = thread;
        }
        self.model.replace(party);
        Ok(())
    }

    fn finish(self) -> rt::handle::Result<()> {
        for actor in self.actors.into_iter().chain(self.clerk) {
            actor.thread.kill(KILLED)?;
            actor.thread.join(Deadline::NEVER)?;
        }
        self.other.process.kill(KILLED)?;
        self.other.process.wait(Deadline::NEVER).map(drop)
    }
}

impl Other {
    fn new(start: &Start, region: Region, roots: &Endpoints, core: usize) -> rt::handle::Result<Self> {
        let meeting = Endpoint::create()?;
        let endpoint = |at: usize, root: &Endpoint| Grant {
            badge: badge(ACTORS - 1, at),
            ..Grant::whole(root.handle())
        };
        let grants = [
            Grant::whole(region.handle()),
            endpoint(0, &roots[0]),
            endpoint(1, &roots[1]),
            Grant::whole(meeting.handle()),
        ];
        let image = start.program("peers").ok_or(abi::error::Error::BadArgument)?;
        let arguments = format!("work=actor\0core={core}\0");
        let builder = ProcessBuilder::new(Image::Loaded(image)).name("actor").arguments(&arguments);
        let process = builder
            .grants(&grants)
            .flags(if has_state(ACTORS - 1) { 0 } else { ProcessSpec::NO_FPU })
            .spawn(start.process())?;
        let met = meeting.receive(1)?;
        let thread = met.caps().next().ok_or(abi::error::Error::BadHandle)?;
        Ok(Self { process, thread: Owned::new(Thread(thread)) })
    }
}

/// Whether a party has vector registers: two actors of different processes.
fn has_state(party: usize) -> bool {
    party == ACTORS - 1 || party == ACTORS - 2
}

fn urgency(party: usize) -> SchedSpec {
    let priority = if party == CLERK { LESS_URGENT } else { URGENT };
    SchedSpec { class: SchedSpec::REAL_TIME, priority, ..SchedSpec::default() }
}

/// A party's own capabilities for the endpoints.
fn of_party(roots: &Endpoints, party: usize) -> rt::handle::Result<Endpoints> {
    let own = |at: usize| roots[at].derive(Rights::ALL, badge(party, at)).map(Owned::keep);
    Ok([own(0)?, own(1)?])
}

/// Adds an outcome to a digest.
fn digest(before: u64, party: usize, outcome: &Outcome) -> u64 {
    let rest = [party as u64, outcome.status, outcome.tag, outcome.badge];
    let words = rest.iter().chain(&outcome.words);
    words.fold(before, |sum, &word| (sum.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95))
}
