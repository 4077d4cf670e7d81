//! Calls on endpoints and replies.

use abi::cap::Rights;
use percpu::IrqOff;

use super::{Result, table};
use crate::endpoint::Endpoint;
use crate::{dispatch, messages};

pub(super) fn endpoint_create(irq: &mut IrqOff) -> Result {
    let endpoint = Endpoint::new(irq)?;
    table(irq).insert(endpoint, Rights::ALL).map(|handle| handle.0)
}

pub(super) fn reply_save(irq: &mut IrqOff) -> Result {
    let thread = dispatch::current(irq);
    messages::save_reply(irq, thread).map(|handle| handle.0)
}
