//! Programs run by the kernel's own tests and benchmarks: made, started, waited for, and their memory drained, from the boot core's stack.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::task::{ExitStatus, NEVER, ProcessState};
use percpu::mailbox::{self, Kick, Signal, Urgency};
use percpu::{Ipi, IrqOff};

use crate::arch::ipi;
use crate::bank::Bank;
use crate::machine_object::{Core, Debug, Devices, Interrupts};
use crate::object::Ref;
use crate::ports::Ports;
use crate::process::{Maker, Process};
use crate::programs;
use crate::programs::startup::Part;
use crate::region::Region;
use crate::tables::Capabilities;
use crate::{dispatch, machine};

/// Makes the boot core look at what it waits for.
static NOTICE: Signal = Signal::new(|_, _| {});

/// Something may have happened that the boot core waits for.
pub(crate) fn notice(irq: &IrqOff) {
    let to = machine::boot_core();
    if irq.core() == to {
        return;
    }
    let inbox = mailbox::INBOX.of(to).expect("the boot core has its data");
    if NOTICE.raise(inbox, Urgency::Lazy) == Kick::Interrupt {
        ipi::Interrupts.send(to);
    }
}

/// What a program is given by the kernel: first the debug interface, then a region if there is one, then the cores by their numbers, and
/// then, if it is one of [`DRIVERS`], all interrupt lines, all ports, all device registers; last a bank if it is given one.
pub(crate) struct Run<'a> {
    /// Its name in the bundle, without the folder.
    pub(crate) program: &'a str,
    /// Its arguments, each ending with a zero byte.
    pub(crate) arguments: &'a [u8],
    /// Memory that it shares with the kernel.
    pub(crate) region: Option<&'a Ref<Region>>,
    /// Flags of `ProcessSpec`.
    pub(crate) flags: u64,
    /// The bank that it pays from, of which it has a capability, behind the others; without, the machine's pays.
    pub(crate) bank: Option<&'a Ref<Bank>>,
}

impl Run<'_> {
    /// Makes the process.
    ///
    /// # Errors
    /// [`Error::BadArgument`] if there is no such program; those of [`Process::new`].
    pub(crate) fn make(&self, irq: &mut IrqOff) -> Result<Ref<Process>, Error> {
        let number = programs::find(self.program).ok_or(Error::BadArgument)?;
        let program = programs::get(number).ok_or(Error::BadArgument)?;
        let maker = Maker {
            program,
            name: self.program.as_bytes(),
            texts: (self.arguments.len(), environment_bytes()),
            parent: 0,
            flags: self.flags,
            bank: self.bank.cloned().unwrap_or_else(Bank::root),
            limits: None,
        };
        let mut text = |_: &mut IrqOff, part: Part, from: usize, to: &mut [u8]| {
            match part {
                Part::Arguments => to.copy_from_slice(&self.arguments[from..from + to.len()]),
                Part::Environment => {
                    to.iter_mut().zip(environment().skip(from)).for_each(|(to, byte)| *to = byte);
                }
            }
            true
        };
        Process::new(
            irq,
            &maker,
            &mut |_: &mut IrqOff, table: &Capabilities, handles: &mut [Handle]| self.give(table, handles),
            &mut text,
        )
    }

    fn give(&self, table: &Capabilities, handles: &mut [Handle]) -> Result<usize, Error> {
        let mut count = 0;
        let mut add = |handle: Handle| match handles.get_mut(count) {
            Some(slot) => {
                *slot = handle;
                count += 1;
                Ok(())
            }
            None => Err(Error::NoSlot),
        };
        add(table.insert(Debug::get(), Rights::ALL)?)?;
        if let Some(region) = self.region {
            add(table.insert(region.clone(), Rights::ALL)?)?;
        }
        for core in machine::topology().cores().take(GIVEN_CORES) {
            let core = Core::of(core).ok_or(Error::NoMemory)?;
            add(table.insert(core, Rights::ALL)?)?;
        }
        if DRIVERS.contains(&self.program) {
            add(table.insert(Interrupts::get(), Rights::ALL)?)?;
            add(table.insert(Ports::all(), Rights::ALL)?)?;
            add(table.insert(Devices::get(), Rights::ALL)?)?;
        }
        if let Some(bank) = self.bank {
            add(table.insert(bank.clone(), Rights::ALL)?)?;
        }
        Ok(count)
    }
}

/// The environment: the names of the bundle's programs, in the order of their numbers.
fn environment() -> impl Iterator<Item = u8> {
    let names = (0..programs::count()).filter_map(programs::name);
    let listed = names.enumerate().flat_map(|(number, name)| [if number == 0 { "" } else { "," }, name]);
    ["programs="].into_iter().chain(listed).chain(["\0"]).flat_map(str::bytes)
}

fn environment_bytes() -> usize {
    environment().count()
}

/// Most cores that a program is given: what fits beside the rest into `ProcessSpec::MAX_GRANTS`.
const GIVEN_CORES: usize = 59;

/// Programs that drive devices.
const DRIVERS: [&str; 3] = ["bench", "devices", "matrix"];

/// Starts a process and gives the cores to threads until it has ended and everything is given back, or the time is over, when it is killed;
/// `None` then. Called on the boot core, from its own stack.
///
/// # Errors
/// Those of [`Process::start`].
pub(crate) fn run(
    irq: &mut IrqOff,
    process: &Ref<Process>,
    deadline: u64,
) -> Result<Option<ExitStatus>, Error> {
    Process::start(process, irq)?;
    let ended = || process.state() == ProcessState::Ended;
    // SAFETY: the callers hold nothing core-local: tests and benchmarks run with nothing but their own data.
    unsafe { dispatch::serve_until(irq, &ended, deadline) };
    if ended() {
        return Ok(Some(process.status()));
    }
    let status = ExitStatus { reason: ExitStatus::KILLED, code: 0, ..ExitStatus::default() };
    Process::end(process, irq, status);
    // SAFETY: as above.
    unsafe { dispatch::serve_until(irq, &ended, NEVER) };
    Ok(None)
}
