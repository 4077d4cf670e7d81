//! Child processes: quiet unless they fail, and gone when we are.

use crate::error::{Class, Error, Result};
use crate::interrupt;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a program that was asked to stop may take for it.
const GRACE: Duration = Duration::from_secs(20);

/// A child that is killed and reaped when it goes out of scope.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    reach: Reach,
}

/// What is killed with a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Its process group, which it leads: whatever it started, too.
    Group,
    /// The child alone: it shares our own group.
    Alone,
}

impl Guarded {
    /// Starts `command` outside our process group, so that Ctrl-C at the terminal reaches only us.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.process_group(0).spawn().map(|child| Self { child, reach: Reach::Group })
    }

    /// The child itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Asks the child to stop as Ctrl-C would, and waits for that.
    fn ask(&mut self) {
        if let Ok(child) = i32::try_from(self.child.id()) {
            // Fails only if it has ended, which is what is wanted.
            let _ = kill(Pid::from_raw(child), Signal::SIGINT);
        }
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < GRACE {
            thread::sleep(interrupt::POLL);
        }
    }

    /// Kills and reaps the child and, if it leads a process group, everything in that.
    pub fn stop(&mut self) {
        // Once the child is reaped its number may belong to somebody else.
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if let (Reach::Group, Ok(leader)) = (self.reach, i32::try_from(self.child.id())) {
            // Fails only if the group is gone already, which is what is wanted.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
        // As above.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs `command` to its end with its output collected; stops it when the user interrupts.
///
/// # Errors
/// [`Class::Missing`]: it cannot be started. [`Class::Interrupted`].
pub fn collect(command: &mut Command) -> Result<Output> {
    collect_within(command, Duration::MAX)
}

/// As [`collect`], for at most `limit`.
///
/// # Errors
/// [`Class::Timeout`], or as [`collect`].
pub fn collect_within(command: &mut Command, limit: Duration) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Guarded::start(command).map_err(|error| cannot_start(&name, &error))?;
    let (stdout, stderr) = (running.child().stdout.take(), running.child().stderr.take());
    thread::scope(|scope| {
        let stdout = scope.spawn(move || drain(stdout));
        let stderr = scope.spawn(move || drain(stderr));
        // An interrupted wait must kill the child before the readers are joined: they end with its pipes.
        let status = wait(&mut running, limit);
        if status.is_err() {
            drop(running);
        }
        let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
        status.map(|status| Output { status, stdout, stderr })
    })
}

/// As [`collect`], for a program that starts others outside its process group, as we do: interrupted, it is asked to stop, and gets
/// [`GRACE`] to stop them. `heard` gets each line of its standard output at once.
///
/// # Errors
/// As [`collect`].
pub fn follow(command: &mut Command, heard: &mut dyn FnMut(&str)) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Guarded::start(command).map_err(|error| cannot_start(&name, &error))?;
    let (stdout, stderr) = (running.child().stdout.take(), running.child().stderr.take());
    let (sender, lines) = mpsc::channel();
    let told = thread::spawn(move || tell(stdout, &sender));
    let stderr = thread::spawn(move || drain(stderr));
    let mut tell = || lines.try_iter().for_each(|line: String| heard(&line));
    let status = match wait_for(&mut running, Duration::MAX, &mut tell) {
        Err(error) if error.class() == Class::Interrupted => {
            running.ask();
            Err(error)
        }
        status => status,
    };
    drop(running);
    let (stdout, stderr) = (told.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    lines.try_iter().for_each(|line| heard(&line));
    status.map(|status| Output { status, stdout, stderr })
}

/// Hands each line on, and keeps all.
fn tell(pipe: Option<impl Read>, lines: &mpsc::Sender<String>) -> Vec<u8> {
    let (Some(pipe), mut kept) = (pipe, Vec::new()) else { return Vec::new() };
    let mut pipe = BufReader::new(pipe);
    loop {
        let from = kept.len();
        // What arrived before the pipe broke is still worth showing.
        if !matches!(pipe.read_until(b'\n', &mut kept), Ok(1..)) {
            return kept;
        }
        // Nobody listens any more once the wait was interrupted.
        let _ = lines.send(String::from_utf8_lossy(&kept[from..]).trim_end().to_owned());
    }
}

/// Runs `command` with our own terminal, stopping it when the user interrupts.
///
/// # Errors
/// As [`collect`].
pub fn show(command: &mut Command) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    // Not guarded by a process group: a child that reads the terminal must stay in the foreground.
    let child = command.spawn().map_err(|error| cannot_start(&name, &error))?;
    wait(&mut Guarded { child, reach: Reach::Alone }, Duration::MAX)
}

