//! What checks have in common: other processes, and pages of this one.

use abi::cap::Handle;
use abi::quota::Passing;
use abi::task::{ExitStatus, Grant, Protection};
use alloc::format;
use alloc::string::String;
use perf::clock::Nanos;
use rt::handle::{Endpoint, Owned, Process, Result, Typed};
use rt::ipc::Message;
use rt::memory::PAGE;
use rt::process::{Builder, Image};
use rt::start::Start;
use rt::sys;
use rt::time::Deadline;

use super::client::{READ, WRITE};

/// Where checks map pages, here and there: behind the heap, in a block of 2 MiB; what lies below the kernel's own choices is the program's.
pub(crate) fn area(start: &Start) -> u64 {
    const BLOCK: u64 = 2 << 20;
    start.raw().heap.next_multiple_of(BLOCK) + 512 * BLOCK
}

/// An address some pages further.
pub(crate) const fn page(at: u64, pages: u64) -> u64 {
    at + pages * PAGE as u64
}

/// Maps pages.
pub(crate) fn map(process: Process, at: u64, pages: u64) -> Result<()> {
    // SAFETY: of the area, where this program keeps nothing, or another process's.
    unsafe { sys::map(process.handle(), at, pages, Protection::ReadWrite as u64) }.map(drop)
}

/// Unmaps pages.
pub(crate) fn unmap(process: Process, at: u64, pages: u64) -> Result<()> {
    // SAFETY: as in `map`.
    unsafe { sys::unmap(process.handle(), at, pages) }.map(drop)
}

/// Passes pages.
pub(crate) fn pass(
    (from, at): (Process, u64),
    pages: u64,
    (to, target): (Process, u64),
    how: Passing,
) -> Result<u64> {
    pass_word((from, at), pages, (to, target), how as u64)
}

/// As [`pass`], with any word for how.
pub(crate) fn pass_word(
    (from, at): (Process, u64),
    pages: u64,
    (to, target): (Process, u64),
    how: u64,
) -> Result<u64> {
    // SAFETY: as in `map`.
    unsafe { sys::pages_pass(from.handle(), at, pages, to.handle(), target, how) }
}

/// Another process of this program.
pub(crate) struct Client {
    pub(crate) process: Owned<Process>,
    /// Where it is asked.
    endpoint: Owned<Endpoint>,
}

impl Client {
    /// One that does some work, not started; its own endpoint is the first that it is given, `more` come after.
    pub(crate) fn create(
        start: &Start,
        work: &str,
        flags: u64,
        more: &[Handle],
    ) -> core::result::Result<Self, String> {
        let error = |error: abi::error::Error| format!("a client cannot be made: {error:?}");
        let image =
            start.program("pages").ok_or_else(|| String::from("the loader has brought no `pages`"))?;
        let endpoint = Endpoint::create().map_err(error)?;
        let mut grants = alloc::vec![Grant::whole(endpoint.handle())];
        if !more.is_empty() {
            grants.clear();
        }
        grants.extend(more.iter().map(|&handle| Grant::whole(handle)));
        let arguments = format!("kind=client\0work={work}\0");
        let arguments = arguments.replace(' ', "\0");
        let builder = Builder::new(Image::Loaded(image)).name("client").arguments(&arguments);
        let process = builder.grants(&grants).flags(flags).create(start.process()).map_err(error)?;
        Ok(Self { process, endpoint })
    }

    /// One that serves.
    pub(crate) fn serving(start: &Start) -> core::result::Result<Self, String> {
        let client = Self::create(start, "serve", 0, &[])?;
        client.process.start().map_err(|error| format!("a client does not start: {error:?}"))?;
        Ok(client)
    }

    /// What it finds at an address.
    pub(crate) fn read(&self, at: u64) -> Result<u64> {
        self.endpoint.call(Message::new(READ, [at, 0, 0, 0, 0, 0, 0, 0])).map(|answer| answer.words[0])
    }

    /// Has it write a word.
    pub(crate) fn write(&self, at: u64, value: u64) -> Result<()> {
        self.endpoint.call(Message::new(WRITE, [at, value, 0, 0, 0, 0, 0, 0])).map(drop)
    }

    /// How it has ended.
    pub(crate) fn ended(&self) -> Result<ExitStatus> {
        self.process.wait(soon())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill(0);
        let _ = self.process.wait(Deadline::NEVER);
    }
}

/// Long enough for any emulator.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Nanos::from_millis(30_000))
}
