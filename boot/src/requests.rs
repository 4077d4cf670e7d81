//! Finding what the kernel asks for: the requests, the base revision tag and the delimiters in its loaded image
//! (Limine boot protocol, "Requests Delimiters", "Base Revisions", "Features").

use crate::{Refusal, u64_at};
use abi::exit::Exit;

/// The newest base revision this loader implements.
pub const NEWEST: u64 = 3;
/// The oldest one. Revision 0, which has an identity map and is also what a missing tag means, is dropped, which
/// the protocol permits as long as such an executable is not booted.
const OLDEST: u64 = 1;

const COMMON_MAGIC: [u64; 2] = [0xc7b1_dd30_df4c_8b88, 0x0a82_e883_a194_f07b];
const BASE_REVISION: [u64; 2] = [0xf956_2b2d_5c95_a6c8, 0x6a7b_3849_4453_6bdc];
const START_MARKER: [u64; 4] =
    [0xf6b8_f4b3_9de7_d1ae, 0xfab9_1a69_40fc_b9cf, 0x785c_6ed0_15d3_e316, 0x181e_920a_7852_b9d9];
const END_MARKER: [u64; 2] = [0xadc0_e053_1bb1_0d03, 0x9572_709f_3176_4c62];

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident $size:literal [$first:literal, $second:literal];)*) => {
        /// The features this loader answers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Feature { $($(#[$doc])* $name),* }

        impl Feature {
            /// Every feature, in table order.
            pub const ALL: &'static [Feature] = &[$(Feature::$name),*];

            /// The two words of the id that follow the common ones.
            #[must_use]
            pub const fn id(self) -> [u64; 2] {
                match self { $(Feature::$name => [$first, $second]),* }
            }

            /// Bytes of the newest revision of the request.
            #[must_use]
            pub const fn size(self) -> usize {
                match self { $(Feature::$name => $size),* }
            }
        }
    };
}

features! {
    /// Name and version of the loader.
    LoaderInfo 48 [0xf550_38d8_e2a1_202f, 0x2794_26fc_f5f5_9740];
    /// The kernel command line.
    Cmdline 48 [0x4b16_1536_e598_651e, 0xb390_ad4a_2f1f_303a];
    /// A larger stack.
    StackSize 56 [0x224e_f046_0a8e_8926, 0xe1cb_0fc2_5f46_ea3d];
    /// Where physical memory is mapped.
    Hhdm 48 [0x48dc_f1cb_8ad2_b852, 0x6398_4e95_9a98_244b];
    /// Depth of the page tables.
    PagingMode 72 [0x95c1_a0ed_ab09_44cb, 0xa4e5_cb38_42f7_488a];
    /// The other cores.
    Mp 56 [0x95a6_7b81_9a1b_857e, 0xa0b6_1b72_3b6a_73e0];
    /// The memory map.
    MemoryMap 48 [0x67cf_3d9d_378a_806f, 0xe304_acdf_c50c_3c62];
    /// An entry point other than the ELF header's.
    EntryPoint 56 [0x13d8_6c03_5a1c_d3e1, 0x2b0c_aa89_d8f3_026a];
    /// The kernel's own file.
    ExecutableFile 48 [0xad97_e90e_83f1_ed67, 0x31eb_5d1c_5ff2_3b69];
    /// The modules.
    Modules 64 [0x3e7e_2797_02be_32af, 0xca1c_4f3b_d128_0cee];
    /// The ACPI root pointer.
    Rsdp 48 [0xc5e7_7b6b_397e_7b43, 0x2763_7845_accd_cf3c];
    /// Seconds since 1970.
    DateAtBoot 48 [0x5027_46e1_84c0_88aa, 0xfbc5_ec83_e632_7893];
    /// Where the kernel image lies.
    ExecutableAddress 48 [0x71ba_7686_3cc5_5f63, 0xb264_4a48_c516_a487];
}

