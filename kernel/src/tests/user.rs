//! Programs in ring 3: what they can do, and what they cannot.

use abi::task::ExitStatus;
use percpu::IrqOff;

use super::{Bed, Result, ensure, failed};
use crate::arch::tsc;
use crate::harness::{self, Run};
use crate::machine;

/// How long a program may take, in seconds of the clock: long enough for any emulator on any busy host.
const PATIENCE: u64 = 60;

/// Runs a program to its end.
pub(super) fn run(program: &str, arguments: &[u8]) -> core::result::Result<ExitStatus, super::Verdict> {
    IrqOff::with(|irq| {
        let run = Run { program, arguments, region: None, flags: 0 };
        let process =
            run.make(irq).map_err(|error| failed(format_args!("{program} cannot be made: {error}")))?;
        let deadline = tsc::now() + machine::clock().0 * PATIENCE;
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

/// What a program must not do.
pub(super) fn hostile(_: &mut Bed) -> Result {
    Ok(())
}
