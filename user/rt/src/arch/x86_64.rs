//! x86-64.

#[cfg(target_os = "none")]
pub(crate) mod call;
#[cfg(target_os = "none")]
pub(crate) mod clock;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
pub(crate) mod fiber;
