//! Entry, what a program is given, and its log.
//!
//! Conventions between who starts a program and the program: capabilities are found by their kind, those of one kind in the order in which
//! they were given, cores by ascending number. A program that gets the debug interface may log. The environment's `programs` names what
//! the loader has brought, in the order of the numbers that `ProcessSpec::image_bytes` takes, joined by `,`.

use core::fmt::{self, Write};
use core::ptr;
use core::slice;

use abi::cap::{Handle, ObjectKind};
use abi::error::Error;
use abi::task::Startup;
use perf::clock::{Frequency, Timebase};
use perf::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::arch::undefined;
use crate::handle::{Bank, Core, Debug, Devices, Interrupts, Ports, Process, Region, Thread, Typed};
use crate::sys;

/// What the program was given: set once, before `main` (R3).
static STARTUP: AtomicPtr<Startup> = AtomicPtr::new(ptr::null_mut());
/// The debug interface's handle, or none.
static DEBUG: AtomicU64 = AtomicU64::new(0);

/// What a program is given at its start.
#[derive(Clone, Copy)]
pub struct Start(&'static Startup);

/// Names the main function of a program, a `fn(&Start) -> u64`: what it returns is the process's exit code.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: the one definition of this symbol in the program; `rt` declares it with this type.
        #[unsafe(no_mangle)]
        fn program_main(start: &$crate::start::Start) -> u64 {
            $main(start)
        }
    };
}

/// Writes a line to the kernel's log, if the program was given the debug interface.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => { $crate::start::say(::core::format_args!($($argument)*)) };
}

unsafe extern "Rust" {
    /// Defined by [`entry!`].
    safe fn program_main(start: &Start) -> u64;
}

/// Called by the first instructions of a program, on its main thread's stack, once it is relocated.
pub(crate) extern "C" fn begin(startup: *mut Startup) -> ! {
    // ORDER: Relaxed; other threads are started later by this one, through the kernel.
    STARTUP.store(startup, Ordering::Relaxed);
    let start = Start::get();
    let debug = start.given(ObjectKind::Debug).next().unwrap_or(Handle::NONE);
    // ORDER: Relaxed; as above.
    DEBUG.store(debug.0, Ordering::Relaxed);
    exit(program_main(&start))
}

/// Ends the process: by an exception if a filter forbids it to exit.
pub fn exit(code: u64) -> ! {
    loop {
        // SAFETY: no address is passed; nothing of this process runs on.
        if unsafe { sys::process_exit(code) } == Err(Error::Filtered) {
            undefined();
        }
    }
}

impl Start {
    /// What this program was given.
    #[must_use]
    pub fn get() -> Self {
        // ORDER: Relaxed; set before any other thread exists (R3).
        let startup = STARTUP.load(Ordering::Relaxed);
        // SAFETY: R3: the kernel's block, which is never written again.
        Self(unsafe { &*startup })
    }

