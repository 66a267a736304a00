//! A client without an SDK: QUIC streams and frames as they travel, so that tests can also say what no SDK would.

use std::{fs, path::Path, sync::Arc};

use protocol::{
    BatchBuilder, BatchProducer, Compression, Epoch, Offset, ProducerId, Record, RecordBatch, Sequence, TopicConfig,
    TopicName, TopicPartition, WireError,
    control::{self, CreateTopic, Hello, Request, Response, Welcome},
    frame::{ALPN, Ack, FrameKind, PREFIX_BYTES, Prefix, ProducerOpen, Subscribe, TLS_SERVER_NAME},
};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, crypto::rustls::QuicClientConfig};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use server::{RuntimeConfig, Server, ServerConfig};
use tempfile::TempDir;

/// A configuration for tests: any port, no word left for other programs.
pub(crate) fn config(dir: &Path) -> ServerConfig {
    ServerConfig {
        data_dir: dir.join("data"),
        quic: "127.0.0.1:0".parse().unwrap(),
        runtime: RuntimeConfig { announce: false, ..RuntimeConfig::default() },
        ..ServerConfig::default()
    }
}

/// A broker in a directory of its own.
pub(crate) async fn start() -> (Server, TempDir) {
    start_with(|_| {}).await
}

/// The same, with another configuration.
pub(crate) async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> (Server, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    (Server::start(config).await.unwrap(), dir)
}

/// One connection and the endpoint it needs.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    _endpoint: Endpoint,
}

/// What a client shows and trusts.
pub(crate) struct Credentials {
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
}

/// The contents of an identity file: the CA, then the client's certificate, and its key.
pub(crate) fn credentials(path: &Path) -> Credentials {
    let pem = fs::read(path).unwrap();
    let mut certificates = CertificateDer::pem_slice_iter(&pem).map(Result::unwrap);
    let ca = certificates.next().unwrap();
    let own = (certificates.next().unwrap(), PrivateKeyDer::from_pem_slice(&pem).unwrap());
    Credentials { ca, own: Some(own) }
}

/// Dials a broker; the handshake may still fail on the broker's side.
pub(crate) async fn dial(server: &Server, credentials: Credentials, alpn: &[u8]) -> Result<Peer, ConnectionError> {
    let mut roots = RootCertStore::empty();
    roots.add(credentials.ca).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match credentials.own {
        Some((certificate, key)) => tls.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => tls.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connection = endpoint.connect_with(config, server.quic_addr(), TLS_SERVER_NAME).unwrap().await?;
    Ok(Peer { connection, _endpoint: endpoint })
}

/// A connection of the admin, before HELLO.
pub(crate) async fn connect(server: &Server) -> Peer {
    dial(server, credentials(&server.identity_path()), ALPN).await.unwrap()
}

/// A connection of the admin, and its control stream behind HELLO.
pub(crate) async fn join(server: &Server) -> (Peer, Stream) {
    let peer = connect(server).await;
    let mut control = peer.open().await;
    control.hello().await;
    (peer, control)
}

impl Peer {
    /// A new bidirectional stream.
    pub(crate) async fn open(&self) -> Stream {
        let (send, recv) = self.connection.open_bi().await.unwrap();
        Stream { send, recv }
    }

    /// A producer stream that is open.
    pub(crate) async fn producer(&self, id: ProducerId, epoch: Epoch) -> Stream {
        let mut stream = self.open().await;
        let open = ProducerOpen { producer_id: id.0, epoch: epoch.0 };
        stream.write(FrameKind::ProducerOpen, 0, 0, &open.encode(), &[]).await;
        stream.expect(FrameKind::ProducerOpened).await;
        stream
    }

    /// A subscription stream with its first frame sent.
    pub(crate) async fn subscribe(&self, place: &TopicPartition, from: u32, offset: u64, credit_bytes: u64) -> Stream {
        let mut stream = self.open().await;
        let subscribe = Subscribe { from, reserved: 0, offset, timestamp_ms: 0, credit_bytes };
        stream.write(FrameKind::Subscribe, 0, 0, &subscribe.encode(), &control::encode(place)).await;
        stream
    }

    /// The code and text with which the broker closed the connection.
    pub(crate) async fn closed(&self) -> (u64, String) {
        match self.connection.closed().await {
            ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap())
            }
            other => panic!("connection ended otherwise: {other}"),
        }
    }
}

