//! Who am I, what is mine, how cores talk.
//!
//! * [`id`], [`set`]: core and node ids, sets of cores.
//! * [`pin`]: witnesses — [`Pinned`] proves that the caller stays on its core, [`IrqOff`] that nothing interrupts it.
//! * [`local`]: core-local statics, reached through the core's segment base.
//! * [`lock`]: levelled spin locks; a wrong order does not compile.
//! * [`mailbox`], [`call`]: messages to a core's inbox, and functions run on other cores.
//! * [`epoch`]: objects are given back when no core can be looking at them any more.
//! * [`place`], [`guests`]: reaching what moves between cores, and working on what may be about to end.
//! * [`race`]: delays that widen races, for builds that hunt them.
//! * [`topology`]: cores, nodes, caches and distances, from ACPI and CPUID; [`frozen`] holds it.
//! * [`sync`]: the only place of the kernel that names the raw atomics; loom can swap them.
//!
//! The crate builds for the bare machine and for the host. On the host a *core* is a thread (see [`host`]).
#![cfg_attr(not(test), no_std)]

#[cfg(not(target_os = "none"))]
extern crate std;

mod arch;
pub mod call;
pub mod epoch;
pub mod frozen;
pub mod guests;
#[cfg(not(target_os = "none"))]
pub mod host;
pub mod id;
pub mod local;
pub mod lock;
pub mod mailbox;
pub mod pin;
pub mod place;
pub mod race;
pub mod set;
pub mod sync;
pub mod topology;

pub use call::{CallSlot, Ipi};
pub use frozen::Frozen;
pub use guests::Guests;
pub use id::{CoreId, MAX_CORES, MAX_NODES, NodeId};
pub use local::{CoreCell, PerCpu};
pub use lock::{Held, Lock};
pub use mailbox::Inbox;
pub use pin::{IrqOff, Pinned};
pub use set::{AtomicCoreSet, CoreSet, NodeSet};
pub use topology::Topology;

/// Bytes that two cores can write without disturbing each other: one cache line.
pub const CACHE_LINE: usize = 64;
