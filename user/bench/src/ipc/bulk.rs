//! Messages of any size: up to eight words in registers, more of them in memory that both sides have mapped.

use abi::boot::Lane;
use abi::error::Error;
use abi::ipc::WORDS;
use perf::bench::{Bench, Case, Class, Scope, Unit, Value};
use rt::handle::{Endpoint, Result};
use rt::ipc::Message;
use rt::memory;
use rt::sync::atomic::{AtomicU64, Ordering};

use super::{BATCH, ROUND_TRIP, Scene, Service, Talk, greet, message, rounds};
use crate::{Lab, Meter};

/// The largest message.
const MOST: u64 = 1 << 20;
/// Pages of the memory that a client and its server share.
pub(super) const PAGES: usize = MOST as usize / memory::PAGE;
/// What travels in registers.
const REGISTERS: u64 = WORDS as u64 * 8;

/// One message after another.
pub(in super::super) const THROUGHPUT: Bench<Lab> = Bench {
    id: "ipc.throughput",
    doc: "a message of so many bytes to a server in another space, and its answer: up to 64 in registers, more written to shared memory and read there",
    scope: Scope::RoundTrip,
    classes: &[Class::SelfCore],
    cases: |lab, visit| {
        for bytes in [8, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, MOST] {
            let case = Case::new(lab.alone()).with("bytes", Value::Num(bytes));
            let batch = if bytes <= REGISTERS { BATCH } else { (MOST / 64 / bytes).clamp(1, 16) as u32 };
            visit(case.batch(batch));
        }
    },
    run: |lab, case, meter| {
        let bytes = case.params.num("bytes").unwrap_or(0);
        let words = bytes as usize / 8;
        if bytes <= REGISTERS {
            let scene = Scene::of(case, Service::Echo);
            scene.measure(lab, meter, |meter, talk| rounds(meter, talk, words, false))?;
        } else {
            let scene = Scene { pages: PAGES as u64, ..Scene::of(case, Service::Sum) };
            scene.measure(lab, meter, |meter, talk| through_memory(meter, talk, words))?;
        }
        // Where time passes, how many there are in a second.
        let milliticks =
            meter.tally().hist().summary().p50.filter(|&p50| p50 > 0 && lab.lane != Lane::Icount);
        if let Some(milliticks) = milliticks {
            let each = lab.start.timebase().frequency().hertz() * 1000 / milliticks;
            meter.metric("messages.per.second", each, Unit::Count);
        }
        Ok(())
    },
    ..ROUND_TRIP
};

/// The sum of the first words.
pub(super) fn sum(words: &[AtomicU64], count: u64) -> u64 {
    let words = words.get(..count as usize).unwrap_or_default();
    // ORDER: Relaxed; whoever wrote them has called since.
    words.iter().fold(0, |sum, word| sum.wrapping_add(word.load(Ordering::Relaxed)))
}

fn through_memory(meter: &mut Meter<'_>, talk: &Talk, count: usize) -> Result<()> {
    let region = talk.region.as_ref().ok_or(Error::BadHandle)?;
    let words = memory::shared(**region, PAGES)?.get(..count).ok_or(Error::BadArgument)?;
    greet(*talk.to, message(WORDS))?;
    let (batch, mut seed, mut outcome) = (meter.batch(), 0, Ok(()));
    let timed = |outcome: &mut Result<()>| {
        for _ in 0..batch {
            seed += 1;
            *outcome = outcome.and_then(|()| tell(*talk.to, words, seed));
        }
    };
    meter.windows(&mut outcome, |_| {}, timed, |_| {});
    outcome
}

/// Writes words that differ from those before, and has them read.
fn tell(to: Endpoint, words: &[AtomicU64], seed: u64) -> Result<()> {
    // ORDER: Relaxed; the call orders them before what the server reads.
    words.iter().zip(seed..).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    let count = words.len() as u64;
    let answer = to.call(Message::new(0, [count, 0, 0, 0, 0, 0, 0, 0]))?;
    // Those of an arithmetic series.
    let expected = count.wrapping_mul(seed).wrapping_add(count * (count - 1) / 2);
    if answer.words[0] == expected { Ok(()) } else { Err(Error::BadArgument) }
}
