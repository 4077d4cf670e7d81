//! Calls on threads.

use abi::cap::Rights;
use abi::error::Error;
use abi::task::{CoreMask, SchedSpec, ThreadInfo, ThreadSpec};
use mm::user::USER_END;
use percpu::{CoreId, CoreSet, Held, IrqOff};

use super::{Result, find, get, pack, table, unpack, user};
use crate::dispatch::{self, SCHED};
use crate::homes::{self, at_home};
use crate::process::Process;
use crate::thread::{State, Thread, ThreadRef};
use crate::wait::{self, Key};
use crate::{machine, spread, upcall};

#[inline(always)]
pub(super) fn yield_now(irq: &mut IrqOff) -> Result {
    dispatch::yield_now(irq);
    Ok(0)
}

pub(super) fn thread_create(irq: &mut IrqOff, process: u64, spec: u64) -> Result {
    let process = get::<Process>(irq, process, Rights::CREATE)?;
    let spec: ThreadSpec = user::read(irq, spec)?;
    // A thread begins with what its maker may use.
    let affinity = dispatch::current(irq).affinity();
    let thread = Process::make_thread(&process, irq, &spec, affinity)?;
    table(irq).insert(thread, Rights::ALL).map(|handle| handle.0)
}

pub(super) fn thread_start(irq: &mut IrqOff, thread: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::CONTROL)?;
    unpack(at_home(irq, &thread, |held, thread| pack(homes::start(held, thread))))
}

pub(super) fn thread_exit(irq: &mut IrqOff, code: u64) -> Result {
    let thread = dispatch::current(irq);
    thread.set_code(code);
    dispatch::end_current(irq, thread)
}

pub(super) fn thread_join(irq: &mut IrqOff, thread: u64, deadline: u64) -> Result {
    let joined = find::<Thread>(irq, thread, Rights::OBSERVE)?;
    if let Some(code) = joined.exit_code() {
        return Ok(code);
    }
    let own = dispatch::current(irq);
    wait::enlist(irq, own, Key::object(joined.as_ptr()));
    match joined.exit_code() {
        None => dispatch::block(irq, deadline),
        Some(code) => {
            // Woken or not, the code is the same.
            let _waited = dispatch::do_not_block(irq, own);
            Ok(code)
        }
    }
}

pub(super) fn thread_suspend(irq: &mut IrqOff, thread: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::CONTROL)?;
    unpack(at_home(irq, &thread, |held, thread| pack(homes::suspend(held, thread))))
}

pub(super) fn thread_resume(irq: &mut IrqOff, thread: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::CONTROL)?;
    unpack(at_home(irq, &thread, |held, thread| pack(homes::resume(held, thread))))
}

pub(super) fn thread_kill(irq: &mut IrqOff, thread: u64, code: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::CONTROL)?;
    at_home(irq, &thread, |held, thread| {
        homes::kill(held, thread, code);
        0
    });
    Ok(0)
}

/// The cores of the machine that a mask names.
fn cores_of(mask: &CoreMask) -> CoreSet {
    let named = |core: &CoreId| mask.0[core.index() / 64] & 1 << (core.index() % 64) != 0;
    let mut set = CoreSet::EMPTY;
    machine::topology().cores().filter(named).for_each(|core| set.insert(core));
    set
}

pub(super) fn thread_affinity(irq: &mut IrqOff, thread: u64, cores: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::CONTROL)?;
    let cores = cores_of(&user::read(irq, cores)?);
    if cores.is_empty() {
        return Err(Error::BadArgument);
    }
    unpack(at_home(irq, &thread, |held, thread| pack(set_affinity(held, thread, cores))))
}

fn set_affinity(held: &mut Held<'_, 0>, thread: ThreadRef, cores: CoreSet) -> Result<()> {
    let here = cores.contains(held.core());
    // What was promised to a deadline was promised on this core.
    if !here && sched::Entity::task(&thread).class() == sched::Class::Deadline {
        return Err(Error::WrongState);
    }
    thread.set_affinity(cores);
    if spread::may_run_here(held, thread) {
        return Ok(());
    }
    homes::leave_core(held, thread);
    Ok(())
}

pub(super) fn thread_schedule(irq: &mut IrqOff, thread: u64, spec: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::CONTROL)?;
    let spec: SchedSpec = user::read(irq, spec)?;
    unpack(at_home(irq, &thread, |held, thread| pack(homes::configure(held, thread, &spec))))
}

pub(super) fn thread_info(irq: &mut IrqOff, thread: u64, info: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::OBSERVE)?;
    let told = percpu::Lock::<90, ThreadInfo>::new(ThreadInfo::default());
    at_home(irq, &thread, |held, thread| {
        let told_here = describe(held, thread);
        told.with(held, |told, _| *told = told_here);
        0
    });
    let mut told = told;
    user::write(irq, info, told.get_mut()).map(|()| 0)
}

/// What its home knows of a thread.
fn describe(irq: &IrqOff, thread: ThreadRef) -> ThreadInfo {
    if dispatch::running(irq) == Some(thread) {
        SCHED.owned(irq).settle(crate::arch::tsc::now());
    }
    let task = sched::Entity::task(&thread);
    let class = match task.class() {
        sched::Class::Normal => SchedSpec::NORMAL,
        sched::Class::RealTime | sched::Class::Limited => SchedSpec::REAL_TIME,
        sched::Class::Deadline => SchedSpec::DEADLINE,
    };
    ThreadInfo {
        id: thread.id(),
        process: thread.process().id(),
        state: thread.state.get().told() as u32,
        core: thread.place.look().core.index() as u32,
        class: class as u32,
        priority: task.priority(),
        ticks: task.ticks(),
        switches: task.switches(),
        migrations: thread.migrations.get(),
        code: thread.exit_code().unwrap_or(0),
    }
}

pub(super) fn thread_tls(irq: &mut IrqOff, base: u64) -> Result {
    if base >= USER_END as u64 {
        return Err(Error::BadArgument);
    }
    dispatch::current(irq).set_tls(base);
    crate::arch::user::set_fs_base(irq, base);
    Ok(0)
}

pub(super) fn thread_watch(irq: &mut IrqOff, thread: u64, badge: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::CONTROL)?;
    let own = dispatch::current(irq);
    let watcher = percpu::Lock::<90, _>::new(Some(own.counted()));
    unpack(at_home(irq, &thread, |held, thread| {
        let watcher = watcher.with(held, |watcher, _| watcher.take());
        pack(watcher.map_or(Err(Error::WrongState), |watcher| upcall::watch(held, thread, watcher, badge)))
    }))
}

pub(super) fn period_end(irq: &mut IrqOff) -> Result {
    let thread = dispatch::current(irq);
    let now = crate::arch::tsc::now();
    let end = SCHED.owned(irq).end_period(now).ok_or(Error::WrongState)?;
    if end.next <= now {
        return Ok(end.missed);
    }
    thread.state.set(State::Asleep);
    thread.note_value(end.missed);
    dispatch::block(irq, end.next)
}
