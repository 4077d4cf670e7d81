//! The archive that Linux unpacks as its first file system: cpio, "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).

/// Every number of a header is eight hexadecimal digits.
const MAGIC: &str = "070701";
const EXECUTABLE: u32 = 0o100_755;
const END: &str = "TRAILER!!!";

/// An archive of executable files.
pub(super) fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (inode, (name, content)) in (1..).zip(files) {
        member(inode, EXECUTABLE, name, content, &mut archive);
    }
    member(0, 0, END, &[], &mut archive);
    archive
}

fn member(inode: u32, mode: u32, name: &str, content: &[u8], archive: &mut Vec<u8>) {
    let (size, length) = (content.len(), name.len() + 1);
    // Inode, mode, user, group, links, time, size, device and special device (major, minor), length of the name, checksum.
    archive.extend_from_slice(
        format!("{MAGIC}{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}", 0, 1).as_bytes(),
    );
    archive.extend_from_slice(format!("{0:08x}{0:08x}{0:08x}{0:08x}{length:08x}{0:08x}", 0).as_bytes());
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    align(archive);
    archive.extend_from_slice(content);
    align(archive);
}

fn align(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::pack;

    #[test]
    fn members_follow_the_format() {
        let archive = pack(&[("init", b"hello")]);
        let text = String::from_utf8_lossy(&archive);
        assert!(text.starts_with("07070100000001000081ed"), "{text}");
        assert_eq!(&archive[54..62], b"00000005", "size");
        assert_eq!(&archive[94..102], b"00000005", "length of the name");
        assert_eq!(&archive[110..115], b"init\0");
        assert_eq!(&archive[116..121], b"hello");
        assert!(archive.len().is_multiple_of(4) && text.contains("TRAILER!!!"));
    }
}
