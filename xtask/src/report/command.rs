//! The commands that reproduce what a page shows, ready to be copied.

use crate::report::html::escape;
use crate::report::page::{Page, Shown};
use crate::results::schema::{Qemu, Target};
use crate::workspace;
use abi::boot::Lane;
use std::path::Path;

/// A command with a button that copies it.
pub(super) fn block(about: &str, command: &str) -> String {
    let (about, command) = (escape(about), escape(command));
    format!(
        "<div class=\"cmd\"><span class=\"what\">{about}</span><code tabindex=\"0\">{command}</code><button type=\"button\" \
         class=\"copy\" aria-label=\"Copy: {about}\">copy</button></div>\n"
    )
}

/// The commands that measure `filter` again as each side did; one where they are the same.
pub(super) fn measure(page: &Page, filter: &str) -> String {
    let commands: Vec<(String, &str)> =
        page.sides.iter().map(|side| (bench(side, filter), side.label.as_str())).collect();
    let mut text = String::new();
    let mut written: Vec<&str> = Vec::new();
    for (command, _) in &commands {
        if written.contains(&command.as_str()) {
            continue;
        }
        written.push(command);
        let labels: Vec<&str> =
            commands.iter().filter(|(other, _)| other == command).map(|&(_, label)| label).collect();
        let all = labels.len() == commands.len();
        let about = if all { "Reproduce".to_owned() } else { format!("Reproduce {}", labels.join(", ")) };
        text.push_str(&block(&about, command));
    }
    text
}

/// The command that measures a side again, from its commit; what is said before it is `about`, and what a commit does not hold.
pub(super) fn whole(about: &str, side: &Shown) -> String {
    let git = &side.last().env.git;
    let bench = bench(side, &side.last().run.filter);
    let command = match &git.commit {
        Some(commit) => format!("git switch --detach {} && {bench}", commit.get(..12).unwrap_or(commit)),
        None => bench,
    };
    if git.dirty == Some(true) {
        return block(&format!("{about} (its tree had changes that were not committed)"), &command);
    }
    block(about, &command)
}

/// `cargo xtask bench` with the machine and effort of a side's runs, and as many boots as they have together.
pub(super) fn bench(side: &Shown, filter: &str) -> String {
    let run = side.last();
    let mut words = vec!["cargo".to_owned(), "xtask".to_owned(), "bench".to_owned()];
    if !filter.is_empty() {
        words.push(quoted(filter));
    }
    let file = &run.run;
    match Lane::parse(&file.lane) {
        Some(Lane::Hw) => words.push("--machine FILE.toml".to_owned()),
        _ => words.push(format!("--lane {}", quoted(&file.lane))),
    }
    if let (Some(target), Some(qemu)) = (&run.env.target, &run.env.qemu) {
        words.push(machine(target, qemu));
    }
    if file.profile != "quick" {
        words.push(format!("--profile {}", quoted(&file.profile)));
    }
    words.extend(file.samples.map(|samples| format!("--samples {samples}")));
    if side.boots() > 1 {
        words.push(format!("--boots {}", side.boots()));
    }
    words.join(" ")
}

/// The flags of an emulated machine; one that is not even needs its file.
fn machine(target: &Target, qemu: &Qemu) -> String {
    let cores = |node: u32| target.cores.iter().filter(|core| core.node == node).count();
    let first = target.nodes.first().map(|node| (cores(node.id), node.memory_bytes >> 28));
    // Firmware keeps some of the first node for itself: sizes are compared in units of 256 MiB, rounded up.
    let even = target.nodes.iter().all(|node| {
        let same = first.is_none_or(|(count, memory)| {
            count == cores(node.id) && memory.abs_diff(node.memory_bytes >> 28) <= 1
        });
        same && node.distances.iter().all(|&distance| distance == 10 || distance == 20)
    });
    let memory = qemu.command.windows(2).find(|pair| pair[0] == "-m").map(|pair| pair[1].clone());
    match memory {
        Some(memory) if even => {
            let memory: crate::topology::Mebibytes = match memory.parse() {
                Ok(memory) => memory,
                Err(_) => return "--topology FILE.toml".to_owned(),
            };
            format!("--smp {} --nodes {} --mem {memory}", target.cores.len(), target.nodes.len().max(1))
        }
        _ => "--topology FILE.toml".to_owned(),
    }
}

/// The path of a run as it is named on a command line in the repository.
pub(super) fn path(dir: &Path) -> String {
    quoted(&dir.strip_prefix(workspace::root()).unwrap_or(dir).display().to_string())
}

/// A word of a shell.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/=,-+:".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::{Shown, bench, block, quoted, whole};
    use crate::cli::{Cli, Command};
    use crate::compare::testing;
    use clap::Parser;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(
            (quoted("a.b/x=1,y").as_str(), quoted("$(rm) 'x'").as_str()),
            ("a.b/x=1,y", "'$(rm) '\\''x'\\'''")
        );
        assert!(block("<a>", "<b>").contains("&lt;b&gt;") && !block("<a>", "<b>").contains("<a>"));
    }

    #[test]
    fn the_command_asks_for_the_same_machine() {
        let mut run = testing::run("r", "icount", 3, Vec::new());
        (run.run.samples, run.env.git.dirty) = (Some(100), Some(false));
        let qemu = run.env.qemu.as_mut().unwrap();
        qemu.command.extend(["-m", "4096M"].map(ToOwned::to_owned));
        let mut side = Shown { label: String::new(), runs: vec![run] };
        let command = bench(&side, "a.b/");
        assert_eq!(
            command,
            "cargo xtask bench a.b/ --lane icount --smp 8 --nodes 2 --mem 4G --samples 100 --boots 3"
        );
        // Words of the command line, which the command line itself must understand.
        let words = command.split(' ').skip(1);
        let Command::Bench(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("another subcommand")
        };
        assert_eq!((args.boots, args.samples), (Some(3), Some(100)));
        let says = "<code tabindex=\"0\">git switch --detach 000000000000 &amp;&amp; cargo xtask bench --lane icount";
        let text = whole("This run", &side);
        assert!(text.contains(says) && !text.contains("not committed"), "{text}");
        // Runs of one boot each, as `ab` makes them, are measured again as one run of as many boots.
        side.runs.push(side.runs[0].clone());
        side.runs[1].env.git.dirty = Some(true);
        assert!(bench(&side, "").ends_with(" --boots 6"), "{}", bench(&side, ""));
        assert!(whole("This run", &side).contains("This run (its tree had changes that were not committed)"));
    }

    #[test]
    fn a_machine_with_odd_nodes_needs_its_file() {
        let mut run = testing::run("r", "tcg", 1, Vec::new());
        run.env.qemu.as_mut().unwrap().command.extend(["-m", "4096M"].map(ToOwned::to_owned));
        run.env.target.as_mut().unwrap().cores[0].node = 1;
        let side = Shown { label: String::new(), runs: vec![run] };
        assert_eq!(bench(&side, ""), "cargo xtask bench --lane tcg --topology FILE.toml");
    }
}
