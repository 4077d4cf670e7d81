//! Messages between a client on the measuring core and a server, each with one thread, at fixed priorities.
//!
//! All eight words of a message lie in registers on both sides. Where rounds follow each other they stay there: the server answers with what
//! it was sent, and the client sends what it was answered. That they travel is seen once before: the first answer has every word inverted.

mod bulk;
mod many;
mod service;
mod ways;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::ipc::{CAPS, Tag, WORDS};
use abi::task::{ProcessSpec, ThreadSpec};
use alloc::vec;
use alloc::vec::Vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::hist::DEFAULT_COUNTS;
use perf::runner::Trouble;
use rt::handle::{Endpoint, Owned, Region, Result, Thread, Typed};
use rt::ipc::Message;
use rt::thread::Builder;
use rt::time::{Deadline, Tsc};

use super::partner::Partner;
use super::{Lab, Meter, arch, failed, place};

pub(super) use bulk::THROUGHPUT;
pub(super) use many::{FAN_IN, PAIRS};
pub(super) use service::{Given, Service};
pub(super) use ways::{CALL, CROSS_CORE, REPLY, SLOW};

/// What a row or a part of it comes to.
type Outcome<T = ()> = core::result::Result<T, Trouble>;

/// What the client's capability says to the server.
const BADGE: u64 = 0x5eed;
/// The words of the messages, each turned by a few bits more.
const PATTERN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Rounds per window: as many messages as a server that collects capabilities takes before it deletes them.
const BATCH: u32 = 64;

const SAME: &str = "same";
const OTHER: &str = "other";

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
        for placement in core::iter::once(lab.alone()).chain(pairs(lab)) {
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
        let words = case.params.num("words").unwrap_or(0) as usize;
        let caps = case.params.num("caps").unwrap_or(0) as usize;
        if caps > 0 {
            let scene = Scene::of(case, Service::Collect(caps));
            return scene.measure(lab, meter, |meter, talk| with_caps(meter, talk, words, caps));
        }
        let service = if is_on(case) { Service::EchoFpu } else { Service::Echo };
        Scene::of(case, service).measure(lab, meter, |meter, talk| rounds(meter, talk, words, is_on(case)))
    },
};

/// The measuring core with each of its partners.
fn pairs(lab: &Lab) -> impl Iterator<Item = Placement> {
    let pair = |(class, core)| Placement::pair(class, lab.site(place::HERE), lab.site(core));
    lab.partners().map(pair)
}

fn case(placement: Placement, space: &'static str, [words, caps]: [u64; 2], fpu: &'static str) -> Case {
    let case = Case::new(placement).with("words", Value::Num(words)).with("caps", Value::Num(caps));
    let case = case.with("space", Value::Word(space)).with("core", Value::Word(placement.class.word()));
    case.with("fpu", Value::Word(fpu))
}

fn is_on(case: &Case) -> bool {
    case.params.word("fpu") == Some("on")
}

/// Who serves, and how it stands to the client.
struct Scene {
    service: Service,
    core: usize,
    same_space: bool,
    fpu: bool,
    /// Memory that both have.
    pages: u64,
}

/// What a client talks to its server through.
struct Talk {
    endpoint: Owned<Endpoint>,
    /// For what the server sends by itself.
    back: Owned<Endpoint>,
    /// The client's own capability for `endpoint`, with a badge.
    to: Owned<Endpoint>,
    region: Option<Owned<Region>>,
}

impl Talk {
    fn new(pages: u64) -> Result<Self> {
        let endpoint = Endpoint::create()?;
        let to = endpoint.derive(Rights::SEND, BADGE)?;
        let region = (pages > 0).then(|| Region::create(pages)).transpose()?;
        Ok(Self { endpoint, back: Endpoint::create()?, to, region })
    }

    fn given(&self) -> Given {
        Given { endpoints: [*self.endpoint, *self.back], region: self.region.as_ref().map(|region| **region) }
    }
}

impl Scene {
    fn of(case: &Case, service: Service) -> Self {
        let core = case.placement.target.map_or(place::HERE, |site| site.core as usize);
        let same_space = case.params.word("space") == Some(SAME);
        Self { service, core, same_space, fpu: is_on(case), pages: 0 }
    }

