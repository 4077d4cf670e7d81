//! Makes random system calls with random arguments, as the kernel's table describes them, and passes random messages: nothing that a program
//! does may harm anybody but itself.
//!
//! `seed=`, `count=` calls on each of `threads=` threads, `avoid=` names of calls that are left out, joined by `,`. Calls that would end
//! the caller are made by threads of their own, rarely. That this process faults, stops itself or is stopped is an expected end, so whoever
//! starts it has to bound its time. For replaying, the log has the seed and a line every [`REPORT`] calls, and `from=` starts with a
//! later call of the same sequence.
#![no_std]
#![no_main]

extern crate alloc;

mod draw;

use alloc::vec::Vec;

use abi::syscall::{Description, Syscall, TABLE};
use rt::handle::{Endpoint, Result};
use rt::ipc;
use rt::say;
use rt::start::Start;
use rt::sync::atomic::{AtomicU64, Ordering};
use rt::sys;
use rt::thread::{self, Builder, Stack};

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
    for worker in workers {
        // A thread may have ended itself or another one: that is what it was asked to try.
        let _ = worker.join();
    }
    // ORDER: Relaxed; the threads have ended.
    say!("fuzz: {} done, {} refused", DONE.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed));
    0
}

/// Calls that do not come back, or whose coming back depends on others.
fn is_final(call: &Description) -> bool {
    matches!(Syscall::decode(call.number), Some(Syscall::ThreadExit | Syscall::ProcessExit))
}

fn fuzz(draw: &mut Draw, avoid: &str, from: u64, count: u64) -> Result<()> {
    // Some sequence with the calls behind these, or with messages, does not come to an end, and is not found yet (README): `all=1` draws them too.
    let all = Start::get().number("all", 0) != 0;
    let avoided = |call: &Description| {
        !all && call.number > Syscall::Metrics as u64 || avoid.split(',').any(|name| name == call.name)
    };
    let calls: Vec<&Description> = TABLE.iter().filter(|call| !avoided(call)).collect();
    let stack = Stack::new(4)?;
    for step in 0..from + count {
        let call = draw.call(&calls);
        let (number, arguments) = draw.arguments(call);
        let rare = draw.one_in(FINAL_RATE);
        let message = draw.one_in(MESSAGE_RATE).then(|| draw.message()).filter(|_| all);
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
    if thread.start().is_ok() {
        let _ = thread.join(rt::time::Deadline::NEVER);
    }
}

extern "C" fn make_last(address: u64) -> ! {
    // SAFETY: `aside` waits for this thread's end.
    let last = unsafe { &*(address as *const Last) };
    // SAFETY: as in `fuzz`.
    let _ = unsafe { sys::raw(last.number, last.arguments) };
    thread::exit(0)
}
