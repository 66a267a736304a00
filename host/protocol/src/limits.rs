//! Every bound on what comes from outside, in one place, each with its reason.
//!
//! Owns numbers only. A limit that a topic, a transform or the configuration can lower or raise is a default here and
//! a field there; the ceiling it can be raised to is here as well.

/// A topic, plugin or transform name: Kafka's limit, so that a topic can be seen through every door.
pub const NAME_BYTES_MAX: usize = 249;

/// One record with key, value and headers, uncompressed; a topic may set another (default as Kafka's `message.max.bytes`).
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// What a topic's `max_record_bytes` can be raised to: a record travels in a batch.
pub const RECORD_BYTES_CEILING: usize = BATCH_BYTES_MAX - (64 << 10);

/// One record batch as it travels. A commit group is at most as large, so one batch always fits one commit.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Records in one batch. Bounds the per-record tables (verdict bitmaps, source indices) of a pipeline at a few MiB.
pub const BATCH_RECORDS_MAX: usize = 1 << 20;

/// Records section of one batch after decompression: what a compressed batch may unfold to before it is refused.
pub const DECOMPRESSED_BYTES_MAX: usize = 32 << 20;

/// Headers on one record; more is a program error, and each costs two slices while a record is read.
pub const HEADERS_MAX: usize = 1_024;

/// One frame on the wire: a batch and its fixed header, or a control body, with room to spare.
pub const FRAME_BYTES_MAX: usize = 8 << 20;

/// One frame of a peer that has not said HELLO yet.
pub const FRAME_BYTES_UNAUTHENTICATED_MAX: usize = 64 << 10;

/// A CBOR control body (requests, answers); a plugin upload's bytes travel in frames of their own.
pub const CONTROL_BODY_BYTES_MAX: usize = 1 << 20;

/// Partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 1_024;

/// Partitions in the store: each costs about 1 KiB of memory.
pub const PARTITIONS_MAX: u32 = 100_000;

/// QUIC connections of one broker; an idle one costs about 40 KiB.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Bidirectional streams one connection may have open. quinn allocates for the limit, so it stays small.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;

/// Producer streams of one connection.
pub const PRODUCER_STREAMS_PER_CONNECTION_MAX: usize = 4;

/// Topic-partitions bound on one producer stream.
pub const HANDLES_PER_PRODUCER_MAX: usize = 4_096;

/// Frames of one producer stream that may be unanswered: bounds the queues of answers where batches are tiny. Past it
/// the server stops reading the stream.
pub const FRAMES_IN_FLIGHT_PER_PRODUCER_MAX: usize = 16_384;

/// Produce bytes of one handle that may be unanswered; a client starts here.
pub const IN_FLIGHT_BYTES_PER_HANDLE: usize = 512 << 10;

/// Batches of one producer and partition that may be unanswered, and so the window in which a retry is recognised.
/// Kafka's 5 is the least every client may use; ours fills `IN_FLIGHT_BYTES_PER_HANDLE` with batches of 4 KiB.
pub const IN_FLIGHT_BATCHES_MAX: usize = 128;

/// Produce bytes the whole server holds unanswered; past it, it stops reading.
pub const INGEST_BYTES_MAX: usize = 64 << 20;

/// Produce bytes that wait for pipelines, in all partitions: half of what the server holds, so that however many
/// transforms are slow, the others' batches find room. One partition may hold as much as is still free, and one batch.
pub const PIPELINE_QUEUE_BYTES_MAX: usize = INGEST_BYTES_MAX / 2;

/// Credit one subscription may hold: what the server may push ahead of the application.
pub const CREDIT_BYTES_MAX: u64 = 64 << 20;

/// Requests of one connection that may be unanswered; past it the server stops reading its control stream.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;

/// Fetches of one connection that may wait for data; each costs a task.
pub const FETCHES_IN_FLIGHT_MAX: usize = 256;

/// How long a fetch may wait for data, in milliseconds.
pub const FETCH_WAIT_MS_MAX: u32 = 30_000;

/// Bytes one fetch may ask for; the first batch is returned even above it.
pub const FETCH_BYTES_MAX: usize = FRAME_BYTES_MAX - (64 << 10);

/// An uploaded plugin. Larger Go modules exist (1.8 MiB for a plain one); this holds them.
pub const PLUGIN_BYTES_MAX: usize = 4 << 20;

