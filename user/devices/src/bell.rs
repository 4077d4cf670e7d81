//! A notification, as much of it as a driver needs.

use abi::cap::Handle;
use abi::error::Error;
use rt::handle::Result;
use rt::sys;
use rt::time::Deadline;

/// A notification. Lives as long as the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bell(Handle);

impl Bell {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: no address is passed.
        unsafe { sys::notification_create() }.map(|handle| Self(Handle(handle)))
    }

    pub(crate) fn handle(self) -> Handle {
        self.0
    }

    /// Waits for bits.
    pub(crate) fn wait(self, deadline: Deadline) -> Result<u64> {
        // SAFETY: no address is passed.
        unsafe { sys::notification_wait(self.0, deadline.0) }
    }

    /// Takes the bits that are set; 0 if none is.
    pub(crate) fn poll(self) -> Result<u64> {
        // SAFETY: no address is passed.
        match unsafe { sys::notification_poll(self.0) } {
            Err(Error::WouldBlock) => Ok(0),
            other => other,
        }
    }
}
