//! Files of record batches, as `weir import` reads them.

use protocol::limits::BATCH_BYTES_MAX;

use crate::{
    Seeds,
    allocations::bounded,
    batch_reader::{BatchReader, ReadError},
    batches,
};

/// Any bytes as a segment file of Kafka's.
pub fn import_file(data: &[u8]) {
    // A batch, its copy while it is read, and the reader's doubling.
    bounded((64 << 10) + 6 * data.len(), || {
        let mut reader = BatchReader::new(data);
        let mut end = 0;
        loop {
            assert_eq!(reader.position(), end, "batches lie side by side");
            match reader.next() {
                Ok(Some(batch)) => {
                    let bytes = batch.bytes();
                    assert!(bytes.len() <= BATCH_BYTES_MAX);
                    assert_eq!(data.get(end as usize..end as usize + bytes.len()), Some(&bytes[..]));
                    end += bytes.len() as u64;
                }
                Ok(None) => break assert_eq!(end, data.len() as u64, "the end is where the file ends"),
                Err(ReadError::Io(error)) => panic!("bytes in memory can be read: {error}"),
                Err(ReadError::Batch(error)) => break assert!(error.to_string().len() > 10),
            }
        }
    });
}

/// A file of all batches, and one that ends within its last.
pub(crate) fn seeds() -> Seeds {
    let whole: Vec<u8> = batches::seeds().into_iter().flat_map(|(_, batch)| batch).collect();
    vec![("cut", whole[..whole.len() - 9].to_vec()), ("whole", whole)]
}
