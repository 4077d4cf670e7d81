//! The table that people read.

use super::limits::{self, LIMIT};
use super::{Part, Stretch, StretchFile, is_selected};
use crate::ui;

/// Functions of a path that are shown: its end says most.
const SHOWN: usize = 5;

/// Prints the stretches that `filter` selects.
pub(super) fn print(file: &StretchFile, filter: &str) {
    ui::line(&format!("{:<24} {:>12} {:>10}  where", "call", "instructions", "seen"));
    for stretch in file.stretches.iter().filter(|stretch| is_selected(filter, stretch)) {
        ui::line(&row(stretch));
    }
    let over = file.stretches.iter().filter(|stretch| stretch.instructions > LIMIT).count();
    ui::line(&format!("longer than {LIMIT}: {over} of {}", file.stretches.len()));
    if !file.unseen.is_empty() {
        ui::line(&format!("not called: {}", file.unseen.join(", ")));
    }
}

/// A stretch in one line.
pub(super) fn row(stretch: &Stretch) -> String {
    let mark = match limits::allowed(&stretch.origin) {
        allowed if stretch.instructions > allowed => "!",
        LIMIT => " ",
        _ => "*",
    };
    format!(
        "{:<24} {:>11}{mark} {:>10}  {}",
        stretch.origin,
        stretch.instructions,
        stretch.seen,
        way(&stretch.path)
    )
}

/// The end of a path.
pub(super) fn way(path: &[Part]) -> String {
    let from = path.len().saturating_sub(SHOWN);
    let parts: Vec<String> =
        path[from..].iter().map(|part| format!("{} {}", short(&part.function), part.instructions)).collect();
    parts.join(" > ")
}

/// A function's name without what it was made for.
fn short(name: &str) -> &str {
    let generic = name.find("::<").filter(|&at| at > 0);
    generic.map_or(name, |at| &name[..at])
}
