//! Channels in shared memory.

use abi::error::Error;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope};
use rt::channel::{Bells, Consumer, Producer, WORDS};
use rt::handle::{Notification, Region, Result};
use rt::memory;

use super::{Lab, Meter, failed};

/// Items per window: fewer than a page holds, so that nobody waits.
const BATCH: u32 = 32;

/// An item on its way.
pub(super) const PASS: Bench<Lab> = Bench {
    id: "chan.pass",
    version: 1,
    doc: "an item of 64 bytes sent and received through a channel, 32 one after another, by one thread at both ends; nobody sleeps, so no system call",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: BATCH,
    cases: |lab, visit| visit(Case::new(lab.alone())),
    run: |_, _, meter| pass(meter).map_err(failed),
};

fn pass(meter: &mut Meter<'_>) -> Result<()> {
    let region = Region::create(1)?;
    let words = memory::shared(*region, 1)?;
    let (there, here) = (Notification::create()?, Notification::create()?);
    let producer = Producer::new(words, Bells { own: *there, peer: *here })?;
    let consumer = Consumer::new(words, Bells { own: *here, peer: *there })?;
    let batch = u64::from(meter.batch());
    let mut ends = Ends { producer, consumer, outcome: Ok(()) };
    meter.windows(&mut ends, |_| {}, |ends| ends.outcome = ends.outcome.and(ends.go(batch)), |_| {});
    ends.outcome
}

struct Ends {
    producer: Producer<'static, Bells>,
    consumer: Consumer<'static, Bells>,
    outcome: Result<()>,
}

impl Ends {
    /// So many items. Every word is written and read.
    #[inline(always)]
    fn go(&mut self, items: u64) -> Result<()> {
        (0..items).try_for_each(|number| self.producer.send(&[number; WORDS]))?;
        (0..items).try_for_each(|number| {
            let sum: u64 = self.consumer.receive()?.iter().sum();
            if sum == number * WORDS as u64 { Ok(()) } else { Err(Error::BadArgument) }
        })
    }
}
