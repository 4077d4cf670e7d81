//! The other process of a case: bound to a core, it yields until it is killed.

use abi::task::{CoreMask, Grant, ProcessSpec};
use alloc::format;
use perf::clock::Nanos;
use perf::runner::Trouble;
use rt::handle::{Owned, Process, Region, Typed};
use rt::memory;
use rt::process::{Builder, Image};
use rt::start::Start;
use rt::sync::atomic::Ordering;
use rt::thread;
use rt::time::{self, Deadline};

use super::{Failure, Lab, arch, failed, place};

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
        _ => None,
    }
}

/// A running partner; killed when it goes.
pub(super) struct Partner(Owned<Process>);

impl Partner {
    /// Starts one, and waits until it is on its core.
    pub(super) fn start(lab: &Lab, work: &str, core: usize, flags: u64) -> Result<Self, Trouble> {
        let image =
            lab.start.program("bench").ok_or(Trouble::Skipped("the loader has brought no `bench`"))?;
        let region = Region::create(1).map_err(failed)?;
        let words = memory::words(*region).map_err(failed)?;
        let grants = [Grant::whole(region.handle())];
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
        Ok(partner)
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = self.0.kill(0);
        let _ = self.0.wait(Deadline::NEVER);
    }
}
