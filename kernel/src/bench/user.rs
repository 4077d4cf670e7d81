//! The rows that are measured in user mode: `user/bench` runs them with the same table, runner and words of the command line; its records
//! come through a page that both can see and are numbered behind the kernel's own.

use core::fmt::{self, Write};

use abi::boot::Params;
use abi::error::Error;
use abi::task::{ExitStatus, ProcessSpec, ProcessState};
use percpu::{CoreId, IrqOff};
use perf::channel::{Channel, Receiver};
use perf::record::{Done, Record, SuiteStart};

use super::place;
use crate::arch::tsc;
use crate::harness::Run;
use crate::object::Ref;
use crate::process::Process;
use crate::region::Region;
use crate::spaces;
use crate::{dispatch, log, machine, start};

/// The program.
const PROGRAM: &str = "bench";
/// The core on which it measures.
const MEASURING: usize = 0;
/// How long it may take without having written anything, in seconds.
const PATIENCE: u64 = 600;

/// The words of the command line, each ending with a zero byte, but for those that are given anew; and `partner.CLASS=CORE` for cores that
/// stand so to the measuring one.
struct Words {
    bytes: [u8; 1024],
    length: usize,
}

impl Words {
    fn new(after: u32, samples: Option<u32>) -> Option<Self> {
        let mut words = Self { bytes: [0; 1024], length: 0 };
        let line = start::handover().command_line();
        let given =
            |word: &&str| !(word.starts_with("after=") || samples.is_some() && word.starts_with("samples="));
        for word in line.split_ascii_whitespace().filter(given) {
            write!(words, "{word}\0").ok()?;
        }
        write!(words, "after={after}\0").ok()?;
        if let Some(samples) = samples {
            write!(words, "samples={samples}\0").ok()?;
        }
        let measuring = CoreId::from_index(MEASURING)?;
        for (class, core) in place::partners_of(measuring) {
            write!(words, "partner.{class}={}\0", core.raw()).ok()?;
        }
        Some(words)
    }
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// How many cases the program has for these words.
pub(super) fn count(params: &Params<'_>) -> u32 {
    let mut cases = 0;
    if crate::programs::find(PROGRAM).is_some() {
        let listed = run(params, 0, Some(0), &mut |record| {
            if let Record::SuiteStart(SuiteStart { cases: count, .. }) = record {
                cases = *count;
            }
        });
        if listed.is_none() {
            log!("bench: the user-mode rows cannot be listed");
        }
    }
    cases
}

/// Runs the program, skipping so many of its cases; `sink` gets what it says. `None` if it did not end as it should.
pub(super) fn run(
    _: &Params<'_>,
    after: u32,
    samples: Option<u32>,
    sink: &mut dyn FnMut(&Record<'_>),
) -> Option<Done> {
    let words = Words::new(after, samples)?;
    IrqOff::with(|irq| match serve(irq, &words, sink) {
        Ok(done) => done,
        Err(error) => {
            log!("bench: the user-mode rows cannot be run: {error}");
            None
        }
    })
}

fn serve(irq: &mut IrqOff, words: &Words, sink: &mut dyn FnMut(&Record<'_>)) -> Result<Option<Done>, Error> {
    let region = Region::new(irq, 1)?;
    let frame = region.frame(irq, 0).ok_or(Error::NoMemory)?;
    // SAFETY: a zeroed frame of the region's, which outlives this; the program writes to it as to a channel or damages its own records.
    let channel: &Channel = unsafe { &*spaces::bytes_of(frame).cast() };
    let run = Run {
        program: PROGRAM,
        arguments: &words.bytes[..words.length],
        region: Some(&region),
        flags: ProcessSpec::FIXED,
        bank: None,
    };
    let process = run.make(irq)?;
    let mut receiver = Receiver::new(channel);
    let mut done = None;
    let mut take = |record: &Record<'_>| match record {
        Record::Done(all) => done = Some(*all),
        other => sink(other),
    };
    Process::start(&process, irq)?;
    drain_until_end(irq, &process, channel, &mut receiver, &mut take);
    let status = process.status();
    if status.reason != ExitStatus::EXITED || status.code != 0 {
        log!("bench: the program of the user-mode rows ended with {status:x?}");
        return Ok(None);
    }
    Ok(done)
}

fn drain_until_end(
    irq: &mut IrqOff,
    process: &Ref<Process>,
    channel: &Channel,
    receiver: &mut Receiver<'_>,
    take: &mut dyn FnMut(&Record<'_>),
) {
    let ended = || process.state() == ProcessState::Ended;
    loop {
        let deadline = tsc::now() + machine::clock().0 * PATIENCE;
        // SAFETY: benchmarks run with nothing but their own data.
        unsafe { dispatch::serve_until(irq, &|| ended() || channel.full(), deadline) };
        let over = ended();
        loop {
            match receiver.take() {
                Ok(Some(record)) => take(&record),
                Ok(None) => break,
                Err(_) => {
                    log!("bench: the program's records are damaged");
                    break;
                }
            }
        }
        if over {
            return;
        }
        if tsc::now() >= deadline {
            let status = ExitStatus { reason: ExitStatus::KILLED, ..ExitStatus::default() };
            Process::end(process, irq, status);
        }
    }
}
