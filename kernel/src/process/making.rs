//! From an image to a process whose main thread runs.

use core::cell::{Cell, UnsafeCell};
use core::mem::{ManuallyDrop, offset_of};
use core::ptr::{self, NonNull};

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::task::{ExitStatus, NAME_BYTES, ProcessSpec, ProcessState, Startup as Block, ThreadSpec};
use mm::bank::{Payer, Purse};
use mm::user::UserPtr;
use percpu::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use percpu::{CoreSet, Guests, IrqOff, Lock};
use perf::trace::Event;

use super::Process;
use super::threads::Threads;
use crate::arch::usercopy::Word;
use crate::bank::{Bank, Objects};
use crate::limits::{Counted, Limits};
use crate::object::{Header, Ref};
use crate::programs::load::{self, LoadError, Randomness};
use crate::programs::startup::{Startup, Text};
use crate::programs::{Machine, Program};
use crate::spaces::{self, Space};
use crate::tables::Capabilities;
use crate::thread::{self, Thread, ThreadRef};
use crate::{handler, homes, machine, slabs, trace};

/// Pages above the start of a process's heap at which the kernel looks for room: what is below is the program's own choice.
const ROOM: u64 = 1 << 24;

/// Pages of a main thread's stack.
const STACK_PAGES: usize = 64;

/// A process to be made.
pub(crate) struct Maker<'a> {
    /// What it runs.
    pub(crate) program: &'a Program,
    /// Its name, cut at [`NAME_BYTES`].
    pub(crate) name: &'a [u8],
    /// Bytes of its arguments and environment.
    pub(crate) texts: (usize, usize),
    /// Number of the process that makes it; 0 for the kernel.
    pub(crate) parent: u64,
    /// Flags of [`ProcessSpec`].
    pub(crate) flags: u64,
    /// The bank that pays.
    pub(crate) bank: Ref<Bank>,
    /// The limits of the process that makes it, for which the new one's are no wider.
    pub(crate) limits: Option<&'a Limits>,
}

/// Gives a new process its capabilities: fills the handles, or says why not.
pub(crate) type Giver<'a> =
    &'a mut dyn FnMut(&mut IrqOff, &Capabilities, &mut [Handle]) -> Result<usize, Error>;

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::TooMuchText | LoadError::BadStack => Self::BadArgument,
            LoadError::Unreadable => Self::BadAddress,
            LoadError::Space(_) => Self::NoMemory,
        }
    }
}

impl Process {
    /// A process with its program mapped and its capabilities given, not started; with one reference for the caller. `text` reads the
    /// arguments and the environment as for `programs::load`.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::BadArgument`], [`Error::BadAddress`], and those of `give`. Everything is taken back.
    pub(crate) fn new(
        irq: &mut IrqOff,
        maker: &Maker<'_>,
        give: Giver<'_>,
        text: Text<'_>,
    ) -> Result<Ref<Self>, Error> {
        if maker.flags & !(ProcessSpec::FIXED | ProcessSpec::NO_FPU) != 0 {
            return Err(Error::BadArgument);
        }
        let process = Self::empty(irq, maker)?;
        trace::event(irq, Event::ProcessCreate, process.id, process.parent, 0);
        // From here on giving the reference up takes everything back (`Object::destroy`).
        let mut handles = [Handle::NONE; ProcessSpec::MAX_GRANTS as usize];
        let given = give(irq, &process.capabilities, &mut handles)?;
        let startup = Startup {
            arguments: maker.texts.0,
            environment: maker.texts.1,
            handles: &handles[..given],
            process: Handle::NONE,
            thread: Handle::NONE,
            id: process.id,
        };
        let fixed = maker.flags & ProcessSpec::FIXED != 0;
        let randomness = if fixed { Randomness::Fixed } else { Randomness::Drawn };
        let place = (STACK_PAGES, randomness);
        let loaded = load::load(irq, &Machine, process.space(), maker.program, place, &startup, text)?;
        let at = process.as_ptr().as_ptr();
        // SAFETY: in bounds; nobody else has the process yet.
        unsafe { at.wrapping_byte_add(offset_of!(Self, entry)).cast::<u64>().write(loaded.entry as u64) };
        // SAFETY: as above.
        unsafe { at.wrapping_byte_add(offset_of!(Self, startup)).cast::<u64>().write(loaded.startup as u64) };
        // ORDER: Relaxed: a hint.
        process.place.store(loaded.layout.heap.number() as u64 + ROOM, Ordering::Relaxed);
        Ok(process)
    }

