//! What becomes of the capabilities of calls.

use abi::cap::{Handle, Rights};
use abi::ipc::Tag;
use rt::handle::{Endpoint, Owned, Typed};
use rt::ipc::{self, Message};
use rt::start::Start;

use crate::basics::{END, end, on};
use crate::{Outcome, ensure, unexpected};

/// What a case of [`passed`] hands on, how many the server takes, and what it is told: how many have come, with which badge the first.
struct Passing<'a> {
    handles: &'a [Handle],
    bits: u64,
    taken: usize,
    come: usize,
    badge: u64,
}

/// What becomes of the capabilities of calls, and that label and words come unharmed whatever becomes of them.
///
/// Planted: the shortest way loses the label of a message whose only capability the receiver does not take.
pub(crate) fn passed(start: &Start) -> Outcome {
    for core in [0, 1] {
        let endpoint = Endpoint::create().map_err(unexpected)?;
        let to = *endpoint;
        let server = on(start, core).spawn(move || tell_what_came(to)).map_err(unexpected)?;
        let client = on(start, 0).spawn(move || pass_all(to)).map_err(unexpected)?;
        let passed = client.join().map_err(unexpected)?;
        end(to)?;
        server.join().map_err(unexpected)??;
        passed?;
    }
    Ok(())
}

/// Answers each message with its tag, the badge of its first capability and its words 1 to 3, and takes as many as word 0 says with the next.
fn tell_what_came(to: Endpoint) -> Outcome {
    let mut got = to.receive(0).map_err(unexpected)?;
    while got.tag.label() != END {
        let first =
            got.caps().next().map(|handle| Endpoint(handle).about().map_err(unexpected)).transpose()?;
        got.caps().for_each(|handle| drop(Owned::new(Endpoint(handle))));
        let [taken, a, b, c, ..] = got.words;
        let badge = first.map_or(0, |about| about.badge);
        let answer = Message::new(0, [got.tag.0, badge, a, b, c, 0, 0, 0]).accepting(taken as usize);
        got = to.reply_receive(answer).map_err(unexpected)?;
    }
    ipc::reply(&got).map_err(unexpected)
}

fn pass_all(to: Endpoint) -> Outcome {
    let make = |rights, badge| to.derive(rights, badge).map_err(unexpected);
    let may_go = Rights::SEND.with(Rights::GRANT);
    let (first, second, bound) = (make(may_go, 11)?, make(may_go, 12)?, make(Rights::SEND, 13)?);
    let moving = make(may_go, 14)?.keep().handle();
    let other = Endpoint::create().map_err(unexpected)?;
    let case = |handles, taken, come, badge| Passing { handles, bits: 0, taken, come, badge };
    let both = [first.handle(), second.handle()];
    let (stays, none, root, moving) = ([bound.handle()], [Handle(0x1234)], [other.handle()], [moving]);
    let cases = [
        case(&both[..1], 1, 1, 11),
        case(&both[..1], 4, 1, 11),
        case(&both[..1], 0, 0, 0),
        case(&both, 2, 2, 11),
        case(&both, 1, 1, 11),
        case(&stays, 1, 0, 0),
        case(&none, 1, 0, 0),
        case(&root, 1, 1, 0),
        case(&root, 1, 1, 0),
        Passing { bits: Tag::MOVE, ..case(&moving, 1, 1, 14) },
        case(&moving, 1, 0, 0),
    ];
    for (number, case) in cases.iter().enumerate() {
        let Passing { handles, bits, taken, come, badge } = *case;
        let word = number as u64 + 1;
        to.call(Message::new(0, [taken as u64, 0, 0, 0, 0, 0, 0, 0])).map_err(unexpected)?;
        let label = 0xfeed_0000 + number as u32;
        let sent =
            Message::new(label, [0, word, !word, word << 40, 5, 6, 7, 8]).with_caps(handles).with(bits);
        let [tag, first, a, b, c, ..] = to.call(sent).map_err(unexpected)?.words;
        let told = (Tag(tag).label(), Tag(tag).words(), Tag(tag).caps(), Tag(tag).has(Tag::LOST));
        let expected = (label, 8, come, come < handles.len());
        ensure!(told == expected, "case {number}: {told:x?} instead of {expected:x?}");
        ensure!(
            (first, [a, b, c]) == (badge, [word, !word, word << 40]),
            "case {number}: {first} {a:x} {b:x} {c:x}"
        );
    }
    Ok(())
}
