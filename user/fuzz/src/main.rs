//! Makes random system calls with random arguments, as the kernel's table describes them, and passes random messages: nothing that a program
//! does may harm anybody but itself.
//!
//! `seed=`, `count=` calls on each of `threads=` threads, `avoid=` names of calls that are left out, joined by `,`. Calls that would end
//! the caller are made by threads of their own, rarely. That this process faults or is stopped is an expected end, and so is that a thread
//! stops another whose handle it has guessed. Every wait has a deadline: that a thread which nobody has stopped does not come to its end
//! is the kernel's fault, and the exit code is [`STUCK`]. For replaying, the log has the seed and a line every [`REPORT`] calls, and
//! `from=` starts with a later call of the same sequence.
#![no_std]
#![no_main]

extern crate alloc;

mod draw;

use alloc::vec::Vec;

use abi::error::Error;
use abi::syscall::{Description, Syscall, TABLE};
use abi::task::ThreadState;
use perf::clock::Nanos;
use rt::handle::{Endpoint, Result, Thread};
use rt::ipc;
use rt::say;
use rt::start::Start;
use rt::sync::atomic::{AtomicU64, Ordering};
use rt::sys;
use rt::thread::{self, Builder, Stack};
use rt::time::Deadline;

use draw::Draw;

rt::entry!(main);

/// Calls between two lines in the log.
const REPORT: u64 = 1 << 16;
/// One in so many calls of those that end their caller is made.
const FINAL_RATE: u64 = 64;
/// There is a message beside one in so many calls.
const MESSAGE_RATE: u64 = 4;
/// Calls between two children.
const RENEW: u64 = 1 << 10;

/// The exit code when a thread waits, or runs, that should have come to its end.
const STUCK: u64 = 2;
/// How long all calls of this process may take.
const PATIENCE: Nanos = Nanos::from_millis(45_000);
/// How long a thread may take for its last call.
const LAST: Nanos = Nanos::from_millis(5_000);

/// Calls made by all threads that were refused, and that succeeded.
static REFUSED: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU64 = AtomicU64::new(0);

fn main(start: &Start) -> u64 {
    let (seed, count) = (start.number("seed", 1), start.number("count", 10_000));
    let (threads, from) = (start.number("threads", 1).max(1), start.number("from", 0));
    let avoid = start.word("avoid").unwrap_or("");
    say!("fuzz: seed={seed} count={count} threads={threads} from={from}");
    let Ok(meeting) = Endpoint::create() else { return 1 };
    let meeting = meeting.keep();
    let spawn =
        |number| thread::spawn(move || fuzz(&mut Draw::new(seed, number, meeting)?, avoid, from, count));
    let workers: Result<Vec<_>> = (0..threads as u32).map(spawn).collect();
    let Ok(workers) = workers else { return 1 };
    let deadline = Deadline::after(PATIENCE);
    let stuck = workers.iter().filter(|worker| is_stuck(worker.thread(), deadline)).count();
    // ORDER: Relaxed; figures.
    say!("fuzz: {} done, {} refused", DONE.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed));
    // Not joined: some may have been stopped for ever.
    core::mem::forget(workers);
    if stuck == 0 { 0 } else { STUCK }
}

/// Whether a thread has not ended in time, and nobody has stopped it: it waits, or could run and does not.
fn is_stuck(thread: Thread, deadline: Deadline) -> bool {
    // Another may have deleted the handle, which it has guessed: that is what it was asked to try.
    if thread.join(deadline) != Err(Error::TimedOut) {
        return false;
    }
    let Ok(before) = thread.info() else { return false };
    if thread.join(Deadline::after(LAST)) != Err(Error::TimedOut) {
        return false;
    }
    let Ok(info) = thread.info() else { return false };
    say!("fuzz: a thread does not come to its end: {info:?}");
    info.state != ThreadState::Suspended as u32 && info.ticks == before.ticks
}

/// Calls that do not come back, or whose coming back depends on others.
fn is_final(call: &Description) -> bool {
    matches!(Syscall::decode(call.number), Some(Syscall::ThreadExit | Syscall::ProcessExit))
}

fn fuzz(draw: &mut Draw, avoid: &str, from: u64, count: u64) -> Result<()> {
    let avoided = |call: &Description| avoid.split(',').any(|name| name == call.name);
    let calls: Vec<&Description> = TABLE.iter().filter(|call| !avoided(call)).collect();
    let stack = Stack::new(4)?;
    for step in 0..from + count {
        let call = draw.call(&calls);
        let (number, arguments) = draw.arguments(call);
        let rare = draw.one_in(FINAL_RATE);
        let message = draw.one_in(MESSAGE_RATE).then(|| draw.message());
        // The sequence up to `from` is drawn and not made.
        if step < from {
            continue;
        }
        if step % REPORT == 0 {
            say!(
                "fuzz: seed={} thread={} call {step} is {}",
                draw.seed,
                draw.thread,
                call.map_or("none", |call| call.name)
            );
        }
        if let Some((call, handle, mut message, deadline)) = message {
            let passed = ipc::enter_until(call, handle, &mut message, deadline);
            if passed.is_ok() {
                message.caps().for_each(|handle| draw.remember(handle.0));
            }
            count_call(passed.is_ok());
        }
        if call.is_some_and(is_final) {
            if rare {
                aside(number, arguments, &stack);
            }
            continue;
        }
        if step % RENEW == 0 {
            draw.renew();
        }
        // SAFETY: not to be had: the call may do to this process's memory whatever it likes. What the process does with it afterwards is
        // its own affair, and the kernel's is to keep it from being anybody else's; that is what is tested.
        let (status, value) = unsafe { sys::raw(number, arguments) };
        draw.learn(call, status, value);
        count_call(status == 0);
    }
    Ok(())
}

fn count_call(done: bool) {
    // ORDER: Relaxed; counts.
    if done { &DONE } else { &REFUSED }.fetch_add(1, Ordering::Relaxed);
}

/// The call that [`last`] makes: one at a time on each thread's stack, passed by address.
struct Last {
    number: u64,
    arguments: [u64; 6],
}

/// Has a thread of its own make a call that may be its last.
fn aside(number: u64, arguments: [u64; 6], stack: &Stack) {
    // The end of the process is the kernel's to test between processes, see `churn`.
    if number == Syscall::ProcessExit as u64 {
        return;
    }
    let last = Last { number, arguments };
    let address = core::ptr::from_ref(&last) as u64;
    // SAFETY: `last` and the stack live until the thread has ended, below.
    let Ok(thread) = (unsafe { Builder::default().create(make_last, address, stack) }) else { return };
    if thread.start().is_ok() && thread.join(Deadline::after(LAST)) == Err(Error::TimedOut) {
        // Another has stopped it. Whoever is killed leaves its stack when it has ended.
        let _ = thread.kill(0);
        let _ = thread.join(Deadline::after(LAST));
    }
}

extern "C" fn make_last(address: u64) -> ! {
    // SAFETY: `aside` waits for this thread's end.
    let last = unsafe { &*(address as *const Last) };
    // SAFETY: as in `fuzz`.
    let _ = unsafe { sys::raw(last.number, last.arguments) };
    thread::exit(0)
}
