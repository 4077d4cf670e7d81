//! For how many instructions interrupts may be off.

use super::StretchFile;
use super::table;

/// What is allowed: ten microseconds of a core that executes two instructions in a nanosecond.
pub const LIMIT: u64 = 20_000;

/// Origins that are beyond it, with the figure that they have with the drivers matrix, programs and rows, and a twentieth to a tenth more:
/// growth fails.
const KNOWN: &[(&str, u64)] = &[
    ("cap_delete", 36_000),
    ("futex_wake", 36_000),
    ("pages_pass", 39_000),
    ("process_create", 33_000),
    ("region_map", 29_500),
    ("unmap", 29_500),
];

/// The most that a stretch of this origin may have.
#[must_use]
pub fn allowed(origin: &str) -> u64 {
    KNOWN.iter().find(|(name, _)| *name == origin).map_or(LIMIT, |&(_, known)| known)
}

/// A line for each stretch that is longer than allowed.
#[must_use]
pub fn broken(file: &StretchFile) -> Vec<String> {
    let over = file.stretches.iter().filter(|stretch| stretch.instructions > allowed(&stretch.origin));
    let tell = |stretch: &super::Stretch| {
        let (origin, has) = (&stretch.origin, stretch.instructions);
        format!(
            "{origin}: {has} instructions, allowed are {}: {}",
            allowed(origin),
            table::way(&stretch.path)
        )
    };
    over.map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::{KNOWN, LIMIT, allowed, broken};
    use crate::irqoff::{Part, Stretch, StretchFile, VERSION, told};

    fn file(origin: &str, instructions: u64) -> StretchFile {
        let path = vec![Part { function: "some::function".to_owned(), instructions }];
        let stretch = Stretch {
            origin: origin.to_owned(),
            instructions,
            seen: 1,
            driver: "test".to_owned(),
            to: String::new(),
            path,
            most: Vec::new(),
        };
        StretchFile { schema: VERSION, drivers: Vec::new(), stretches: vec![stretch], unseen: Vec::new() }
    }

    #[test]
    fn what_is_longer_is_named_with_its_path() {
        assert!(broken(&file("null", LIMIT)).is_empty());
        let lines = broken(&file("null", LIMIT + 1));
        assert!(
            lines[0].starts_with("null: 20001 instructions") && lines[0].contains("some::function 20001")
        );
    }

    #[test]
    fn what_is_known_may_not_grow() {
        for &(origin, figure) in KNOWN {
            assert!(figure > LIMIT, "{origin}");
            assert!(origin.starts_with("at ") || told::calls().any(|name| name == origin), "{origin}");
            assert!(
                broken(&file(origin, figure)).is_empty() && !broken(&file(origin, figure + 1)).is_empty()
            );
            assert_eq!(allowed(origin), figure);
        }
    }
}
