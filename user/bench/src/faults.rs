//! Page faults, from the access in user mode until it has been made.

use core::ptr::NonNull;

use abi::task::Protection;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::clock::Clock;
use rt::handle::{Owned, Region, Result, Typed};
use rt::memory::{self, PAGE};
use rt::start::Start;
use rt::sys;
use rt::time::Tsc;

use super::{Lab, failed};

/// Pages that are touched in a window; the one after them is touched before, so that the page table is there.
const PAGES: usize = 64;

/// A zeroed page that nobody has touched; a page of a region that is there but not in this mapping; a page that is there.
const ZERO: &str = "zero";
const REGION: &str = "region";
const PRESENT: &str = "present";

/// Touching a page.
pub(super) const FAULT: Bench<Lab> = Bench {
    id: "fault.user",
    version: 1,
    doc: "a store to a page that has to be brought first, zeroing included; of a page that is there, the same loop without faults",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::RoundTrip,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: PAGES as u32,
    cases: |lab, visit| {
        [ZERO, REGION, PRESENT]
            .into_iter()
            .for_each(|of| visit(Case::new(lab.alone()).with("of", Value::Word(of))));
    },
    run: |_, case, meter| {
        let pages = Pages::new(case.params.word("of")).map_err(failed)?;
        while meter.more() {
            let at = pages.map().map_err(failed)?;
            let from = Tsc.start();
            touch(at, PAGES);
            let to = Tsc.stop();
            // SAFETY: mapped above, and not used any more.
            unsafe { memory::unmap(at, PAGES + 1) }.map_err(failed)?;
            meter.window(from, to);
        }
        Ok(())
    },
};

/// Where the pages of a window come from.
struct Pages {
    region: Option<Owned<Region>>,
    present: bool,
}

impl Pages {
    fn new(of: Option<&str>) -> Result<Self> {
        let region = if of == Some(REGION) { Some(Region::create(PAGES as u64 + 1)?) } else { None };
        let pages = Self { region, present: of == Some(PRESENT) };
        // Brings the region's pages, once and for all.
        let first = pages.map()?;
        touch(first, PAGES);
        // SAFETY: mapped above, and not used any more.
        unsafe { memory::unmap(first, PAGES + 1) }?;
        Ok(pages)
    }

    /// Maps what a window touches.
    fn map(&self) -> Result<NonNull<u8>> {
        let start = match &self.region {
            None => memory::map(PAGES + 1)?,
            Some(region) => map_again(**region)?,
        };
        if self.present {
            touch(start, PAGES);
        }
        // SAFETY: inside what was mapped just now.
        let last = unsafe { start.add(PAGES * PAGE) };
        touch(last, 1);
        Ok(start)
    }
}

fn map_again(region: Region) -> Result<NonNull<u8>> {
    let (own, pages) = (Start::get().process().handle(), PAGES as u64 + 1);
    let writable = Protection::ReadWrite as u64;
    // SAFETY: address 0 has the kernel choose a range that nothing is mapped in.
    let address = unsafe { sys::region_map(own, region.handle(), 0, 0, pages, writable) }?;
    NonNull::new(address as *mut u8).ok_or(abi::error::Error::BadAddress)
}

/// Writes to so many pages.
#[inline(always)]
fn touch(start: NonNull<u8>, pages: usize) {
    for page in 0..pages {
        // SAFETY: the callers have mapped so many pages there.
        let at = unsafe { start.add(page * PAGE) };
        // SAFETY: as above; writable, and nobody else's.
        unsafe { at.write_volatile(1) };
    }
}
