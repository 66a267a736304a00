//! stub
use bytes::Bytes;
/// stub
#[derive(Debug, Clone)]
pub struct RecordBatch(Bytes);
