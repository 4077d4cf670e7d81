//! Boots that must fail: what is wrong is said on the serial port, and the exit code is the one for it.

use super::tally::{Tally, Verdict};
use crate::error::{Error, Result};
use crate::guest::{End, Event, Flow, Limits, Session};
use crate::image::{self, Image};
use crate::qemu::{Accelerator, Payload, Qemu, QemuSpec};
use crate::topology::{Mebibytes, Topology};
use crate::workspace;
use abi::boot::selects;
use abi::exit::Exit;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// What the loader is given instead of the bundle.
#[derive(Clone, Copy, Debug)]
enum Bundle {
    /// The real one.
    Good,
    /// No initrd at all.
    Absent,
    /// A file that is no archive.
    Bytes(&'static [u8]),
    /// The first part of the real bundle.
    Cut(usize),
    /// An archive whose kernel is the first part of the real one.
    CutKernel(usize),
    /// An archive whose kernel is this.
    Kernel(&'static [u8]),
}

/// One boot that must fail.
struct Case {
    name: &'static str,
    bundle: Bundle,
    command_line: &'static str,
    exit: Exit,
}

const GOOD_LINE: &str = "mode=test filter=!";

const CASES: &[Case] = &[
    Case { name: "no-bundle", bundle: Bundle::Absent, command_line: GOOD_LINE, exit: Exit::BadBundle },
    Case {
        name: "not-an-archive",
        bundle: Bundle::Bytes(&[0x5a; 4096]),
        command_line: GOOD_LINE,
        exit: Exit::BadBundle,
    },
    Case {
        name: "cut-archive",
        bundle: Bundle::Cut(64 * 1024),
        command_line: GOOD_LINE,
        exit: Exit::BadBundle,
    },
    Case {
        name: "cut-kernel",
        bundle: Bundle::CutKernel(8 * 1024),
        command_line: GOOD_LINE,
        exit: Exit::BadElf,
    },
    Case {
        name: "cut-elf-header",
        bundle: Bundle::CutKernel(40),
        command_line: GOOD_LINE,
        exit: Exit::BadElf,
    },
    Case {
        name: "not-an-elf",
        bundle: Bundle::Kernel(&[0x90; 4096]),
        command_line: GOOD_LINE,
        exit: Exit::BadElf,
    },
    Case { name: "empty-kernel", bundle: Bundle::Kernel(&[]), command_line: GOOD_LINE, exit: Exit::BadElf },
    Case {
        name: "unknown-word",
        bundle: Bundle::Good,
        command_line: "mode=test turbo=1",
        exit: Exit::BadCommandLine,
    },
    Case { name: "unknown-mode", bundle: Bundle::Good, command_line: "mode=fly", exit: Exit::BadCommandLine },
    Case {
        name: "nothing-matched",
        bundle: Bundle::Good,
        command_line: GOOD_LINE,
        exit: Exit::NothingMatched,
    },
    Case {
        name: "no-such-bench",
        bundle: Bundle::Good,
        command_line: "mode=bench filter=!",
        exit: Exit::NothingMatched,
    },
    Case { name: "panic", bundle: Bundle::Good, command_line: "mode=test plant=panic", exit: Exit::Panic },
    Case {
        name: "early-exception",
        bundle: Bundle::Good,
        command_line: "mode=test plant=early-fault",
        exit: Exit::Exception,
    },
    Case {
        name: "exception",
        bundle: Bundle::Good,
        command_line: "mode=test plant=page-fault",
        exit: Exit::Exception,
    },
    Case {
        name: "write-to-code",
        bundle: Bundle::Good,
        command_line: "mode=test plant=write-text",
        exit: Exit::Exception,
    },
    Case {
        name: "idle-laboratory",
        bundle: Bundle::Good,
        command_line: "mode=idle plant=read-laboratory",
        exit: Exit::Exception,
    },
    Case {
        name: "stack-overflow",
        bundle: Bundle::Good,
        command_line: "mode=test plant=stack-overflow",
        exit: Exit::Exception,
    },
    Case {
        name: "unknown-plant",
        bundle: Bundle::Good,
        command_line: "mode=test plant=nothing",
        exit: Exit::BadCommandLine,
    },
    Case {
        name: "leaking-test",
        bundle: Bundle::Good,
        command_line: "mode=test filter=cores.identity plant=frame-leak",
        exit: Exit::TestsFailed,
    },
];

/// Runs those that `filter` selects.
///
/// # Errors
/// A file cannot be written, QEMU cannot be started, or the user interrupts.
pub(super) fn run(filter: &str, qemu: &Qemu, image: &Image) -> Result<Tally> {
    let mut tally = Tally::default();
    for case in CASES {
        let name = format!("bad-input/{}", case.name);
        if selects(filter, &name) {
            let verdict = boot(case, qemu, image)?;
            tally.record(&name, &verdict);
        }
    }
    Ok(tally)
}

fn boot(case: &Case, qemu: &Qemu, image: &Image) -> Result<Verdict> {
    let payload = Payload { loader: image.payload.loader.clone(), bundle: prepare(case.bundle, image)? };
    let spec = QemuSpec::new(Topology::even(1, 1, Mebibytes::new(256))?, Accelerator::TcgSingle);
    let mut session = Session::start(qemu, &spec, &payload, case.command_line)?;
    let mut lines = 0_u32;
    let end = session.listen(Limits { total: LIMIT, silence: LIMIT }, |event| {
        lines += u32::from(matches!(event, Event::Text(line) if !line.trim().is_empty()));
        Flow::Continue
    })?;
    Ok(match end {
        End::Interrupted => return end.error().map_or(Ok(Verdict::Passed), Err),
        End::Exit(exit) if exit == case.exit && lines > 0 => Verdict::Passed,
        End::Exit(exit) if exit == case.exit => {
            Verdict::Failed(String::from("the guest ended without a message"))
        }
        end => Verdict::Failed(format!(
            "asked for: {}; got: {end}; the log:\n{}",
            case.exit.describe(),
            session.tail()
        )),
    })
}

fn prepare(bundle: Bundle, image: &Image) -> Result<Option<PathBuf>> {
    let path = workspace::output("bad-input")?.join("bundle.tar");
    match bundle {
        Bundle::Good => return Ok(image.payload.bundle.clone()),
        Bundle::Absent => return Ok(None),
        Bundle::Bytes(bytes) => write(&path, bytes)?,
        Bundle::Cut(length) => {
            let good = image.payload.bundle.as_deref().unwrap_or(Path::new(""));
            write(&path, start(&read(good)?, length))?;
        }
        Bundle::CutKernel(length) => image::write_bundle(&path, start(&read(&image.kernel)?, length), &[])?,
        Bundle::Kernel(bytes) => image::write_bundle(&path, bytes, &[])?,
    }
    Ok(Some(path))
}

fn start(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::io(&error, "read", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|error| Error::io(&error, "write", path))
}
