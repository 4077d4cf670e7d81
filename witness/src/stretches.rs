//! How long a core takes no interrupts: the longest stretch of instructions for each system call, with the path that they took.
//!
//! A stretch begins where interrupts are turned off: at the first instruction of the kernel's after one of a program, in an interrupt's or
//! exception's handler, at CLI. It ends where the next interrupt could be taken: in the program, after STI. Looking for what is pending
//! with interrupts off ends nothing. It belongs to the system call that has begun it, whatever the kernel does after that before it returns
//! to any program; or, begun otherwise, to the instruction that it begins with. What begins between the instructions `end` and
//! `begin` is the laboratory's, and not looked at. For one core: QEMU does not say which of several executes a block.
//!
//! Arguments: `begin=ADDRESS`, `end=ADDRESS`; `fault=ADDRESS`, where the kernel's own page faults are handled, a call in the path.
//!
//! The file has, for each origin, `call NUMBER` or `at ADDRESS`, then `seen STRETCHES`, `longest INSTRUCTIONS`, `from ADDRESS`, `to ADDRESS`; `path ADDRESS INSTRUCTIONS`
//! for each function on the way on which most were executed, all below included; `block ADDRESS INSTRUCTIONS` for all blocks. Addresses are hexadecimal.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_void};
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::api::{self, Block, Counter, Id, Register};
use crate::tree::{Ending, Step, Tree};
use crate::{Argument, KERNEL, write};

/// IF in RFLAGS (SDM volume 1, 3.4.3).
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Longest encoding of an instruction.
const LONGEST: usize = 15;
/// Blocks of one stretch whose order is kept. One that goes on is told with the path of its beginning.
const STEPS: usize = 1 << 22;

/// What is asked for, and what QEMU counts and reads for that.
#[derive(Debug)]
struct Order {
    out: String,
    begin: u64,
    end: u64,
    fault: u64,
    executed: Counter,
}

/// The registers that are read.
#[derive(Clone, Copy, Debug)]
struct Registers {
    flags: Register,
    number: Register,
}

/// What a stretch belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Origin {
    /// The system call of a number.
    Call(u64),
    /// The instruction that it begins with.
    At(u64),
}

/// Where the core is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// In a program, whose system call this is if one was just made.
    Program(Option<u64>),
    /// In the kernel, with interrupts on.
    On,
    /// In the kernel, with interrupts off; or on again, if the block before has ended with an instruction that may do that.
    Off { unsure: bool },
    /// In the laboratory.
    Laboratory,
}

/// A stretch that goes on.
#[derive(Debug)]
struct Stretch {
    origin: Origin,
    from: u64,
    /// What was executed before it.
    before: u64,
    steps: Vec<Step>,
}

/// The longest stretch of an origin.
#[derive(Debug, Default)]
struct Longest {
    seen: u64,
    instructions: u64,
    from: u64,
    to: u64,
    tree: Tree,
}

#[derive(Debug)]
struct Watch {
    place: Place,
    stretch: Stretch,
    longest: BTreeMap<Origin, Longest>,
}

static ORDER: OnceLock<Order> = OnceLock::new();
static REGISTERS: OnceLock<Registers> = OnceLock::new();
static WATCH: Mutex<Watch> = Mutex::new(Watch {
    place: Place::Laboratory,
    stretch: Stretch { origin: Origin::At(0), from: 0, before: 0, steps: Vec::new() },
    longest: BTreeMap::new(),
});

/// Begins to watch; `None` if an argument is none or is missing.
pub(crate) fn begin(id: Id, arguments: &[Argument<'_>]) -> Option<()> {
    let get = |name: &str| arguments.iter().find(|argument| argument.name == name);
    if !arguments.iter().all(|argument| ["out", "begin", "end", "fault"].contains(&argument.name)) {
        return None;
    }
    let order = Order {
        out: get("out")?.value.to_owned(),
        begin: get("begin")?.address()?,
        end: get("end")?.address()?,
        fault: get("fault")?.address()?,
        executed: Counter::new(),
    };
    ORDER.set(order).ok()?;
    api::on_start(id, started);
    api::on_translation(id, translated);
    api::at_end(id, ended);
    Some(())
}

extern "C" fn started(_: Id, _: c_uint) {
    if let (Some(flags), Some(number)) = (Register::named(c"eflags"), Register::named(c"rax")) {
        // More cores have the same.
        let _ = REGISTERS.set(Registers { flags, number });
    }
}

/// What an instruction does that matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Call,
    Return,
    /// IRET: a return that may turn interrupts on.
    ReturnFromInterrupt,
    /// POPF.
    SetFlags,
    Sti,
    Cli,
    Syscall,
    Other,
}

