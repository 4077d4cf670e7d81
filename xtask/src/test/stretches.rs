//! The gate of interrupts-off stretches: no system call keeps interrupts off for longer than is allowed, and one that does is found.

use super::tally::{Tally, Verdict};
use crate::error::Result;
use crate::image::{self, Flavour, Image};
use crate::irqoff::{self, DRIVERS, Driver, StretchFile, limits};
use crate::qemu::Qemu;
use crate::witness;
use abi::boot::selects;

const CALLS: &str = "irqoff/calls";
/// The drivers of it that take half a minute together; continuous integration runs `programs` after the tests.
const SHORT: [&str; 2] = ["matrix", "rows"];
/// The planted instructions.
const PLANTED: &str = "irqoff/planted";
/// The call that has them, and who makes it: every program when it starts.
const CALL: &str = "cap_info";
const HELLO: Driver =
    Driver { name: "hello", line: "mode=test lane=icount filter=user.hello", mebibytes: 512 };

/// Runs those that `filter` selects.
///
/// # Errors
/// A kernel or the plugin cannot be built, a machine fails, or the user interrupts.
pub(super) fn run(filter: &str, qemu: &Qemu, image: &Image) -> Result<Tally> {
    let mut tally = Tally::default();
    let chosen: Vec<&str> = [CALLS, PLANTED].into_iter().filter(|name| selects(filter, name)).collect();
    if !chosen.is_empty() && !qemu.takes_plugins()? {
        chosen.iter().for_each(|name| tally.record(name, &Verdict::Skipped(witness::NO_PLUGINS.to_owned())));
        return Ok(tally);
    }
    if chosen.contains(&CALLS) {
        let drivers: Vec<Driver> =
            DRIVERS.iter().filter(|driver| SHORT.contains(&driver.name)).copied().collect();
        tally.record(CALLS, &verdict(&irqoff::measure(&drivers, qemu, image)?));
    }
    if chosen.contains(&PLANTED) {
        let long = image::build(Flavour::SlowCall)?;
        tally.record(PLANTED, &caught(&irqoff::measure(&[HELLO], qemu, &long)?));
    }
    Ok(tally)
}

fn verdict(file: &StretchFile) -> Verdict {
    let broken = limits::broken(file);
    if broken.is_empty() { Verdict::Passed } else { Verdict::Failed(broken.join("\n")) }
}

/// The planted instructions are found if the call is named, alone, and its path.
fn caught(file: &StretchFile) -> Verdict {
    match limits::broken(file).as_slice() {
        [line] if line.starts_with(&format!("{CALL}: ")) && line.contains(&format!("::{CALL} ")) => {
            Verdict::Passed
        }
        other => Verdict::Failed(format!("{CALL} is not named, alone, with its path:\n{}", other.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{DRIVERS, SHORT, caught, verdict};
    use crate::irqoff::{Part, Stretch, StretchFile, VERSION, limits};
    use crate::test::tally::Verdict;

    fn file(stretches: &[(&str, u64, &str)]) -> StretchFile {
        let stretch = |&(origin, instructions, function): &(&str, u64, &str)| Stretch {
            origin: origin.to_owned(),
            instructions,
            seen: 1,
            driver: "test".to_owned(),
            to: String::new(),
            path: vec![Part { function: function.to_owned(), instructions }],
            most: Vec::new(),
        };
        let stretches = stretches.iter().map(stretch).collect();
        StretchFile { schema: VERSION, drivers: Vec::new(), stretches, unseen: Vec::new() }
    }

    #[test]
    fn the_call_must_be_named_alone_with_its_path() {
        let long = ("cap_info", limits::LIMIT + 1, "kernel::entry::cap_info");
        assert_eq!(caught(&file(&[long, ("null", limits::LIMIT, "kernel::entry::null")])), Verdict::Passed);
        let others = [
            vec![],
            vec![("cap_info", limits::LIMIT, "kernel::entry::cap_info")],
            vec![("cap_info", limits::LIMIT + 1, "syscall_entry")],
            vec![("null", limits::LIMIT + 1, "kernel::entry::cap_info")],
            vec![long, ("null", limits::LIMIT + 1, "kernel::entry::null")],
        ];
        for other in others {
            assert_ne!(caught(&file(&other)), Verdict::Passed, "{other:?}");
        }
        assert_ne!(verdict(&file(&[long])), Verdict::Passed);
        assert_eq!(verdict(&file(&[])), Verdict::Passed);
    }

    #[test]
    fn the_short_drivers_exist() {
        assert!(SHORT.iter().all(|name| DRIVERS.iter().any(|driver| driver.name == *name)));
    }
}
