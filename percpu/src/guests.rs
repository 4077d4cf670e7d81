//! Guests: cores that are at work on something that may be about to end.
//!
//! * J3: who finds it alive as a guest keeps it until it leaves; who says that it ends, and then finds no guest, has it alone.
//!
//! A guest enters and then looks; who ends it says so and then looks for guests. Of two such pairs one sees the other (Dekker).

use crate::const_fn;
use crate::sync;
use crate::sync::atomic::{AtomicU32, Ordering};

#[cfg(all(test, loom))]
mod models;

/// How many there are.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | the count | any core | who ends the thing | SeqCst, with the word that says whether it lives; Release / Acquire |
#[derive(Debug)]
pub struct Guests(AtomicU32);

impl Guests {
    const_fn! {
        /// Nobody.
        #[must_use]
        pub const fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    /// Works on the thing as a guest, if it lives; `lives` is a SeqCst load of the word that says so.
    #[inline]
    pub fn visit<R>(&self, lives: impl FnOnce() -> bool, f: impl FnOnce() -> R) -> Option<R> {
        // ORDER: SeqCst, before the look whether it lives in the total order; partner: `are_there`.
        self.0.fetch_add(1, Ordering::SeqCst);
        sync::total_order();
        crate::race_point!("guests.entered");
        let result = lives().then(f);
        crate::race_point!("guests.leaving");
        // ORDER: Release pairs with the load in `are_there`: the work is done.
        self.0.fetch_sub(1, Ordering::Release);
        result
    }

    /// Whether there are guests who may not have seen that it ends. Called after that was said, by a SeqCst store.
    #[inline]
    pub fn are_there(&self) -> bool {
        sync::total_order();
        // ORDER: SeqCst; partner: `visit`. Whoever comes later finds that it ends. As an Acquire it pairs with who left.
        self.0.load(Ordering::SeqCst) != 0
    }
}

impl Default for Guests {
    fn default() -> Self {
        Self::new()
    }
}
