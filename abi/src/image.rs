//! What is wrong with a program's image: the value beside [`Error::BadImage`](crate::error::Error::BadImage).

macro_rules! flaws {
    ($( $(#[doc = $text:literal])* $number:literal $variant:ident $words:literal; )*) => {
        /// Why an image cannot be run. Numbers stay what they are; 0 is none.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u64)]
        pub enum ImageFlaw { $( $(#[doc = $text])* $variant = $number ),* }

        impl ImageFlaw {
            /// Every flaw, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The flaw of a number.
            #[must_use]
            pub const fn decode(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// A few words for people.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words),* }
            }
        }
    };
}

flaws! {
    /// No ELF file of 64 bits, little-endian, for x86-64; or one that is cut off within its header.
    1 NotElf "not an ELF file for x86-64";
    /// Neither of fixed address (`ET_EXEC`) nor position-independent (`ET_DYN`).
    2 NotProgram "not a program";
    /// It asks for a dynamic linker (`PT_INTERP`).
    3 Interpreter "it needs a dynamic linker";
    /// The program headers are none, too many, of another size, or too far back in the file.
    4 Headers "its program headers cannot be used";
    /// A segment has more bytes in the file than the file or the segment has.
    5 Beyond "a segment goes beyond the file";
    /// Address and file offset of a segment differ within a page, or its alignment is no power of two from 4 KiB to 2 MiB.
    6 Misaligned "a segment is misaligned";
    /// Segments are not in ascending order, overlap, or have a page in common.
    7 Overlap "segments overlap";
    /// A segment touches page 0 or leaves the user half.
    8 Range "a segment lies outside the user half";
    /// It takes more address space than an image may.
    9 TooLarge "it is too large";
    /// A segment, or the stack, would be writable and executable.
    10 WriteExecute "something is writable and executable";
    /// The entry point is in no executable segment.
    11 Entry "the entry point is not code";
    /// The template of thread-local storage is not inside a segment, or its alignment is none.
    12 Tls "its thread-local storage is not inside it";
}

impl core::fmt::Display for ImageFlaw {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.words())
    }
}

impl core::error::Error for ImageFlaw {}

#[cfg(test)]
mod tests {
    use super::ImageFlaw;

    #[test]
    fn numbers_decode_to_what_they_were() {
        for &flaw in ImageFlaw::ALL {
            assert_eq!(ImageFlaw::decode(flaw as u64), Some(flaw));
            assert!(!flaw.words().is_empty());
        }
        assert_eq!(ImageFlaw::decode(0), None);
        assert_eq!(ImageFlaw::decode(13), None);
    }
}
