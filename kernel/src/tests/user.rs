//! Programs in ring 3: what they can do, and what they cannot.

use abi::task::ExitStatus;
use percpu::IrqOff;

use super::{Bed, Result, ensure, failed};
use crate::arch::tsc;
use crate::bank::Bank;
use crate::harness::{self, Run};
use crate::object::Ref;
use crate::{log, machine, start, trace};

/// How long a program may take, in seconds of the clock: long enough for any emulator on any busy host.
const PATIENCE: u64 = 60;

/// Runs a program to its end.
pub(super) fn run(program: &str, arguments: &[u8]) -> core::result::Result<ExitStatus, super::Verdict> {
    run_paying(program, arguments, None)
}

/// As [`run`], with a bank from which it pays.
pub(super) fn run_paying(
    program: &str,
    arguments: &[u8],
    bank: Option<&Ref<Bank>>,
) -> core::result::Result<ExitStatus, super::Verdict> {
    IrqOff::with(|irq| {
        let run = Run { program, arguments, region: None, flags: 0, bank };
        let process =
            run.make(irq).map_err(|error| failed(format_args!("{program} cannot be made: {error}")))?;
        // A soak test has as many times more to do.
        let patience = PATIENCE * u64::from(start::params().soak.max(1));
        let deadline = tsc::now() + machine::clock().0 * patience;
        match harness::run(irq, &process, deadline) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(failed(format_args!("{program} does not end"))),
            Err(error) => Err(failed(format_args!("{program} cannot be started: {error}"))),
        }
    })
}

/// A program starts, speaks, and ends.
pub(super) fn hello(_: &mut Bed) -> Result {
    let status = run("hello", b"")?;
    ensure!(status.reason == ExitStatus::EXITED && status.code == 0, "hello ended with {status:?}");
    Ok(())
}

/// How a probe must end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// By a fault of one of these vectors.
    Fault(&'static [u64]),
    /// With code 0: it was refused, or checked what must be kept.
    Fine,
    /// As `Fault`, where the CPU has UMIP; without, the instruction is harmless to others and goes through.
    Umip,
    /// As `Fault`; QEMU's emulation lets it through, with no effect on others: it has no caches, and leaves MXCSR's masks out.
    Emulated(&'static [u64]),
    /// By a fault of one of these vectors, or with code 0.
    Either(&'static [u64]),
}

const GP: End = End::Fault(&[13]);
const PAGE: End = End::Fault(&[14]);

/// The probes of `user/hostile` (each says there what it does), and how they must end.
const PROBES: &[(&str, End)] = &[
    ("read-null", PAGE),
    ("read-kernel", PAGE),
    ("write-kernel", PAGE),
    ("read-noncanonical", GP),
    ("read-other", PAGE),
    ("execute-stack", PAGE),
    ("execute-heap", PAGE),
    ("write-text", PAGE),
    ("write-constant", PAGE),
    ("read-unmapped", PAGE),
    ("write-executable", PAGE),
    ("return-noncanonical", End::Either(&[13, 14])),
    ("cli", GP),
    ("sti", GP),
    ("hlt", GP),
    ("in", GP),
    ("out", GP),
    ("iopl", GP),
    ("read-cr0", GP),
    ("write-cr3", GP),
    ("write-cr4", GP),
    ("write-dr7", GP),
    ("wrmsr", GP),
    ("rdmsr", GP),
    ("rdpmc", GP),
    ("xsetbv", End::Fault(&[6, 13])),
    ("lgdt", GP),
    ("lidt", GP),
    ("lldt", GP),
    ("ltr", GP),
    ("sgdt", End::Umip),
    ("sidt", End::Umip),
    ("str", End::Umip),
    ("smsw", End::Umip),
    ("clts", GP),
    ("lmsw", GP),
    ("invlpg", GP),
    ("invd", End::Emulated(&[13])),
    ("wbinvd", End::Emulated(&[13])),
    ("swapgs", GP),
    ("sysret", GP),
    ("sysenter", End::Fault(&[6, 13])),
    ("iret-kernel", GP),
    ("far-return", GP),
    ("int3", End::Fault(&[3, 13])),
    ("icebp", End::Fault(&[1])),
    ("int-80", GP),
    ("int-0e", GP),
    ("int-f0", GP),
    ("ud2", End::Fault(&[6])),
    ("divide", End::Fault(&[0])),
    ("x87", End::Fault(&[16])),
    ("simd", End::Emulated(&[19])),
    ("mxcsr", End::Emulated(&[13])),
    ("jump-kernel", PAGE),
    ("jump-noncanonical", GP),
    ("ds-kernel", GP),
    ("es-kernel", GP),
    ("fs-kernel", GP),
    ("gs-kernel", GP),
    ("ss-kernel", GP),
    ("ds-beyond", GP),
    ("ds-local", GP),
    ("step-syscall", End::Fault(&[1])),
    ("registers", End::Fine),
    ("rcx-r11", End::Fine),
    ("rsp-zero", End::Fine),
    ("rsp-kernel", End::Fine),
    ("rsp-noncanonical", End::Fine),
    ("flag-ac", End::Fine),
    ("flag-nt", End::Fine),
    ("flag-df", End::Fine),
    ("flag-if", End::Fine),
    ("null-selectors", End::Fine),
    ("gs-base", End::Either(&[6])),
    ("stack-overflow", PAGE),
    ("numbers", End::Fine),
    ("handles", End::Fine),
    ("pointers", End::Fine),
    ("ranges", End::Fine),
];

/// The code of a probe that should have been stopped.
const WENT_THROUGH: u64 = 201;

fn fits(end: End, status: &ExitStatus) -> bool {
    let faulted = |vectors: &[u64]| status.reason == ExitStatus::FAULTED && vectors.contains(&status.code);
    let exited = |code| status.reason == ExitStatus::EXITED && status.code == code;
    match end {
        End::Fault(vectors) => faulted(vectors),
        End::Fine => exited(0),
        End::Umip if machine::features().umip => faulted(&[13]),
        End::Umip => exited(WENT_THROUGH),
        End::Emulated(vectors) => faulted(vectors) || machine::features().hypervisor && exited(WENT_THROUGH),
        End::Either(vectors) => faulted(vectors) || exited(0),
    }
}

/// What a program must not do: it is ended for it, and nothing else happens.
pub(super) fn hostile(_: &mut Bed) -> Result {
    let mut wrong = 0;
    for &(name, end) in PROBES {
        let mut arguments = [0; 64];
        let text = [b"probe=", name.as_bytes(), b"\0"];
        let length = text.iter().map(|part| part.len()).sum::<usize>();
        let bytes = text.iter().flat_map(|part| part.iter());
        arguments.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let status = run("hostile", &arguments[..length])?;
        if !fits(end, &status) {
            log!("hostile {name}: {status:x?} instead of {end:?}");
            wrong += 1;
        }
    }
    ensure!(wrong == 0, "{wrong} probes of {} did not end as they must", PROBES.len());
    Ok(())
}

/// Formats arguments: words joined by zero bytes.
struct Words {
    bytes: [u8; 128],
    length: usize,
}

impl core::fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(core::fmt::Error)?;
        room.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = if from == b' ' { 0 } else { from });
        self.length += text.len();
        Ok(())
    }
}

