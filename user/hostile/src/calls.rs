//! Probes of the calls themselves: numbers, handles and pointers that are not what they should be. All of them survive.

use abi::cap::Handle;
use abi::error::Error;
use abi::ipc::MESSAGE_CALLS;
use abi::syscall::{COUNT, Kind, Syscall, TABLE};
use abi::task::Protection;
use rt::handle::Typed;
use rt::start::Start;
use rt::sys;

use crate::Try;

/// Addresses that no program can have memory at, or that a range starting there leaves.
const BAD: [u64; 6] = [
    0xffff_8000_0000_0000,
    0xffff_ffff_8000_0000,
    0x8000_0000_0000_0000,
    0x7fff_ffff_fff9,
    u64::MAX,
    u64::MAX - 7,
];

/// Calls that end or stop the caller whatever their arguments are.
const fn is_final(call: Syscall) -> bool {
    matches!(call, Syscall::ThreadExit | Syscall::ProcessExit | Syscall::PeriodEnd)
}

/// Survives: numbers that no call has are refused. Gives 1 if not.
fn numbers(_: u64) -> u64 {
    // Behind the calls that pass messages, which follow the others.
    let past = COUNT as u64 + MESSAGE_CALLS.len() as u64;
    let past = [past, past + 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX];
    let refused = |&number: &u64| {
        // SAFETY: no call has the number.
        let (status, _) = unsafe { sys::raw(number, [0; 6]) };
        Error::decode(status) == Some(Error::NoSuchCall)
    };
    u64::from(!past.iter().all(refused))
}

/// Survives: forged handles name nothing. Gives the number of the call, plus 1, that took one.
fn handles(_: u64) -> u64 {
    let own = Start::get().process().handle();
    let forged = [
        Handle::NONE,
        Handle(u64::MAX),
        Handle::new(own.index(), own.generation().wrapping_add(1)),
        Handle::new(u32::MAX, own.generation()),
        Handle::new(1 << 20, 1),
    ];
    for row in TABLE.iter().filter(|row| row.arguments.first().is_some_and(|a| a.kind == Kind::Handle)) {
        for handle in forged {
            // SAFETY: the first argument names nothing, so nothing is done; the others are 0 besides.
            let (status, _) = unsafe { sys::raw(row.number, [handle.0, 0, 0, 0, 0, 0]) };
            let refused = matches!(
                Error::decode(status),
                Some(Error::BadHandle | Error::BadArgument | Error::BadAddress)
            );
            if !refused {
                return row.number + 1;
            }
        }
    }
    0
}

/// Survives: structures and buffers in the kernel's half, across the end of the lower one, and around the end of all addresses are
/// refused. Gives the number of the call, plus 1, that took one.
fn pointers(_: u64) -> u64 {
    let raw = Start::get().raw();
    let debug = Start::get().given(abi::cap::ObjectKind::Debug).next().unwrap_or(Handle::NONE);
    let core = Start::get().cores().next().map_or(Handle::NONE, Typed::handle);
    for row in TABLE {
        let pointer = row
            .arguments
            .iter()
            .position(|argument| matches!(argument.kind, Kind::In | Kind::Out | Kind::Bytes | Kind::Buffer));
        let Some(pointer) = pointer.filter(|_| !Syscall::decode(row.number).is_none_or(is_final)) else {
            continue;
        };
        for bad in BAD {
            let mut arguments = [0; 6];
            for (slot, argument) in arguments.iter_mut().zip(row.arguments) {
                *slot = match (argument.kind, argument.name) {
                    (Kind::Handle, "thread") => raw.thread.0,
                    (Kind::Handle, "debug" | "subject") => debug.0,
                    (Kind::Handle, "core") => core.0,
                    (Kind::Handle, _) => raw.process.0,
                    (Kind::Count, "length") => 16,
                    _ => 0,
                };
            }
            if let Some(slot) = arguments.get_mut(pointer) {
                *slot = bad;
            }
            // SAFETY: the address is not of this program's memory, so that none of it changes.
            let (status, value) = unsafe { sys::raw(row.number, arguments) };
            // A buffer that nothing had to be written to need not be looked at.
            let untouched = value == 0 && row.arguments.iter().any(|argument| argument.kind == Kind::Buffer);
            if status == 0 && !untouched {
                return row.number + 1;
            }
        }
    }
    0
}

/// Survives: ranges that wrap around or leave the lower half are not mapped. Gives the number of the failed check.
fn ranges(_: u64) -> u64 {
    let own = Start::get().process().handle();
    let both = Protection::ReadWrite as u64;
    let tries = [
        (0xffff_8000_0000_0000, 1, both),
        (0x7fff_ffff_f000, 2, both),
        (0x1000, u64::MAX, both),
        (0x1000, u64::MAX >> 12, both),
        (0x1001, 1, both),
        (0x8000_0000_0000_0000, 1, both),
        (0, 0, both),
        (0, 1, 0),
        (0, 1, 4),
        (0, 1, u64::MAX),
    ];
    for (check, (address, pages, protection)) in (1..).zip(tries) {
        // SAFETY: refused; if it is not, the probe has failed.
        if unsafe { sys::map(own, address, pages, protection) }.is_ok() {
            return check;
        }
    }
    0
}

/// The probes of this module.
pub(crate) const PROBES: &[(&str, Try)] =
    &[("numbers", numbers), ("handles", handles), ("pointers", pointers), ("ranges", ranges)];
