//! Messages at random: programs against a model on either way that a message can take, kills in every state, threads that move
//! (`user/peers` says what exactly).

use abi::debug::{Counter, Metrics};
use abi::task::ExitStatus;

use super::user::{passes, run_paying, run_with};
use super::{Bed, Result, ensure};
use crate::arch::user::{HEAD, extra};
use crate::bank::Bank;
use crate::cores::{self, Crew};
use crate::{log, machine, metrics};

/// In the exit code of a walk: it is a digest, and nothing was wrong.
const DIGEST: u64 = 1 << 63;

/// Programs of a usual run; a hundred times as many in a soak. With seeded delays each takes some twenty times as long.
const PROGRAMS: u64 = if cfg!(feature = "race") { 1_000 } else { 10_000 };

/// Kills of a usual run; a hundred thousand in a soak.
const KILLS: u64 = 1_000;

/// Messages of each client in a usual run.
const MESSAGES: u64 = 2_000;

/// A soak does as many times more as it has seconds, at most so many.
const MOST: u32 = 100;

fn much(bed: &Bed) -> u64 {
    u64::from(bed.soak.clamp(1, MOST))
}

/// Which way messages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The shortest that there is for each.
    Fast,
    /// The one that can do everything.
    Slow,
}

fn take_way(crew: &mut Crew, way: Way) {
    crew.run(&cores::all_online(), |held| HEAD.owned(held).set_extra(extra::SLOW, way == Way::Slow));
}

/// Messages that went the fast way so far, on all cores.
fn fast_messages() -> u64 {
    let mut told = Metrics::default();
    let counted = |core| if metrics::read(core, &mut told) { told.counter(Counter::FastMessages) } else { 0 };
    machine::topology().cores().map(counted).sum()
}

/// Random programs do what the model says, on the fast way and without it, and the digests of all that came of them are the same.
///
/// Planted: an answer on the long way leaves the badge of its caller's message in it; a message that nobody has to answer comes without badge
/// by the shortest; an answer by the shortest does not load the caller's vector registers.
pub(super) fn walk(bed: &mut Bed) -> Result {
    let count = PROGRAMS * much(bed);
    let mut digest = None;
    for way in [Way::Fast, Way::Slow] {
        let before = fast_messages();
        take_way(&mut bed.crew, way);
        let status = run_with("peers", format_args!("kind=walk count={count} seed={} ", bed.seed));
        take_way(&mut bed.crew, Way::Fast);
        let (status, fast) = (status?, fast_messages() - before);
        ensure!(status.reason == ExitStatus::EXITED && status.code & DIGEST != 0, "{way:?}: {status:x?}");
        ensure!((fast > count / 2) == (way == Way::Fast), "{way:?}: {fast} messages went the fast way");
        ensure!(way == Way::Fast || fast == 0, "{way:?}: {fast} messages went the fast way");
        ensure!(digest.is_none_or(|other| other == status.code), "{:x?} and {:x}", digest, status.code);
        digest = Some(status.code);
        log!("walk: {way:?}, {count} programs, {fast} fast messages, digest {:x}", status.code);
    }
    Ok(())
}

/// A notification that is bound to a server that waits is told to it.
///
/// Planted: the bound thread's role is asked whether it receives, which the shortest way leaves as it was.
pub(super) fn bound(_: &mut Bed) -> Result {
    passes("peers", format_args!("kind=bound "))
}

/// Kills of servers and clients, threads and processes, whatever they do: nobody who waits for them waits for ever, and nothing is left.
pub(super) fn kills(bed: &mut Bed) -> Result {
    let count = KILLS * much(bed);
    passes("peers", format_args!("kind=kills count={count} seed={} ", bed.seed))
}

/// Every call with every kind of bad pointer and handle is refused, with the right error and nothing else.
///
/// Planted: `bank_assign` asks for no right on the bank.
pub(super) fn matrix(_: &mut Bed) -> Result {
    let status = run_paying("matrix", b"", Some(&Bank::root()))?;
    let fine = status.reason == ExitStatus::EXITED && status.code == 0;
    ensure!(fine, "matrix ended with {status:x?}");
    Ok(())
}

/// Clients and servers that are moved and stopped while they talk lose no message and mix none up.
pub(super) fn storm(bed: &mut Bed) -> Result {
    let count = MESSAGES * much(bed);
    for shape in ["fan-in", "pairs"] {
        passes("peers", format_args!("kind=storm shape={shape} count={count} seed={} ", bed.seed))?;
    }
    Ok(())
}
