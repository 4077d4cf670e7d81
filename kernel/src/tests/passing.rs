//! Pages that programs pass to each other, and faults that they resolve (`user/pages` says there what it checks).

use super::user::passes;
use super::{Bed, Result};

/// Pages moved, shared and copied between processes, and what is refused.
///
/// Planted: cores keep what they have cached of pages that are passed.
pub(super) fn pages(bed: &mut Bed) -> Result {
    passes("pages", format_args!("kind=pass seed={} ", bed.seed))
}

/// Faults that become messages, and what the answers do.
///
/// Planted: every answer lets the thread go on; a handler that is gone is told like a call's; an answer is written over a faulted thread's
/// registers.
pub(super) fn faults(_: &mut Bed) -> Result {
    passes("pages", format_args!("kind=fault "))
}

/// Thousands of pages and capabilities, and hundreds of threads, that one call concerns.
pub(super) fn many(_: &mut Bed) -> Result {
    passes("pages", format_args!("kind=many "))
}