impl Kind {
    /// By its encoding (SDM volume 2, appendix A).
    fn of(code: &[u8]) -> Self {
        let is_prefix =
            |byte: &&u8| matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf2 | 0xf3);
        let rest = &code[code.iter().take_while(is_prefix).count()..];
        match *rest {
            [0xe8, ..] => Self::Call,
            [0xff, form, ..] if form >> 3 & 7 == 2 => Self::Call,
            [0xc2 | 0xc3, ..] => Self::Return,
            [0xcf, ..] => Self::ReturnFromInterrupt,
            [0x9d, ..] => Self::SetFlags,
            [0xfb, ..] => Self::Sti,
            [0xfa, ..] => Self::Cli,
            [0x0f, 0x05, ..] => Self::Syscall,
            _ => Self::Other,
        }
    }
}

/// A block of the kernel's as the data of a callback: its address, whose upper 16 bits are all set, and its ending instead of those.
#[derive(Clone, Copy)]
struct Told(u64);

impl Told {
    const SHIFT: u32 = 48;
    const CALL: u64 = 1;
    const RETURN: u64 = 2;
    const UNSURE: u64 = 4;

    fn new(address: u64, last: Kind) -> Self {
        let bits = match last {
            Kind::Call => Self::CALL,
            Kind::Return => Self::RETURN,
            Kind::ReturnFromInterrupt => Self::RETURN | Self::UNSURE,
            Kind::SetFlags => Self::UNSURE,
            _ => 0,
        };
        Self(address & !(u64::MAX << Self::SHIFT) | bits << Self::SHIFT)
    }

    fn address(self) -> u64 {
        self.0 | u64::MAX << Self::SHIFT
    }

    fn ending(self) -> Ending {
        match self.0 >> Self::SHIFT & (Self::CALL | Self::RETURN) {
            Self::CALL => Ending::Call,
            Self::RETURN => Ending::Return,
            _ => Ending::Neither,
        }
    }

    fn is_unsure(self) -> bool {
        self.0 >> Self::SHIFT & Self::UNSURE != 0
    }
}

extern "C" fn translated(_: Id, block: *mut Block) {
    let Some(order) = ORDER.get() else { return };
    let count = api::instructions(block);
    let first = api::address(api::instruction(block, 0));
    if first < KERNEL {
        api::on_block(block, in_program, 0);
    }
    let mut last = Kind::Other;
    for index in 0..count {
        let instruction = api::instruction(block, index);
        let mut code = [0; LONGEST];
        let bytes = api::encoding(instruction, &mut code).min(LONGEST);
        last = Kind::of(&code[..bytes]);
        let address = api::address(instruction);
        if first < KERNEL {
            if last == Kind::Syscall {
                api::on_run_reading(instruction, calls, 0);
            }
            continue;
        }
        match last {
            Kind::Sti => api::on_run(instruction, turned_on, address),
            Kind::Cli => api::on_run(instruction, turned_off, address),
            _ => {}
        }
        if address == order.end {
            api::on_run(instruction, laboratory, address);
        }
        api::count(instruction, order.executed);
    }
    if first >= KERNEL {
        api::on_block(block, in_kernel, Told::new(first, last).0);
    }
}

fn watch() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

fn executed(core: c_uint) -> u64 {
    ORDER.get().map_or(0, |order| order.executed.get(core))
}

fn are_interrupts_on() -> bool {
    REGISTERS.get().is_some_and(|registers| registers.flags.value() & INTERRUPT_FLAG != 0)
}

/// A block of a program begins.
extern "C" fn in_program(core: c_uint, _: *mut c_void) {
    let mut watch = watch();
    match watch.place {
        Place::Off { .. } => watch.end(executed(core)),
        Place::On => {}
        Place::Program(_) | Place::Laboratory => return,
    }
    watch.place = Place::Program(None);
}

