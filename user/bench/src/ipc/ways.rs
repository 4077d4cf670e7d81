//! Parts of a round trip, and the ways that are not the shortest.

use abi::error::Error;
use perf::bench::{Bench, Case, Class, Scope, Value};
use perf::clock::{Clock, Ticks};
use rt::handle::Result;
use rt::time::{self, Deadline, Tsc};

use super::{BATCH, OTHER, ROUND_TRIP, SAME, Scene, Service, Talk, greet, is_on, message, pairs};
use crate::team::SETTLE;
use crate::{Lab, Meter};

/// There.
pub(in super::super) const CALL: Bench<Lab> = Bench {
    id: "ipc.call",
    doc: "a call, from the client's last instruction before the stub to the server's first after its own",
    scope: Scope::OneWay,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |lab, visit| {
        for space in [SAME, OTHER] {
            for words in [0, 8] {
                let case = Case::new(lab.alone()).with("words", Value::Num(words));
                visit(case.with("space", Value::Word(space)));
            }
        }
    },
    run: |lab, case, meter| {
        let words = case.params.num("words").unwrap_or(0) as usize;
        let body = |meter: &mut Meter<'_>, talk: &Talk| {
            let (to, sent) = (*talk.to, message(words));
            greet(to, sent)?;
            while meter.more() {
                let from = Tsc.start();
                let answer = to.call(sent)?;
                meter.window(from, Ticks::new(answer.words[0]));
            }
            Ok(())
        };
        Scene::of(case, Service::NoteCall).measure(lab, meter, body)
    },
    ..ROUND_TRIP
};

/// And back.
pub(in super::super) const REPLY: Bench<Lab> = Bench {
    id: "ipc.reply",
    doc: "a reply by reply_receive, from the server's last instruction before the stub to the client's first after its own",
    run: |lab, case, meter| {
        let words = case.params.num("words").unwrap_or(0) as usize;
        let body = |meter: &mut Meter<'_>, talk: &Talk| {
            let (to, sent) = (*talk.to, message(words));
            greet(to, sent)?;
            while meter.more() {
                let answer = to.call(sent)?;
                let now = Tsc.stop();
                meter.window(Ticks::new(answer.words[0]), now);
            }
            Ok(())
        };
        Scene::of(case, Service::NoteReply).measure(lab, meter, body)
    },
    ..CALL
};

/// Messages that nobody has to answer.
pub(in super::super) const SLOW: Bench<Lab> = Bench {
    id: "ipc.slow",
    doc: "eight words sent to a thread of the core that waits for them, and sent back the same way: send and receive on both sides",
    scope: Scope::RoundTrip,
    batch: BATCH,
    cases: |lab, visit| {
        for space in [SAME, OTHER] {
            visit(Case::new(lab.alone()).with("space", Value::Word(space)));
        }
    },
    run: |lab, case, meter| Scene::of(case, Service::Pong).measure(lab, meter, ping),
    ..CALL
};

fn ping(meter: &mut Meter<'_>, talk: &Talk) -> Result<()> {
    let (to, back, batch) = (*talk.to, *talk.back, meter.batch());
    let sent = message(8);
    let mut last = Ok(sent);
    let timed = |last: &mut Result<_>| {
        for _ in 0..batch {
            let Ok(message) = *last else { return };
            *last = to.send(&message).and_then(|()| back.receive(0));
        }
    };
    meter.windows(&mut last, |_| {}, timed, |_| {});
    if last?.words == sent.words { Ok(()) } else { Err(Error::BadArgument) }
}

/// To a core that sleeps.
pub(in super::super) const CROSS_CORE: Bench<Lab> = Bench {
    id: "ipc.crosscore",
    doc: "a call of eight words and its reply, to a server on a core that is asleep, as is the client's own meanwhile",
    scope: Scope::RoundTrip,
    classes: &[Class::Smt, Class::Llc, Class::Node, Class::Remote],
    cases: |lab, visit| {
        for placement in pairs(lab) {
            for space in [SAME, OTHER] {
                for fpu in ["off", "on"] {
                    let case = Case::new(placement).with("core", Value::Word(placement.class.word()));
                    visit(case.with("space", Value::Word(space)).with("fpu", Value::Word(fpu)));
                }
            }
        }
    },
    run: |lab, case, meter| {
        let service = if is_on(case) { Service::EchoFpu } else { Service::Echo };
        Scene::of(case, service).measure(lab, meter, from_rest)
    },
    ..CALL
};

fn from_rest(meter: &mut Meter<'_>, talk: &Talk) -> Result<()> {
    let (to, sent) = (*talk.to, message(8));
    greet(to, sent)?;
    let mut last = sent;
    while meter.more() {
        time::sleep(Deadline::after(SETTLE));
        let from = Tsc.start();
        last = to.call(last)?;
        let now = Tsc.stop();
        meter.window(from, now);
    }
    if last.words == sent.words { Ok(()) } else { Err(Error::BadArgument) }
}
