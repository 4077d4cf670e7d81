//! What differs between the bare machine and the host: interrupt flag, core-local addressing, the current core's id.
//!
//! One backend is chosen at compile time and both have the same names: `irq_save`, `irq_restore`, `current_core` and
//! `Slot`, the storage behind a [`crate::PerCpu`].

#[cfg(target_os = "none")]
mod x86_64;
#[cfg(target_os = "none")]
pub(crate) use x86_64::{Slot, activate, copy, current_core, irq_restore, irq_save, register, template};

#[cfg(not(target_os = "none"))]
pub(crate) use crate::host::backend::{Slot, current_core, irq_restore, irq_save};
