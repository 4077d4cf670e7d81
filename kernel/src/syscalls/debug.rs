//! Calls on cores and on the debug interface.

use core::fmt::{self, Write};

use abi::cap::{Handle, Rights};
use abi::debug::{Dump, Metrics, TraceEvents};
use abi::error::Error;
use abi::task::CoreInfo;
use percpu::sync::atomic::Ordering;
use percpu::{CoreId, IrqOff};
use perf::trace::TraceRecord;

use super::{Result, find, get, user};
use crate::dispatch::{self, SHOWN};
use crate::machine_object::{Core, Debug};
use crate::process::Process;
use crate::{dump, log, machine, memory, metrics as figures, spread, trace};

/// Most bytes of one `debug_write`.
const MAX_TEXT: u64 = 512;

fn core_of(irq: &IrqOff, core: u64, rights: Rights) -> Result<CoreId> {
    let core = find::<Core>(irq, core, rights)?;
    core.id(machine::topology().cores()).ok_or(Error::BadHandle)
}

/// The core of a number.
fn numbered(core: u64) -> Result<CoreId> {
    let there = usize::try_from(core).ok().filter(|&core| core < machine::topology().core_count());
    there.and_then(CoreId::from_index).ok_or(Error::BadArgument)
}

pub(super) fn core_reserve(irq: &mut IrqOff, core: u64, reserved: u64) -> Result {
    let core = core_of(irq, core, Rights::CONTROL)?;
    let process = dispatch::current(irq).process().id();
    match reserved {
        0 => irq.locks(|held| spread::release(held, core, process)),
        1 => spread::reserve(irq, core, process)?,
        _ => return Err(Error::BadArgument),
    }
    Ok(0)
}

pub(super) fn core_info(irq: &mut IrqOff, core: u64, info: u64) -> Result {
    let core = core_of(irq, core, Rights::OBSERVE)?;
    let shown = SHOWN.of(core).ok_or(Error::BadHandle)?;
    let told = CoreInfo {
        core: core.index() as u64,
        node: machine::topology().node_of(core).index() as u64,
        // ORDER: Relaxed, both: figures.
        runnable: u64::from(shown.load.load(Ordering::Relaxed)),
        reserved: u64::from(spread::RESERVED.contains(core)),
        // ORDER: Relaxed; as above.
        promised: shown.promised.load(Ordering::Relaxed),
    };
    user::write(irq, info, &told).map(|()| 0)
}

pub(super) fn debug_write(irq: &mut IrqOff, debug: u64, text: u64, length: u64) -> Result {
    find::<Debug>(irq, debug, Rights::WRITE)?;
    if length > MAX_TEXT {
        return Err(Error::BadArgument);
    }
    let mut bytes = [0; MAX_TEXT as usize];
    let bytes = &mut bytes[..length as usize];
    user::read_bytes(irq, text, bytes)?;
    for line in bytes.utf8_chunks().flat_map(|chunk| chunk.valid().lines()) {
        log!("user: {}", Clean(line));
    }
    Ok(0)
}

/// Text of a program's, without characters that would do something to whoever looks at the log, or to a record beside it.
struct Clean<'a>(&'a str);

impl fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { '?' } else { c }))
    }
}

/// Text of a dump: as much as the buffer holds.
struct Page {
    block: memory::Block,
    length: usize,
    limit: usize,
}

/// Bytes that one dump can have.
const DUMP_BYTES: usize = 16 * 1024;

impl Page {
    fn bytes(&self) -> &[u8] {
        // SAFETY: the block is this value's alone, at least `DUMP_BYTES` long, and written up to `length`.
        unsafe { core::slice::from_raw_parts(self.block.start(), self.length) }
    }
}

impl Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.limit - self.length;
        let part = text.len().min(room);
        // SAFETY: in bounds: `length + part` is at most `limit`, which is at most `DUMP_BYTES`.
        let at = unsafe { self.block.start().add(self.length) };
        // SAFETY: as above; the text lies elsewhere.
        unsafe { at.copy_from_nonoverlapping(text.as_ptr(), part) };
        self.length += part;
        if part < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

pub(super) fn debug_dump(
    irq: &mut IrqOff,
    debug: u64,
    what: u64,
    subject: u64,
    buffer: u64,
    length: u64,
) -> Result {
    find::<Debug>(irq, debug, Rights::OBSERVE)?;
    let what = Dump::decode(what).ok_or(Error::BadArgument)?;
    let process = match what {
        Dump::Process => Some(get::<Process>(irq, Handle(subject).0, Rights::OBSERVE)?),
        _ => None,
    };
    let order = mm::Order::for_bytes(DUMP_BYTES).ok_or(Error::NoMemory)?;
    let block = memory::Block::new(order).ok_or(Error::NoMemory)?;
    let mut page = Page { block, length: 0, limit: (length as usize).min(DUMP_BYTES) };
    // Cut where the buffer, or the page, ends: what is there is true.
    let _cut = match (what, &process) {
        (Dump::Process, Some(process)) => dump::process(irq, process, &mut page),
        (Dump::Scheduler, _) => dump::scheduler(irq, &mut page),
        (Dump::Metrics, _) => dump::metrics(&mut page),
        (Dump::Memory | Dump::Process, _) => dump::memory(&mut page),
    };
    user::write_bytes(irq, buffer, page.bytes())?;
    Ok(page.length as u64)
}

pub(super) fn trace_switch(irq: &mut IrqOff, debug: u64, events: u64) -> Result {
    find::<Debug>(irq, debug, Rights::CONTROL)?;
    let events = TraceEvents(events);
    if !events.is_known() {
        return Err(Error::BadArgument);
    }
    trace::switch(events).map(|before| before.0).ok_or(Error::NoMemory)
}

/// Records that one `trace_read` takes.
const RECORDS: usize = 32;

pub(super) fn trace_read(irq: &mut IrqOff, debug: u64, core: u64, buffer: u64, length: u64) -> Result {
    find::<Debug>(irq, debug, Rights::OBSERVE)?;
    let core = numbered(core)?;
    let room = (length as usize / TraceRecord::BYTES).min(RECORDS);
    user::claim(buffer, length)?;
    let mut records = [TraceRecord::default(); RECORDS];
    let taken = trace::read(core, &mut records[..room]);
    for (index, record) in records[..taken.count].iter().enumerate() {
        let at = buffer.wrapping_add((index * TraceRecord::BYTES) as u64);
        user::write_bytes(irq, at, &record.to_bytes())?;
    }
    Ok((taken.count * TraceRecord::BYTES) as u64)
}

pub(super) fn metrics(irq: &mut IrqOff, debug: u64, core: u64, to: u64) -> Result {
    find::<Debug>(irq, debug, Rights::OBSERVE)?;
    let core = numbered(core)?;
    let mut told = Metrics::default();
    if !figures::read(core, &mut told) {
        return Err(Error::BadArgument);
    }
    user::write(irq, to, &told).map(|()| 0)
}
