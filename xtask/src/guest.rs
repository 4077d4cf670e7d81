//! A running guest: starts QEMU, turns its serial port into events, and says how it ended.
//!
//! The serial port carries text lines and binary records; [`perf::record`] takes them apart. Whatever happens (time-out, interrupt, an error of the caller) QEMU is gone when the [`Session`] is.

use crate::error::{Class, Error, Result};
use crate::interrupt;
use crate::process::Guarded;
use crate::qemu::{self, Payload, Qemu, QemuSpec};
use abi::exit::Exit;
use perf::record::Demux;
pub use perf::record::Event;
use std::collections::VecDeque;
use std::fmt;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of the log that are kept to be shown with a failure.
const TAIL: usize = 40;
/// Bytes read from the serial port at once.
const CHUNK: usize = 64 * 1024;

/// What the listener wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// More events.
    Continue,
    /// The machine is to be switched off now.
    Stop,
}

/// How long a guest may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From start to end.
    pub total: Duration,
    /// Between two things it says.
    pub silence: Duration,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With one of its own exit codes.
    Exit(Exit),
    /// QEMU ended for a reason of its own: its status and what it wrote.
    Qemu(String),
    /// It used up the time it had in all.
    TimeOut(Duration),
    /// It said nothing for too long.
    Silent(Duration),
    /// The listener had heard enough.
    Stopped,
    /// The user interrupted.
    Interrupted,
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(exit) => out.write_str(exit.describe()),
            Self::Qemu(why) => write!(out, "QEMU ended by itself: {why}"),
            Self::TimeOut(limit) => write!(out, "the guest was not done after {limit:.0?}"),
            Self::Silent(limit) => write!(out, "the guest said nothing for {limit:.0?}"),
            Self::Stopped => out.write_str("stopped"),
            Self::Interrupted => out.write_str("interrupted"),
        }
    }
}

impl End {
    /// What an exit status of QEMU means, given what it wrote to standard error.
    #[must_use]
    pub fn of_status(status: ExitStatus, complaints: &str) -> Self {
        status
            .code()
            .and_then(Exit::from_status)
            .map_or_else(|| Self::Qemu(describe(status, complaints)), Self::Exit)
    }

    /// The error this end stands for; `None` for success.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        let class = match self {
            Self::Exit(Exit::Success) | Self::Stopped => return None,
            Self::Exit(Exit::TestsFailed) => Class::TestsFailed,
            Self::Exit(Exit::NothingMatched) => Class::NothingMatched,
            Self::Exit(Exit::Panic | Exit::Exception) => Class::GuestPanic,
            Self::Exit(_) => Class::GuestRefused,
            Self::Qemu(_) => Class::QemuFailed,
            Self::TimeOut(_) | Self::Silent(_) => Class::Timeout,
            Self::Interrupted => Class::Interrupted,
        };
        Some(Error::new(class, self.to_string()))
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Session {
    qemu: Guarded,
    bytes: Receiver<Vec<u8>>,
    complaints: Option<thread::JoinHandle<String>>,
    demux: Demux,
    tail: VecDeque<String>,
    command_line: String,
    started: Instant,
    heard: Instant,
}

impl Session {
    /// Starts a machine whose serial port is piped to us.
    ///
    /// # Errors
    /// The machine is impossible for this QEMU, or QEMU cannot be started.
    pub fn start(qemu: &Qemu, spec: &QemuSpec, payload: &Payload, cmdline: &str) -> Result<Self> {
        let arguments = qemu.arguments(spec, payload, cmdline)?;
        let mut command = Command::new(qemu.program());
        command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Guarded::start(&mut command).map_err(|error| {
            Error::new(Class::Missing, format!("cannot start {}: {error}", qemu.program().display()))
                .next("run `cargo xtask setup`")
        })?;
        let (stdout, stderr) = (running.child().stdout.take(), running.child().stderr.take());
        let (sender, bytes) = mpsc::channel();
        thread::spawn(move || forward(stdout, |chunk| sender.send(chunk.to_vec()).is_ok()));
        let complaints = thread::spawn(move || {
            let mut text = Vec::new();
            forward(stderr, |chunk| {
                text.extend_from_slice(chunk);
                true
            });
            String::from_utf8_lossy(&text).trim_end().to_owned()
        });
        let now = Instant::now();
        Ok(Self {
            qemu: running,
            bytes,
            complaints: Some(complaints),
            demux: Demux::new(),
            tail: VecDeque::new(),
            command_line: qemu::shell_line(qemu.program(), &arguments),
            started: now,
            heard: now,
        })
    }

    /// The command line that started QEMU.
    #[must_use]
    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last lines of the text log.
    #[must_use]
    pub fn tail(&self) -> String {
        self.tail.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Hands every event to `listener` until the guest ends. QEMU is gone afterwards.
    ///
    /// # Errors
    /// QEMU's status cannot be read.
    pub fn listen(&mut self, limits: Limits, mut listener: impl FnMut(Event<'_>) -> Flow) -> Result<End> {
        loop {
            match self.bytes.recv_timeout(interrupt::POLL) {
                Ok(chunk) => {
                    self.heard = Instant::now();
                    if self.deliver(&chunk, &mut listener) == Flow::Stop {
                        return Ok(self.quit(End::Stopped));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.finish(&mut listener),
            }
            if interrupt::seen() {
                return Ok(self.quit(End::Interrupted));
            }
            if self.started.elapsed() > limits.total {
                return Ok(self.quit(End::TimeOut(limits.total)));
            }
            if self.heard.elapsed() > limits.silence {
                return Ok(self.quit(End::Silent(limits.silence)));
            }
        }
    }

    fn deliver(&mut self, chunk: &[u8], listener: &mut impl FnMut(Event<'_>) -> Flow) -> Flow {
        let Self { demux, tail, .. } = self;
        let mut flow = Flow::Continue;
        demux.feed(chunk, &mut |event| pass(event, tail, &mut flow, listener));
        flow
    }

    /// The serial port is closed: QEMU is ending.
    fn finish(&mut self, listener: &mut impl FnMut(Event<'_>) -> Flow) -> Result<End> {
        let Self { demux, tail, .. } = self;
        demux.finish(&mut |event| pass(event, tail, &mut Flow::Continue, listener));
        let status = self
            .qemu
            .child()
            .wait()
            .map_err(|error| Error::new(Class::Io, format!("cannot wait for QEMU: {error}")))?;
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok(End::of_status(status, &complaints))
    }

    fn quit(&mut self, end: End) -> End {
        // Both fail only if QEMU is gone already, which is what is wanted.
        let _ = self.qemu.child().kill();
        let _ = self.qemu.child().wait();
        end
    }
}

/// Hands on one event unless the listener has had enough, and remembers text.
fn pass(
    event: Event<'_>,
    tail: &mut VecDeque<String>,
    flow: &mut Flow,
    listener: &mut impl FnMut(Event<'_>) -> Flow,
) {
    if *flow == Flow::Stop {
        return;
    }
    if let Event::Text(line) = event {
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.to_owned());
    }
    *flow = listener(event);
}

fn describe(status: ExitStatus, complaints: &str) -> String {
    match (status.code(), complaints) {
        // QEMU ends with 0 when the guest resets or powers off.
        (Some(0), "") => String::from("the guest reset or powered off without an exit code"),
        (_, "") => status.to_string(),
        _ => format!("{status}; {complaints}"),
    }
}

fn forward(pipe: Option<impl Read>, mut take: impl FnMut(&[u8]) -> bool) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        if !take(&buffer[..length]) {
            return;
        }
    }
}
