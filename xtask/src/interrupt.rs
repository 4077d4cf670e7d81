//! Ctrl-C, `SIGTERM` and `SIGHUP`: noted once, looked at wherever something waits.
//!
//! Nothing is torn down in the handler: whoever waits sees [`seen`] within [`POLL`], stops its child, and leaves
//! what is complete on disk.

use crate::error::{Class, Error, Result};
use std::sync::OnceLock;
use std::time::Duration;

/// How often a waiting loop looks at [`seen`].
pub const POLL: Duration = Duration::from_millis(50);

static SEEN: OnceLock<()> = OnceLock::new();

/// Installs the handler; called once, at start.
///
/// # Errors
/// The system refuses the handler.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        // A second signal finds the cell full, which is what it wanted.
        let _ = SEEN.set(());
    })
    .map_err(|error| Error::new(Class::Io, format!("cannot install the signal handler: {error}")))
}

/// Whether the user asked to stop.
#[must_use]
pub fn seen() -> bool {
    SEEN.get().is_some()
}

/// An error if the user asked to stop.
///
/// # Errors
/// [`Class::Interrupted`].
pub fn check() -> Result<()> {
    if seen() { Err(Error::new(Class::Interrupted, "interrupted")) } else { Ok(()) }
}
