//! The disk: a master boot record, a gap of one MiB, and a FAT32 file system as EFI system partition.

use crate::error::{Class, Error, Result};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use mbrman::{BOOT_INACTIVE, CHS, MBR, MBRPartitionEntry};
use std::io::{self, Cursor, Write};

/// Bytes of a sector.
const SECTOR: usize = 512;
/// First sector of the partition: what is before it takes Limine's second stage.
const FIRST: u32 = 2048;
/// Type of an EFI system partition (UEFI 2.10, 5.2.2).
const EFI_SYSTEM: u8 = 0xef;
/// Bytes of the smallest partition: below 65,525 clusters of one sector a file system is not FAT32 (Microsoft's FAT specification).
const SMALLEST: usize = 64 << 20;
/// Of any two images, so that equal content gives equal bytes.
const SIGNATURE: [u8; 4] = *b"NRFD";

/// A file of the image.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// Path without a leading slash.
    pub(super) path: String,
    pub(super) content: Vec<u8>,
}

/// The whole image.
///
/// # Errors
/// [`Class::Io`]: a path that FAT cannot hold.
pub(super) fn build(files: &[File]) -> Result<Vec<u8>> {
    let content: usize = files.iter().map(|file| file.content.len()).sum();
    // Twice the content leaves room for tables and half-filled clusters, and for a larger kernel copied over it.
    let bytes = (content * 2).max(SMALLEST).next_multiple_of(1 << 20);
    let gap = FIRST as usize * SECTOR;
    let mut image = vec![0; gap + bytes];
    let (head, partition) = image.split_at_mut(gap);
    let fail = |error: io::Error| Error::new(Class::Io, format!("cannot lay out the image: {error}"));
    fill(partition, files).map_err(fail)?;
    let sectors = u32::try_from(bytes / SECTOR)
        .map_err(|_| Error::new(Class::Io, "the image is larger than a master boot record can say"))?;
    record(head, sectors)
        .map_err(|error| Error::new(Class::Io, format!("cannot write the partition table: {error}")))?;
    Ok(image)
}

fn fill(partition: &mut [u8], files: &[File]) -> io::Result<()> {
    let label = *b"NEARFIELD  ";
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(512)
        .volume_label(label)
        .volume_id(1);
    fatfs::format_volume(Cursor::new(&mut *partition), options)?;
    // Where the volume lies on the disk, which a boot sector needs and the formatter does not know (offset 0x1c).
    partition[0x1c..0x20].copy_from_slice(&FIRST.to_le_bytes());
    let volume = FileSystem::new(Cursor::new(partition), FsOptions::new().update_accessed_date(false))?;
    for file in files {
        let root = volume.root_dir();
        let folders = file.path.rsplit_once('/').map_or("", |(folders, _)| folders);
        let mut path = String::new();
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            path.push_str(folder);
            root.create_dir(&path)?;
            path.push('/');
        }
        let mut written = root.create_file(&file.path)?;
        written.truncate()?;
        written.write_all(&file.content)?;
        written.flush()?;
    }
    volume.unmount()
}

fn record(head: &mut [u8], sectors: u32) -> mbrman::Result<()> {
    let mut disk = Cursor::new(head);
    let mut table = MBR::new_from(&mut disk, u32::try_from(SECTOR).unwrap_or(512), SIGNATURE)?;
    table[1] = MBRPartitionEntry {
        boot: BOOT_INACTIVE,
        first_chs: CHS::empty(),
        sys: EFI_SYSTEM,
        last_chs: CHS::empty(),
        starting_lba: FIRST,
        sectors,
    };
    table.write_into(&mut disk)
}

/// A file of an image, found as firmware finds it: by the partition table.
#[cfg(test)]
pub(super) fn read(image: &[u8], path: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let table = MBR::read_from(&mut Cursor::new(image), u32::try_from(SECTOR).ok()?).ok()?;
    let entry = table.iter().map(|(_, entry)| entry).find(|entry| entry.sys == EFI_SYSTEM)?;
    let start = entry.starting_lba as usize * SECTOR;
    let mut partition = image[start..start + entry.sectors as usize * SECTOR].to_vec();
    let volume = FileSystem::new(Cursor::new(&mut partition[..]), FsOptions::new()).ok()?;
    let mut content = Vec::new();
    volume.root_dir().open_file(path).ok()?.read_to_end(&mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::{FIRST, File, SECTOR, build, read};

    fn file(path: &str, bytes: usize) -> File {
        File { path: path.to_owned(), content: (0..bytes).map(|at| (at % 251) as u8).collect() }
    }

    #[test]
    fn every_file_reads_back_through_the_partition_table() {
        let files =
            [file("EFI/BOOT/BOOTX64.EFI", 5), file("a/b/c/long name.conf", 1 << 20), file("empty", 0)];
        let image = build(&files).unwrap();
        for file in &files {
            assert_eq!(read(&image, &file.path).unwrap(), file.content, "{}", file.path);
        }
        assert_eq!(read(&image, "other"), None);
        assert_eq!(image[510..512], [0x55, 0xaa]);
        // The gap takes Limine's second stage.
        assert!(image[SECTOR..FIRST as usize * SECTOR].iter().all(|&byte| byte == 0));
        assert_eq!(&image[FIRST as usize * SECTOR + 0x52..][..5], b"FAT32");
    }

    #[test]
    fn content_beyond_the_smallest_size_fits() {
        let image = build(&[file("big", 70 << 20)]).unwrap();
        assert_eq!(read(&image, "big").unwrap().len(), 70 << 20);
    }
}
