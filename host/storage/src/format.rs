//! The format's version, and the rows that say which file this is: first thing read, first thing written.
//!
//! Owns the *checked row*: a value with a checksum that also covers where it belongs, so that a row of another store,
//! file, table or key never passes for this one.
//!
//! ```text
//! format row   "weir" u32 kind | u32 format version | nothing else, for ever: any version must be able to read it
//! checked row  u32 crc32c(store id, file number, table, key, body) | body
//! ```
//!
//! Start at [`FormatRow`].

use std::path::Path;

use redb::{ReadableTable, TableDefinition};

use crate::{OpenError, StoreId, fault::Fault, fault::file_name};

/// The newest format this version reads, and the one it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The table with the format row at [`FORMAT_KEY`], in every file.
pub(crate) const FORMAT_TABLE: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("format");

/// Key of the format row.
pub(crate) const FORMAT_KEY: u32 = 0;

const MAGIC: [u8; 4] = *b"weir";

/// Which kind of file carries a format row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum FileKind {
    Segment = 1,
    State = 2,
}

/// Kind and version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FormatRow {
    pub(crate) kind: FileKind,
}

impl FormatRow {
    pub(crate) fn encode(self) -> [u8; 12] {
        let mut row = [0; 12];
        row[..4].copy_from_slice(&MAGIC);
        row[4..8].copy_from_slice(&(self.kind as u32).to_le_bytes());
        row[8..].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        row
    }

    /// Checks the format row of an open file.
    pub(crate) fn check(self, path: &Path, table: &impl ReadableTable<u32, &'static [u8]>) -> Result<(), OpenError> {
        let row = table.get(FORMAT_KEY).map_err(Fault::redb(path, "read the format of"))?;
        let row = row.ok_or_else(|| Fault::damaged(path, "it has no format row"))?;
        self.check_bytes(path, row.value())
    }

    pub(crate) fn check_bytes(self, path: &Path, row: &[u8]) -> Result<(), OpenError> {
        let field = |at: usize| row.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        if !row.starts_with(&MAGIC) {
            return Err(Fault::damaged(path, "its format row is not weir's").into());
        }
        match (field(4), field(8)) {
            (_, Some(found)) if found > FORMAT_VERSION => {
                Err(OpenError::NewerFormat { file: file_name(path), found, supported: FORMAT_VERSION })
            }
            (Some(kind), Some(FORMAT_VERSION)) if kind == self.kind as u32 => Ok(()),
            (kind, version) => {
                let what = format!("its format row says kind {kind:?}, version {version:?}");
                Err(Fault::damaged(path, what).into())
            }
        }
    }
}

/// Where a checked row belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowPlace<'a> {
    pub(crate) store: StoreId,
    /// The segment's id; 0 for the state.
    pub(crate) file: u64,
    pub(crate) table: &'a str,
    pub(crate) key: &'a [u8],
}

impl RowPlace<'_> {
    fn crc(&self, body: &[u8]) -> u32 {
        let mut crc = crc32c::crc32c(&self.store.0);
        crc = crc32c::crc32c_append(crc, &self.file.to_le_bytes());
        // Lengths keep the end of one field from passing for the start of the next.
        crc = crc32c::crc32c_append(crc, &(self.table.len() as u32).to_le_bytes());
        crc = crc32c::crc32c_append(crc, self.table.as_bytes());
        crc = crc32c::crc32c_append(crc, &(self.key.len() as u32).to_le_bytes());
        crc = crc32c::crc32c_append(crc, self.key);
        crc32c::crc32c_append(crc, body)
    }

    /// The row to store for `body`.
    pub(crate) fn seal(&self, body: &[u8]) -> Vec<u8> {
        let mut row = Vec::with_capacity(4 + body.len());
        row.extend_from_slice(&self.crc(body).to_le_bytes());
        row.extend_from_slice(body);
        row
    }

    /// The body of a stored row, if it is whole and belongs here.
    pub(crate) fn open<'r>(&self, row: &'r [u8]) -> Option<&'r [u8]> {
        let (crc, body) = row.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*crc) == self.crc(body)).then_some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_opens_only_where_it_was_sealed() {
        let here = RowPlace { store: StoreId([1; 16]), file: 3, table: "index", key: b"k" };
        let row = here.seal(b"body");
        assert_eq!(here.open(&row), Some(&b"body"[..]));
        assert_eq!(RowPlace { file: 4, ..here }.open(&row), None);
        assert_eq!(RowPlace { key: b"l", ..here }.open(&row), None);
        assert_eq!(RowPlace { store: StoreId([2; 16]), ..here }.open(&row), None);
        assert_eq!(here.open(&row[..row.len() - 1]), None);
        assert_eq!(here.open(&[]), None);
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let path = Path::new("0000000001.redb");
        let row = FormatRow { kind: FileKind::Segment };
        let mut bytes = row.encode();
        assert!(row.check_bytes(path, &bytes).is_ok());
        assert!(matches!(
            FormatRow { kind: FileKind::State }.check_bytes(path, &bytes),
            Err(OpenError::Damaged { .. })
        ));
        bytes[8] = 9;
        assert!(matches!(row.check_bytes(path, &bytes), Err(OpenError::NewerFormat { found: 9, .. })));
        bytes[0] = 0;
        assert!(matches!(row.check_bytes(path, &bytes), Err(OpenError::Damaged { .. })));
    }
}
