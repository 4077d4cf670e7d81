//! A user mapping made by hand, for the tests and benchmark rows of what lies below address spaces.
//!
//! The last 2 MiB of the user half, one table of each level, and the kernel's half copied from the root in use. The pages belong to the
//! mapping; which of them are mapped, and how, can be changed at any moment and from any core. Only the core that runs [`Trial::enter`]
//! has the mapping; stale translations are its own to flush.

use mm::Order;
use mm::user::{USER_END, UserSlice};
use mm::virt::PAGE_BYTES;
use percpu::IrqOff;
use percpu::sync::atomic::{AtomicU64, Ordering};
use x86_64::instructions::tlb;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::{PageTableFlags as Flags, PhysFrame};
use x86_64::{PhysAddr, VirtAddr};

use crate::arch::paging;
use crate::{layout, machine, memory};

/// Pages of a mapping.
pub(crate) const PAGES: usize = 16;
/// The first byte: the pages are the last of the user half.
pub(crate) const BASE: usize = USER_END - PAGES * PAGE_BYTES;
/// Bytes of all pages.
pub(crate) const BYTES: usize = PAGES * PAGE_BYTES;

/// Entries of a table, and of the half of the root that is the kernel's.
const ENTRIES: usize = 512;
const LOWER_ENTRIES: usize = ENTRIES / 2;

/// How a page is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Map {
    /// Not at all.
    Absent,
    /// To be read only.
    ReadOnly,
    /// To be read and written.
    Writable,
}

/// See the module's header.
pub(crate) struct Trial {
    /// The tables from the root down, and the memory of the pages.
    tables: [memory::Block; 4],
    pages: memory::Block,
}

impl Trial {
    /// A mapping all of whose pages are absent; `None` if there is no memory.
    pub(crate) fn new() -> Option<Self> {
        let table = || memory::Block::new(Order::FRAME);
        let trial = Self {
            tables: [table()?, table()?, table()?, table()?],
            pages: memory::Block::new(Order::for_bytes(BYTES)?)?,
        };
        for level in &trial.tables {
            // SAFETY: the frame is this mapping's alone, and the direct map shows it.
            unsafe { level.start().write_bytes(0, PAGE_BYTES) };
        }
        let kernel = layout::direct(paging::current_root()).as_ptr::<u64>();
        for index in LOWER_ENTRIES..ENTRIES {
            // SAFETY: G7: an entry of the root in use, which the direct map shows.
            let entry = unsafe { kernel.add(index) };
            // SAFETY: as above; the upper half is complete since before any test runs, so nobody writes it now.
            let entry = unsafe { entry.read_volatile() };
            // ORDER: Relaxed: no core has loaded the tables yet; whoever shares the mapping publishes it.
            trial.entry(0, index).store(entry, Ordering::Relaxed);
        }
        let down = Flags::PRESENT | Flags::WRITABLE | Flags::USER_ACCESSIBLE;
        for (level, index) in [LOWER_ENTRIES - 1, ENTRIES - 1, ENTRIES - 1].into_iter().enumerate() {
            // ORDER: Relaxed; as above.
            trial
                .entry(level, index)
                .store(physical(&trial.tables[level + 1]).as_u64() | down.bits(), Ordering::Relaxed);
        }
        Some(trial)
    }

    fn entry(&self, level: usize, index: usize) -> &AtomicU64 {
        let table = self.tables[level].start().cast::<AtomicU64>();
        // SAFETY: below the number of entries, in a table that is this mapping's.
        let entry = unsafe { table.add(index % ENTRIES) };
        // SAFETY: as above; cores reach it as an atomic only, and the CPU's walker reads it.
        unsafe { &*entry }
    }

    /// The entry of a page.
    fn page_entry(&self, page: usize) -> &AtomicU64 {
        self.entry(3, ENTRIES - PAGES + page % PAGES)
    }

    /// Maps a page anew, in the tables only.
    pub(crate) fn set(&self, page: usize, map: Map) {
        // ORDER: Release: what was written to the page before is there for whoever finds it mapped; partner is the CPU's walker.
        self.page_entry(page).store(self.value(page, map), Ordering::Release);
    }

    /// Maps every page.
    pub(crate) fn set_all(&self, map: Map) {
        (0..PAGES).for_each(|page| self.set(page, map));
    }

    fn value(&self, page: usize, map: Map) -> u64 {
        let mut flags = Flags::PRESENT | Flags::USER_ACCESSIBLE;
        flags.set(Flags::NO_EXECUTE, machine::features().nx);
        flags.set(Flags::WRITABLE, map == Map::Writable);
        if map == Map::Absent {
            0
        } else {
            (physical(&self.pages).as_u64() + (page * PAGE_BYTES) as u64) | flags.bits()
        }
    }

    /// The pages' memory in the direct map: a byte of it is an atomic, for user memory may change at any moment.
    pub(crate) fn byte(&self, at: usize) -> &percpu::sync::atomic::AtomicU8 {
        // SAFETY: below `BYTES`, in a block that is this mapping's.
        let byte = unsafe { self.pages.start().add(at % BYTES) };
        // SAFETY: as above.
        unsafe { &*byte.cast() }
    }

    /// Runs `f` on this core in an address space that has the mapping.
    pub(crate) fn enter<R>(&self, irq: &mut IrqOff, f: impl FnOnce(&mut IrqOff) -> R) -> R {
        let (before, flags) = Cr3::read();
        let root = PhysFrame::containing_address(physical(&self.tables[0]));
        // SAFETY: the kernel's half is that of the root in use, and the lower half is `usercopy`'s alone.
        unsafe { Cr3::write(root, flags) };
        let result = f(irq);
        // SAFETY: the root that was in use before.
        unsafe { Cr3::write(before, flags) };
        result
    }
}

/// Forgets this core's translation of a page.
pub(crate) fn flush(page: usize) {
    tlb::flush(VirtAddr::new_truncate((BASE + page * PAGE_BYTES) as u64));
}

/// A claim in the mapping, from byte `at`.
pub(crate) const fn claim(at: usize, bytes: usize) -> UserSlice {
    UserSlice::new(BASE + at, bytes)
}

fn physical(block: &memory::Block) -> PhysAddr {
    PhysAddr::new(block.frame().address())
}
