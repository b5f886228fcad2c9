//! A ZIP archive's table of contents, as far as it tells what the archive is and whether it is a trap.
//!
//! Nothing is unpacked here: the parsers do that, within the limits of their process.

use super::ExtractError;

/// Files of one archive. A workbook with a hundred sheets and pictures stays below a thousand.
const ENTRIES_MAX: usize = 10_000;

/// What an archive may claim to unpack to.
const UNPACKED_BYTES_MAX: u64 = 512 << 20;

/// How many times larger an archive may claim to become. XML compresses to a twentieth, rarely to a hundredth.
const EXPANSION_MAX: u64 = 200;

/// Archives that claim to unpack to less than this are not looked at for their expansion.
const EXPANSION_BYTES_MIN: u64 = 16 << 20;

/// Bytes at the end in which the end record stands, behind it a comment of up to 64 KiB.
const END_SEARCH_BYTES: usize = 22 + 65_535;

/// The table of contents.
#[derive(Debug)]
pub(super) struct Directory<'a> {
    entries: Vec<Entry<'a>>,
    /// More entries follow than are read.
    is_cut: bool,
    packed: usize,
}

#[derive(Debug)]
struct Entry<'a> {
    name: &'a [u8],
    is_encrypted: bool,
    packed: u64,
    unpacked: u64,
    offset: u64,
}

impl<'a> Directory<'a> {
    /// Reads it; `None` when the bytes are no archive, or one that is cut off.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let tail_start = bytes.len().saturating_sub(END_SEARCH_BYTES);
        let tail = bytes.get(tail_start..)?;
        let end = tail_start + tail.windows(4).rposition(|window| window == b"PK\x05\x06")?;
        let size = usize::try_from(u32_at(bytes, end + 12)?).ok()?;
        // From the end rather than by its offset, which is wrong where something was put before the archive.
        let mut at = end.checked_sub(size)?;
        let mut directory = Self { entries: Vec::new(), is_cut: false, packed: bytes.len() };
        while at < end && bytes.get(at..at + 4)? == b"PK\x01\x02" {
            if directory.entries.len() == ENTRIES_MAX {
                directory.is_cut = true;
                break;
            }
            let [name, extra, comment] = [28, 30, 32].map(|field| u16_at(bytes, at + field).map(usize::from));
            let name_end = at + 46 + name?;
            directory.entries.push(Entry {
                name: bytes.get(at + 46..name_end)?,
                is_encrypted: u16_at(bytes, at + 8)? & 1 == 1,
                packed: u32_at(bytes, at + 20)?.into(),
                unpacked: u32_at(bytes, at + 24)?.into(),
                offset: u32_at(bytes, at + 42)?.into(),
            });
            at = name_end + extra? + comment?;
        }
        Some(directory)
    }

    /// Whether it holds a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Whether a file's name begins so.
    pub(super) fn has_folder(&self, prefix: &str) -> bool {
        let prefix = prefix.as_bytes();
        self.entries
            .iter()
            .any(|entry| entry.name.get(..prefix.len()).is_some_and(|name| name.eq_ignore_ascii_case(prefix)))
    }

    /// Refuses an archive that by its own account is a trap, or encrypted.
    ///
    /// # Errors
    /// `TooComplex`, `Malformed` or `PasswordProtected`.
    pub(super) fn check(&self) -> Result<(), ExtractError> {
        if self.is_cut {
            return Err(ExtractError::too_many("files in its archive", ENTRIES_MAX as u64));
        }
        if self.entries.iter().any(|entry| entry.is_encrypted) {
            return Err(ExtractError::PasswordProtected);
        }
        let unpacked = self.entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.unpacked));
        let packed = (self.packed as u64).max(1);
        if unpacked > UNPACKED_BYTES_MAX {
            return Err(ExtractError::too_many("bytes when it is unpacked", UNPACKED_BYTES_MAX));
        }
        if unpacked > EXPANSION_BYTES_MIN && unpacked / packed > EXPANSION_MAX {
            return Err(ExtractError::too_many("times its size when it is unpacked", EXPANSION_MAX));
        }
        let mut places: Vec<(u64, u64)> = self.entries.iter().map(|entry| (entry.offset, entry.packed)).collect();
        places.sort_unstable();
        // Files that share their bytes are how an archive of kilobytes becomes terabytes.
        let overlapping = places.windows(2).any(|pair| match pair {
            [(offset, packed), (next, _)] => offset.saturating_add(*packed) > *next,
            _ => false,
        });
        if overlapping {
            return Err(ExtractError::malformed("files in its archive overlap"));
        }
        Ok(())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
