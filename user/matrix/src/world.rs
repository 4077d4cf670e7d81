//! What the calls are about: one object of each kind, memory of each kind, and a look at all of it that shows whether anything has changed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ptr::NonNull;

use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use abi::task::{CoreMask, Grant, ProcessInfo, ProcessSpec, Protection, SchedSpec, ThreadInfo, ThreadSpec};
use perf::clock::Nanos;
use rt::handle::{Endpoint, Owned, Process, Region, Result, Thread, Typed};
use rt::memory::{self, PAGE};
use rt::process::{Builder, Image};
use rt::start::Start;
use rt::sys;
use rt::time::{self, Deadline};

/// Byte with which memory that nobody writes to is filled.
const FILLED: u8 = 0xa5;
/// An interrupt line that nothing of the machine uses.
const LINE: u64 = 5;
/// Pages: one to be written, a hole, one to be read, one that comes and goes.
const PAGES: usize = 4;
const HOLE: usize = 1;
const CONSTANT: usize = 2;
const FICKLE: usize = 3;

/// Threads of this process: the main one, and the one that never starts.
const THREADS: u64 = 2;
const MOST_SLEEPS: usize = 1000;

/// Everything.
pub(crate) struct World {
    /// A process that never starts, and where something is mapped in it.
    pub(crate) child: Owned<Process>,
    pub(crate) mapped: u64,
    /// A thread that never starts.
    pub(crate) thread: Owned<Thread>,
    pub(crate) region: Owned<Region>,
    pub(crate) endpoint: Owned<Endpoint>,
    pub(crate) notification: Handle,
    pub(crate) timer: Handle,
    pub(crate) lease: Handle,
    pub(crate) interrupt: Handle,
    pub(crate) core: Handle,
    pub(crate) debug: Handle,
    /// A handle that another process has, and this one does not.
    pub(crate) foreign: Handle,
    /// A handle whose capability is gone.
    pub(crate) deleted: Handle,
    /// A handle whose capability was taken back with the one that it was made of.
    pub(crate) revoked: Handle,
    /// Number of a program.
    program: u64,
    memory: NonNull<u8>,
}

/// What must not change when a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    handles: u64,
    threads: u64,
    child: ProcessInfo,
    thread: ThreadInfo,
    untouched: bool,
}

impl Sight {
    /// As this one, but for what was seen of the memory.
    pub(crate) fn written_as(self, other: &core::result::Result<Self, String>) -> Self {
        let untouched = other.as_ref().map_or(self.untouched, |other| other.untouched);
        Self { untouched, ..self }
    }
}

extern "C" fn never(_: u64) -> ! {
    rt::thread::exit(0)
}

impl World {
    pub(crate) fn new(start: &Start) -> Result<Self> {
        let program = start.program("nop").ok_or(Error::BadArgument)?;
        let child = Builder::new(Image::Loaded(program)).name("child").create(start.process())?;
        // SAFETY: the kernel chooses a free range in another process.
        let mapped = unsafe { sys::map(child.handle(), 0, 4, Protection::ReadWrite as u64) }?;
        let stack = rt::thread::Stack::new(1)?;
        // SAFETY: it is never started.
        let thread = unsafe { rt::thread::Builder::default().create(never, 0, &stack) }?;
        let endpoint = Endpoint::create()?;
        let gone = endpoint.derive(Rights::ALL, 0)?;
        let deleted = gone.handle();
        drop(gone);
        let made = endpoint.derive(Rights::ALL, 0)?;
        let revoked = made.derive(Rights::ALL, 0)?.keep().handle();
        // SAFETY: no address is passed.
        unsafe { sys::cap_revoke(made.handle()) }?;
        // SAFETY: no address is passed.
        let notification = Handle(unsafe { sys::notification_create() }?);
        // SAFETY: no address is passed.
        let timer = Handle(unsafe { sys::timer_create(notification, 1) }.unwrap_or_default());
        // SAFETY: no address is passed.
        let lease = Handle(unsafe { sys::lease_create(notification, 1) }?);
        let lines = start.given(ObjectKind::Interrupts).next().unwrap_or(Handle::NONE);
        // SAFETY: no address is passed. A machine need not have the line.
        let interrupt = Handle(unsafe { sys::interrupt_claim(lines, LINE) }.unwrap_or_default());
        let memory = memory::map(PAGES)?;
        let world = Self {
            child,
            mapped,
            thread,
            region: Region::create(4)?,
            endpoint,
            notification,
            timer,
            lease,
            interrupt,
            revoked,
            core: start.given(ObjectKind::Core).next().ok_or(Error::BadHandle)?,
            debug: start.given(ObjectKind::Debug).next().ok_or(Error::BadHandle)?,
            foreign: Handle::NONE,
            deleted,
            program,
            memory,
        };
        world.fill();
        let hole = NonNull::new(world.page(HOLE)).ok_or(Error::BadAddress)?;
        // SAFETY: a page of this world's, that nothing uses.
        unsafe { memory::unmap(hole, 1) }?;
        Ok(world)
    }