/// A bidirectional stream.
pub(crate) struct Stream {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) prefix: Prefix,
    pub(crate) header: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Stream {
    pub(crate) async fn write(&mut self, kind: FrameKind, sequence: u64, handle: u32, header: &[u8], body: &[u8]) {
        let prefix = Prefix { sequence, handle, ..Prefix::new(kind, header, body) };
        self.write_raw(&[&prefix.encode(), header, body].concat()).await;
    }

    pub(crate) async fn write_raw(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` where the broker finished the stream.
    pub(crate) async fn read(&mut self) -> Option<Received> {
        let mut bytes = [0; PREFIX_BYTES];
        match self.recv.read_exact(&mut bytes).await {
            Ok(()) => {}
            Err(quinn::ReadExactError::FinishedEarly(0)) => return None,
            Err(error) => panic!("stream is lost: {error}"),
        }
        let prefix = Prefix::decode(&bytes, true).unwrap();
        let mut rest = vec![0; prefix.body_bytes as usize];
        self.recv.read_exact(&mut rest).await.unwrap();
        let (header, body) = prefix.split(&rest).unwrap();
        Some(Received { prefix, header: header.to_vec(), body: body.to_vec() })
    }

    /// The next frame, which is of this kind.
    pub(crate) async fn expect(&mut self, kind: FrameKind) -> Received {
        let frame = self.read().await.unwrap_or_else(|| panic!("stream ended before {kind:?}"));
        if frame.prefix.kind == FrameKind::Error && kind != FrameKind::Error {
            panic!("{:?} instead of {kind:?}", frame.error());
        }
        assert_eq!(frame.prefix.kind, kind);
        frame
    }

    pub(crate) async fn hello(&mut self) -> Welcome {
        let hello = Hello { client: "test".to_owned(), features: 0, features_required: 0 };
        self.write(FrameKind::Hello, 0, 0, &[], &control::encode(&hello)).await;
        control::decode(&self.expect(FrameKind::Welcome).await.body).unwrap()
    }

    /// One request and its answer.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Response, WireError> {
        self.write(FrameKind::Request, 7, 0, &[], &control::encode(request)).await;
        let answer = self.read().await.unwrap();
        assert_eq!(answer.prefix.sequence, 7);
        match answer.prefix.kind {
            FrameKind::Response => Ok(control::decode(&answer.body).unwrap()),
            FrameKind::Error => Err(answer.error()),
            kind => panic!("{kind:?} is no answer"),
        }
    }

    pub(crate) async fn create_topic(&mut self, name: &str) -> TopicPartition {
        let name = TopicName::new(name).unwrap();
        let create = CreateTopic { name: name.clone(), partitions: 1, config: TopicConfig::default() };
        self.ask(&Request::CreateTopic(create)).await.unwrap();
        TopicPartition { topic: name, partition: 0 }
    }

    pub(crate) async fn init_producer(&mut self) -> (ProducerId, Epoch) {
        match self.ask(&Request::InitProducer).await.unwrap() {
            Response::Producer(id, epoch) => (id, epoch),
            other => panic!("{other:?}"),
        }
    }

    /// Binds a handle of a producer stream.
    pub(crate) async fn bind(&mut self, handle: u32, place: &TopicPartition) -> Received {
        self.write(FrameKind::Bind, 0, handle, &[], &control::encode(place)).await;
        self.expect(FrameKind::Bound).await
    }

    pub(crate) async fn produce(&mut self, handle: u32, sequence: u64, batch: &RecordBatch) {
        self.write(FrameKind::Produce, sequence, handle, &[], batch.bytes()).await;
    }

    pub(crate) async fn ack(&mut self) -> (u32, u64, Ack) {
        let frame = self.expect(FrameKind::Ack).await;
        (frame.prefix.handle, frame.prefix.sequence, Ack::decode(&frame.header))
    }
}

impl Received {
    pub(crate) fn error(&self) -> WireError {
        control::decode(&self.body).unwrap()
    }
}

/// A batch of one producer.
pub(crate) fn batch((id, epoch): (ProducerId, Epoch), base_sequence: u32, values: &[&str]) -> RecordBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.producer(BatchProducer { id, epoch, base_sequence: Sequence(base_sequence) });
    for value in values {
        builder.append(&Record::unkeyed(value.to_string(), 1_700_000_000_000)).unwrap();
    }
    builder.finish(Offset::ZERO).unwrap()
}

/// The values of a run of batches, with their offsets.
pub(crate) fn values(body: Vec<u8>) -> Vec<(u64, String)> {
    let mut bytes = body.into();
    let mut values = Vec::new();
    while let Some(batch) = RecordBatch::split_first(&mut bytes).unwrap() {
        let section = batch.records_section(1 << 20).unwrap();
        for record in protocol::records(&section) {
            let record = record.unwrap();
            let offset = batch.header().base_offset.0 + u64::from(record.offset_delta);
            values.push((offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
    values
}

/// Stores records in a partition, from offset 0 on, through a producer of its own.
pub(crate) async fn store(peer: &Peer, control: &mut Stream, place: &TopicPartition, values: &[&str]) {
    let producer = control.init_producer().await;
    let mut stream = peer.producer(producer.0, producer.1).await;
    stream.bind(0, place).await;
    for (i, value) in values.iter().enumerate() {
        stream.produce(0, i as u64, &batch(producer, i as u32, &[value])).await;
    }
    for i in 0..values.len() {
        assert_eq!(stream.ack().await.1, i as u64);
    }
}
