//! Calls that wait: words of memory, times, upcalls.

use abi::error::Error;
use mm::user::{CheckedPtr, UserPtr};
use percpu::IrqOff;

use super::Result;
use crate::arch::usercopy::Word;
use crate::dispatch::Waited;
use crate::thread::{State, ThreadRef};
use crate::wait::{self, Key};
use crate::{dispatch, upcall};

/// A claim on a 32-bit word.
fn word(address: u64) -> Result<CheckedPtr<u32>> {
    UserPtr::<u32>::new(address as usize).check().map_err(|_| Error::BadAddress)
}

fn key(irq: &IrqOff, word: CheckedPtr<u32>) -> Key {
    Key::word(dispatch::current(irq).space().tlb().id().raw(), word.address() as u64)
}

pub(super) fn futex_wait(irq: &mut IrqOff, address: u64, expected: u64, deadline: u64) -> Result {
    let word = word(address)?;
    let thread = dispatch::current(irq);
    let key = key(irq, word);
    wait::enlist(irq, thread, key);
    let found = u32::load(irq, word);
    match found {
        Ok(value) if u64::from(value) == expected => dispatch::block(irq, deadline),
        Ok(_) => second_thoughts(irq, thread, Error::Mismatch),
        Err(_) => second_thoughts(irq, thread, Error::BadAddress),
    }
}

/// There is no reason to wait, unless somebody has woken the thread already: a wake is never lost.
fn second_thoughts(irq: &mut IrqOff, thread: ThreadRef, error: Error) -> Result {
    match dispatch::do_not_block(irq, thread) {
        Waited::Not => Err(error),
        Waited::Woken => Ok(0),
    }
}

pub(super) fn futex_wake(irq: &mut IrqOff, address: u64, count: u64) -> Result {
    let key = key(irq, word(address)?);
    Ok(irq.locks(|held| wait::wake(held, key, count, 0, 0)))
}

pub(super) fn futex_requeue(irq: &mut IrqOff, address: u64, to: u64, count: u64) -> Result {
    let (from, to) = (key(irq, word(address)?), key(irq, word(to)?));
    Ok(irq.locks(|held| {
        let woken = wait::wake(held, from, 1, 0, 0);
        let moved = if from == to { 0 } else { wait::requeue(held, from, to, count) };
        woken + moved
    }))
}

pub(super) fn sleep(irq: &mut IrqOff, until: u64) -> Result {
    dispatch::current(irq).state.set(State::Asleep);
    dispatch::block(irq, until)
}

pub(super) fn upcall_wait(irq: &mut IrqOff, deadline: u64) -> Result {
    upcall::wait(irq, deadline)
}