    /// Learns a handle of another process that this one does not have.
    pub(crate) fn find_foreign(&mut self, start: &Start) -> Result<()> {
        let grants = Vec::from([Grant::whole(self.endpoint.handle()); 60]);
        let image = start.program("matrix").ok_or(Error::BadArgument)?;
        let builder = Builder::new(Image::Loaded(image)).name("foreign").arguments("work=tell\0");
        let other = builder.grants(&grants).spawn(start.process())?;
        let told = self.endpoint.receive(0)?;
        self.foreign = Handle(told.words[0]);
        other.wait(Deadline::NEVER).map(drop)
    }

    fn page(&self, number: usize) -> *mut u8 {
        self.memory.as_ptr().wrapping_add(number * PAGE)
    }

    fn fill(&self) {
        for at in 0..PAGES * PAGE {
            // SAFETY: inside this world's own memory, all of which is mapped while this runs.
            unsafe { self.page(0).wrapping_add(at).write_volatile(FILLED) };
        }
    }

    /// An address where a structure fits, in memory of its own.
    pub(crate) fn scratch(&self) -> u64 {
        self.page(0) as u64 + 64
    }

    /// An address whose structure leaves the mapping.
    pub(crate) fn straddling(&self) -> u64 {
        self.page(HOLE) as u64 - 8
    }

    pub(crate) fn unmapped(&self) -> u64 {
        self.page(HOLE) as u64 + 64
    }

    pub(crate) fn read_only(&self) -> u64 {
        self.page(CONSTANT) as u64 + 64
    }

    pub(crate) fn fickle(&self) -> u64 {
        self.page(FICKLE) as u64
    }

    /// Puts what a call reads at an address of the writable page, or of the constant one.
    pub(crate) fn put(&self, call: &str, at: u64) -> Result<()> {
        let own = Start::get().process().handle();
        let page = self.page(CONSTANT) as u64;
        let constant = at >= page && at < page + PAGE as u64;
        if constant {
            // SAFETY: a page of this world's.
            unsafe { sys::protect(own, page, 1, Protection::ReadWrite as u64) }?;
        }
        let bytes = self.content(call);
        for (index, &byte) in bytes.iter().enumerate() {
            // SAFETY: inside this world's own memory: contents are shorter than what is left of a page.
            unsafe { (at as *mut u8).wrapping_add(index).write_volatile(byte) };
        }
        if constant {
            // SAFETY: as above.
            unsafe { sys::protect(own, page, 1, Protection::Read as u64) }?;
        }
        Ok(())
    }

    /// What a call reads, for its arguments to make sense.
    fn content(&self, call: &str) -> Vec<u8> {
        let words: Vec<u64> = match call {
            "thread_create" => [never as *const () as u64, 0, 0, 0, ThreadSpec::NO_FPU].into(),
            "thread_affinity" => CoreMask::ALL.0.into(),
            "thread_schedule" => [SchedSpec::NORMAL, 0, 0, 0, 0].into(),
            "process_create" => {
                let mut words = [0; size_of::<ProcessSpec>() / 8];
                words[1] = self.program;
                words.into()
            }
            "bank_create" => [4, 4].into(),
            "process_limit" => [u64::MAX, u64::MAX, 0, 0].into(),
            "debug_write" => [u64::from_le_bytes(*b"matrix: "), u64::from_le_bytes(*b"a line.\n")].into(),
            _ => return Vec::new(),
        };
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Makes the memory what it was.
    pub(crate) fn restore(&self) {
        for at in 0..PAGE {
            // SAFETY: inside this world's own writable page.
            unsafe { self.page(0).wrapping_add(at).write_volatile(FILLED) };
        }
    }

    /// Waits until what was made and given up is gone: a thread that never started goes with its last reference, when no core can be at it.
    pub(crate) fn settle(&self) {
        let gone = || Start::get().process().info().is_ok_and(|info| info.threads == THREADS);
        for _ in 0..MOST_SLEEPS {
            if gone() {
                return;
            }
            time::sleep(Deadline::after(Nanos::new(100_000)));
        }
    }

    /// Looks at everything.
    pub(crate) fn look(&self) -> core::result::Result<Sight, String> {
        let told = |error: Error| format!("a look at the world: {}", error.name());
        let own = Start::get().process().info().map_err(told)?;
        let mut child = self.child.info().map_err(told)?;
        child.ticks = 0;
        let untouched = (0..PAGE).all(|at| {
            // SAFETY: inside this world's own writable page.
            unsafe { self.page(0).wrapping_add(at).read_volatile() == FILLED }
        });
        let (handles, threads) = (own.handles, own.threads);
        Ok(Sight { handles, threads, child, thread: self.thread.info().map_err(told)?, untouched })
    }
}
