//! The machine's part: entry, the `syscall` instruction, the time-stamp counter, the switch between user threads.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_os = "none")]
pub(crate) use x86_64::call::{
    call0, call1, call2, call3, call4, call5, call6, message, timed_message, undefined,
};
#[cfg(target_os = "none")]
pub(crate) use x86_64::{clock, fiber};
