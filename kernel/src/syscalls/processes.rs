//! Calls on processes.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::task::{ExitStatus, Grant, NAME_BYTES, ProcessInfo, ProcessSpec, ProcessState};
use percpu::IrqOff;

use super::{Answer, Result, find, get, table, user};
use crate::bank::Bank;
use crate::dispatch;
use crate::object::Ref;
use crate::process::{Maker, Process};
use crate::programs::startup::Part;
use crate::programs::{self, BuildError, Machine, Paid, Program};
use crate::tables::{Capabilities, Holder};
use crate::wait::{self, Key};

/// Largest image that a process can bring, in bytes.
const MAX_IMAGE: u64 = 64 << 20;

/// An error, and the value beside it.
type Flawed = core::result::Result<u64, (Error, u64)>;

impl From<Flawed> for Answer {
    fn from(result: Flawed) -> Self {
        match result {
            Ok(value) => Self { status: 0, value },
            Err((error, value)) => Self { status: error as u64, value },
        }
    }
}

pub(super) fn process_create(irq: &mut IrqOff, parent: u64, spec: u64) -> Flawed {
    let mut flaw = 0;
    create(irq, parent, spec, &mut flaw).map_err(|error| (error, flaw))
}

fn create(irq: &mut IrqOff, parent: u64, spec: u64, flaw: &mut u64) -> Result {
    let parent = get::<Process>(irq, parent, Rights::CREATE)?;
    let spec: ProcessSpec = user::read(irq, spec)?;
    let texts =
        spec.arguments_bytes.checked_add(spec.environment_bytes).filter(|&all| all <= ProcessSpec::MAX_TEXT);
    texts.ok_or(Error::BadArgument)?;
    if spec.name_bytes > NAME_BYTES as u64 || spec.grants_count > ProcessSpec::MAX_GRANTS {
        return Err(Error::BadArgument);
    }
    let mut name = [0; NAME_BYTES];
    let name = &mut name[..spec.name_bytes as usize];
    user::read_bytes(irq, spec.name, name)?;
    if spec.image == 0 {
        let program = programs::get(spec.image_bytes as usize).ok_or(Error::BadArgument)?;
        return make(irq, &parent, &spec, program, name);
    }
    let bank = parent.counted_bank(irq);
    let program = build(irq, &spec, &bank, flaw)?;
    let made = make(irq, &parent, &spec, &program, name);
    // The mappings keep the pages.
    program.release(irq, &Machine);
    made
}

/// Builds a program of an image in the caller's memory; the bank pays for its pages.
fn build(irq: &mut IrqOff, spec: &ProcessSpec, bank: &Ref<Bank>, why: &mut u64) -> Result<Program> {
    if spec.image_bytes > MAX_IMAGE {
        return Err(Error::BadArgument);
    }
    let mut read = |irq: &mut IrqOff, offset: usize, to: &mut [u8]| {
        user::read_bytes(irq, spec.image.wrapping_add(offset as u64), to).is_ok()
    };
    Program::build(irq, &Paid(bank), spec.image_bytes as usize, &mut read).map_err(|error| match error {
        BuildError::Flaw(flaw) => {
            *why = flaw as u64;
            Error::BadImage
        }
        BuildError::Unreadable => Error::BadAddress,
        BuildError::Shortage(_) => Error::NoMemory,
    })
}

fn make(irq: &mut IrqOff, parent: &Process, spec: &ProcessSpec, program: &Program, name: &[u8]) -> Result {
    let maker = Maker {
        program,
        name,
        texts: (spec.arguments_bytes as usize, spec.environment_bytes as usize),
        parent: parent.id(),
        flags: spec.flags,
        bank: parent.counted_bank(irq),
        limits: parent.limits(),
    };
    let mut text = |irq: &mut IrqOff, part: Part, from: usize, to: &mut [u8]| {
        let start = match part {
            Part::Arguments => spec.arguments,
            Part::Environment => spec.environment,
        };
        user::read_bytes(irq, start.wrapping_add(from as u64), to).is_ok()
    };
    let mut give =
        |irq: &mut IrqOff, into: &Capabilities, handles: &mut [Handle]| grant(irq, spec, into, handles);
    let process = Process::new(irq, &maker, &mut give, &mut text)?;
    table(irq).insert(process, Rights::ALL).map(|handle| handle.0)
}

fn grant(irq: &mut IrqOff, spec: &ProcessSpec, into: &Capabilities, handles: &mut [Handle]) -> Result<usize> {
    let count = spec.grants_count as usize;
    for (index, slot) in handles.iter_mut().take(count).enumerate() {
        let at = spec.grants.wrapping_add((index * size_of::<Grant>()) as u64);
        let grant: Grant = user::read(irq, at)?;
        let rights = Rights(grant.rights as u16).and(Rights::ALL);
        *slot = table(irq).derive(irq, grant.handle, (rights, grant.badge), into, Holder::New)?;
    }
    Ok(count)
}

pub(super) fn process_start(irq: &mut IrqOff, process: u64) -> Result {
    let process = get::<Process>(irq, process, Rights::CONTROL)?;
    Process::start(&process, irq).map(|_| 0)
}

pub(super) fn process_wait(irq: &mut IrqOff, process: u64, deadline: u64) -> Result {
    let process = find::<Process>(irq, process, Rights::OBSERVE)?;
    let code = |process: &Process| (process.state() == ProcessState::Ended).then(|| process.status().code);
    if let Some(code) = code(&process) {
        return Ok(code);
    }
    let own = dispatch::current(irq);
    wait::enlist(irq, own, Key::object(process.as_ptr()));
    match code(&process) {
        None => dispatch::block(irq, deadline),
        Some(code) => {
            // Woken or not, the code is the same.
            let _waited = dispatch::do_not_block(irq, own);
            Ok(code)
        }
    }
}

pub(super) fn process_kill(irq: &mut IrqOff, process: u64, code: u64) -> Result {
    let process = get::<Process>(irq, process, Rights::CONTROL)?;
    let status = ExitStatus { reason: ExitStatus::KILLED, code, ..ExitStatus::default() };
    Process::end(&process, irq, status);
    Ok(0)
}

pub(super) fn process_exit(irq: &mut IrqOff, code: u64) -> Result {
    let status = ExitStatus { reason: ExitStatus::EXITED, code, ..ExitStatus::default() };
    Process::end_own(irq, status);
    // The caller is doomed, and does not come back.
    Ok(0)
}

pub(super) fn process_info(irq: &mut IrqOff, process: u64, info: u64) -> Result {
    let process = get::<Process>(irq, process, Rights::OBSERVE)?;
    let mut running = 0;
    let threads =
        irq.locks(|held| process.each_thread(held, |thread| running += sched::Entity::task(&thread).ticks()));
    let frames = process.visit(irq, |_| process.space().purse().in_use());
    let (ended, faults) = process.figures();
    let told = ProcessInfo {
        id: process.id(),
        parent: process.parent(),
        state: process.state() as u64,
        status: process.status(),
        threads: threads as u64,
        handles: process.visit(irq, |_| process.capabilities().count()).unwrap_or(0) as u64,
        frames: frames.unwrap_or(0) as u64,
        ticks: ended + running,
        faults,
        name: *process.name(),
    };
    user::write(irq, info, &told).map(|()| 0)
}
