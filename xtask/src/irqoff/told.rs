//! What the plugin has written, with names.

use super::{Part, Stretch};
use crate::witness::Symbols;
use abi::ipc::MESSAGE_CALLS;
use abi::syscall::TABLE;
use std::collections::BTreeMap;

/// Functions that are named of those in which most was executed.
const MOST: usize = 5;

/// Names of all calls, by their numbers: those that pass messages are behind the others.
pub(super) fn calls() -> impl Iterator<Item = &'static str> {
    let others = TABLE.iter().map(|row| row.name);
    others.chain(MESSAGE_CALLS.iter().map(|(_, name, _)| *name))
}

/// The stretches of a file of the plugin's; `None` if it is something else.
pub(super) fn read(text: &str, driver: &str, symbols: &Symbols) -> Option<Vec<Stretch>> {
    let mut all: Vec<Raw> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (kind, first) = (words.next()?, words.next()?);
        match kind {
            "call" => {
                let number: usize = first.parse().ok()?;
                let name = calls().nth(number).map_or_else(|| format!("call {number}"), str::to_owned);
                all.push(Raw::new(name));
            }
            "at" => all.push(Raw::new(format!("at {}", symbols.name(address(first)?)))),
            _ => all.last_mut()?.take(kind, first, words.next())?,
        }
    }
    Some(all.into_iter().map(|raw| raw.named(driver, symbols)).collect())
}

/// Keeps the longer of two stretches of an origin, and what was seen of both.
pub(super) fn keep(longest: &mut BTreeMap<String, Stretch>, new: Stretch) {
    let seen = longest.get(&new.origin).map_or(0, |old| old.seen) + new.seen;
    let old = longest.remove(&new.origin).filter(|old| old.instructions >= new.instructions);
    let kept = old.unwrap_or(new);
    longest.insert(kept.origin.clone(), Stretch { seen, ..kept });
}

fn address(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}

/// A stretch before it has names.
struct Raw {
    origin: String,
    seen: u64,
    instructions: u64,
    to: u64,
    path: Vec<(u64, u64)>,
    blocks: Vec<(u64, u64)>,
}

impl Raw {
    fn new(origin: String) -> Self {
        Self { origin, seen: 0, instructions: 0, to: 0, path: Vec::new(), blocks: Vec::new() }
    }

    fn take(&mut self, kind: &str, first: &str, second: Option<&str>) -> Option<()> {
        let pair = || Some((address(first)?, second?.parse().ok()?));
        match kind {
            "seen" => self.seen = first.parse().ok()?,
            "longest" => self.instructions = first.parse().ok()?,
            "to" => self.to = address(first)?,
            "from" => {}
            "path" => self.path.push(pair()?),
            "block" => self.blocks.push(pair()?),
            _ => return None,
        }
        Some(())
    }

    fn named(self, driver: &str, symbols: &Symbols) -> Stretch {
        let part = |(function, instructions)| Part { function, instructions };
        let path = self.path.iter().map(|&(at, instructions)| part((symbols.name(at), instructions)));
        let mut functions: BTreeMap<String, u64> = BTreeMap::new();
        for &(at, instructions) in &self.blocks {
            *functions.entry(symbols.name(at)).or_default() += instructions;
        }
        let mut most: Vec<Part> = functions.into_iter().map(part).collect();
        most.sort_by_key(|part| std::cmp::Reverse(part.instructions));
        most.truncate(MOST);
        Stretch {
            instructions: self.instructions,
            seen: self.seen,
            driver: driver.to_owned(),
            to: symbols.name(self.to),
            path: path.collect(),
            most,
            origin: self.origin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{calls, keep, read};
    use crate::witness::Symbols;
    use std::collections::BTreeMap;

    const TEXT: &str = "call 0\nseen 3\nlongest 30\nfrom 10\nto 20\npath 10 30\npath 20 12\nblock 10 18\nblock 20 12\n\
                        at 30\nseen 1\nlongest 9\nfrom 30\nto 30\npath 30 9\nblock 30 9\n";

    #[test]
    fn stretches_have_names() {
        let read = read(TEXT, "here", &Symbols::default()).unwrap();
        let [call, other] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!((call.origin.as_str(), call.instructions, call.seen), ("null", 30, 3));
        assert_eq!((call.path[1].function.as_str(), call.path[1].instructions), ("0x20", 12));
        assert_eq!((call.most[0].function.as_str(), call.most[0].instructions), ("0x10", 18));
        assert_eq!((other.origin.as_str(), other.driver.as_str()), ("at 0x30", "here"));
    }

    #[test]
    fn something_else_is_refused() {
        for text in ["seen 3", "call", "call x", "call 0\nwhat 3", "call 0\npath 10", "at x"] {
            assert!(read(text, "here", &Symbols::default()).is_none(), "{text}");
        }
    }

    #[test]
    fn the_longest_of_several_files_stays() {
        let mut longest = BTreeMap::new();
        for instructions in [20, 30, 25] {
            let text = format!("call 1\nseen 2\nlongest {instructions}\n");
            let driver = instructions.to_string();
            read(&text, &driver, &Symbols::default())
                .unwrap()
                .into_iter()
                .for_each(|new| keep(&mut longest, new));
        }
        let kept = &longest["yield_now"];
        assert_eq!((kept.instructions, kept.seen, kept.driver.as_str()), (30, 6, "30"));
        assert_eq!(calls().count(), abi::syscall::COUNT + 5);
    }
}