/// Runs a program with words for arguments, each followed by a space.
pub(super) fn run_with(
    program: &str,
    arguments: core::fmt::Arguments<'_>,
) -> core::result::Result<ExitStatus, super::Verdict> {
    let mut words = Words { bytes: [0; 128], length: 0 };
    let written = core::fmt::Write::write_fmt(&mut words, arguments);
    ensure!(written.is_ok(), "the arguments of {program} are too long");
    run(program, &words.bytes[..words.length])
}

/// Runs a program that checks itself: code 0, or what its header says.
pub(super) fn passes(program: &str, arguments: core::fmt::Arguments<'_>) -> Result {
    let status = run_with(program, arguments)?;
    let fine = status.reason == ExitStatus::EXITED && status.code == 0;
    ensure!(fine, "{program} {arguments} ended with {status:x?}");
    Ok(())
}

/// Locks, semaphores, conditions and user threads, under contention.
pub(super) fn sync(_: &mut Bed) -> Result {
    passes("sync", format_args!("rounds=300 "))
}

/// Notifications, timers, leases and channels: every way that a wait ends, and a hunt for lost wakes.
pub(super) fn signals(_: &mut Bed) -> Result {
    passes("signals", format_args!("rounds=400 "))
}

/// The quantum arbiter, with more clients than simulated qubits, and owners that stay too long.
pub(super) fn arbiter(_: &mut Bed) -> Result {
    passes("arbiter", format_args!(" "))
}

/// Messages between threads and processes.
pub(super) fn talk(_: &mut Bed) -> Result {
    passes("talk", format_args!(" "))
}

/// Threads and processes made and ended without pause on every core, with changes of affinity, suspends, resumes and kills in between.
pub(super) fn churn(bed: &mut Bed) -> Result {
    let cores = machine::topology().core_count();
    let much = if bed.soak == 0 { 1 } else { u64::from(bed.soak) };
    for (kind, count) in [("threads", 2_000), ("chaos", 2_000), ("processes", 200)] {
        let count = count * much;
        passes("churn", format_args!("kind={kind} count={count} threads={} seed={} ", cores * 2, bed.seed))?;
    }
    Ok(())
}

/// Random system calls and messages with random arguments: they may end the program that makes them, and nothing else. Some 220,000 on each of
/// the six machines of a run of continuous integration that have the whole table: more than a million.
pub(super) fn fuzz(bed: &mut Bed) -> Result {
    let much = if bed.soak == 0 { 1 } else { u64::from(bed.soak) };
    for round in 0..4 * much {
        let seed = bed.seed.wrapping_add(round);
        let status = run_with("fuzz", format_args!("seed={seed} count=16000 threads=3 "))?;
        let stuck = status.reason == ExitStatus::EXITED && status.code != 0;
        ensure!(!stuck, "fuzz ended with {status:x?}");
    }
    // It has switched that on as well, and the rings stay for whoever reads them.
    trace::discard();
    Ok(())
}
