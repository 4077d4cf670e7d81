//! The other process of a case, of this program's or of the kernel's: bound to a core, it yields, waits on a word, or serves at an endpoint,
//! until it is killed.

use abi::cap::{Handle, ObjectKind};
use abi::task::{CoreMask, Grant, NEVER, ProcessSpec};
use alloc::format;
use alloc::vec::Vec;
use perf::clock::Nanos;
use perf::runner::Trouble;
use rt::handle::{Endpoint, Notification, Owned, Process, Region, Typed};
use rt::memory;
use rt::process::{Builder, Image};
use rt::start::Start;
use rt::sync::atomic::{AtomicU32, Ordering};
use rt::sync::{Futex, Kernel};
use rt::thread;
use rt::time::{self, Deadline};

use super::{Failure, Lab, arch, failed, ipc, pager, place, signals};

/// What the other process does; `None` if it cannot.
pub(super) fn run(start: Start, work: &str) -> u64 {
    serve(start, work).map_or(Failure::Partner as u64, |()| 0)
}

fn serve(start: Start, work: &str) -> Option<()> {
    let words = memory::words(start.regions().next()?).ok()?;
    start.thread().bind(&CoreMask::one(start.number("core", 0) as usize)).ok()?;
    start.thread().schedule(&place::PEERS).ok()?;
    // ORDER: Release pairs with Acquire in `Partner::start`: we are on our core.
    words.first()?.store(1, Ordering::Release);
    match work {
        "yield" => loop {
            thread::yield_now();
        },
        "yield-fpu" => loop {
            arch::use_vector_unit();
            thread::yield_now();
        },
        "wait" => wait_for_ever(words),
        signals::WORK => {
            start.thread().schedule(&place::FIRST).ok()?;
            signals::answer(Notification(start.given(ObjectKind::Notification).next()?), words)
        }
        _ if work.starts_with(pager::WORK) => {
            let every = work.strip_prefix(pager::WORK)?.parse().ok()?;
            pager::serve(Endpoint(start.given(ObjectKind::Endpoint).next()?), every).ok()
        }
        _ => ipc::Service::of(work)?.run(&ipc::Given::of(start)?).ok(),
    }
}

/// Waits on a word again and again; the words before it say how often it was about to, and the two halves of its address.
fn wait_for_ever(words: &[AtomicU32]) -> Option<()> {
    let [_, waits, low, high, word, ..] = words else { return None };
    let address = core::ptr::from_ref(word) as u64;
    // ORDER: Relaxed, both; published by `waits`.
    low.store(address as u32, Ordering::Relaxed);
    // ORDER: Relaxed; as above.
    high.store((address >> 32) as u32, Ordering::Relaxed);
    loop {
        // ORDER: Release pairs with Acquire in the kernel's row.
        waits.fetch_add(1, Ordering::Release);
        let _ = Kernel.wait(word, 0, NEVER);
    }
}

/// A running partner; killed when it goes.
pub(super) struct Partner(Owned<Process>);

impl Partner {
    /// Starts one, and waits until it is on its core.
    pub(super) fn start(lab: &Lab, work: &str, core: usize, flags: u64) -> Result<Self, Trouble> {
        Self::with(lab, work, core, flags, &[])
    }

    /// As [`start`](Self::start), with some capabilities.
    pub(super) fn with(
        lab: &Lab,
        work: &str,
        core: usize,
        flags: u64,
        given: &[Handle],
    ) -> Result<Self, Trouble> {
        Self::given(lab, work, core, flags, given).map(|(partner, _)| partner)
    }

    /// As [`start`](Self::start), with capabilities; and the page that both see.
    pub(super) fn given(
        lab: &Lab,
        work: &str,
        core: usize,
        flags: u64,
        handles: &[Handle],
    ) -> Result<(Self, &'static [AtomicU32]), Trouble> {
        let image =
            lab.start.program("bench").ok_or(Trouble::Skipped("the loader has brought no `bench`"))?;
        let region = Region::create(1).map_err(failed)?;
        let words = memory::words(*region).map_err(failed)?;
        let grants = core::iter::once(region.handle()).chain(handles.iter().copied());
        let grants: Vec<_> = grants.map(Grant::whole).collect();
        let arguments = format!("partner={work}\0core={core}\0");
        let builder = Builder::new(Image::Loaded(image)).name("partner").arguments(&arguments);
        let builder = builder.grants(&grants).flags(flags | ProcessSpec::FIXED);
        let process = builder.spawn(lab.start.process()).map_err(failed)?;
        let partner = Self(process);
        // ORDER: Acquire pairs with Release in `serve`.
        while words.first().is_some_and(|word| word.load(Ordering::Acquire) == 0) {
            // Asleep, not yielding: the partner has a lower priority.
            time::sleep(Deadline::after(Nanos::from_millis(1)));
        }
        Ok((partner, words))
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = self.0.kill(0);
        let _ = self.0.wait(Deadline::NEVER);
    }
}
