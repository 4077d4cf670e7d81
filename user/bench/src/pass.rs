//! Passing pages to another process.

use core::ptr::NonNull;

use abi::quota::Passing;
use abi::task::{ProcessSpec, Protection};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Params, Quantity, Scope, Unit, Value};
use perf::clock::Clock;

use perf::runner::Trouble;
use rt::handle::{Owned, Process, Result, Typed};
use rt::memory::PAGE;
use rt::process::{Builder, Image};
use rt::sys;
use rt::time::Tsc;

use super::{Lab, failed};

const MOVE: &str = "move";
const SHARE: &str = "share";
const COPY: &str = "cow";

/// In blocks of 2 MiB alike in both processes; or not, so that page by page has to be looked at.
const ALIKE: &str = "alike";
const APART: &str = "apart";

/// Bytes of a block, and pages.
const BLOCK: u64 = 2 << 20;
const PAGES_PER_KIB: u64 = 4;

/// Giving pages to another process.
pub(super) const TRANSFER: Bench<Lab> = Bench {
    id: "shm.xfer",
    version: 1,
    doc: "pages_pass of pages that are there to another process, from the giver's user mode and back; the time of all of them",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |lab, visit| {
        for how in [MOVE, SHARE, COPY] {
            for (kib, lie) in [(4, ALIKE), (64, ALIKE), (1024, ALIKE), (16_384, ALIKE), (16_384, APART)] {
                let case = Case::new(lab.alone()).with("how", Value::Word(how));
                visit(case.with("kib", Value::Num(kib)).with("lie", Value::Word(lie)));
            }
        }
    },
    run: |lab, case, meter| {
        let scene = Scene::new(lab, &case.params)?;
        let (mut sum, mut windows) = (0, 0);
        while meter.more() {
            scene.prepare().map_err(failed)?;
            let from = Tsc.start();
            let passed = scene.pass();
            let to = Tsc.stop();
            passed.map_err(failed)?;
            scene.tidy().map_err(failed)?;
            sum += to.since(from).map_or(0, perf::clock::Ticks::count);
            windows += 1;
            meter.window(from, to);
        }
        meter.metric("ticks_per_1024_pages", sum * 1024 / (scene.pages * windows.max(1)), Unit::Count);
        Ok(())
    },
};

/// The other process, which never runs, and what it is given.
struct Scene {
    own: Process,
    other: Owned<Process>,
    how: Passing,
    pages: u64,
    source: u64,
    target: u64,
}

impl Scene {
    fn new(lab: &Lab, params: &Params) -> core::result::Result<Self, Trouble> {
        let image = lab.start.program("nop").ok_or(Trouble::Skipped("the loader has brought no `nop`"))?;
        let builder = Builder::new(Image::Loaded(image)).name("taker").flags(ProcessSpec::FIXED);
        let own = lab.start.process();
        let other = builder.create(own).map_err(failed)?;
        let how = match params.word("how") {
            Some(MOVE) => Passing::Move,
            Some(SHARE) => Passing::Share,
            _ => Passing::CopyOnWrite,
        };
        let pages = params.num("kib").unwrap_or(PAGES_PER_KIB) / PAGES_PER_KIB;
        let source = lab.start.raw().heap.next_multiple_of(BLOCK) + BLOCK;
        let apart = if params.word("lie") == Some(APART) { PAGE as u64 } else { 0 };
        let scene = Self { own, other, how, pages, source, target: source + apart };
        // Pages that stay keep the tables of both processes, as between processes that do this often.
        scene.anchor(scene.own, source).map_err(failed)?;
        scene.anchor(*scene.other, scene.target).map_err(failed)?;
        Ok(scene)
    }

    fn anchor(&self, process: Process, start: u64) -> Result<()> {
        let behind = start + self.pages * PAGE as u64;
        // SAFETY: as in `prepare`.
        unsafe { sys::map(process.handle(), behind, 1, Protection::ReadWrite as u64) }.map(drop)
    }

    /// Maps the pages and writes to them.
    fn prepare(&self) -> Result<()> {
        let writable = Protection::ReadWrite as u64;
        // SAFETY: below the kernel's own choices, where this program maps nothing else.
        let at = unsafe { sys::map(self.own.handle(), self.source, self.pages, writable) }?;
        let start = NonNull::new(at as *mut u8).ok_or(abi::error::Error::BadAddress)?;
        for page in 0..self.pages as usize {
            // SAFETY: inside what was mapped just now.
            let at = unsafe { start.add(page * PAGE) };
            // SAFETY: as above; nobody else's.
            unsafe { at.write_volatile(1) };
        }
        Ok(())
    }

    #[inline(always)]
    fn pass(&self) -> sys::Answer {
        let (own, other) = (self.own.handle(), self.other.handle());
        // SAFETY: the pages that `prepare` mapped, which nothing refers to.
        unsafe { sys::pages_pass(own, self.source, self.pages, other, self.target, self.how as u64) }
    }

    /// Unmaps them on both sides.
    fn tidy(&self) -> Result<()> {
        // SAFETY: as in `pass`.
        unsafe { sys::unmap(self.own.handle(), self.source, self.pages) }?;
        // SAFETY: the other process's pages are no danger to this one.
        unsafe { sys::unmap(self.other.handle(), self.target, self.pages) }.map(drop)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let behind = self.source + self.pages * PAGE as u64;
        // SAFETY: this one's anchor, which nothing refers to.
        let _ = unsafe { sys::unmap(self.own.handle(), behind, 1) };
        let _ = self.other.kill(0);
        let _ = self.other.wait(rt::time::Deadline::NEVER);
    }
}
