//! Filters: what a process may not call it does not call, and nothing happens.

use rt::sync::atomic::Ordering;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::ipc::MESSAGE_CALLS;
use abi::quota::Limits;
use abi::syscall::{Kind, Syscall, TABLE};
use abi::task::{ExitStatus, Protection, ThreadSpec};
use perf::clock::Nanos;
use rt::handle::{Region, Typed};
use rt::ipc::{self, Message};
use rt::memory::{self, PAGE};
use rt::start::Start;
use rt::sys;
use rt::time::{self, Deadline};

use crate::children::{Child, PATIENCE, nap, passed};
use crate::work::has;
use crate::{Lab, Outcome, ensure, unexpected};

/// All but these calls.
pub(crate) fn without(calls: &[u64]) -> Limits {
    let mut limits = Limits::NONE;
    for &call in calls {
        limits.calls[call as usize / 64] &= !(1 << (call % 64));
    }
    limits
}

/// A child forbids itself one call after the other, and makes each.
pub(crate) fn every_call(lab: &Lab) -> Outcome {
    Child { work: "every_call", ..Child::default() }.passes(lab.start)
}

/// Words that the call would do something with.
fn arguments(start: Start, call: &abi::syscall::Description, spare: Handle, page: u64) -> [u64; 6] {
    let mut words = [0; 6];
    for (word, argument) in words.iter_mut().zip(call.arguments) {
        *word = match argument.kind {
            Kind::Handle => start.process().handle().0,
            Kind::In | Kind::Out | Kind::Bytes | Kind::Buffer => page,
            Kind::Count => 1,
            Kind::Choice => Protection::ReadWrite as u64,
            Kind::Address | Kind::Deadline | Kind::Value => 0,
        };
    }
    match Syscall::decode(call.number) {
        Some(Syscall::CapDelete) => words[0] = spare.0,
        Some(Syscall::CapDerive) => words[1] = u64::from(Rights::ALL.0),
        Some(Syscall::ThreadSuspend | Syscall::ThreadKill) => words[0] = start.thread().handle().0,
        _ => {}
    }
    words
}

/// See [`every_call`]. The calls with which it looks at itself come last.
pub(crate) fn refuse_every_call(start: Start) -> Result<(), u64> {
    const LAST: [u64; 3] =
        [Syscall::ProcessInfo as u64, Syscall::ProcessLimit as u64, Syscall::ProcessExit as u64];
    let own = start.process();
    let spare = own.derive(Rights::ALL, 0).map_err(|_| 1_u64)?.keep().handle();
    let page = memory::map(1).map_err(|_| 2_u64)?.as_ptr() as u64;
    let spec = ThreadSpec { flags: ThreadSpec::NO_FPU, ..ThreadSpec::default() };
    // SAFETY: a page of its own, which is as large, aligned, and nobody's else.
    unsafe { (page as *mut ThreadSpec).write(spec) };
    let before = own.info().map_err(|_| 3_u64)?;
    for call in TABLE.iter().filter(|call| !LAST.contains(&call.number)) {
        own.limit(&without(&[call.number])).map_err(|_| 100 + call.number)?;
        let words = arguments(start, call, spare, page);
        // SAFETY: it is refused; if it is not, the test fails, whatever has become of this process.
        let (status, value) = unsafe { sys::raw(call.number, words) };
        if (status, value) != (Error::Filtered as u64, 0) {
            return Err(200 + call.number);
        }
    }
    for (call, ..) in MESSAGE_CALLS {
        own.limit(&without(&[*call as u64])).map_err(|_| 100 + *call as u64)?;
        let mut message = Message::new(7, [1, 2, 3, 4, 5, 6, 7, 8]);
        let kept = message;
        let refused = ipc::enter(*call, own.handle(), &mut message);
        if refused != Err(Error::Filtered) || message.words != kept.words {
            return Err(200 + *call as u64);
        }
    }
    let after = own.info().map_err(|_| 4_u64)?;
    if has(&before) != has(&after) || before.state != after.state {
        return Err(5);
    }
    own.limit(&without(&[Syscall::ProcessInfo as u64])).map_err(|_| 6_u64)?;
    if own.info() != Err(Error::Filtered) {
        return Err(7);
    }
    own.limit(&without(&[Syscall::ProcessLimit as u64])).map_err(|_| 8_u64)?;
    if own.limit(&Limits::NONE) != Err(Error::Filtered) {
        return Err(9);
    }
    // Numbers of no call are not filtered.
    // SAFETY: no such call has an effect.
    let (status, _) = unsafe { sys::raw(127, [0; 6]) };
    if status == Error::NoSuchCall as u64 { Ok(()) } else { Err(10) }
}