    /// Has `body` measure on the measuring core, on a thread of its own, while the server serves and the main thread sleeps: that one has
    /// vector registers to be kept.
    fn measure(
        &self,
        lab: &Lab,
        meter: &mut Meter<'_>,
        body: impl FnOnce(&mut Meter<'_>, &Talk) -> Result<()> + Send,
    ) -> Outcome {
        let talk = Talk::new(self.pages).map_err(failed)?;
        let given = talk.given();
        if !self.same_space {
            let flags = if self.fpu { 0 } else { ProcessSpec::NO_FPU };
            let _server = Partner::with(lab, self.service.word(), self.core, flags, &given.handles())?;
            return client(self.fpu, meter, |meter| body(meter, &talk));
        }
        let rest = |_| {
            let result = client(self.fpu, meter, |meter| body(meter, &talk));
            // The server is told, and ends.
            drop(talk);
            result
        };
        threads(self.fpu, self.core).both(|| self.service.run(&given), rest).map_err(failed)?.1
    }
}

/// A thread of a core, at the priority that all have here.
fn threads(fpu: bool, core: usize) -> Builder {
    let peer = place::peer(core);
    if fpu { peer } else { peer.flags(ThreadSpec::NO_FPU) }
}

fn client(
    fpu: bool,
    meter: &mut Meter<'_>,
    body: impl FnOnce(&mut Meter<'_>) -> Result<()> + Send,
) -> Outcome {
    let (plan, mut counts) = (meter.plan(), vec![0; DEFAULT_COUNTS]);
    let work = |counts| -> Outcome<_> {
        let mut meter = Meter::new(Tsc, plan, counts)?;
        body(&mut meter).map_err(failed)?;
        Ok(meter.close().0)
    };
    let counts = counts.as_mut_slice();
    let ended = |thread: Thread| thread.join(Deadline::NEVER);
    let result = threads(fpu, place::HERE).both(move || work(counts), ended).map_err(failed)?.0;
    meter.tally().absorb(&result?);
    Ok(())
}

/// A message of so many words, the others 0.
fn message(words: usize) -> Message {
    let word = |word| if word < words { PATTERN.rotate_left(word as u32 * 7) } else { 0 };
    Message { tag: Tag::new(0, words), ..Message::new(0, core::array::from_fn(word)) }
}

/// Sends a message for the first time: its words but the capabilities, and the badge, must have come.
fn greet(to: Endpoint, sent: Message) -> Result<()> {
    let answer = to.call(sent)?;
    let kept = WORDS - sent.tag.caps();
    let inverted = sent.words.iter().zip(answer.words).take(kept).all(|(&sent, came)| !sent == came);
    if inverted && answer.tag.label() == BADGE as u32 { Ok(()) } else { Err(Error::BadArgument) }
}

fn rounds(meter: &mut Meter<'_>, talk: &Talk, words: usize, fpu: bool) -> Result<()> {
    let (to, batch, sent) = (*talk.to, meter.batch(), message(words));
    greet(to, sent)?;
    let mut last = Ok(sent);
    let none = |_: &mut _| {};
    if fpu {
        meter.windows(&mut last, none, |last| repeat(to, last, batch, arch::use_vector_unit), none);
    } else {
        meter.windows(&mut last, none, |last| repeat(to, last, batch, || {}), none);
    }
    if last?.words == sent.words { Ok(()) } else { Err(Error::BadArgument) }
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
fn with_caps(meter: &mut Meter<'_>, talk: &Talk, words: usize, caps: usize) -> Result<()> {
    let gift = |_| talk.endpoint.derive(Rights::SEND.with(Rights::GRANT), 0);
    let gifts: Vec<Owned<Endpoint>> = (0..caps).map(gift).collect::<Result<_>>()?;
    let handles: Vec<Handle> = gifts.iter().map(|gift| gift.handle()).collect();
    let (to, batch, sent) = (*talk.to, meter.batch(), message(words).with_caps(&handles));
    greet(to, sent)?;
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
