//! What cores do between entering the kernel and leaving it: every instruction, and every address that it reads or writes.
//!
//! Arguments: `through=ADDRESS`: stays are written down that come by this instruction; `skip=N`, so many of each core's are not, and then
//! `most=N` are.
//!
//! The file has a line for each event, in order for each core: `enter CORE`, `run ADDRESS`, `read ADDRESS PHYSICAL BYTES`, `write …` and
//! `device …`, numbers in hexadecimal.

use std::ffi::{c_uint, c_void};
use std::fmt::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::api::{self, Access, Block, Id};
use crate::{Argument, KERNEL, write};

/// Most cores.
const CORES: usize = 16;

/// What is asked for.
#[derive(Debug, Default)]
struct Order {
    out: String,
    through: u64,
    skip: usize,
    most: usize,
}

/// What is known of a core.
#[derive(Debug)]
struct Core {
    /// It is in the kernel, or was when it was last seen.
    inside: bool,
    /// The stay comes by the instruction that is asked for.
    wanted: bool,
    skipped: usize,
    stays: usize,
    stay: String,
    told: String,
}

static ORDER: OnceLock<Order> = OnceLock::new();
static SEEN: [Mutex<Core>; CORES] = [const {
    Mutex::new(Core {
        inside: false,
        wanted: false,
        skipped: 0,
        stays: 0,
        stay: String::new(),
        told: String::new(),
    })
}; CORES];

/// Begins to watch; `None` if an argument is none.
pub(crate) fn begin(id: Id, arguments: &[Argument<'_>]) -> Option<()> {
    let mut order = Order { most: usize::MAX, ..Order::default() };
    arguments.iter().try_for_each(|&argument| order.take(argument))?;
    ORDER.set(order).ok()?;
    api::on_translation(id, translated);
    api::at_end(id, ended);
    Some(())
}

impl Order {
    fn take(&mut self, argument: Argument<'_>) -> Option<()> {
        match argument.name {
            "out" => argument.value.clone_into(&mut self.out),
            "through" => self.through = argument.address()?,
            "skip" => self.skip = argument.value.parse().ok()?,
            "most" => self.most = argument.value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

/// QEMU has translated some instructions: those of the kernel are told about, and the first of a program's.
extern "C" fn translated(_: Id, block: *mut Block) {
    for index in 0..api::instructions(block) {
        let instruction = api::instruction(block, index);
        let address = api::address(instruction);
        if address >= KERNEL {
            api::on_run(instruction, ran, address);
            api::on_access(instruction, accessed);
        } else if index == 0 {
            api::on_run(instruction, left, 0);
        }
    }
}

fn with(core: c_uint, f: impl FnOnce(&mut Core)) {
    if let Some(core) = SEEN.get(core as usize) {
        f(&mut core.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

extern "C" fn ran(number: c_uint, address: *mut c_void) {
    with(number, |core| {
        let (Some(order), address) = (ORDER.get(), address as u64) else { return };
        if core.stays >= order.most {
            return;
        }
        if !core.inside {
            core.inside = true;
            let _ = writeln!(core.stay, "enter {number:x}");
        }
        core.wanted |= address == order.through;
        let _ = writeln!(core.stay, "run {address:x}");
    });
}

extern "C" fn accessed(number: c_uint, access: Access, address: u64, _: *mut c_void) {
    with(number, |core| {
        if core.inside {
            let (kind, physical) = api::target(access, address);
            let _ = writeln!(core.stay, "{kind} {address:x} {physical:x} {:x}", api::bytes(access));
        }
    });
}

extern "C" fn left(number: c_uint, _: *mut c_void) {
    with(number, |core| {
        if !core.inside {
            return;
        }
        core.inside = false;
        if core.wanted {
            if core.skipped < ORDER.get().map_or(0, |order| order.skip) {
                core.skipped += 1;
            } else {
                core.told.push_str(&core.stay);
                core.stays += 1;
            }
        }
        core.wanted = false;
        core.stay.clear();
    });
}

extern "C" fn ended(_: Id, _: *mut c_void) {
    let mut told = String::new();
    (0..CORES as c_uint).for_each(|core| with(core, |core| told.push_str(&core.told)));
    write(ORDER.get().map_or("", |order| &order.out), &told);
}