/// Plugins kept by one broker.
pub const PLUGINS_MAX: usize = 1_000;

/// A transform's configuration, as JSON text.
pub const TRANSFORM_CONFIG_BYTES_MAX: usize = 64 << 10;

/// Transforms in one topic's pipeline: each stage re-frames the batch.
pub const PIPELINE_STAGES_MAX: usize = 16;

/// Topics one transform may route to.
pub const TRANSFORM_TARGETS_MAX: usize = 64;

/// Functions of a plugin (a plain Go module has about 3,000).
pub const PLUGIN_FUNCTIONS_MAX: u32 = 20_000;

/// Body of one function of a plugin, in bytes: compile time grows faster than the body. (The largest of a Go module of
/// 3 MiB has 29 KB; the loop of an interpreter in C has about 100.)
pub const PLUGIN_FUNCTION_BYTES_MAX: usize = 256 << 10;

/// Blocks and branches of one function: time for compiling grows with the square of their number, and memory with their
/// number times that of the locals; 33,000 in 256 KiB took more than 10 s, 16,000 take 4.
pub const PLUGIN_BRANCHES_MAX: u32 = 16_384;

/// Locals of one function: a 203 KB module with 50,000 took 1.55 GiB to compile. (Compilers keep to some dozens.)
pub const PLUGIN_LOCALS_MAX: u32 = 4_096;

/// Locals and parameters of all functions of a plugin: three bytes declare a thousand. (A Go module of 3 MiB has 9,000.)
pub const PLUGIN_LOCALS_SUM_MAX: u32 = 200_000;

/// Parameters of a function or block, and its results, each: 250 KB of blocks with 1,000 took more than 512 MiB.
pub const PLUGIN_TYPE_VALUES_MAX: u32 = 128;

/// Nesting of blocks in one function: 280 KB of nested blocks took 27 s to compile.
pub const PLUGIN_NESTING_MAX: u32 = 1_024;

/// Elements of all tables of a plugin, and of all segments that fill them: four million took more than 512 MiB.
pub const PLUGIN_TABLE_ELEMENTS_MAX: u64 = 100_000;

/// Types, globals, imports, exports and element segments of a plugin, each: they cost memory per instance.
pub const PLUGIN_ITEMS_MAX: u32 = 20_000;

/// Data segments of a module: Go's linker makes one of every stretch between zeros, 33,000 for a small guest.
pub const PLUGIN_DATA_SEGMENTS_MAX: u32 = 65_536;

/// Tables of a plugin; compilers make one.
pub const PLUGIN_TABLES_MAX: u32 = 4;

/// Memory that compiling a plugin may take, by default: what passes the limits above takes a fraction.
pub const PLUGIN_COMPILE_MEMORY_BYTES: u64 = 512 << 20;

/// CPU time that compiling a plugin may take, by default, in seconds: a Go module of 1.8 MiB takes less than half of it.
pub const PLUGIN_COMPILE_CPU_SECONDS: u64 = 10;

/// How many times its CPU time a compilation may take by the clock on the wall: a stalled box is no fault of the module.
pub const PLUGIN_COMPILE_WALL_FACTOR: u64 = 6;

/// Native code of one plugin, which its topics' hosts keep in memory: several times a module of `PLUGIN_BYTES_MAX`.
pub const PLUGIN_COMPILED_BYTES_MAX: usize = 64 << 20;

/// Uploads that wait while another one's module is compiled, each with its module in memory; further ones are refused.
pub const UPLOADS_WAITING_MAX: usize = 8;

/// What a plugin says of itself: a description and the JSON Schema of its configuration.
pub const PLUGIN_DESCRIBE_BYTES_MAX: usize = 64 << 10;

/// Memory of one plugin instance, by default.
pub const GUEST_MEMORY_BYTES: usize = 64 << 20;

/// What a transform's memory limit can be raised to.
pub const GUEST_MEMORY_BYTES_CEILING: usize = 1 << 30;

/// Stack of a guest call, by default.
pub const GUEST_STACK_BYTES: usize = 256 << 10;

/// What a transform's stack can be lowered to: a frame of the largest function that compiles fits.
pub const GUEST_STACK_BYTES_MIN: usize = 64 << 10;

/// What a transform's stack can be raised to: it lies on the worker's own of 2 MiB.
pub const GUEST_STACK_BYTES_CEILING: usize = 1 << 20;

