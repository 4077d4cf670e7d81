//! What a space holds, counted from its tables, and whether everything that is said twice says the same.

use super::entry::{ENTRIES, Entry, Level, RECORDS, span};
use super::info::Use;
use super::memory::Memory;
use super::table::Table;
use super::walk::in_block;
use super::{Kind, Space};
use crate::virt::PageId;

/// Frames and pages of a space. Exact while nothing changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Frames of page tables, the root included.
    pub tables: usize,
    /// Frames of records.
    pub records: usize,
    /// Frames that are pages of this space alone.
    pub private: usize,
    /// Pages that show frames shared until written.
    pub counted: usize,
    /// Frames set aside for pages that have not been touched.
    pub reserved: usize,
    /// Pages that show an object or a device.
    pub borrowed: usize,
    /// How many of all pages are covered by large ones, in 4 KiB pages.
    pub large: usize,
    /// Pages that are mapped, there or not.
    pub mapped: usize,
}

impl Usage {
    /// Frames that are this space's to give back: all but those that it shares or borrows.
    #[must_use]
    pub const fn frames(&self) -> usize {
        self.tables + self.records + self.private + self.reserved
    }
}

/// A contradiction: which invariant, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken {
    /// What does not hold.
    pub what: &'static str,
    /// The first page that the table or entry covers.
    pub page: PageId,
}

struct Count {
    usage: Usage,
    by_record: [u64; RECORDS],
}

impl<M: Memory> Space<M> {
    /// Counts, and checks the tables against their words, frames against theirs, and records against the pages that name them. Nothing may
    /// change meanwhile. For tests and dumps: it looks at every entry.
    ///
    /// # Errors
    /// [`Broken`]: a bug of the kernel.
    pub fn check(&self) -> Result<Usage, Broken> {
        let mut count = Count { usage: Usage::default(), by_record: [0; RECORDS] };
        self.check_table(&self.top(), 4, PageId::new(0), &mut count)?;
        if let Some(second) = self.second() {
            count.usage.tables += 1;
            self.check_second(&second)?;
        }
        count.usage.records = self.records.frames();
        for (number, pages) in self.records.alive() {
            count.by_record[number] = count.by_record[number].wrapping_sub(pages);
        }
        let wrong = (1..RECORDS).find(|&number| count.by_record[number] != 0);
        match wrong {
            Some(_) => {
                Err(Broken { what: "O2: a record counts the pages that name it", page: PageId::new(0) })
            }
            None => Ok(count.usage),
        }
    }

    fn check_second(&self, second: &Table<M>) -> Result<(), Broken> {
        let agrees = |index: usize| second.get(index).barred(self.format) == self.top().get(index);
        match (0..ENTRIES / 2).find(|&index| !agrees(index)) {
            Some(index) => {
                Err(Broken { what: "A7: both roots lead to the same", page: PageId::new(index * span(4)) })
            }
            None => Ok(()),
        }
    }

    fn check_table(
        &self,
        table: &Table<M>,
        level: Level,
        first: PageId,
        count: &mut Count,
    ) -> Result<(), Broken> {
        let entries = if level == 4 { ENTRIES / 2 } else { ENTRIES };
        count.usage.tables += 1;
        if table.info().usage() != Use::Table {
            return Err(Broken { what: "A1: a table's frame says that it is one", page: first });
        }
        let mut used = 0;
        for index in 0..entries {
            let page = PageId::new(first.number() + index * span(level));
            let entry = table.get(index);
            used += usize::from(!entry.is_empty());
            if level > 1 && entry.is_table() {
                self.check_table(&self.below(entry), level - 1, page, count)?;
            } else if !entry.is_empty() {
                self.check_entry(entry, level, page, count)?;
            }
        }
        let word = table.info().table();
        if word.count() != used {
            return Err(Broken { what: "A1: a table counts its entries", page: first });
        }
        match word.reservation() {
            None => Ok(()),
            Some(block) => {
                let shows = |&index: &usize| {
                    let entry = table.get(index);
                    entry.is_owned() && entry.frame() == in_block(block, index)
                };
                let shown = (0..ENTRIES).filter(shows).count();
                count.usage.reserved += ENTRIES - shown;
                if shown == word.populated() {
                    Ok(())
                } else {
                    Err(Broken { what: "A1: a table counts what it shows of its reservation", page: first })
                }
            }
        }
    }

    fn check_entry(&self, entry: Entry, level: Level, page: PageId, count: &mut Count) -> Result<(), Broken> {
        let pages = span(level);
        count.usage.mapped += pages;
        count.by_record[entry.record()] += pages as u64;
        if !entry.is_present() {
            let known = entry.lazy_kind().is_some_and(|kind| kind != Kind::Device);
            return if known { Ok(()) } else { Err(Broken { what: "A1: an entry has a kind", page }) };
        }
        count.usage.large += if level > 1 { pages } else { 0 };
        if entry.is_writable() && entry.may_execute() {
            return Err(Broken { what: "A5: nothing is writable and executable", page });
        }
        if !entry.is_owned() {
            count.usage.borrowed += pages;
            return Ok(());
        }
        let info = self.memory.info(entry.frame()).usage();
        if entry.is_copy() {
            count.usage.counted += pages;
            return match info {
                Use::Counted(_) => Ok(()),
                _ => Err(Broken { what: "A4: a shared page's frame counts its mappings", page }),
            };
        }
        count.usage.private += pages;
        if info == (Use::Private { space: self.short_id(), page }) {
            Ok(())
        } else {
            Err(Broken { what: "A3: a frame is shown where its word says", page })
        }
    }
}
