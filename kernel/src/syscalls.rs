//! The system calls: from registers to the kernel's functions. One module a group; the table is `abi::for_each_syscall!`.

mod banks;
mod caps;
mod debug;
mod devices;
mod faults;
mod ipc;
mod leases;
mod memory;
mod notifications;
mod passing;
mod processes;
mod sync;
mod threads;
mod user;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::syscall::COUNT;
use percpu::IrqOff;

use crate::dispatch;
use crate::object::{Found, Object, Ref};
use crate::tables::Capabilities;

use banks::{bank_assign, bank_create, bank_info, process_limit};
use caps::{cap_delete, cap_derive, cap_expire, cap_grant, cap_info, cap_revoke, cap_transfer};
use debug::{core_info, core_reserve, debug_dump, debug_write, metrics, trace_read, trace_switch};
use devices::{
    device_claim, interrupt_ack, interrupt_affinity, interrupt_bind, interrupt_claim, interrupt_mask,
    port_read, port_write, ports_claim,
};
use faults::process_handler;
use ipc::{endpoint_create, reply_save};
use leases::{lease_allocate, lease_create, lease_info, lease_release};
use memory::{map, protect, region_create, region_map, unmap};
use notifications::{
    notification_bind, notification_broadcast, notification_create, notification_poll, notification_signal,
    notification_wait, timer_create, timer_set,
};
use passing::pages_pass;
use processes::{process_create, process_exit, process_info, process_kill, process_start, process_wait};
use sync::{futex_requeue, futex_wait, futex_wake, sleep, upcall_wait};
use threads::{
    period_end, thread_affinity, thread_create, thread_exit, thread_info, thread_join, thread_kill,
    thread_resume, thread_schedule, thread_start, thread_suspend, thread_tls, thread_watch, yield_now,
};

/// What a call answers, in `rax` and `rdx`.
#[repr(C)]
pub(crate) struct Answer {
    status: u64,
    value: u64,
}

/// What a call of the kernel's returns.
type Result<T = u64> = core::result::Result<T, Error>;

impl From<Result> for Answer {
    #[inline(always)]
    fn from(result: Result) -> Self {
        match result {
            Ok(value) => Self { status: 0, value },
            Err(error) => Self { status: error as u64, value: 0 },
        }
    }
}

/// The address of a call's entry.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Handler(*const ());

// SAFETY: the address of code.
unsafe impl Sync for Handler {}

macro_rules! entries {
    ($( $(#[doc = $text:literal])* $number:literal $name:ident $variant:ident ( $($argument:ident : $kind:ident),* ) -> $value:literal; )*) => {
        /// The entries, by their registers.
        mod entry {
            $(
                pub(super) extern "C" fn $name($($argument: u64),*) -> super::Answer {
                    // SAFETY: `user.S` calls this with interrupts off and an empty stack: no other witness is in use.
                    let mut irq = unsafe { percpu::IrqOff::assume() };
                    super::Answer::from(super::$name(&mut irq, $($argument),*))
                }
            )*
        }

        /// The entry of each call, by its number.
        pub(crate) static HANDLERS: [Handler; COUNT] = [$(Handler(entry::$name as *const ())),*];
    };
}

abi::for_each_syscall!(entries);

/// Nothing.
#[inline(always)]
fn null(_: &mut IrqOff) -> Result {
    Ok(0)
}

/// The caller's capabilities.
#[inline(always)]
fn table(irq: &IrqOff) -> &'static Capabilities {
    let thread = dispatch::current(irq).as_ptr();
    // SAFETY: the current thread keeps its process until it has ended, which it does not inside a call; the reference ends with the call.
    unsafe { &*thread.as_ptr() }.process().capabilities()
}

/// The object that a handle names.
#[inline(always)]
fn find<T: Object>(irq: &IrqOff, handle: u64, rights: Rights) -> Result<Found<T>> {
    table(irq).find(Handle(handle), rights)
}

/// As [`find`], counted.
fn get<T: Object>(irq: &IrqOff, handle: u64, rights: Rights) -> Result<Ref<T>> {
    table(irq).get(Handle(handle), rights)
}

/// A result that a home has packed into a word.
fn unpack(word: u64) -> Result {
    Error::decode(word).map_or(Ok(0), Err)
}

/// A result as one word, for [`unpack`].
fn pack(result: Result<()>) -> u64 {
    result.map_or_else(|error| error as u64, |()| 0)
}