    fn empty(irq: &mut IrqOff, maker: &Maker<'_>) -> Result<Ref<Self>, Error> {
        let limits = match maker.limits {
            Some(parent) => Some(Counted::new(irq, Some(parent)).ok_or(Error::NoMemory)?),
            None => None,
        };
        let payer = maker.bank.payer();
        let objects = Purse::new(payer);
        objects.take(1, &mut Objects).map_err(|_| Error::NoMemory)?;
        let Some((memory, capabilities, space)) = Self::parts(irq, payer) else {
            objects.close(&mut Objects);
            return Err(Error::NoMemory);
        };
        let mut name = [0; NAME_BYTES];
        let length = maker.name.len().min(NAME_BYTES);
        name[..length].copy_from_slice(&maker.name[..length]);
        let process = Self {
            header: Header::new(),
            space: UnsafeCell::new(ManuallyDrop::new(space)),
            capabilities,
            threads: Lock::new(Threads { first: None, last: None, count: 0 }),
            handler: handler::Slot::new(None),
            state: AtomicU32::new(ProcessState::New as u32),
            begun: AtomicBool::new(false),
            status: UnsafeCell::new(ExitStatus::default()),
            ticks: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            guests: Guests::new(),
            place: AtomicU64::new(0),
            id: thread::next_id(),
            parent: maker.parent,
            entry: 0,
            startup: 0,
            main_flags: if maker.flags & ProcessSpec::NO_FPU != 0 { ThreadSpec::NO_FPU } else { 0 },
            name,
            job: Cell::new(None),
            bank: UnsafeCell::new(maker.bank.clone()),
            objects,
            limits: AtomicPtr::new(limits.map_or(ptr::null_mut(), Counted::into_raw)),
        };
        // SAFETY: memory for one process, the caller's alone.
        unsafe { memory.write(process) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// Memory for a process, its table and its space.
    fn parts(irq: &IrqOff, payer: Payer) -> Option<(NonNull<Self>, Capabilities, Space)> {
        let memory = slabs::take::<Self>(irq)?;
        // SAFETY: inside the memory.
        let purse = unsafe { memory.byte_add(offset_of!(Self, objects)) }.cast();
        let Some(capabilities) = Capabilities::new(irq, Some(purse)) else {
            slabs::give(irq, memory);
            return None;
        };
        let Some(space) = spaces::create(irq, payer) else {
            capabilities.free(irq);
            slabs::give(irq, memory);
            return None;
        };
        Some((memory, capabilities, space))
    }

    /// Starts its main thread.
    ///
    /// # Errors
    /// [`Error::WrongState`] if it has been started, or ended; [`Error::NoMemory`], [`Error::NoSlot`], or [`Error::BadAddress`] if its startup
    /// block cannot be written to, after which it can be tried again.
    pub(crate) fn start(process: &Ref<Self>, irq: &mut IrqOff) -> Result<Ref<Thread>, Error> {
        let began = irq.locks(|held| {
            process.threads.with(held, |_, _| {
                let new = process.state() == ProcessState::New;
                if new {
                    process.set_state(ProcessState::Running);
                }
                new
            })
        });
        if !began {
            return Err(Error::WrongState);
        }
        percpu::race_point!("process.running");
        let result = Self::start_main(process, irq);
        if result.is_err() {
            // Nothing has run: it is as new as before, unless somebody has ended it meanwhile.
            irq.locks(|held| {
                process.threads.with(held, |_, _| {
                    process.start_again();
                });
            });
        }
        result
    }

    fn start_main(process: &Ref<Self>, irq: &mut IrqOff) -> Result<Ref<Thread>, Error> {
        let spec = ThreadSpec {
            entry: process.entry,
            stack: process.startup,
            argument: process.startup,
            tls: 0,
            flags: process.main_flags,
        };
        let thread =
            Self::make_thread(process, irq, &spec, CoreSet::first(machine::topology().core_count()))?;
        let table = process.capabilities();
        let own = table.insert(thread.clone(), Rights::ALL)?;
        let itself = match table.insert(process.clone(), Rights::ALL) {
            Ok(handle) => handle,
            Err(error) => {
                table.delete(irq, own)?;
                return Err(error);
            }
        };
        if !process.tell(irq, own, itself) {
            table.delete(irq, own)?;
            table.delete(irq, itself)?;
            return Err(Error::BadAddress);
        }
        // Before it can hand itself on. That the thread does not start means that the process ends.
        // ORDER: Relaxed: it alone matters.
        process.begun.store(true, Ordering::Relaxed);
        irq.locks(|held| {
            // SAFETY: `thread` keeps it.
            homes::start(held, unsafe { ThreadRef::new(thread.as_ptr()) })
        })?;
        Ok(thread)
    }

    /// Writes its first handles into the startup block, as the program would: whoever may map in it may have put anything there. `false` if it
    /// cannot be written to.
    fn tell(&self, irq: &mut IrqOff, thread: Handle, process: Handle) -> bool {
        // The main thread, which has not started, keeps the process from being taken down.
        spaces::borrow(irq, self.space(), |irq| {
            let mut write = |offset: usize, handle: Handle| {
                let word = UserPtr::<u64>::new(self.startup as usize + offset).check();
                word.is_ok_and(|word| u64::store(irq, word, handle.0).is_ok())
            };
            write(offset_of!(Block, thread), thread) && write(offset_of!(Block, process), process)
        })
    }
}
