//! The one place that argues about store-load order.
//!
//! Four pairs of places run Dekker's pattern: each side writes one word, then reads the other side's. At least one side must
//! see the other's write, or a chunk with free frames ends up on no list.
//!
//! | one side | other side |
//! |---|---|
//! | free frames, then read the state (`Span::put_shared`) | publish `Pooled`, then read the free words (`Span::pool`) |
//! | publish a level, then read the list's bit (`Index::set`) | clear the list's bit, then read the state (`Span::unlist`) |
//! | set a lower bit, then read the upper (`Index::set`) | clear the upper bit, then read the lower word (`Index::clear`) |
//! | complete one word, then read the others (`Span::put_shared`) | the same, with the other word |
//!
//! All of these accesses are `SeqCst`: in their single total order one of the two writes comes first, and the other side's read
//! comes after it. On x86 the writes are locked operations and the reads are plain loads, so this costs nothing. Loom
//! treats `SeqCst` accesses as acquire and release, and only its fences as sequentially consistent; there a fence says the same.

use percpu::sync::atomic::Ordering;

/// For the accesses of the table above.
// ORDER: SeqCst: the total order that the module comment needs; it includes Acquire on loads and Release on stores.
pub(crate) const TOTAL: Ordering = Ordering::SeqCst;

/// Stands between the write and the read of each side.
#[inline(always)]
pub(crate) fn between() {
    #[cfg(loom)]
    // ORDER: SeqCst pairs with the other side's `between`: loom's stand-in for the total order of the accesses around it.
    percpu::sync::atomic::fence(Ordering::SeqCst);
}
