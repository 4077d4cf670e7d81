//! Says hello.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::say;
use rt::start::Start;

rt::entry!(main);

fn main(start: &Start) -> u64 {
    let raw = start.raw();
    say!("hello from process {} on a machine of {} cores", raw.id, raw.cores);
    for argument in start.arguments() {
        say!("argument: {argument}");
    }
    0
}
