//! Messages between a client and a server that each have one thread, at fixed priorities.
//!
//! All eight words of a message lie in registers on both sides, and stay there from one round to the next: the server answers with what it
//! was sent, and the client sends what it was answered. That they travel is seen once before: the first answer has every word inverted.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::ipc::{CAPS, Tag, WORDS};
use abi::task::{ProcessSpec, ThreadSpec};
use alloc::vec;
use alloc::vec::Vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::hist::DEFAULT_COUNTS;
use perf::runner::Trouble;
use rt::handle::{Endpoint, Owned, Result, Thread, Typed};
use rt::ipc::Message;
use rt::sys;
use rt::thread::Builder;
use rt::time::{Deadline, Tsc};

use super::partner::Partner;
use super::{Lab, Meter, arch, failed, place};

/// What the client's capability says to the server.
const BADGE: u64 = 0x5eed;
/// The words of the messages, each turned by a few bits more.
const PATTERN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Rounds per window: as many messages as a server that collects capabilities takes before it deletes them.
const BATCH: u32 = 64;

/// A call and its reply.
pub(super) const ROUND_TRIP: Bench<Lab> = Bench {
    id: "ipc.rt",
    version: 1,
    doc: "a call and its reply by reply_receive, from user mode to user mode, with loop and stubs of both sides",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore, Class::Smt, Class::Llc, Class::Node, Class::Remote],
    batch: BATCH,
    cases: |lab, visit| {
        for (placement, _) in places(lab) {
            for space in [SAME, OTHER] {
                for words in [0, 1, 4, 8] {
                    visit(case(placement, space, [words, 0], "off"));
                }
                visit(case(placement, space, [8, 0], "on"));
                if placement.class == Class::SelfCore {
                    (1..=CAPS as u64).for_each(|caps| visit(case(placement, space, [4, caps], "off")));
                }
            }
        }
    },
    run: |lab, case, meter| {
        let wanted = Wanted::of(case);
        let scene =
            Scene::new(lab, wanted, case.placement.target.map_or(place::HERE, |site| site.core as usize))?;
        scene.measure(meter)
    },
};

pub(super) const SAME: &str = "same";
pub(super) const OTHER: &str = "other";

/// The measuring core with itself, and with each of its partners.
pub(super) fn places(lab: &Lab) -> impl Iterator<Item = (Placement, usize)> {
    let others = lab
        .partners()
        .map(|(class, core)| (Placement::pair(class, lab.site(place::HERE), lab.site(core)), core));
    core::iter::once((lab.alone(), place::HERE)).chain(others)
}

fn case(placement: Placement, space: &'static str, [words, caps]: [u64; 2], fpu: &'static str) -> Case {
    let case = Case::new(placement).with("words", Value::Num(words)).with("caps", Value::Num(caps));
    let case = case.with("space", Value::Word(space)).with("core", Value::Word(placement.class.word()));
    case.with("fpu", Value::Word(fpu))
}

/// What client and server are to be.
#[derive(Clone, Copy)]
struct Wanted {
    words: usize,
    caps: usize,
    same_space: bool,
    fpu: bool,
}

impl Wanted {
    fn of(case: &Case) -> Self {
        Self {
            words: case.params.num("words").unwrap_or(0) as usize,
            caps: case.params.num("caps").unwrap_or(0) as usize,
            same_space: case.params.word("space") == Some(SAME),
            fpu: case.params.word("fpu") == Some("on"),
        }
    }

    fn service(self) -> Service {
        match (self.caps, self.fpu) {
            (0, false) => Service::Echo,
            (0, true) => Service::EchoFpu,
            (caps, _) => Service::Collect(caps),
        }
    }
}

/// What a server does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// Sends it back.
    Echo,
    /// The same, and it uses a vector register before.
    EchoFpu,
    /// The same, keeping so many capabilities of each message until a whole window of them has come.
    Collect(usize),
}

