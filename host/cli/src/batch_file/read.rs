//! Batches out of a file, each checked, with the byte it begins at.

use std::io::{self, Read};

use bytes::Bytes;
use protocol::{BatchError, HEADER_BYTES, RecordBatch};

/// Why a file cannot be read on, at the reader's position.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file itself.
    Io(io::Error),
    /// What is there is no batch, or none we take.
    Batch(BatchError),
}

/// Batches of a reader, one by one. Behind an error it is of no more use.
pub(crate) struct BatchReader<R> {
    reader: R,
    position: u64,
}

impl<R: Read> BatchReader<R> {
    /// Begins at byte 0.
    pub(crate) fn new(reader: R) -> BatchReader<R> {
        BatchReader { reader, position: 0 }
    }

    /// Where the next batch begins, or the one that could not be read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch: its magic, lengths, limits and CRC are right; its records are not looked at. `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        let batch = self.read()?;
        self.position += batch.as_ref().map_or(0, |batch| batch.bytes().len() as u64);
        Ok(batch)
    }

    fn read(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        self.fill(&mut bytes, HEADER_BYTES)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        match RecordBatch::decode(Bytes::copy_from_slice(&bytes)) {
            // The header is sound, its length within the limit.
            Err(BatchError::Truncated { needed, .. }) if bytes.len() == HEADER_BYTES => {
                self.fill(&mut bytes, needed)?
            }
            // Too short for a header, damaged, or a header without records.
            decoded => return decoded.map(Some).map_err(ReadError::Batch),
        }
        RecordBatch::decode(bytes.into()).map(Some).map_err(ReadError::Batch)
    }

    /// Reads on until there are `needed` bytes, or the end. Grows with what arrives.
    fn fill(&mut self, bytes: &mut Vec<u8>, needed: usize) -> Result<(), ReadError> {
        let missing = (needed - bytes.len()) as u64;
        self.reader.by_ref().take(missing).read_to_end(bytes).map(drop).map_err(ReadError::Io)
    }
}

#[cfg(test)]
mod tests {
    use protocol::{BatchBuilder, Compression, Offset, Record, limits::BATCH_BYTES_MAX};

    use super::*;

    fn batch(base: u64) -> RecordBatch {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append(&Record::new("key", "value", 5)).unwrap();
        builder.finish(Offset(base)).unwrap()
    }

    fn error(bytes: &[u8]) -> (u64, BatchError) {
        let mut reader = BatchReader::new(bytes);
        loop {
            match reader.next() {
                Ok(batch) => assert!(batch.is_some(), "it is read to the end"),
                Err(ReadError::Batch(cause)) => return (reader.position(), cause),
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    #[test]
    fn batches_are_read_with_their_places() {
        let empty = BatchBuilder::new(Compression::None).finish(Offset(9)).unwrap();
        let written = [batch(0), empty, batch(10)];
        let bytes: Vec<u8> = written.iter().flat_map(|batch| batch.bytes().to_vec()).collect();
        let mut reader = BatchReader::new(&bytes[..]);
        let mut place = 0;
        for batch in &written {
            assert_eq!(reader.position(), place);
            assert_eq!(reader.next().unwrap().as_ref(), Some(batch));
            place += batch.bytes().len() as u64;
        }
        assert!(reader.next().unwrap().is_none());
        assert!(BatchReader::new(&b""[..]).next().unwrap().is_none());
    }

    #[test]
    fn a_cut_anywhere_is_an_error_at_the_batch_it_cuts() {
        let one = batch(0).bytes().to_vec();
        let two = [one.clone(), one.clone()].concat();
        for end in one.len() + 1..two.len() {
            let (position, cause) = error(&two[..end]);
            assert_eq!(position, one.len() as u64);
            assert!(matches!(cause, BatchError::Truncated { .. }), "{cause}");
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_at_its_batch() {
        let one = batch(0).bytes().to_vec();
        // Base offset and leader epoch are not under the CRC.
        for byte in (8..12).chain(16..one.len()) {
            let mut damaged = one.clone();
            damaged[byte] ^= 1;
            let bytes = [&one[..], &damaged, &one].concat();
            assert_eq!(error(&bytes).0, one.len() as u64, "byte {byte}");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_it_is_read() {
        let mut huge = batch(0).bytes().to_vec();
        huge[8..12].copy_from_slice(&(BATCH_BYTES_MAX as i32).to_be_bytes());
        assert!(matches!(error(&huge).1, BatchError::TooLarge { .. }));
    }

    #[test]
    fn old_formats_are_called_by_their_magic() {
        let mut old = batch(0).bytes().to_vec();
        old[16] = 1;
        assert_eq!(error(&old), (0, BatchError::Magic { found: 1 }));
    }
}