/// A program makes a system call.
extern "C" fn calls(_: c_uint, _: *mut c_void) {
    let mut watch = watch();
    if let (Place::Program(call), Some(registers)) = (&mut watch.place, REGISTERS.get()) {
        *call = Some(registers.number.value());
    }
}

/// A block of the kernel's begins.
extern "C" fn in_kernel(core: c_uint, told: *mut c_void) {
    let Some(order) = ORDER.get() else { return };
    let (told, now) = (Told(told as u64), executed(core));
    let at = told.address();
    let mut watch = watch();
    match watch.place {
        Place::Program(call) => watch.begin(call.map_or(Origin::At(at), Origin::Call), at, now),
        Place::Laboratory if at == order.begin => watch.begin(Origin::At(at), at, now),
        Place::Laboratory => return,
        Place::On if are_interrupts_on() => return,
        // An interrupt was taken.
        Place::On => watch.begin(Origin::At(at), at, now),
        Place::Off { unsure: true } if are_interrupts_on() => {
            watch.end(now);
            watch.place = Place::On;
            return;
        }
        Place::Off { .. } => {}
    }
    watch.place = Place::Off { unsure: told.is_unsure() };
    let faulted = at == order.fault;
    watch.stretch.step(Step { at, before: now, ending: told.ending(), faulted });
}

/// STI is about to be executed. Whether interrupts are on then is asked at the next block, which begins behind it.
extern "C" fn turned_on(core: c_uint, _: *mut c_void) {
    let mut watch = watch();
    if let Place::Off { .. } = watch.place {
        watch.end(executed(core) + 1);
        watch.place = Place::On;
    }
}

/// CLI is about to be executed.
extern "C" fn turned_off(core: c_uint, at: *mut c_void) {
    let mut watch = watch();
    if watch.place == Place::On {
        let at = at as u64;
        watch.begin(Origin::At(at), at, executed(core));
        watch.place = Place::Off { unsure: false };
        watch.stretch.step(Step { at, before: executed(core), ending: Ending::Neither, faulted: false });
    }
}

/// The laboratory goes on.
extern "C" fn laboratory(core: c_uint, _: *mut c_void) {
    let mut watch = watch();
    if let Place::Off { .. } = watch.place {
        watch.end(executed(core));
    }
    watch.place = Place::Laboratory;
}

impl Stretch {
    fn step(&mut self, step: Step) {
        if self.steps.len() < STEPS {
            self.steps.push(step);
        }
    }
}

impl Watch {
    fn begin(&mut self, origin: Origin, from: u64, now: u64) {
        self.stretch.steps.clear();
        self.stretch = Stretch { origin, from, before: now, steps: std::mem::take(&mut self.stretch.steps) };
    }

    fn end(&mut self, now: u64) {
        let instructions = now - self.stretch.before;
        let longest = self.longest.entry(self.stretch.origin).or_default();
        longest.seen += 1;
        if instructions <= longest.instructions {
            return;
        }
        let steps = &self.stretch.steps;
        longest.instructions = instructions;
        longest.from = self.stretch.from;
        longest.to = steps.last().map_or(0, |step| step.at);
        longest.tree = Tree::of(steps, now);
    }
}

extern "C" fn ended(_: Id, _: *mut c_void) {
    let mut text = String::new();
    for (origin, longest) in &watch().longest {
        tell(&mut text, *origin, longest);
    }
    write(ORDER.get().map_or("", |order| &order.out), &text);
}

fn tell(text: &mut String, origin: Origin, longest: &Longest) {
    let _ = match origin {
        Origin::Call(number) => writeln!(text, "call {number}"),
        Origin::At(address) => writeln!(text, "at {address:x}"),
    };
    let _ = writeln!(text, "seen {}\nlongest {}", longest.seen, longest.instructions);
    let _ = writeln!(text, "from {:x}\nto {:x}", longest.from, longest.to);
    for (address, instructions) in longest.tree.heaviest() {
        let _ = writeln!(text, "path {address:x} {instructions}");
    }
    for (address, instructions) in longest.tree.blocks() {
        let _ = writeln!(text, "block {address:x} {instructions}");
    }
}