impl Service {
    /// As an argument of the partner's.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::EchoFpu => "echo-fpu",
            Self::Collect(1) => "collect-1",
            Self::Collect(2) => "collect-2",
            Self::Collect(3) => "collect-3",
            Self::Collect(_) => "collect-4",
        }
    }

    /// The service of a word.
    pub(super) fn of(word: &str) -> Option<Self> {
        let all = [Self::Echo, Self::EchoFpu].into_iter().chain((1..=CAPS).map(Self::Collect));
        all.into_iter().find(|service| service.word() == word)
    }

    /// Serves until the endpoint is closed.
    pub(super) fn run(self, endpoint: Endpoint) -> Result<()> {
        let caps = if let Self::Collect(caps) = self { caps } else { 0 };
        let mut message = endpoint.receive(caps)?;
        if message.tag.caps() != caps {
            return Err(Error::BadHandle);
        }
        message.caps().try_for_each(forget)?;
        message.tag = Tag::new(message.badge as u32, message.tag.words()).accepting(caps);
        message.words = message.words.map(|word| !word);
        match self {
            Self::Echo => loop {
                message = endpoint.reply_receive(message)?;
            },
            Self::EchoFpu => loop {
                arch::use_vector_unit();
                message = endpoint.reply_receive(message)?;
            },
            Self::Collect(caps) => collect(endpoint, message, caps),
        }
    }
}

/// Answers a window of messages, noting their capabilities, and deletes these when one more message has come.
fn collect(endpoint: Endpoint, mut message: Message, caps: usize) -> Result<()> {
    let mut tails = [[0; CAPS]; BATCH as usize];
    let accepting = Tag::new(0, 4).accepting(caps);
    loop {
        for tail in &mut tails {
            message = endpoint.reply_receive(message)?;
            message.tag = accepting;
            let [.., fourth, third, second, first] = message.words;
            *tail = [first, second, third, fourth];
        }
        message = endpoint.reply_receive(message)?;
        message.tag = accepting;
        tails
            .iter()
            .flat_map(|tail| tail.iter().take(caps))
            .try_for_each(|&handle| forget(Handle(handle)))?;
    }
}

/// Deletes a capability that came with a message.
fn forget(handle: Handle) -> Result<()> {
    // SAFETY: no address is passed, and no memory is mapped through it.
    unsafe { sys::cap_delete(handle) }.map(drop)
}

/// An endpoint, and a server at it until this goes.
struct Scene {
    wanted: Wanted,
    core: usize,
    endpoint: Owned<Endpoint>,
    /// The server, if it is another process.
    _partner: Option<Partner>,
}

impl Scene {
    fn new(lab: &Lab, wanted: Wanted, core: usize) -> core::result::Result<Self, Trouble> {
        let endpoint = Endpoint::create().map_err(failed)?;
        let partner = if wanted.same_space {
            None
        } else {
            let flags = if wanted.fpu { 0 } else { ProcessSpec::NO_FPU };
            Some(Partner::with(lab, wanted.service().word(), core, flags, Some(*endpoint))?)
        };
        Ok(Self { wanted, core, endpoint, _partner: partner })
    }

    /// Measures with a client on the measuring core.
    fn measure(self, meter: &mut Meter<'_>) -> core::result::Result<(), Trouble> {
        let Self { wanted, core, endpoint, _partner } = self;
        let client = Client::new(wanted, &endpoint)?;
        if !wanted.same_space {
            return client.measure(meter);
        }
        let to = *endpoint;
        let server = threads(wanted.fpu, core);
        let rest = |_| {
            let result = client.measure(meter);
            // The server is told, and ends.
            drop(endpoint);
            result
        };
        server.both(move || wanted.service().run(to), rest).map_err(failed)?.1
    }
}

fn threads(fpu: bool, core: usize) -> Builder {
    let peer = place::peer(core);
    if fpu { peer } else { peer.flags(ThreadSpec::NO_FPU) }
}