    /// The kernel's own block.
    #[must_use]
    pub fn raw(self) -> &'static Startup {
        self.0
    }

    /// This process, with every right.
    #[must_use]
    pub fn process(self) -> Process {
        Process(self.0.process)
    }

    /// The main thread, with every right.
    #[must_use]
    pub fn thread(self) -> Thread {
        Thread(self.0.thread)
    }

    /// The frequency of the time-stamp counter with its conversions.
    #[must_use]
    pub fn timebase(self) -> Timebase {
        let hertz = Frequency::new(self.0.ticks_per_second);
        Timebase::new(hertz.expect("R3: the kernel has found the counter's frequency"))
    }

    /// Every capability that was given.
    #[must_use]
    pub fn handles(self) -> &'static [Handle] {
        // SAFETY: R3: the kernel's block names an array of handles; an empty one may have any address.
        unsafe { array(self.0.handles, self.0.handles_count) }
    }

    /// The capabilities of a kind that were given, in order. Asks the kernel about each.
    pub fn given(self, kind: ObjectKind) -> impl Iterator<Item = Handle> {
        let is = move |handle: &Handle| {
            Debug(*handle).about().is_ok_and(|about| about.kind == u32::from(kind as u8))
        };
        self.handles().iter().copied().filter(is)
    }

    /// The debug interface, if it was given.
    #[must_use]
    pub fn debug(self) -> Option<Debug> {
        self.given(ObjectKind::Debug).next().map(Debug)
    }

    /// The cores that were given, by ascending number.
    pub fn cores(self) -> impl Iterator<Item = Core> {
        self.given(ObjectKind::Core).map(Core)
    }

    /// The regions that were given.
    pub fn regions(self) -> impl Iterator<Item = Region> {
        self.given(ObjectKind::Region).map(Region)
    }

    /// All interrupt lines, if they were given.
    #[must_use]
    pub fn interrupts(self) -> Option<Interrupts> {
        self.given(ObjectKind::Interrupts).next().map(Interrupts)
    }

    /// The first range of ports, if one was given.
    #[must_use]
    pub fn ports(self) -> Option<Ports> {
        self.given(ObjectKind::Ports).next().map(Ports)
    }

    /// All device registers, if they were given.
    #[must_use]
    pub fn devices(self) -> Option<Devices> {
        self.given(ObjectKind::Devices).next().map(Devices)
    }

    /// The bank that was given.
    #[must_use]
    pub fn bank(self) -> Option<Bank> {
        self.given(ObjectKind::Bank).next().map(Bank)
    }

    /// The arguments, those that are not UTF-8 left out.
    pub fn arguments(self) -> impl Iterator<Item = &'static str> {
        // SAFETY: R3: the kernel's block names bytes.
        strings(unsafe { array(self.0.arguments, self.0.arguments_bytes) })
    }

    /// The value of `name=value` among the arguments, as a number; `otherwise` if it is not there or is none.
    #[must_use]
    pub fn number(self, name: &str, otherwise: u64) -> u64 {
        value(self.arguments(), name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    }

    /// The value of `name=value` among the arguments.
    #[must_use]
    pub fn word(self, name: &str) -> Option<&'static str> {
        value(self.arguments(), name)
    }

    /// The value of `name=value` in the environment.
    #[must_use]
    pub fn variable(self, name: &str) -> Option<&'static str> {
        // SAFETY: R3: the kernel's block names bytes.
        value(strings(unsafe { array(self.0.environment, self.0.environment_bytes) }), name)
    }

    /// The number of a program that the loader has brought.
    #[must_use]
    pub fn program(self, name: &str) -> Option<u64> {
        let mut names = self.variable("programs")?.split(',');
        names.position(|other| other == name).map(|number| number as u64)
    }
}

/// What the kernel placed at an address; nothing where it placed nothing.
///
/// # Safety
/// 1. So many `T` are there, and nobody ever writes them; or `count` is 0.
unsafe fn array<T>(address: u64, count: u64) -> &'static [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise (1).
    unsafe { slice::from_raw_parts(address as *const T, count as usize) }
}

/// Strings that each end with a zero byte.
fn strings(bytes: &'static [u8]) -> impl Iterator<Item = &'static str> {
    let whole = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    let parts = whole.split(|&byte| byte == 0).filter(move |_| !bytes.is_empty());
    parts.filter_map(|part| core::str::from_utf8(part).ok())
}

fn value(words: impl Iterator<Item = &'static str>, name: &str) -> Option<&'static str> {
    let named =
        |word: &'static str| word.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value);
    words.filter_map(named).next()
}

/// A line that is collected, so that it reaches the log in one piece. What does not fit is cut off.
struct Line {
    bytes: [u8; 256],
    used: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.used;
        let mut fits = text.len().min(room);
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        let (slot, text) = (self.bytes.get_mut(self.used..self.used + fits), text.as_bytes().get(..fits));
        if let (Some(slot), Some(text)) = (slot, text) {
            slot.copy_from_slice(text);
            self.used += fits;
        }
        Ok(())
    }
}

/// See [`say!`].
pub fn say(line: fmt::Arguments<'_>) {
    // ORDER: Relaxed; set before any other thread exists (R3).
    let debug = Handle(DEBUG.load(Ordering::Relaxed));
    if debug == Handle::NONE {
        return;
    }
    let mut collected = Line { bytes: [0; _], used: 0 };
    let _ = writeln!(collected, "{line}");
    if let Some(Ok(text)) = collected.bytes.get(..collected.used).map(core::str::from_utf8) {
        // A log that is not to be had is no reason to stop.
        let _ = Debug(debug).write(text);
    }
}
