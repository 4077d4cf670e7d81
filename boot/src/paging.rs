//! The kernel's first page tables: 4 levels, the largest page that fits, no page mapped twice.

use crate::image::{Access, Plan};
use crate::map::{Kind, Map};
use crate::protocol::HHDM;
use crate::{PAGE, Refusal};
use abi::exit::Exit;

/// Bytes a table of level 1 maps, and of the large pages.
const MIB_2: u64 = 0x20_0000;
const GIB_1: u64 = 0x4000_0000;
const GIB_4: u64 = 4 * GIB_1;

// Page table entry bits (Intel SDM volume 3, 4.5.4).
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Memory that page tables live in.
pub trait TableMemory {
    /// A zeroed page for a table: its physical address.
    ///
    /// # Errors
    /// [`Exit::NoMemory`] when there is none.
    fn new_table(&mut self) -> Result<u64, Refusal>;
    /// The table at an address that `new_table` returned.
    fn table(&mut self, at: u64) -> &mut [u64; 512];
}

/// What the processor's page tables can express.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// 1 GiB pages.
    pub gib_pages: bool,
    /// The no-execute bit.
    pub no_execute: bool,
}

/// Page tables under construction.
#[derive(Debug)]
pub struct Tables<M> {
    memory: M,
    features: Features,
    /// Physical address of the top table.
    pub root: u64,
}

impl<M: TableMemory> Tables<M> {
    /// Empty tables.
    ///
    /// # Errors
    /// [`Exit::NoMemory`].
    pub fn new(mut memory: M, features: Features) -> Result<Self, Refusal> {
        let root = memory.new_table()?;
        Ok(Self { memory, features, root })
    }

    /// The memory the tables live in.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Maps the kernel image that was placed at `physical`.
    ///
    /// # Errors
    /// [`Exit::NoMemory`].
    pub fn map_image(&mut self, plan: &Plan, physical: u64) -> Result<(), Refusal> {
        for segment in plan.segments() {
            let (mut at, end) = (segment.first_page(), segment.end_page());
            while at < end {
                self.map_page(at, physical + (at - plan.base()), PAGE, segment.access)?;
                at += PAGE;
            }
        }
        Ok(())
    }

    /// Maps physical memory at [`HHDM`] as the base revision says ("Memory Layout at Entry"): from revision 3 on only
    /// memory that belongs to the kernel now or later, before that the first 4 GiB and every region that is neither
    /// reserved nor bad.
    ///
    /// # Errors
    /// [`Exit::NoMemory`].
    pub fn map_direct(&mut self, map: &Map, base_revision: u64) -> Result<(), Refusal> {
        let owned =
            |kind| matches!(kind, Kind::Usable | Kind::LoaderReclaimable | Kind::ExecutableAndModules);
        let mapped =
            |kind| owned(kind) || base_revision < 3 && matches!(kind, Kind::AcpiReclaimable | Kind::AcpiNvs);
        let floor = if base_revision < 3 { GIB_4 } else { 0 };
        self.map_run(0, floor)?;
        let mut run = (floor, floor);
        for region in map.regions().iter().filter(|region| mapped(region.kind)) {
            let base = crate::align_down(region.base, PAGE).max(run.1);
            let end = crate::align_up(region.end, PAGE).unwrap_or(region.base);
            if base != run.1 {
                self.map_run(run.0, run.1)?;
                run = (base, base);
            }
            run.1 = run.1.max(end);
        }
        self.map_run(run.0, run.1)
    }

    /// Maps `base..end` of physical memory into the direct map.
    fn map_run(&mut self, base: u64, end: u64) -> Result<(), Refusal> {
        let mut at = base;
        while at < end {
            let fits = |size| at.is_multiple_of(size) && end - at >= size;
            let size = match () {
                () if self.features.gib_pages && fits(GIB_1) => GIB_1,
                () if fits(MIB_2) => MIB_2,
                () => PAGE,
            };
            self.map_page(HHDM + at, at, size, Access::Any)?;
            at += size;
        }
        Ok(())
    }

    /// Maps one page of `size` bytes. Both addresses are multiples of it.
    fn map_page(&mut self, virt: u64, phys: u64, size: u64, access: Access) -> Result<(), Refusal> {
        let leaf_level = match size {
            GIB_1 => 2,
            MIB_2 => 1,
            _ => 0,
        };
        let mut table = self.root;
        for level in (leaf_level + 1..4).rev() {
            table = self.child(table, index(virt, level))?;
        }
        let large = if leaf_level == 0 { 0 } else { LARGE };
        let entry = &mut self.memory.table(table)[index(virt, leaf_level)];
        if *entry != 0 {
            return Err(Refusal::with(Exit::LoaderException, "the loader mapped an address twice", virt));
        }
        *entry = phys | large | permissions(access, self.features);
        Ok(())
    }

    fn child(&mut self, table: u64, index: usize) -> Result<u64, Refusal> {
        let entry = self.memory.table(table)[index];
        if entry & PRESENT != 0 {
            return Ok(entry & ADDRESS);
        }
        let child = self.memory.new_table()?;
        self.memory.table(table)[index] = child | PRESENT | WRITABLE;
        Ok(child)
    }
}

/// Index into the table of a level, 0 being the lowest.
fn index(virt: u64, level: u32) -> usize {
    crate::to_usize(virt >> (12 + 9 * level) & 0x1ff)
}

const fn permissions(access: Access, features: Features) -> u64 {
    let no_execute = if features.no_execute { NO_EXECUTE } else { 0 };
    match access {
        Access::Read => PRESENT | no_execute,
        Access::Write => PRESENT | WRITABLE | no_execute,
        Access::Execute => PRESENT,
        Access::Any => PRESENT | WRITABLE,
    }
}

#[cfg(test)]
#[path = "paging_tests.rs"]
mod tests;
