//! Reading the page tables back: what is mapped, with which protection, as the CPU sees it.
//!
//! For tests and for whoever must know where something lies in physical memory. Paging structures: SDM volume 3, §5.5.

use x86_64::structures::paging::page_table::PageTableEntry;
use x86_64::structures::paging::{PageTable, PageTableFlags};
use x86_64::{PhysAddr, VirtAddr};

use super::paging;
use crate::{layout, machine};

/// Entries of a table.
const ENTRIES: u64 = 512;
/// Bytes that an entry of a table of the lowest level maps.
const PAGE: u64 = 4096;
/// Levels of tables.
const LEVELS: u32 = 4;

/// A page and its protection: that of all levels taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// First address.
    pub(crate) start: VirtAddr,
    /// Bytes.
    pub(crate) size: u64,
    /// What it shows.
    pub(crate) physical: PhysAddr,
    /// Whether it can be written.
    pub(crate) writable: bool,
    /// Whether code in it can run.
    pub(crate) executable: bool,
    /// Whether ring 3 can use it.
    pub(crate) user: bool,
}

/// What a table's entry inherits from those above it.
#[derive(Clone, Copy)]
struct Rights {
    writable: bool,
    executable: bool,
    user: bool,
}

/// The page that holds an address.
pub(crate) fn lookup(at: VirtAddr) -> Option<Mapping> {
    let mut found = None;
    each_page(at, at, &mut |page| found = Some(*page));
    found
}

/// Every page that holds an address of `first..=last`, ascending.
///
/// The tables are read while other cores may extend them; what is mapped already never changes (`paging`).
pub(crate) fn each_page(first: VirtAddr, last: VirtAddr, visit: &mut dyn FnMut(&Mapping)) {
    each_page_of(paging::current_root(), (first, last), visit);
}

/// The same below another root, whose tables stay meanwhile.
pub(crate) fn each_page_of(
    root: PhysAddr,
    (first, last): (VirtAddr, VirtAddr),
    visit: &mut dyn FnMut(&Mapping),
) {
    let all = Rights { writable: true, executable: true, user: true };
    walk(root, LEVELS, 0, (first.as_u64(), last.as_u64()), all, visit);
}

/// Bytes that an entry of a table of this level covers; the lowest level is 1.
const fn span(level: u32) -> u64 {
    PAGE << (9 * (level - 1))
}

fn walk(
    table: PhysAddr,
    level: u32,
    base: u64,
    (first, last): (u64, u64),
    above: Rights,
    visit: &mut dyn FnMut(&Mapping),
) {
    let size = span(level);
    let table = layout::direct(table).as_ptr::<PageTable>();
    // SAFETY: G7: a table of the kernel, which the direct map shows; tables are never taken out.
    let table = unsafe { &*table };
    for (index, entry) in (0..ENTRIES).zip(table.iter()) {
        // The upper half begins with the upper half of the root: its addresses continue bit 47.
        let start = VirtAddr::new_truncate(base + index * size).as_u64();
        let end = start + (size - 1);
        if entry.is_unused() || end < first || start > last {
            continue;
        }
        let rights = narrow(above, entry);
        if level == 1 || entry.flags().contains(PageTableFlags::HUGE_PAGE) {
            visit(&Mapping {
                start: VirtAddr::new(start),
                size,
                physical: entry.addr().align_down(size),
                writable: rights.writable,
                executable: rights.executable,
                user: rights.user,
            });
        } else {
            walk(entry.addr(), level - 1, start, (first, last), rights, visit);
        }
    }
}

/// A page can be written or used by ring 3 only if every level says so, and can be executed only if none forbids it (SDM volume 3, §5.6.1).
fn narrow(above: Rights, entry: &PageTableEntry) -> Rights {
    let flags = entry.flags();
    let barred = machine::features().nx && flags.contains(PageTableFlags::NO_EXECUTE);
    Rights {
        writable: above.writable && flags.contains(PageTableFlags::WRITABLE),
        executable: above.executable && !barred,
        user: above.user && flags.contains(PageTableFlags::USER_ACCESSIBLE),
    }
}
