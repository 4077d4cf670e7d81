//! A small user address space built by hand, for tests and benchmarks of what must work before there are real ones.
//!
//! One block of frames holds everything: a chain of tables, the space itself, and two data frames with different contents. Its pages show one
//! of the two, and can be pointed at the other.

use core::sync::atomic::compiler_fence;

use mm::tlb::{Batch, SpaceTlb};
use mm::{FrameId, Order, PageId, PageRange, PageSize};
use percpu::IrqOff;
use percpu::sync::atomic::Ordering;
use x86_64::PhysAddr;
use x86_64::instructions::smap::Smap;
use x86_64::structures::paging::PageTableFlags;

use crate::arch::{paging, tlb};
use crate::memory::Block;
use crate::{layout, machine, spaces};

/// Pages of the space.
pub(crate) const PAGES: usize = 512;

/// The first of them: at the start of a lowest table somewhere in the user half.
const FIRST: PageId = PageId::new(0x12_3456 << 9);

/// Entries of a table, and those of the kernel's half in the uppermost one.
const ENTRIES: usize = 512;
const KERNEL_HALF: core::ops::Range<usize> = ENTRIES / 2..ENTRIES;

/// Which of the two data frames a page shows; also the content of its first word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Shown {
    Old = 0x01d,
    New = 0x2e3,
}

/// What the frames of the block are for: tables from the uppermost down, then the rest.
const LOWEST_TABLE: usize = 3;
const SPACE: usize = 4;
const DATA: [(usize, Shown); 2] = [(5, Shown::Old), (6, Shown::New)];
const BLOCK: u8 = 3;

/// The space. It is dropped on a core that can wait for others: dropping makes every core forget it.
pub(crate) struct Handmade {
    block: Block,
}

// SAFETY: the block is memory of its own; its tables are written by one test at a time, as single words, and the space is `Sync`.
unsafe impl Sync for Handmade {}

impl Handmade {
    /// A space whose pages all show [`Shown::Old`]; `None` without memory.
    pub(crate) fn new() -> Option<Self> {
        let made = Self { block: Block::new(Order::new(BLOCK)?)? };
        // SAFETY: the block is ours and has so many frames.
        unsafe { made.block.start().write_bytes(0, 4096 << BLOCK) };
        let kernel = layout::direct(paging::current_root()).as_ptr::<u64>();
        for entry in KERNEL_HALF {
            // SAFETY: a table of the kernel's, which the direct map shows.
            let from = unsafe { kernel.add(entry) };
            // SAFETY: as above; the kernel's half of the uppermost table is complete but for devices, which tests do not touch.
            let value = unsafe { from.read_volatile() };
            made.set(0, entry, value);
        }
        for level in 0..LOWEST_TABLE {
            let entry = FIRST.number() >> (9 * (LOWEST_TABLE - level)) & (ENTRIES - 1);
            made.set(level, entry, made.frame(level + 1).address() | flags());
        }
        for (frame, shown) in DATA {
            made.set(frame, 0, shown as u64);
        }
        (0..PAGES).for_each(|page| made.point(page, Shown::Old));
        let space = SpaceTlb::new(spaces::IDS.take(), made.frame(0));
        // SAFETY: a frame of the block that nothing else uses, aligned.
        unsafe { made.at(SPACE).cast::<SpaceTlb>().write(space) };
        Some(made)
    }

    fn frame(&self, index: usize) -> FrameId {
        let first = self.block.start() as u64 - layout::DIRECT.base;
        FrameId::new(FrameId::containing(first).number() + index)
    }

    fn at(&self, frame: usize) -> *mut u64 {
        layout::direct(PhysAddr::new(self.frame(frame).address())).as_mut_ptr()
    }

    /// Writes a word of a frame of the block, in one piece: processors may be walking it.
    fn set(&self, frame: usize, word: usize, value: u64) {
        assert!(frame < 1 << BLOCK && word < ENTRIES, "within the block");
        // SAFETY: within the block.
        let at = unsafe { self.at(frame).add(word) };
        // SAFETY: as above, aligned.
        unsafe { at.write_volatile(value) };
    }

    /// What shootdown needs of the space.
    pub(crate) fn space(&self) -> &SpaceTlb {
        // SAFETY: written in `new`; in place until `drop` has made every core forget it.
        unsafe { &*self.at(SPACE).cast::<SpaceTlb>() }
    }

    /// Points a page at one of the frames, in the table only.
    pub(crate) fn point(&self, page: usize, to: Shown) {
        let (frame, _) = if to == DATA[0].1 { DATA[0] } else { DATA[1] };
        self.set(LOWEST_TABLE, page, self.frame(frame).address() | flags());
    }

    /// The range of `count` pages from `page`.
    pub(crate) fn range(page: usize, count: usize) -> PageRange {
        PageRange::new(PageId::new(FIRST.number() + page), count).expect("within the user half")
    }

    /// A batch of `count` pages from `page`.
    pub(crate) fn batch(page: usize, count: usize) -> Batch {
        let mut batch = Batch::new();
        batch.add(Self::range(page, count), PageSize::Small);
        batch
    }

    /// Makes it the active space of the core that calls.
    pub(crate) fn activate(&self, irq: &IrqOff) {
        // SAFETY: it stays in place until `drop` has made every core forget it; its root has the kernel's half.
        unsafe { tlb::activate(irq, self.space()) };
    }

    /// Reads a page through the translation of the core that calls, on which the space is active, as a program would.
    pub(crate) fn read(page: usize) -> u64 {
        let at = (FIRST.address() + page * mm::virt::PAGE_BYTES) as *const u64;
        let smap = machine::features().smap.then(Smap::new).flatten();
        if let Some(smap) = smap {
            smap.disable();
        }
        // ORDER: SeqCst for the compiler alone: the access stays between the two instructions. So does the one below.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the caller has a space of this kind active, which maps every page of it readable.
        let value = unsafe { at.read_volatile() };
        compiler_fence(Ordering::SeqCst);
        if let Some(smap) = smap {
            smap.enable();
        }
        value
    }
}

fn flags() -> u64 {
    (PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::USER_ACCESSIBLE).bits()
}

impl Drop for Handmade {
    fn drop(&mut self) {
        IrqOff::with(|irq| tlb::forget(irq, self.space()));
    }
}
