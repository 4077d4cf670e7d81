//! `cargo xtask`: the only interface for building, running, testing and measuring Nearfield.
//!
//! One module for each subcommand; [`qemu`] is the one place that builds QEMU's command line, [`guest`] the one that
//! listens to a guest, [`error`] holds the exit codes. Every subcommand calls [`setup`] for what it needs.

pub mod ab;
pub mod bench;
pub mod calibrate;
pub mod check;
pub mod cli;
pub mod compare;
pub mod disk_image;
pub mod doctor;
pub mod error;
pub mod export;
pub mod guest;
pub mod history;
pub mod image;
pub mod interrupt;
pub mod irqoff;
pub mod lane;
pub mod native;
pub mod peers;
pub mod process;
pub mod programs;
pub mod qemu;
pub mod report;
pub mod results;
pub mod run;
pub mod setup;
pub mod test;
pub mod topology;
pub mod trace;
pub mod ui;
pub mod witness;
pub mod workspace;

use clap::Parser;
use cli::{Cli, Command};
use error::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match interrupt::install().and_then(|()| dispatch(&cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code()
        }
    }
}

fn dispatch(command: &Command) -> Result<()> {
    match command {
        Command::Setup(args) => setup::execute(args),
        Command::Run(args) => run::execute(args),
        Command::Test(args) => test::execute(args),
        Command::Check(args) => check::execute(args),
        Command::Bench(args) => bench::execute(args),
        Command::Report(args) => report::execute(args),
        Command::Trace(args) => trace::execute(args),
        Command::Export(args) => export::execute(args),
        Command::Irqoff(args) => irqoff::execute(args),
        Command::Peers(args) => peers::execute(args),
        Command::Compare(args) => compare::execute(args),
        Command::Calibrate(args) => calibrate::execute(args),
        Command::Import(args) => bench::import::execute(args),
        Command::Doctor(args) => doctor::execute(args),
        Command::Image(args) => disk_image::execute(args),
        Command::Ab(args) => ab::execute(args),
        Command::History(args) => history::execute(args),
    }
}