/// What the measuring thread does.
struct Client {
    wanted: Wanted,
    /// Where it calls: its own capability, with a badge.
    to: Owned<Endpoint>,
    /// What it hands over.
    gifts: Vec<Owned<Endpoint>>,
    sent: Message,
}

impl Client {
    fn new(wanted: Wanted, endpoint: &Owned<Endpoint>) -> core::result::Result<Self, Trouble> {
        let to = endpoint.derive(Rights::SEND, BADGE).map_err(failed)?;
        let gift = |_| endpoint.derive(Rights::SEND.with(Rights::GRANT), 0);
        let gifts: Vec<_> = (0..wanted.caps).map(gift).collect::<Result<_>>().map_err(failed)?;
        let handles: Vec<_> = gifts.iter().map(|gift| gift.handle()).collect();
        let mut sent = Message::new(0, core::array::from_fn(|word| PATTERN.rotate_left(word as u32 * 7)));
        sent.tag = Tag::new(0, wanted.words);
        Ok(Self { wanted, to, gifts, sent: sent.with_caps(&handles) })
    }

    /// Measures on a thread of its own, while the main thread sleeps: that one has vector registers to be kept.
    fn measure(&self, meter: &mut Meter<'_>) -> core::result::Result<(), Trouble> {
        let (plan, mut counts) = (meter.plan(), vec![0; DEFAULT_COUNTS]);
        let work = |counts| -> core::result::Result<_, Trouble> {
            let mut meter = Meter::new(Tsc, plan, counts)?;
            self.rounds(&mut meter).map_err(failed)?;
            Ok(meter.close().0)
        };
        let counts = counts.as_mut_slice();
        let ended = |thread: Thread| thread.join(Deadline::NEVER);
        let result =
            threads(self.wanted.fpu, place::HERE).both(move || work(counts), ended).map_err(failed)?.0;
        meter.tally().absorb(&result?);
        Ok(())
    }

    fn rounds(&self, meter: &mut Meter<'_>) -> Result<()> {
        let (to, batch, sent) = (*self.to, meter.batch(), self.sent);
        let first = to.call(sent)?;
        let kept = WORDS - self.wanted.caps;
        let inverted = sent.words.iter().zip(first.words).take(kept).all(|(&sent, came)| !sent == came);
        if !inverted || first.tag.label() != BADGE as u32 {
            return Err(Error::BadArgument);
        }
        if self.wanted.caps > 0 {
            return with_caps(to, sent, meter);
        }
        let mut last = Ok(sent);
        let none = |_: &mut _| {};
        if self.wanted.fpu {
            meter.windows(&mut last, none, |last| repeat(to, last, batch, arch::use_vector_unit), none);
        } else {
            meter.windows(&mut last, none, |last| repeat(to, last, batch, || {}), none);
        }
        if last?.words == sent.words { Ok(()) } else { Err(Error::BadArgument) }
    }
}

/// Calls so many times, each time with what was answered.
#[inline(always)]
fn repeat(to: Endpoint, last: &mut Result<Message>, calls: u32, before: impl Fn()) {
    let Ok(mut message) = *last else { return };
    for _ in 0..calls {
        before();
        match to.call(message) {
            Ok(next) => message = next,
            Err(error) => return *last = Err(error),
        }
    }
    *last = Ok(message);
}

/// Calls with the same capabilities again and again; after each window the server deletes what it got.
fn with_caps(to: Endpoint, sent: Message, meter: &mut Meter<'_>) -> Result<()> {
    let batch = meter.batch();
    let mut outcome = Ok(());
    let timed = |outcome: &mut Result<()>| {
        for _ in 0..batch {
            if let Err(error) = to.call(sent) {
                return *outcome = Err(error);
            }
        }
    };
    let over = |outcome: &mut Result<()>| *outcome = outcome.and_then(|()| to.call(Message::EMPTY).map(drop));
    meter.windows(&mut outcome, |_| {}, timed, over);
    outcome
}
