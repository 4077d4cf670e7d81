//! Calls on the delivery of faults.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::ipc::Fault;
use percpu::IrqOff;

use super::{Result, find, table};
use crate::endpoint::Endpoint;
use crate::handler::{self, Handler};
use crate::process::Process;

pub(super) fn process_handler(irq: &mut IrqOff, process: u64, endpoint: u64, kinds: u64) -> Result {
    let process = find::<Process>(irq, process, Rights::CONTROL)?;
    if kinds & !(Fault::PAGES | Fault::EXCEPTIONS) != 0 {
        return Err(Error::BadArgument);
    }
    let handler = if endpoint == 0 {
        None
    } else {
        let (endpoint, badge) = table(irq).find_badged::<Endpoint>(Handle(endpoint), Rights::SEND)?;
        let endpoint = endpoint.try_ref().ok_or(Error::BadHandle)?;
        Some(Handler { endpoint, badge, kinds })
    };
    handler::set(irq, &process, handler).map(|()| 0)
}