/// As [`show`], but waits for the child even when the user interrupts: for one that must not be cut off in the middle,
/// such as a package manager. Ctrl-C reaches it from the terminal, and it knows best where to stop.
///
/// # Errors
/// As [`collect`].
pub fn show_to_the_end(command: &mut Command) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| cannot_start(&name, &error))?;
    interrupt::check().map(|()| status)
}

/// Runs `command` quietly and turns failure into an error of `class` that ends with its output and the `next` action.
///
/// # Errors
/// `class`, or as [`collect`].
pub fn succeed(command: &mut Command, class: Class, doing: &str, next: &str) -> Result<Output> {
    let output = collect(command)?;
    if output.status.success() {
        return Ok(output);
    }
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    Err(Error::new(class, format!("{doing} failed ({})\n{text}", output.status)).next(next))
}

fn wait(running: &mut Guarded, limit: Duration) -> Result<ExitStatus> {
    wait_for(running, limit, &mut || {})
}

/// Waits, and calls `meanwhile` again and again.
fn wait_for(running: &mut Guarded, limit: Duration, meanwhile: &mut dyn FnMut()) -> Result<ExitStatus> {
    let started = Instant::now();
    // Short waits at first: most children of a test run end within milliseconds.
    let mut pause = Duration::from_millis(1);
    loop {
        meanwhile();
        match running.child().try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(error) => {
                return Err(Error::new(Class::Io, format!("cannot wait for a child process: {error}")));
            }
        }
        interrupt::check()?;
        if started.elapsed() > limit {
            return Err(Error::new(Class::Timeout, format!("a child process was not done after {limit:?}")));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(interrupt::POLL);
    }
}

fn drain(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What arrived before the pipe broke is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

fn cannot_start(name: &str, error: &io::Error) -> Error {
    Error::new(Class::Missing, format!("cannot start `{name}`: {error}")).next("run `cargo xtask setup`")
}

#[cfg(test)]
mod tests {
    use super::{Guarded, collect_within, follow};
    use crate::error::Class;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn lines_are_heard_and_kept() {
        let mut heard = Vec::new();
        let script = "echo one; printf 'two\\nthree'; echo aside >&2; exit 3";
        let output =
            follow(Command::new("sh").args(["-c", script]), &mut |line| heard.push(line.to_owned())).unwrap();
        assert_eq!(heard, ["one", "two", "three"]);
        assert_eq!(
            (output.stdout.as_slice(), output.stderr.as_slice()),
            (&b"one\ntwo\nthree"[..], &b"aside\n"[..])
        );
        assert_eq!(output.status.code(), Some(3));
    }

    /// Planted: it is killed at once, and what it started outside its group stays.
    #[test]
    fn a_program_that_is_asked_to_stop_may_end_what_it_started() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap 'exit 7' INT; echo ready; while :; do sleep 0.05; done"])
            .stdout(Stdio::piped());
        let mut running = Guarded::start(&mut command).unwrap();
        // Its handler is there once it says so.
        let mut ready = [0; 5];
        std::io::Read::read_exact(running.child().stdout.as_mut().unwrap(), &mut ready).unwrap();
        running.ask();
        assert_eq!(running.child().try_wait().unwrap().and_then(|status| status.code()), Some(7));
    }

    #[test]
    fn a_time_out_ends_grandchildren_too() {
        let started = Instant::now();
        // The grandchild holds the pipes: were it left alive, reading them would take as long as it does.
        let mut command = Command::new("sh");
        let result = collect_within(command.args(["-c", "sleep 600 & wait"]), Duration::from_millis(100));
        assert_eq!(result.err().map(|error| error.class()), Some(Class::Timeout));
        assert!(started.elapsed() < Duration::from_secs(300));
    }
}
