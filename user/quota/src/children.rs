//! Making children, and looking at what they leave.

use alloc::format;
use alloc::string::String;

use abi::cap::Rights;
use abi::quota::{BankSpec, Limits};
use abi::task::{ExitStatus, Grant, ProcessSpec};
use perf::clock::Nanos;
use rt::handle::{Bank, Owned, Process, Region, Typed};
use rt::process::{Builder, Image};
use rt::time::{self, Deadline};

use crate::{Lab, Outcome, ensure, unexpected};

/// How long anything may take.
pub(crate) const PATIENCE: Nanos = Nanos::from_millis(30_000);

/// A child to be made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Child<'a> {
    /// What it does, and with which words: `name key=value …`.
    pub(crate) work: &'a str,
    /// What it pays from; its parent's bank otherwise.
    pub(crate) bank: Option<Bank>,
    /// What it is limited to.
    pub(crate) limits: Option<Limits>,
    /// What it shares with others.
    pub(crate) region: Option<Region>,
}

impl Child<'_> {
    /// Makes it; it waits to be started.
    pub(crate) fn make(&self, start: rt::start::Start) -> Outcome<Owned<Process>> {
        let program = match start.word("program") {
            Some(number) => number.parse().ok(),
            None => start.program("quota"),
        };
        let program = program.ok_or("there is no such program")?;
        let words = format!("work={} program={program} ", self.work).replace(' ', "\0");
        let give = |handle, rights| Grant { handle, rights: u64::from(rights), badge: 0 };
        let debug = start.debug().map(|debug| give(debug.handle(), Rights::ALL.0));
        let region = self.region.map(|region| give(region.handle(), Rights::ALL.0));
        let bank = self.bank.map(|bank| give(bank.handle(), Rights::ALL.0));
        let grants: alloc::vec::Vec<Grant> = [debug, region, bank].into_iter().flatten().collect();
        let builder = Builder::new(Image::Loaded(program)).name("quota child").arguments(&words);
        let flags = ProcessSpec::FIXED | ProcessSpec::NO_FPU;
        let child = builder.grants(&grants).flags(flags).create(start.process()).map_err(unexpected)?;
        if let Some(bank) = self.bank {
            bank.assign(*child).map_err(unexpected)?;
        }
        if let Some(limits) = self.limits {
            child.limit(&limits).map_err(unexpected)?;
        }
        Ok(child)
    }

    /// Makes it, and starts it.
    pub(crate) fn spawn(&self, start: rt::start::Start) -> Outcome<Owned<Process>> {
        let child = self.make(start)?;
        child.start().map_err(unexpected)?;
        Ok(child)
    }

    /// Makes it, and waits for its end.
    pub(crate) fn run(&self, start: rt::start::Start) -> Outcome<ExitStatus> {
        let child = self.spawn(start)?;
        child
            .wait(Deadline::after(PATIENCE))
            .map_err(|error| format!("{} and not the end of {}: {:?}", error.name(), self.work, child.info()))
    }

    /// Makes it, and waits until it ends with code 0.
    pub(crate) fn passes(&self, start: rt::start::Start) -> Outcome {
        passed(self.run(start)?, self.work)
    }

    /// Makes it, and waits until it ends by a page fault.
    pub(crate) fn faults(&self, start: rt::start::Start) -> Outcome {
        let status = self.run(start)?;
        let faulted = status.reason == ExitStatus::FAULTED && status.code == 14;
        ensure!(faulted, "{} ended with {status:x?} and no page fault", self.work);
        Ok(())
    }
}

/// Whether it was code 0.
pub(crate) fn passed(status: ExitStatus, what: &str) -> Outcome {
    let fine = status.reason == ExitStatus::EXITED && status.code == 0;
    ensure!(fine, "{what} ended with {status:x?}");
    Ok(())
}

/// A bank of the machine's.
pub(crate) fn carve(lab: &Lab, frames: u64, objects: u64) -> Outcome<Owned<Bank>> {
    lab.bank.carve(&BankSpec { frames, objects }).map_err(unexpected)
}

/// What a bank has spent.
pub(crate) fn spent(bank: Bank) -> Outcome<BankSpec> {
    Ok(bank.info().map_err(unexpected)?.spent)
}

/// Waits until a bank has spent just so much: what has gone comes back when every core has left the kernel.
pub(crate) fn settles(bank: Bank, frames: u64, objects: u64) -> Outcome {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let now = spent(bank)?;
        if now == (BankSpec { frames, objects }) {
            return Ok(());
        }
        ensure!(!deadline.passed(), "a bank has spent {now:?} and not {frames} frames and {objects} objects");
        nap();
    }
}

/// Lets others go on.
pub(crate) fn nap() {
    time::sleep(Deadline::after(Nanos::from_millis(1)));
}

/// A reason with the name of what it is about.
pub(crate) fn of(what: &str) -> impl Fn(String) -> String + '_ {
    move |why| format!("{what}: {why}")
}
