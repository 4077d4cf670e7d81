//! The native lane: portable rows in this process, on pinned threads, beside their peers.
//!
//! The rows run on the calling thread, so nothing watches over them: an interrupt is seen between two records, and a row that
//! hangs hangs the run. A panic of a row is caught and ends the start like a panic of a kernel.

use crate::bench::target::Target;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow, Limits};
use crate::interrupt;
use crate::native::{self, HostClock, Native};
use abi::boot::Params;
use abi::exit::Exit;
use perf::record::{Event, Record};
use perf::runner::{self, Settings};
use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

/// This process.
#[derive(Debug)]
pub(super) struct InProcess;

/// Thrown through the rows to leave them early; never seen by the panic hook.
struct Leave(End);

impl Target for InProcess {
    fn boot(&mut self, cmdline: &str, _: Limits, listener: &mut dyn FnMut(Event<'_>) -> Flow) -> Result<End> {
        let params = Params::parse(cmdline)
            .map_err(|bad| Error::new(Class::Usage, format!("the word `{}` has no meaning", bad.0)))?;
        let mut sequence = 0;
        let mut emit = |record: &Record<'_>| {
            let flow = listener(Event::Frame { sequence, record });
            sequence += 1;
            if flow == Flow::Stop {
                panic::resume_unwind(Box::new(Leave(End::Stopped)));
            }
            if interrupt::seen() {
                panic::resume_unwind(Box::new(Leave(End::Interrupted)));
            }
        };
        let work = AssertUnwindSafe(|| match params.samples {
            Some(0) => list(&params, &mut emit),
            _ => native::run(&params, cmdline, &mut emit),
        });
        match panic::catch_unwind(work) {
            Ok(()) => Ok(End::Exit(Exit::Success)),
            Err(payload) => Ok(ended(payload, listener)),
        }
    }
}

fn list(params: &Params<'_>, emit: &mut dyn FnMut(&Record<'_>)) {
    let settings = Settings::new(params, HostClock::TIMEBASE);
    let context = Native::new(params.seed);
    let mut sink = |record: &Record<'_>| emit(record);
    let done = runner::list(native::rows::TABLE, &context, &settings, &mut sink);
    emit(&Record::Done(done));
}

fn ended(payload: Box<dyn Any + Send>, listener: &mut dyn FnMut(Event<'_>) -> Flow) -> End {
    let message = match payload.downcast::<Leave>() {
        Ok(leave) => return leave.0,
        Err(payload) => match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => payload.downcast_ref::<&str>().map_or("no message", |message| message).to_owned(),
        },
    };
    // The start ends here in any case.
    let _ = listener(Event::Text(&format!("PANIC: {message}")));
    End::Exit(Exit::Panic)
}