/// CPU time one batch may take in one transform, by default, in milliseconds.
pub const GUEST_DEADLINE_MS: u32 = 1_000;

/// CPU time one record may take, by default, in milliseconds: a quarter of what a whole batch may.
pub const GUEST_RECORD_DEADLINE_MS: u32 = 250;

/// What a transform's deadline can be raised to: a partition waits as long for one batch.
pub const GUEST_DEADLINE_MS_CEILING: u32 = 60_000;

/// Text of all failures of one batch; past it they come without: a guest may name one text for every record.
pub const GUEST_FAILURE_TEXT_BYTES_PER_BATCH_MAX: usize = 1 << 20;

/// What a guest may return for one batch.
pub const GUEST_OUTPUT_BYTES_MAX: usize = 32 << 20;

/// Failures (traps, deadlines, bad outputs) of one batch that are followed down to the single record, by default; past
/// it the records not decided yet fail together, so that a broken guest costs a bounded time.
pub const GUEST_FAILURES_PER_BATCH: u32 = 64;

/// What a transform's failures per batch can be raised to: each costs up to four calls and a fresh instance or two.
pub const GUEST_FAILURES_PER_BATCH_CEILING: u32 = 10_000;

/// CPU time that calls made after the first failure of a batch may take, by default, in milliseconds: with the number of
/// failures above, what one batch can cost at most. Finding one endless loop among 16,384 records takes 16 deadlines.
pub const GUEST_FAILURE_MS: u32 = 16 * GUEST_DEADLINE_MS;

/// What a transform's CPU time for failures can be raised to: a partition waits as long for one batch.
pub const GUEST_FAILURE_MS_CEILING: u32 = 16 * GUEST_DEADLINE_MS_CEILING;

/// Weight of a transform where several want the processor, by default.
pub const GUEST_CPU_SHARE: u32 = 100;

/// What a transform's weight can be raised to: further apart, the lighter one would not be told from a stopped one.
pub const GUEST_CPU_SHARE_CEILING: u32 = 10_000;

/// What a transform's cap can be lowered to, in percent of one processor: a batch that takes its deadline then takes
/// twenty times as long.
pub const GUEST_CPU_PERCENT_MIN: u32 = 5;

/// Batches in a row that a transform fails on, wholly or nearly, before its breaker opens: one bad batch, even retried,
/// is no reason, and each may cost its whole budget.
pub const BREAKER_BATCHES: u32 = 5;

/// How long a breaker stays open before one batch is let through to try, at first and at most, in milliseconds.
pub const BREAKER_WAIT_MS: u64 = 1_000;

/// See [`BREAKER_WAIT_MS`]: it doubles up to here.
pub const BREAKER_WAIT_MS_MAX: u64 = 60_000;

/// One line a guest logs, and the text of one failure; the rest is cut off.
pub const GUEST_TEXT_BYTES_MAX: usize = 4 << 10;

/// Lines a guest may log in one call; the rest is counted.
pub const GUEST_LOG_LINES_PER_CALL_MAX: usize = 64;

/// Lines a transform may log in a second, by default, over all its instances; the rest is counted.
pub const GUEST_LOG_LINES_PER_S: u32 = 100;

/// What a transform's log rate can be raised to: more than people read, less than fills a disk in an hour.
pub const GUEST_LOG_LINES_PER_S_CEILING: u32 = 10_000;

/// What the dead letter headers of one record may take: names, numbers, the failure's text and backtrace. A dead letter
/// topic's `max_record_bytes` is its topic's and this much more.
pub const DEAD_LETTER_HEADER_BYTES_MAX: usize = 16 << 10;

/// Records of one batch that go to other topics (routed and dead letters), encoded: they share the batch's commit.
pub const ROUTED_BYTES_PER_BATCH_MAX: usize = DECOMPRESSED_BYTES_MAX;

/// Producers one partition remembers; past it the one that has not written for longest is forgotten.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 10_000;

/// Failure texts and backtraces that one batch's dead letters carry at full length, together; those of further records
/// are cut short, so that a large batch that fails as a whole still fits its commit.
pub const DEAD_LETTER_TEXT_BYTES_PER_BATCH: usize = 1 << 20;

/// Texts of the rejected records of one answer, together: the answer is kept with the producer's window.
pub const REJECT_TEXT_BYTES_PER_BATCH: usize = 64 << 10;