/// The code of a process that has killed itself.
const KILLED: u64 = 77;

/// Not even the end of itself can a process call that may not.
pub(crate) fn exits(lab: &Lab) -> Outcome {
    let status = Child { work: "exits", ..Child::default() }.run(lab.start)?;
    let fine = status.reason == ExitStatus::KILLED && status.code == KILLED;
    ensure!(fine, "a process that cannot exit ended with {status:x?}");
    Ok(())
}

/// See [`exits`].
pub(crate) fn refuse_exits(start: Start) -> Result<(), u64> {
    let ends = [Syscall::ProcessExit, Syscall::ThreadExit].map(|call| call as u64);
    start.process().limit(&without(&ends)).map_err(|_| 1_u64)?;
    for end in ends {
        // SAFETY: it is refused, or the test fails.
        let (status, _) = unsafe { sys::raw(end, [50 + end, 0, 0, 0, 0, 0]) };
        if status != Error::Filtered as u64 {
            return Err(2);
        }
    }
    start.process().kill(KILLED).map_err(|_| 3)
}

/// A child begins with its parent's filter, and cannot get a wider one.
pub(crate) fn inherited(lab: &Lab) -> Outcome {
    let limits = Some(without(&[Syscall::Null as u64]));
    Child { work: "parent", limits, ..Child::default() }.passes(lab.start)?;
    // This process is as it was.
    // SAFETY: no address is passed.
    ensure!(unsafe { sys::null() }.is_ok(), "a child's limits limit its parent");
    let child = Child { work: "nothing", ..Child::default() }.make(lab.start)?;
    let watcher = child.derive(Rights::OBSERVE, 0).map_err(unexpected)?;
    let limited = watcher.limit(&Limits::NONE);
    ensure!(limited == Err(Error::MissingRight), "limiting without CONTROL: {limited:?}");
    Ok(())
}

/// When `process_limit` has returned, no thread of the process makes the call any more, wherever it runs.
pub(crate) fn running(lab: &Lab) -> Outcome {
    const THREADS: usize = 4;
    let region = Region::create(1).map_err(unexpected)?;
    let halves = memory::words(*region).map_err(unexpected)?;
    // A word of 64 bits, of which the low half is enough.
    // ORDER: Relaxed: figures.
    let word = |place: usize| halves[place * 2].load(Ordering::Relaxed);
    let sum = |from: usize| (from..=from + THREADS).skip(1).map(|place| u64::from(word(place))).sum::<u64>();
    for _ in 0..5 {
        let before = sum(0);
        let child = Child { work: "spin threads=4", region: Some(*region), ..Child::default() };
        let child = child.spawn(lab.start)?;
        let deadline = Deadline::after(PATIENCE);
        while sum(0) < before + 100 {
            ensure!(!deadline.passed(), "the child makes no calls");
            nap();
        }
        child.limit(&without(&[Syscall::Null as u64])).map_err(unexpected)?;
        // What was let through before is counted a little later.
        time::sleep(Deadline::after(Nanos::from_millis(20)));
        let (through, refused) = (sum(0), sum(64));
        let deadline = Deadline::after(PATIENCE);
        while sum(64) < refused + 100 {
            ensure!(!deadline.passed(), "no call of the child is refused");
            nap();
        }
        let now = sum(0);
        ensure!(now <= through + THREADS as u64, "{} calls were let through after the limit", now - through);
        // ORDER: Relaxed: seen some time.
        halves[0].store(1, Ordering::Relaxed);
        passed(child.wait(Deadline::after(PATIENCE)).map_err(unexpected)?, "the child")?;
        // ORDER: Relaxed; as above.
        halves[0].store(0, Ordering::Relaxed);
    }
    Ok(())
}

const _: () = assert!(PAGE >= size_of::<ThreadSpec>());
