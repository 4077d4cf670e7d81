//! Variable-length integers in LEB128 (DWARF 5, section 7.6): seven bits a byte, the lowest first.

/// Most bytes of a 64-bit integer.
pub const MAX: usize = 10;

/// Writes `value` and gives the number of bytes; 0 if `out` is too short.
pub fn write(mut value: u64, out: &mut [u8]) -> usize {
    for (place, slot) in out.iter_mut().enumerate() {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            *slot = low;
            return place + 1;
        }
        *slot = low | 0x80;
    }
    0
}

/// Reads an integer off the front of `bytes`; `None` if it is cut off or wider than 64 bits.
pub fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..MAX {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        let shift = 7 * place as u32;
        if (low << shift) >> shift != low {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
