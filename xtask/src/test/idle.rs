//! A kernel that runs neither tests nor benchmarks stays up, and has their memory to give.

use super::tally::{Tally, Verdict};
use crate::error::Result;
use crate::guest::{End, Event, Flow, Limits, Session};
use crate::image::Image;
use crate::qemu::{Accelerator, Qemu, QemuSpec};
use crate::topology::{Mebibytes, Topology};
use abi::boot::selects;
use std::time::Duration;

/// Planted: `memory` leaves out `image::given_back`.
const NAME: &str = "idle/memory";
const LIMIT: Duration = Duration::from_secs(60);
/// Nothing more is expected after it.
const SILENCE: Duration = Duration::from_secs(10);
/// What the words for the laboratory's frames may cost more: a page of words and one of tables, for each node and for the direct map.
const SLACK: u64 = 16;

/// Who has the memory, as the kernel says at boot, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Books {
    kernel: u64,
    laboratory: u64,
    kept: bool,
    allocator: u64,
}

impl Books {
    /// Of a line as `memory: the kernel has 1 KiB, its laboratory 2 KiB (kept), the allocator 3 KiB`.
    fn read(line: &str) -> Option<Self> {
        let mut figures = line.trim().strip_prefix("memory: the kernel has ")?.split(" KiB");
        let mut next = || figures.next()?.rsplit(' ').next()?.parse().ok();
        let (kernel, laboratory, allocator) = (next()?, next()?, next()?);
        Some(Self { kernel, laboratory, kept: line.contains("(kept)"), allocator })
    }
}

/// Runs the test if `filter` selects it.
///
/// # Errors
/// QEMU cannot be started, or the user interrupts.
pub(super) fn run(filter: &str, qemu: &Qemu, image: &Image) -> Result<Tally> {
    let mut tally = Tally::default();
    if selects(filter, NAME) {
        let (testing, _, _) = boot("mode=test filter=!", qemu, image)?;
        let (idle, end, log) = boot("mode=idle", qemu, image)?;
        tally.record(NAME, &verdict(testing, idle, &end, &log));
    }
    Ok(tally)
}

fn boot(line: &str, qemu: &Qemu, image: &Image) -> Result<(Option<Books>, End, String)> {
    let spec = QemuSpec::new(Topology::even(2, 1, Mebibytes::new(256))?, Accelerator::TcgSingle);
    let mut session = Session::start(qemu, &spec, &image.payload, line)?;
    let mut books = None;
    let end = session.listen(Limits { total: LIMIT, silence: SILENCE }, |event| {
        if let Event::Text(line) = event {
            books = books.or_else(|| Books::read(line));
        }
        Flow::Continue
    })?;
    match end {
        End::Interrupted => end.error().map_or(Ok((books, end, session.tail())), Err),
        end => Ok((books, end, session.tail())),
    }
}

fn verdict(testing: Option<Books>, idle: Option<Books>, end: &End, log: &str) -> Verdict {
    let (Some(testing), Some(idle)) = (testing, idle) else {
        return Verdict::Failed(format!("a boot did not say who has the memory; the log:\n{log}"));
    };
    if !matches!(end, End::Silent(_)) {
        return Verdict::Failed(format!("an idle kernel is up and silent; got: {end}; the log:\n{log}"));
    }
    let gained = idle.allocator.saturating_sub(testing.allocator);
    let total = testing.kernel + testing.laboratory + testing.allocator;
    let balanced = testing.kept && !idle.kept && idle.kernel + idle.allocator == total;
    if balanced && gained + SLACK >= testing.laboratory && testing.laboratory > 0 {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("the laboratory was not given back: {testing:?}, idle {idle:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Books, verdict};
    use crate::guest::End;
    use crate::test::tally::Verdict;
    use abi::exit::Exit;
    use std::time::Duration;

    const LINE: &str =
        "memory: the kernel has 2428 KiB, its laboratory 956 KiB (kept), the allocator 520384 KiB";
    const TESTING: Books = Books { kernel: 2428, laboratory: 956, kept: true, allocator: 520_384 };
    const IDLE: Books = Books { kept: false, allocator: 521_340, ..TESTING };

    #[test]
    fn lines() {
        assert_eq!(Books::read(LINE), Some(TESTING));
        assert!(!Books::read(&LINE.replace("(kept)", "(given back)")).unwrap().kept);
        assert_eq!(Books::read("memory: the kernel occupies 1 bytes"), None);
    }

    #[test]
    fn the_memory_must_be_there_and_the_kernel_up() {
        let silent = End::Silent(Duration::from_secs(10));
        let passes = |idle, end: &End| matches!(verdict(Some(TESTING), idle, end, ""), Verdict::Passed);
        assert!(passes(Some(IDLE), &silent));
        assert!(!passes(Some(IDLE), &End::Exit(Exit::Panic)));
        assert!(!passes(None, &silent));
        assert!(!passes(Some(Books { allocator: TESTING.allocator, ..IDLE }), &silent));
        assert!(!passes(Some(TESTING), &silent));
    }
}
