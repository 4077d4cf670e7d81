//! Page faults that another process resolves.

use abi::cap::Rights;
use abi::error::Error;
use abi::ipc::{Fault, Tag};
use abi::task::{ProcessSpec, Protection, ThreadSpec};
use alloc::vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::hist::DEFAULT_COUNTS;
use perf::runner::Trouble;
use rt::handle::{Endpoint, Process, Result, Thread, Typed};
use rt::ipc::Message;
use rt::memory::PAGE;
use rt::start::Start;
use rt::sys;
use rt::time::{Deadline, Tsc};

use super::partner::Partner;
use super::{Lab, Meter, failed, place};

/// Faults of a window.
const BATCH: u32 = 64;

/// The pager maps the page of each fault; or of the last of a window only, which is tried again until then.
const MAP: &str = "map";
const RETRY: &str = "retry";
/// What comes before the number of faults after which the partner maps a page, in its work.
pub(super) const WORK: &str = "pager-";

/// A fault, its message, the answer.
pub(super) const PAGER: Bench<Lab> = Bench {
    id: "fault.pager",
    version: 1,
    doc: "a store that faults, the message to a pager in another process on the same core, its answer, and the store again; with the page mapped by the pager each time, or once in a window",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: BATCH,
    cases: |lab, visit| {
        [RETRY, MAP].into_iter().for_each(|of| visit(Case::new(lab.alone()).with("of", Value::Word(of))));
    },
    run: |lab, case, meter| {
        let of = case.params.word("of");
        let endpoint = Endpoint::create().map_err(failed)?;
        let (work, pages) = if of == Some(MAP) { ("pager-1", BATCH as usize) } else { ("pager-64", 1) };
        let _pager = Partner::with(lab, work, place::HERE, ProcessSpec::NO_FPU, &[endpoint.handle()])?;
        let own = lab.start.process();
        let given = own.derive(Rights::MAP.with(Rights::GRANT), 0).map_err(failed)?;
        endpoint.call(Message::EMPTY.with_caps(&[given.handle()])).map_err(failed)?;
        let _handler = Handler::of(own, *endpoint).map_err(failed)?;
        measure(pages, meter)
    },
};

/// The partner's work: maps the page of every so many faults of the process that it is given by the first message.
pub(super) fn serve(endpoint: Endpoint, every: u64) -> Result<()> {
    let first = endpoint.receive(1)?;
    let client = first.caps().next().ok_or(Error::BadHandle)?;
    let answer = Message { badge: 0, tag: Tag::new(Fault::RETRY, 0), words: [0; abi::ipc::WORDS] };
    let mut faults = 0;
    loop {
        let message = endpoint.reply_receive(answer)?;
        if !message.tag.has(Tag::FAULT) {
            return Err(Error::BadArgument);
        }
        faults += 1;
        if faults % every == 0 {
            let page = message.words[Fault::Address as usize] & !(PAGE as u64 - 1);
            // SAFETY: the other process's pages are no danger to this one.
            unsafe { sys::map(client, page, 1, Protection::ReadWrite as u64) }?;
        }
    }
}

/// The handler of this process's page faults, until it goes.
struct Handler(Process);

impl Handler {
    fn of(process: Process, endpoint: Endpoint) -> Result<Self> {
        // SAFETY: no address is passed.
        unsafe { sys::process_handler(process.handle(), endpoint.handle(), Fault::PAGES) }?;
        Ok(Self(process))
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        // SAFETY: no address is passed.
        let _ = unsafe { sys::process_handler(self.0.handle(), abi::cap::Handle::NONE, 0) };
    }
}

/// Measures on a thread of its own, while the main thread sleeps: that one has vector registers to be kept.
fn measure(pages: usize, meter: &mut Meter<'_>) -> core::result::Result<(), Trouble> {
    let (plan, mut counts) = (meter.plan(), vec![0; DEFAULT_COUNTS]);
    let start = Area::new(pages).map_err(failed)?;
    let work = |counts| -> core::result::Result<_, Trouble> {
        let mut meter = Meter::new(Tsc, plan, counts)?;
        let mut unmapped = Ok(());
        meter.windows(
            &mut unmapped,
            |_| {},
            |_| start.touch(),
            |unmapped| *unmapped = unmapped.and_then(|()| start.unmap()),
        );
        unmapped.map_err(failed)?;
        Ok(meter.close().0)
    };
    let counts = counts.as_mut_slice();
    let ended = |thread: Thread| thread.join(Deadline::NEVER);
    let threads = place::peer(place::HERE).flags(ThreadSpec::NO_FPU);
    let result = threads.both(|| work(counts), ended).map_err(failed)?.0;
    meter.tally().absorb(&result?);
    Ok(())
}

/// Addresses where nothing is mapped, before a page that keeps the tables.
#[derive(Clone, Copy)]
struct Area {
    start: u64,
    pages: usize,
}

impl Area {
    fn new(pages: usize) -> Result<Self> {
        let own = Start::get().process().handle();
        // SAFETY: address 0 has the kernel choose a range that nothing is mapped in.
        let start = unsafe { sys::map(own, 0, pages as u64 + 1, Protection::ReadWrite as u64) }?;
        let area = Self { start, pages };
        area.unmap()?;
        Ok(area)
    }

    /// Writes to each page.
    fn touch(self) {
        for page in 0..self.pages {
            let at = core::ptr::with_exposed_provenance_mut::<u8>(self.start as usize + page * PAGE);
            // SAFETY: nobody else's; the pager maps it.
            unsafe { at.write_volatile(1) };
        }
    }

    fn unmap(self) -> Result<()> {
        let own = Start::get().process().handle();
        // SAFETY: pages of the area, to which nothing refers.
        unsafe { sys::unmap(own, self.start, self.pages as u64) }.map(drop)
    }
}
