//! The manual page of the system calls, `docs/syscalls.md`: written from the table in `abi`, and checked to be what it says.

use abi::error::Error as CallError;
use abi::ipc::MESSAGE_CALLS;
use abi::syscall::TABLE;
use std::fmt::Write;

/// Where the page is, from the workspace's root.
pub(super) const PATH: &str = "docs/syscalls.md";

/// The page.
pub(super) fn page() -> String {
    let mut page = String::from(
        "# System calls\n\nWritten by `cargo xtask check --write-manual` from the table in `abi/src/syscall.rs`; the structures are in `abi/src/task.rs`, rights \
         and handles in `abi/src/cap.rs`.\n\nNumber in `rax`, arguments in `rdi rsi rdx r10 r8 r9`, `syscall`; status in `rax` (0, or an error), value in `rdx`. \
         `rcx`, `r11`, `rsi`, `rdi`, `r8`, `r9` and `r10` are lost.\n\n| nr | call | value | what it does |\n|---:|---|---|---|\n",
    );
    for row in TABLE {
        let arguments: Vec<String> = row
            .arguments
            .iter()
            .map(|argument| format!("{}: {}", argument.name, argument.kind.word()))
            .collect();
        let text: Vec<&str> = row.text.iter().map(|line| line.trim()).collect();
        let _ = writeln!(
            page,
            "| {} | `{}({})` | {} | {} |",
            row.number,
            row.name,
            arguments.join(", "),
            row.value,
            text.join(" ")
        );
    }
    page.push_str(
        "\n## Calls that pass messages\n\nHandle in `rdi`, tag in `rsi`, words in `rdx r8 r9 r10 r12 r13 r14 r15`; the answer comes in the same registers, the badge \
         in `rdi`. A time in `rbx` if the tag says so. Tag and faults: `abi/src/ipc.rs`.\n\n| nr | call | what it does |\n|---:|---|---|\n",
    );
    for &(call, name, text) in MESSAGE_CALLS {
        let _ = writeln!(page, "| {} | `{name}(handle, tag)` | {text} |", call as u64);
    }
    page.push_str("\n## Errors\n\n| status | error | meaning |\n|---:|---|---|\n");
    for error in CallError::ALL {
        let _ = writeln!(page, "| {} | `{}` | {} |", *error as u64, error.name(), error.words());
    }
    page
}

/// What is wrong with the page that is there.
pub(super) fn find(there: &str) -> Vec<String> {
    if there == page() {
        return Vec::new();
    }
    vec![format!(
        "manual: {PATH} is not what abi/src/syscall.rs says; run `cargo xtask check --write-manual`"
    )]
}

#[cfg(test)]
mod tests {
    use super::{find, page};
    use abi::syscall::TABLE;

    #[test]
    fn every_call_has_its_line() {
        let page = page();
        assert!(TABLE.iter().all(|row| page.contains(&format!("| {} | `{}(", row.number, row.name))));
    }

    #[test]
    fn another_page_is_noticed() {
        assert_eq!(find(&page()), Vec::<String>::new());
        assert_eq!(find(&page().replace("yield_now", "yield_later")).len(), 1);
    }
}
