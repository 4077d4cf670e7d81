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
    /// The command that gives us the serial port ended.
    Console(String),
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
            Self::Console(why) => write!(out, "the console ended: {why}"),
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
            Self::Console(_) => Class::Io,
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
        command.args(&arguments);
        Self::attach(&mut command, qemu::shell_line(qemu.program(), &arguments))
            .map_err(|error| error.next("run `cargo xtask setup`"))
    }

    /// Starts a command whose standard output is the serial port of a machine; `command_line` is what people start it with.
    ///
    /// # Errors
    /// [`Class::Missing`]: it cannot be started.
    pub fn attach(command: &mut Command, command_line: String) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Guarded::start(command)
            .map_err(|error| Error::new(Class::Missing, format!("cannot start `{command_line}`: {error}")))?;
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
            command_line,
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
        self.qemu.stop();
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

#[cfg(test)]
mod tests {
    use super::{End, Event, Flow, Limits, Session};
    use crate::error::Class;
    use crate::qemu::{Accelerator, Payload, Qemu, QemuSpec};
    use crate::topology::{Mebibytes, Topology};
    use crate::workspace;
    use abi::exit::Exit;
    use perf::record::{Done, Encoder, Record};
    use std::fs;
    use std::time::{Duration, Instant};

    /// More than a shell needs even on a host that is busy with other things.
    const LONG: Limits = Limits { total: Duration::from_secs(120), silence: Duration::from_secs(60) };
    /// Enough for the shell to say its one line, and not too long to wait for.
    const SHORT: Limits = Limits { total: Duration::from_secs(120), silence: Duration::from_secs(4) };

    /// What a shell script in QEMU's place says, as text, records and damage, and how it ends.
    fn play(name: &str, script: &str) -> (Vec<String>, End, String) {
        play_within(LONG, name, script)
    }

    fn play_within(limits: Limits, name: &str, script: &str) -> (Vec<String>, End, String) {
        let file = std::env::temp_dir().join(format!("nearfield-{}-{name}", std::process::id()));
        fs::write(&file, script).unwrap();
        // The script is read by a committed program: executing a file just written fails while another thread's
        // child still holds it open.
        let qemu = Qemu::played_by(&workspace::root().join("xtask/tests/qemu.sh"));
        let spec = QemuSpec::new(Topology::even(1, 1, Mebibytes::new(512)).unwrap(), Accelerator::TcgSingle);
        let payload = Payload { loader: file.clone(), bundle: None };
        let mut session = Session::start(&qemu, &spec, &payload, "mode=test").unwrap();
        let mut heard = Vec::new();
        let end = session
            .listen(limits, |event| {
                heard.push(match event {
                    Event::Text(line) => format!("text {line}"),
                    Event::Frame { sequence, record } => format!("frame {sequence} {record:?}"),
                    Event::Gap { expected, found } => format!("gap {expected} {found}"),
                    Event::Corrupt { .. } => String::from("corrupt"),
                });
                if heard.last().is_some_and(|last| last == "text enough") {
                    Flow::Stop
                } else {
                    Flow::Continue
                }
            })
            .unwrap();
        fs::remove_file(&file).unwrap();
        (heard, end, session.tail())
    }

    /// A `printf` that writes these bytes.
    fn printf(bytes: &[u8]) -> String {
        let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
        format!("printf '{octal}'\n")
    }

    #[test]
    fn text_records_and_the_exit_code() {
        let mut encoder = Encoder::new();
        let done = Record::Done(Done { run: 3, failed: 0, skipped: 1 });
        let frame = printf(encoder.encode(&done).unwrap());
        let script = format!("echo one\n{frame}echo two\nprintf three\nexit {}", Exit::Success.status());
        let (heard, end, tail) = play("speaks", &script);
        assert_eq!(heard[0], "text one");
        assert_eq!(heard[1], format!("frame 0 {done:?}"));
        assert_eq!(heard[2..], ["text two", "text three"]);
        assert_eq!((end, tail.as_str()), (End::Exit(Exit::Success), "one\ntwo\nthree"));
    }

    #[test]
    fn damage_is_reported_and_the_rest_arrives() {
        let mut encoder = Encoder::new();
        let done = Record::Done(Done::default());
        let mut broken = encoder.encode(&done).unwrap().to_vec();
        let middle = broken.len() / 2;
        broken[middle] ^= 1;
        let good = encoder.encode(&done).unwrap().to_vec();
        let script = format!("{}{}exit {}", printf(&broken), printf(&good), Exit::Panic.status());
        let (heard, end, _) = play("damaged", &script);
        assert_eq!(heard[..2], ["corrupt", "gap 0 1"]);
        assert!(heard[2].starts_with("frame 1"), "{heard:?}");
        assert_eq!(end.error().map(|error| error.class()), Some(Class::GuestPanic));
    }

    #[test]
    fn silence_ends_a_machine() {
        let started = Instant::now();
        let (heard, end, _) = play_within(SHORT, "silent", "echo hello\nexec sleep 600");
        assert_eq!(
            (heard.as_slice(), end.clone()),
            (&["text hello".to_owned()][..], End::Silent(SHORT.silence))
        );
        assert_eq!(end.error().map(|error| error.class()), Some(Class::Timeout));
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_listener_may_stop() {
        let (heard, end, _) = play("stopped", "echo enough\necho more\nexec sleep 600");
        assert_eq!((heard.len(), end), (1, End::Stopped));
    }

    #[test]
    fn an_end_of_its_own_comes_with_its_complaint() {
        let (_, end, _) = play("broken", "echo 'no such machine' >&2\nexit 1");
        assert!(matches!(&end, End::Qemu(why) if why.contains("no such machine")), "{end:?}");
        assert_eq!(end.error().map(|error| error.class()), Some(Class::QemuFailed));
        let (_, reset, _) = play("reset", "exit 0");
        assert!(matches!(&reset, End::Qemu(why) if why.contains("reset")), "{reset:?}");
    }
}
