//! Revoking as a system call: steps, between which the call is made again.
//!
//! What was derived is doomed at once and taken out so many at a time (`cap`); in between the thread is back at its system call, where it can
//! be interrupted, moved and ended like anywhere in its program. Then it waits, in the same way, until every core has left the kernel that
//! was in it when the last was taken out (`percpu::epoch`): whoever had found one of them has done by then what it found it for, also
//! where it waited for another core in the middle. What goes on is a wait that began before: a thread that waits for an object needs
//! no capability to be woken.

use abi::cap::Handle;
use abi::error::Error;
use abi::syscall::Syscall;
use cap::{Purged, Sentence};
use percpu::IrqOff;
use percpu::epoch::{self, Moment};

use crate::tables::Capabilities;
use crate::{dispatch, machine, spread};

/// Capabilities that one step takes out.
pub(crate) const STEP: usize = 32;

/// Looks after which cores that have not passed through the kernel are interrupted again: the first time, they may not have shown yet
/// that they run programs.
const PATIENCE: u32 = 64;

/// The planted bug that the hunt has to notice: nobody waits for those who have found what is revoked.
const HASTY: bool = cfg!(feature = "hasty-revoke");

/// A revocation between two steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revocation {
    handle: Handle,
    deleted: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Something may be doomed.
    Purge,
    /// Cores may be in the kernel that were in it at the moment; so many advances were missing, so many looks ago.
    Quiesce { moment: Moment, missing: u64, looks: u32 },
}

/// Begins to revoke what was derived of a capability, or goes on with it, and returns how many it has taken out when all are gone. Otherwise
/// it does not return.
///
/// # Errors
/// [`Error::BadHandle`], also if the capability itself goes meanwhile: then what was doomed may last until something else is derived or
/// revoked in the family.
pub(crate) fn revoke(irq: &mut IrqOff, own: &Capabilities, handle: Handle) -> Result<u64, Error> {
    let thread = dispatch::current(irq);
    let begun = thread.revocation.take().filter(|begun| begun.handle == handle);
    let begun = match begun {
        Some(begun) => begun,
        None if own.doom(handle)? == Sentence::Nothing => return Ok(0),
        None => Revocation { handle, deleted: 0, stage: Stage::Purge },
    };
    match step(irq, own, begun)? {
        Next::Done(deleted) => Ok(deleted),
        Next::More(revocation) => {
            thread.revocation.set(Some(revocation));
            thread.call_again(Syscall::CapRevoke as u64, [handle.0, 0, 0, 0, 0, 0]);
            dispatch::leave()
        }
    }
}

/// What a step comes to.
enum Next {
    /// All are gone; so many were taken out.
    Done(u64),
    /// The call is to be made again.
    More(Revocation),
}

fn step(irq: &mut IrqOff, own: &Capabilities, begun: Revocation) -> Result<Next, Error> {
    let Revocation { handle, deleted, stage } = begun;
    let cores = machine::topology().core_count();
    match stage {
        Stage::Purge => {
            let (purged, count) = own.purge(irq, handle, STEP)?;
            let deleted = deleted + count as u64;
            percpu::race_point!("revoke.purged");
            if purged == Purged::More {
                return Ok(Next::More(Revocation { handle, deleted, stage }));
            }
            if cores == 1 || HASTY {
                return Ok(Next::Done(deleted));
            }
            let stage = Stage::Quiesce { moment: epoch::moment(), missing: u64::MAX, looks: 0 };
            step(irq, own, Revocation { handle, deleted, stage })
        }
        Stage::Quiesce { moment, missing, looks } => {
            let now = epoch::until_past(irq, cores, moment);
            if now == 0 {
                return Ok(Next::Done(deleted));
            }
            let moved = now < missing;
            if moved || looks == PATIENCE {
                spread::hurry(irq);
            }
            core::hint::spin_loop();
            let looks = if moved || looks == PATIENCE { 0 } else { looks + 1 };
            Ok(Next::More(Revocation {
                handle,
                deleted,
                stage: Stage::Quiesce { moment, missing: now, looks },
            }))
        }
    }
}
