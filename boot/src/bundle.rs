//! The bundle: an uncompressed ustar archive, passed as the initrd, that holds the kernel and its modules.
//!
//! Members: `kernel` (required), `cmdline` (optional: the kernel command line when the virtual machine gives
//! none), and modules. A member whose name starts with `.` is padding: with a padding member of the right size
//! before it, a file starts on a page of its own and need not be copied.

use crate::{PAGE, Refusal, to_u64};
use abi::exit::Exit;
use tar_no_std::{CorruptDataError, TarArchiveRef};

/// Most members a bundle may have besides padding.
pub const MEMBERS: usize = 128;
/// Longest name of a member: the name field of the format.
pub const NAME: usize = 100;

/// A file of the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'b> {
    name: [u8; NAME],
    name_len: usize,
    /// Offset of the first byte in the bundle.
    pub offset: usize,
    /// The content.
    pub data: &'b [u8],
}

impl Member<'_> {
    const NONE: Self = Member { name: [0; NAME], name_len: 0, offset: 0, data: &[] };

    /// The path inside the bundle, without a leading slash.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name[..self.name_len]
    }
}

/// A checked bundle.
#[derive(Debug)]
pub struct Bundle<'b> {
    members: [Member<'b>; MEMBERS],
    len: usize,
    kernel: Member<'b>,
    cmdline: Option<Member<'b>>,
}

impl<'b> Bundle<'b> {
    /// Checks the archive and finds its members.
    ///
    /// # Errors
    /// [`Exit::BadBundle`] for anything that is not a complete ustar archive with one kernel.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Refusal> {
        let archive = TarArchiveRef::new(bytes).map_err(corrupt)?;
        let mut members = [Member::NONE; MEMBERS];
        let (mut len, mut kernel, mut cmdline) = (0, None, None);
        for entry in archive.entries() {
            let offset = entry.data().as_ptr().addr() - bytes.as_ptr().addr();
            let member = named(entry.filename().as_str().ok(), offset, entry.data())?;
            match member.name() {
                [b'.', ..] => {}
                b"kernel" if kernel.is_none() => kernel = Some(member),
                b"cmdline" if cmdline.is_none() => cmdline = Some(member),
                name if name == b"kernel"
                    || name == b"cmdline"
                    || members[..len].iter().any(|m| m.name() == name) =>
                {
                    return Err(refuse("two members of the bundle have the same name", offset));
                }
                _ => {
                    let slot =
                        members.get_mut(len).ok_or(refuse("the bundle has too many members", offset))?;
                    *slot = member;
                    len += 1;
                }
            }
        }
        let missing = Refusal::new(Exit::BadBundle, "the bundle has no member named `kernel`");
        Ok(Self { members, len, kernel: kernel.ok_or(missing)?, cmdline })
    }

    /// The kernel.
    #[must_use]
    pub const fn kernel(&self) -> &Member<'b> {
        &self.kernel
    }

    /// The kernel command line of the bundle, up to the first line end.
    #[must_use]
    pub fn cmdline(&self) -> Option<&'b [u8]> {
        self.cmdline.and_then(|member| member.data.split(|&byte| byte == b'\n' || byte == 0).next())
    }

    /// The modules, in the order of the archive.
    #[must_use]
    pub fn modules(&self) -> &[Member<'b>] {
        &self.members[..self.len]
    }

    /// The module a path names; a path may start with `/` or `./`.
    #[must_use]
    pub fn module(&self, path: &[u8]) -> Option<usize> {
        let path = strip(path);
        self.modules().iter().position(|member| member.name() == path)
    }

    /// Whether a member has its pages to itself when the bundle starts at address `base`, as the protocol demands
    /// of files: it starts a page, and no other member that is passed on begins in its last page.
    #[must_use]
    pub fn in_place(&self, base: u64, member: &Member<'b>) -> bool {
        let (start, len) = (base + to_u64(member.offset), to_u64(member.data.len()));
        let last = (start + len).saturating_sub(1) / PAGE;
        let shared =
            |other: &Member<'_>| other.offset > member.offset && (base + to_u64(other.offset)) / PAGE <= last;
        start.is_multiple_of(PAGE) && len > 0 && !shared(&self.kernel) && !self.modules().iter().any(shared)
    }
}

fn strip(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    path.strip_prefix(b"/").unwrap_or(path)
}

fn named<'b>(name: Option<&str>, offset: usize, data: &'b [u8]) -> Result<Member<'b>, Refusal> {
    let name = strip(name.unwrap_or_default().as_bytes());
    let mut member = Member { offset, data, ..Member::NONE };
    match member.name.get_mut(..name.len()) {
        Some(copy) if !name.is_empty() => copy.copy_from_slice(name),
        _ => return Err(refuse("a member of the bundle has an unusable name", offset)),
    }
    member.name_len = name.len();
    Ok(member)
}

fn refuse(what: &'static str, offset: usize) -> Refusal {
    Refusal { exit: Exit::BadBundle, what, value: Some(to_u64(offset)) }
}

/// The archive reader's verdicts in this loader's words, so that messages name the bundle.
fn corrupt(error: CorruptDataError) -> Refusal {
    let (what, block) = match error {
        CorruptDataError::EmptyArchive => ("the bundle is empty", None),
        CorruptDataError::InvalidBlockSize => ("the bundle is cut off: not a multiple of 512 bytes", None),
        CorruptDataError::TooShort { .. } => ("the bundle is too short for a ustar archive", None),
        CorruptDataError::InvalidChecksum { block_index } => {
            ("the bundle is not a ustar archive: bad header checksum in this block", Some(block_index))
        }
        CorruptDataError::InvalidTypeFlag { block_index } => {
            ("the bundle has a member of unknown type in this block", Some(block_index))
        }
        CorruptDataError::InvalidPayloadSize { block_index } => {
            ("the bundle has a member with a malformed size in this block", Some(block_index))
        }
        CorruptDataError::PayloadExtendsBeyondArchive { block_index } => {
            ("the bundle is cut off: a member extends past its end, header in this block", Some(block_index))
        }
        CorruptDataError::MissingTerminator => ("the bundle is cut off: no end-of-archive blocks", None),
    };
    Refusal { exit: Exit::BadBundle, what, value: block.map(to_u64) }
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
pub(crate) mod tests;
