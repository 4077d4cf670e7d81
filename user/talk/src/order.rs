//! Messages that nobody has to answer, between real-time threads of one core.

use abi::task::SchedSpec;
use rt::handle::{Endpoint, Owned};
use rt::ipc::Message;
use rt::start::Start;
use rt::thread;

use crate::basics::{END, on};
use crate::{Outcome, ensure, unexpected};

const RECEIVERS: usize = 5;
const ROUNDS: u64 = 300;

/// Who was sent to first runs first, however many wait for their turn, and gets what it was sent.
///
/// Planted: the shortest way forgets to link who is sent to behind others that wait for the core.
pub(crate) fn sends(start: &Start) -> Outcome {
    let urgent = SchedSpec { class: SchedSpec::REAL_TIME, priority: 100, ..SchedSpec::default() };
    let create = || Endpoint::create().map_err(unexpected);
    let (back, mut ends, mut threads) = (create()?, alloc::vec::Vec::new(), alloc::vec::Vec::new());
    for number in 0..RECEIVERS as u32 {
        let end = create()?;
        let (from, to) = (*end, *back);
        let work = move || send_back(number, from, to);
        threads.push(on(start, 0).schedule(urgent).spawn(work).map_err(unexpected)?);
        ends.push(end);
    }
    let from = *back;
    let work = move || send_round(&ends, from);
    let sender = on(start, 0).schedule(urgent).spawn(work).map_err(unexpected)?;
    sender.join().map_err(unexpected)??;
    threads.into_iter().try_for_each(|thread| thread.join().map_err(unexpected)?)
}

/// Sends what comes on, with its number as label, until it is asked to end.
fn send_back(number: u32, from: Endpoint, to: Endpoint) -> Outcome {
    loop {
        let got = from.receive(0).map_err(unexpected)?;
        if got.tag.label() == END {
            return Ok(());
        }
        to.send(&Message::new(number, got.words)).map_err(unexpected)?;
    }
}

fn send_round(ends: &[Owned<Endpoint>], back: Endpoint) -> Outcome {
    for round in 0..ROUNDS {
        // Now all the others wait.
        thread::yield_now();
        let order =
            (0..RECEIVERS as u64).map(|turn| ((turn * (round % 4 + 1) + round) % RECEIVERS as u64) as usize);
        let words = |receiver: usize| [round << 32 | receiver as u64; 8];
        for receiver in order.clone() {
            ends[receiver].send(&Message::new(0, words(receiver))).map_err(unexpected)?;
        }
        for receiver in order {
            let got = back.receive(0).map_err(unexpected)?;
            let came = (got.tag.label() as usize, got.words);
            ensure!(came == (receiver, words(receiver)), "round {round}: {came:x?} instead of {receiver}");
        }
    }
    ends.iter().try_for_each(|end| end.send(&Message::new(END, [0; 8])).map_err(unexpected))
}
