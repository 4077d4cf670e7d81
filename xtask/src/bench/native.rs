//! The native lane: portable rows in this process, on pinned threads, beside their peers.

use crate::bench::target::Target;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow, Limits};
use perf::record::Event;

/// This process.
#[derive(Debug)]
pub(super) struct InProcess;

impl Target for InProcess {
    fn boot(&mut self, _: &str, _: Limits, _: &mut dyn FnMut(Event<'_>) -> Flow) -> Result<End> {
        Err(Error::new(Class::Unusable, "this build has no rows for the native lane"))
    }
}
