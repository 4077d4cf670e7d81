//! Takes a serial stream apart: lines of text, records, and reports of what was damaged or lost.
//!
//! Every 0x00 ends one segment and begins the next. A segment with the frame magic at bytes 1 and 2 is a frame, any other is
//! text; nothing else is remembered across a 0x00, so damage never spreads beyond the segments it hit, and any frame whose own
//! bytes and delimiters are intact is delivered.

use std::string::String;
use std::vec::Vec;

use super::Record;
use super::frame::{self, Corrupt, MAGIC, MAX_FRAME};

/// Text lines are cut at this length, so that garbage without line ends does not fill memory.
const MAX_LINE: usize = 16 << 10;

/// Something the stream contained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A line of text without its end. What is not UTF-8 was replaced.
    Text(&'a str),
    /// An intact frame.
    Frame {
        /// Its number.
        sequence: u32,
        /// Its record.
        record: &'a Record<'a>,
    },
    /// Frames are missing before the one that follows.
    Gap {
        /// The number that should have come.
        expected: u32,
        /// The number that came; lower than expected if the sender started again.
        found: u32,
    },
    /// Damaged bytes. [`Corrupt::NotText`] is followed by the line it is about, as far as it can be shown.
    Corrupt {
        /// Where they begin, counted from the start of the stream.
        offset: u64,
        /// What is wrong.
        reason: Corrupt,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Fewer than three bytes since the last 0x00.
    Open,
    Text,
    Frame,
}

/// The decoder. Feed it bytes in pieces of any size; give [`finish`](Self::finish) a chance at the end.
#[derive(Debug)]
pub struct Demux {
    mode: Mode,
    /// Bytes of the current segment that are not yet known to be text.
    segment: Vec<u8>,
    line: Vec<u8>,
    /// Offset of the next byte.
    offset: u64,
    /// Offset of the first byte of `segment`.
    segment_start: u64,
    /// Offset of the first byte of `line`.
    line_start: u64,
    /// The number the next frame should have.
    expected: u32,
}

impl Default for Demux {
    fn default() -> Self {
        Self::new()
    }
}

impl Demux {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            mode: Mode::Open,
            segment: Vec::with_capacity(MAX_FRAME),
            line: Vec::new(),
            offset: 0,
            segment_start: 0,
            line_start: 0,
            expected: 0,
        }
    }

    /// Takes some bytes and reports what they complete.
    pub fn feed(&mut self, bytes: &[u8], report: &mut dyn FnMut(Event<'_>)) {
        for &byte in bytes {
            self.take(byte, report);
            self.offset += 1;
        }
    }

    /// Ends the stream: reports what was left incomplete.
    pub fn finish(&mut self, report: &mut dyn FnMut(Event<'_>)) {
        match self.mode {
            Mode::Frame => self.give_up(Corrupt::CutOff, report),
            Mode::Open | Mode::Text => self.settle_as_text(report),
        }
        if !self.line.is_empty() {
            self.end_line(report);
        }
    }

    fn take(&mut self, byte: u8, report: &mut dyn FnMut(Event<'_>)) {
        if byte == 0 {
            match self.mode {
                Mode::Frame => self.end_frame(report),
                Mode::Open | Mode::Text => self.settle_as_text(report),
            }
            self.mode = Mode::Open;
            return;
        }
        if self.segment.is_empty() {
            self.segment_start = self.offset;
        }
        match self.mode {
            Mode::Text => self.text(byte, self.offset, report),
            Mode::Open => {
                self.segment.push(byte);
                self.tell(report);
            }
            Mode::Frame => {
                self.segment.push(byte);
                if self.segment.len() > MAX_FRAME - 2 {
                    self.give_up(Corrupt::TooLong, report);
                    self.mode = Mode::Text;
                }
            }
        }
    }

    /// Tells frame from text as soon as the first bytes of a segment allow it.
    fn tell(&mut self, report: &mut dyn FnMut(Event<'_>)) {
        let magic_so_far = self.segment.get(1..).unwrap_or_default();
        if magic_so_far == MAGIC {
            self.mode = Mode::Frame;
        } else if !MAGIC.starts_with(magic_so_far) {
            self.settle_as_text(report);
            self.mode = Mode::Text;
        }
    }

    fn settle_as_text(&mut self, report: &mut dyn FnMut(Event<'_>)) {
        let segment = core::mem::take(&mut self.segment);
        for (offset, &byte) in (self.segment_start..).zip(&segment) {
            self.text(byte, offset, report);
        }
        self.recycle(segment);
    }

    fn end_frame(&mut self, report: &mut dyn FnMut(Event<'_>)) {
        let mut content = [0; MAX_FRAME];
        let opened = frame::open(&self.segment, &mut content)
            .and_then(|(sequence, payload)| Ok((sequence, read_record(payload)?)));
        match opened {
            Ok((sequence, record)) => {
                if sequence != self.expected {
                    report(Event::Gap { expected: self.expected, found: sequence });
                }
                self.expected = sequence.wrapping_add(1);
                report(Event::Frame { sequence, record: &record });
                self.segment.clear();
            }
            Err(reason) => self.give_up(reason, report),
        }
    }

    /// Reports a broken frame, and keeps the text at its end: a sender that died inside a frame says why after it.
    fn give_up(&mut self, reason: Corrupt, report: &mut dyn FnMut(Event<'_>)) {
        report(Event::Corrupt { offset: self.segment_start, reason });
        let segment = core::mem::take(&mut self.segment);
        let noise = segment.iter().rposition(|&byte| !is_plain(byte)).map_or(0, |last| last + 1);
        let tail = segment.get(noise..).unwrap_or_default();
        if tail.contains(&b'\n') {
            for (offset, &byte) in (self.segment_start + noise as u64..).zip(tail) {
                self.text(byte, offset, report);
            }
        }
        self.recycle(segment);
    }

    fn recycle(&mut self, mut segment: Vec<u8>) {
        segment.clear();
        self.segment = segment;
    }

    fn text(&mut self, byte: u8, offset: u64, report: &mut dyn FnMut(Event<'_>)) {
        if self.line.is_empty() {
            self.line_start = offset;
        }
        if byte == b'\n' {
            self.end_line(report);
            return;
        }
        self.line.push(byte);
        if self.line.len() >= MAX_LINE {
            self.end_line(report);
        }
    }

    fn end_line(&mut self, report: &mut dyn FnMut(Event<'_>)) {
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        let line = String::from_utf8_lossy(&self.line);
        if line.contains(|letter: char| letter == char::REPLACEMENT_CHARACTER || is_stray_control(letter)) {
            report(Event::Corrupt { offset: self.line_start, reason: Corrupt::NotText });
        }
        report(Event::Text(&line));
        self.line.clear();
    }
}

fn read_record(payload: &[u8]) -> Result<Record<'_>, Corrupt> {
    match postcard::take_from_bytes(payload) {
        Ok((record, [])) => Ok(record),
        Ok(_) | Err(_) => Err(Corrupt::Record),
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | b' '..=b'~')
}

/// A control character that no log line has; tab, carriage return and the escape of colour codes are common.
fn is_stray_control(letter: char) -> bool {
    letter.is_ascii_control() && !matches!(letter, '\t' | '\r' | '\x1b')
}
