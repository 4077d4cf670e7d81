//! Frames: `0x00 | COBS(header | payload | CRC) | 0x00`.
//!
//! Header: magic (2 bytes), sequence number (4), length of the payload (4). Payload: a postcard [`Record`]. CRC: CRC-32 of
//! header and payload (ISO-HDLC, the one of zlib). All numbers are little-endian. COBS is Consistent Overhead Byte Stuffing
//! (Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999): it removes every 0x00 for one byte in 254.
//!
//! The magic has no zero byte, so it always stands unchanged at bytes 1 and 2 of the stuffed content, where it tells a frame
//! from text; and neither of its bytes can occur in UTF-8 text. A sender that may have been interrupted inside a frame (a
//! panic) writes one 0x00 before its text: that ends the frame, and more of them do no harm.

use core::fmt;

use super::Record;

/// Most bytes of a frame, delimiters included.
pub const MAX_FRAME: usize = 4096;

/// Most bytes of a record.
pub const MAX_PAYLOAD: usize = MAX_CONTENT - HEADER - CRC;

/// Marks the start of every frame. Both bytes are invalid in UTF-8.
pub(super) const MAGIC: [u8; 2] = [0xfe, 0xf8];

const HEADER: usize = 2 + 4 + 4;
const CRC: usize = 4;
/// What fits a frame once stuffed: two delimiters, one code byte, and one more for each 254 bytes.
const MAX_CONTENT: usize = MAX_FRAME - 2 - 1 - MAX_FRAME / 254;

const _: () = assert!(cobs::max_encoding_length(MAX_CONTENT) + 2 <= MAX_FRAME);

const CRC32: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// A record that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError;

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a record of more than {MAX_PAYLOAD} bytes")
    }
}

impl core::error::Error for EncodeError {}

/// Turns records into frames and numbers them. About 8 KiB: keep it in a static or on the heap.
#[derive(Debug)]
pub struct Encoder {
    sequence: u32,
    content: [u8; MAX_CONTENT],
    frame: [u8; MAX_FRAME],
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An encoder whose first frame has number 0.
    #[must_use]
    pub const fn new() -> Self {
        Self { sequence: 0, content: [0; MAX_CONTENT], frame: [0; MAX_FRAME] }
    }

    /// The frame of a record, delimiters included, to be written in one piece.
    ///
    /// # Errors
    /// [`EncodeError`] if the record does not fit. Its number is used up all the same, so that the reader sees the gap.
    pub fn encode(&mut self, record: &Record<'_>) -> Result<&[u8], EncodeError> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let (header, body) = self.content.split_at_mut(HEADER);
        let room = body.get_mut(..MAX_PAYLOAD).ok_or(EncodeError)?;
        let length = postcard::to_slice(record, room).map_err(|_| EncodeError)?.len();
        write_header(header, sequence, u32::try_from(length).map_err(|_| EncodeError)?);
        let end = HEADER + length;
        let (checked, rest) = self.content.split_at_mut(end);
        let crc = CRC32.checksum(checked).to_le_bytes();
        rest.get_mut(..CRC).ok_or(EncodeError)?.copy_from_slice(&crc);
        let content = self.content.get(..end + CRC).ok_or(EncodeError)?;
        let stuffed = cobs::try_encode(content, &mut self.frame[1..]).map_err(|_| EncodeError)?;
        self.frame[0] = 0;
        *self.frame.get_mut(1 + stuffed).ok_or(EncodeError)? = 0;
        self.frame.get(..stuffed + 2).ok_or(EncodeError)
    }
}

fn write_header(header: &mut [u8], sequence: u32, length: u32) {
    let fields = MAGIC.into_iter().chain(sequence.to_le_bytes()).chain(length.to_le_bytes());
    for (slot, byte) in header.iter_mut().zip(fields) {
        *slot = byte;
    }
}

/// What is wrong with bytes that should have been a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrupt {
    /// Longer than any frame.
    TooLong,
    /// The stream ended inside it.
    CutOff,
    /// Not byte-stuffed.
    Stuffing,
    /// The length in the header is not the length of what came.
    Length,
    /// The check sum differs.
    Checksum,
    /// The check sum agrees, but the record is of no known form: another protocol version.
    Record,
    /// Outside any frame, and not text either: what is left of a damaged frame or line.
    NotText,
}

impl Corrupt {
    /// The reason as a short phrase for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::TooLong => "a frame longer than any frame can be",
            Self::CutOff => "the stream ended inside a frame",
            Self::Stuffing => "a frame with broken byte stuffing",
            Self::Length => "a frame whose length is wrong",
            Self::Checksum => "a frame whose check sum is wrong",
            Self::Record => "a record of an unknown form",
            Self::NotText => "bytes that are neither text nor a frame",
        }
    }
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// Unstuffs and checks what stood between two delimiters, in `content`. Gives the sequence number and the payload.
#[cfg(feature = "std")]
pub(super) fn open<'c>(stuffed: &[u8], content: &'c mut [u8; MAX_FRAME]) -> Result<(u32, &'c [u8]), Corrupt> {
    let length = cobs::decode(stuffed, content).map_err(|_| Corrupt::Stuffing)?;
    let content = content.get(..length).ok_or(Corrupt::Stuffing)?;
    let (checked, crc) = content.split_last_chunk::<CRC>().ok_or(Corrupt::Length)?;
    let (header, payload) = checked.split_first_chunk::<HEADER>().ok_or(Corrupt::Length)?;
    if CRC32.checksum(checked) != u32::from_le_bytes(*crc) {
        return Err(Corrupt::Checksum);
    }
    let &[m0, m1, s0, s1, s2, s3, l0, l1, l2, l3] = header;
    if [m0, m1] != MAGIC || u32::try_from(payload.len()) != Ok(u32::from_le_bytes([l0, l1, l2, l3])) {
        return Err(Corrupt::Length);
    }
    Ok((u32::from_le_bytes([s0, s1, s2, s3]), payload))
}
