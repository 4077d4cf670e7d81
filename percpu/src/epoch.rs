//! Epoch reclamation: an object is given back when no core can still be looking at it.
//!
//! Kernel code holds references only between entering and leaving the kernel, so leaving is a quiescent state and idling an
//! extended one: readers pay nothing on entry and, on exit, one load of a line that rarely changes. After K. Fraser, "Practical
//! Lock-Freedom" (UCAM-CL-TR-579, 2004), ch. 5.2.3, and quiescent-state-based reclamation as in P. McKenney, "Exploiting Deferred
//! Destruction" (2004), ch. 4–5; compared in T. Hart et al., "Performance of memory reclamation for lockless synchronization" (2007).
//!
//! A global epoch G advances from `e` to `e + 1` only when every core that is not idle has left the kernel with G = `e` in sight.
//!
//! * E1: while a core is in the kernel, G is at most one beyond the epoch `L` the core has announced: the next advance needs the core.
//! * E2: an object retired by a core at `L` ripens at G = `L + 3`. G was at most `L + 1` when it was unlinked; to reach `L + 2` its
//!   retirer must have announced `L + 1`, which publishes the unlinking to all who see G = `L + 2`; to reach `L + 3` every core must
//!   have left the kernel having seen `L + 2`. Whoever still held it has let go, and nobody can have found it since.
//! * E3: a core that leaves idle announces itself before it reads anything, and an advance looks at the announcements after it has
//!   read G: of two full fences one comes first, so either the advance sees the core or the core sees all that the advance relies on.
//! * E5: a moment at G = `g` is past at G = `g + 2`. Whoever is in the kernel then and does not see what was done before has announced at most
//!   `g`, as G = `g + 1` would show it; to reach `g + 2` it must have left.

#![cfg_attr(
    all(loom, not(test)),
    expect(dead_code, reason = "the exits are not built for models of other crates")
)]

mod limbo;
mod protocol;
mod word;

#[cfg(not(loom))]
mod exits;
#[cfg(all(test, loom))]
mod models;

#[cfg(not(loom))]
pub use exits::{
    BUDGET, Moment, enter_idle, has_retired, leave_idle, leave_kernel, moment, pass, retire, until_past,
};
pub use limbo::{Reclaim, Retired};
