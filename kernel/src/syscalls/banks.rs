//! Calls on banks and limits.

use abi::cap::Rights;
use abi::quota::{BankSpec, Limits};
use percpu::IrqOff;

use super::{Result, find, get, table, user};
use crate::bank::Bank;
use crate::process::Process;

pub(super) fn bank_create(irq: &mut IrqOff, bank: u64, spec: u64) -> Result {
    let parent = get::<Bank>(irq, bank, Rights::CREATE)?;
    let spec: BankSpec = user::read(irq, spec)?;
    let bank = Bank::carve(irq, parent, &spec)?;
    table(irq).insert(bank, Rights::ALL).map(|handle| handle.0)
}

pub(super) fn bank_info(irq: &mut IrqOff, bank: u64, info: u64) -> Result {
    let told = find::<Bank>(irq, bank, Rights::OBSERVE)?.info();
    user::write(irq, info, &told).map(|()| 0)
}

pub(super) fn bank_assign(irq: &mut IrqOff, bank: u64, process: u64) -> Result {
    let bank = get::<Bank>(irq, bank, Rights::CREATE)?;
    let process = get::<Process>(irq, process, Rights::CONTROL)?;
    process.assign(irq, bank).map(|()| 0)
}

pub(super) fn process_limit(irq: &mut IrqOff, process: u64, limits: u64) -> Result {
    let process = get::<Process>(irq, process, Rights::CONTROL)?;
    let limits: Limits = user::read(irq, limits)?;
    process.limit(irq, &limits).map(|()| 0)
}