// Offsets in a request.
/// Offset of the revision.
pub const REVISION: usize = 32;
/// Offset of the pointer to the response.
pub const RESPONSE: usize = 40;
/// Offset of the first member that is not common to all requests.
pub const FIRST: usize = 48;

/// A base revision tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Where it is in the image.
    pub offset: usize,
    /// The revision the kernel asks for.
    pub asked: u64,
}

impl Tag {
    /// The base revision to load the kernel with; a newer one than the loader knows gets the newest.
    #[must_use]
    pub fn loaded(&self) -> u64 {
        self.asked.min(NEWEST)
    }

    /// Whether the kernel gets what it asks for.
    #[must_use]
    pub const fn is_supported(&self) -> bool {
        self.asked <= NEWEST
    }
}

/// What a kernel asks for, as offsets into its image.
#[derive(Clone, Debug)]
pub struct Requests {
    offsets: [Option<usize>; Feature::ALL.len()],
    tag: Option<Tag>,
    ended: bool,
}

impl Requests {
    /// Scans a whole image.
    ///
    /// # Errors
    /// [`Exit::BadProtocol`] for a request that occurs twice, or a base revision that is no longer supported.
    pub fn scan(image: &[u8]) -> Result<(Self, Tag), Refusal> {
        let mut requests = Self { offsets: [None; Feature::ALL.len()], tag: None, ended: false };
        for (index, chunk) in image.chunks_exact(8).enumerate() {
            if requests.ended {
                break;
            }
            // Nearly every word is none of the four magic numbers: decide on the first word alone.
            match u64_at(chunk, 0) {
                Some(word) if is_magic(word) => requests.visit(image, index * 8)?,
                _ => {}
            }
        }
        let old = "the kernel has no base revision tag, or one for a revision this loader has dropped";
        match requests.tag {
            Some(tag) if tag.asked >= OLDEST => Ok((requests, tag)),
            _ => Err(Refusal::new(Exit::BadProtocol, old)),
        }
    }

    /// Offset of the request for a feature.
    #[must_use]
    pub fn get(&self, feature: Feature) -> Option<usize> {
        Feature::ALL.iter().position(|&known| known == feature).and_then(|index| self.offsets[index])
    }

    fn visit(&mut self, image: &[u8], at: usize) -> Result<(), Refusal> {
        let is = |magic: &[u64]| (0..).zip(magic).all(|(i, &word)| u64_at(image, at + i * 8) == Some(word));
        if is(&START_MARKER) {
            // Whatever came before is outside of the delimited area.
            (self.offsets, self.tag) = ([None; Feature::ALL.len()], None);
        } else if is(&END_MARKER) {
            self.ended = true;
        } else if is(&BASE_REVISION) {
            if let Some(asked) = u64_at(image, at + 16) {
                let what = "the kernel has two base revision tags";
                let first = self.tag.replace(Tag { offset: at, asked });
                return first.map_or(Ok(()), |_| Err(Refusal::new(Exit::BadProtocol, what)));
            }
        } else if is(&COMMON_MAGIC) {
            return self.request(image, at);
        }
        Ok(())
    }

    fn request(&mut self, image: &[u8], at: usize) -> Result<(), Refusal> {
        let (Some(first), Some(second)) = (u64_at(image, at + 16), u64_at(image, at + 24)) else {
            return Ok(());
        };
        let Some(index) = Feature::ALL.iter().position(|feature| feature.id() == [first, second]) else {
            return Ok(());
        };
        let what = "a request of the kernel is cut off by the end of its image";
        if image.len() - at < Feature::ALL[index].size() {
            return Err(Refusal::with(Exit::BadProtocol, what, first));
        }
        let what = "the kernel makes a request twice; its id begins with this number";
        let earlier = self.offsets[index].replace(at);
        earlier.map_or(Ok(()), |_| Err(Refusal::with(Exit::BadProtocol, what, first)))
    }
}

const fn is_magic(word: u64) -> bool {
    word == COMMON_MAGIC[0] || word == BASE_REVISION[0] || word == START_MARKER[0] || word == END_MARKER[0]
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
