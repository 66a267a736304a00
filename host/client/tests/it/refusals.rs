//! What cannot work is refused with a clear error, and harms nothing else.

use std::{net::UdpSocket, sync::Arc};

use client::{
    AdminError, Assignment, Client, ClientConfig, ConnectError, ConsumeError, ConsumerConfig, DeliveryMode,
    DeployTransform, ErrorCode, NOW, Offset, OffsetSpec, OnError, Outcome, ProduceError, ProducerConfig, Record,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::common::{TestBroker, create, drain, place, topic, whole, within};

#[tokio::test]
async fn a_port_where_nobody_listens_is_named_at_once() {
    let broker = TestBroker::start().await;
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = within(Client::connect(broker.config_at(address))).await.err().unwrap();
    assert!(matches!(&error, ConnectError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn the_next_broker_of_the_list_is_tried() {
    let broker = TestBroker::start().await;
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let brokers = [nobody.to_string(), broker.address().to_string()];
    let client = Client::connect(ClientConfig::new(brokers, broker.identity())).await.unwrap();
    assert_eq!(client.welcome().unwrap().principal, "admin");
}

#[tokio::test]
async fn another_brokers_identity_is_refused() {
    let (broker, other) = (TestBroker::start().await, TestBroker::start().await);
    let config = ClientConfig::new([broker.address().to_string()], other.identity());
    let error = within(Client::connect(config)).await.err().unwrap();
    assert!(matches!(error, ConnectError::WrongIdentity { .. }), "{error:?}");
}

#[tokio::test]
async fn a_client_the_broker_does_not_know_is_refused_although_it_knows_the_broker() {
    let (broker, other) = (TestBroker::start().await, TestBroker::start().await);
    let read = |broker: &TestBroker, file: &str| std::fs::read(broker.dir().join("identity").join(file)).unwrap();
    let admin = read(&other, "admin.pem");
    let stranger: Vec<u8> = {
        // The CA of the one, certificate and key of the other.
        let text = String::from_utf8(admin).unwrap();
        let end = "-----END CERTIFICATE-----\n";
        let own = &text[text.find(end).unwrap() + end.len()..];
        [&read(&broker, "ca.pem")[..], own.as_bytes()].concat()
    };
    let identity = client::Identity::from_pem(&stranger).unwrap();
    let error =
        within(Client::connect(ClientConfig::new([broker.address().to_string()], identity))).await.err().unwrap();
    assert!(matches!(error, ConnectError::WrongIdentity { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_no_broker() {
    let broker = TestBroker::start().await;
    // A QUIC server with the broker's own certificate that speaks something else.
    let dir = broker.dir().join("identity");
    let certificate = CertificateDer::from_pem_file(dir.join("broker.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(dir.join("broker.key")).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let _ = incoming.await;
        }
    });
    let error = within(Client::connect(broker.config_at(address))).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotWeir { .. }), "{error:?}");
    serving.abort();
}

#[tokio::test]
async fn an_unknown_topic_is_named_by_everyone() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let producer = client.producer(ProducerConfig::default());
    let error = producer.send(&topic("nowhere"), Record::unkeyed("v", NOW)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic), "{error:?}");

    // Straight to a partition, where the broker notices when it is bound.
    let mut batch = producer.batch();
    batch.append(&Record::unkeyed("v", 0)).unwrap();
    let handle = producer.send_batch(&place(&topic("nowhere"), 0), batch).await.unwrap();
    assert_eq!(within(handle).await.unwrap_err().code(), Some(ErrorCode::UnknownTopic));

    for delivery in [DeliveryMode::Push, DeliveryMode::Pull] {
        let nowhere = Assignment { topic: topic("nowhere"), partition: 0, from: OffsetSpec::Beginning };
        let mut consumer = client.consumer(ConsumerConfig { delivery, ..ConsumerConfig::new([nowhere]) });
        let error = within(consumer.next()).await.unwrap().unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
        assert!(within(consumer.next()).await.is_none());
    }
    let error = client.admin().topic(&topic("nowhere")).await.unwrap_err();
    assert!(matches!(&error, AdminError::Refused(refusal) if refusal.code == ErrorCode::UnknownTopic), "{error:?}");
}

#[tokio::test]
async fn an_unknown_partition_fails_alone() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let producer = client.producer(ProducerConfig::default());
    let bad = producer.send_to(&place(&name, 7), Record::unkeyed("bad", NOW)).await.unwrap();
    let good = producer.send_to(&place(&name, 0), Record::unkeyed("good", NOW)).await.unwrap();
    assert_eq!(within(bad).await.unwrap_err().code(), Some(ErrorCode::UnknownPartition));
    assert_eq!(within(good).await.unwrap().offset(), Offset(0));
    assert_eq!((producer.records_failed(), producer.books().records_in), (1, 1));
}

#[tokio::test]
async fn a_record_over_the_topics_limit_is_refused_alone() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let producer = client.producer(ProducerConfig::default());
    let error = producer.send(&name, Record::unkeyed(vec![0; 2 << 20], NOW)).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ProduceError::RecordTooLarge { .. }) && text.contains("1048576"), "{text}");
    within(producer.send(&name, Record::unkeyed("small", NOW)).await.unwrap()).await.unwrap();

    // In a batch that was built by hand it is the broker who says so; the next batch is not harmed.
    let mut batch = producer.batch();
    batch.append(&Record::unkeyed(vec![0; 2 << 20], 0)).unwrap();
    let large = producer.send_batch(&place(&name, 0), batch).await.unwrap();
    let small = producer.send(&name, Record::unkeyed("small", NOW)).await.unwrap();
    assert_eq!(within(large).await.unwrap_err().code(), Some(ErrorCode::RecordTooLarge));
    assert_eq!(within(small).await.unwrap().offset(), Offset(1));
}

#[tokio::test]
async fn an_offset_out_of_range_is_refused_and_another_place_can_be_sought() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let far = Assignment { topic: name.clone(), partition: 0, from: OffsetSpec::At(Offset(99)) };
    let mut consumer = client.consumer(ConsumerConfig::new([far]));
    let error = within(consumer.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, ConsumeError::Refused { .. }), "{error:?}");
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange));
    consumer.seek(&place(&name, 0), OffsetSpec::Beginning).unwrap();
    let producer = client.producer(ProducerConfig::default());
    within(producer.send(&name, Record::unkeyed("v", NOW)).await.unwrap()).await.unwrap();
    assert_eq!(within(consumer.next()).await.unwrap().unwrap().offset, Offset(0));
}

#[tokio::test]
async fn a_record_a_transform_rejects_is_told_alone() {
    let broker = TestBroker::start().await;
    let client = broker.client().await;
    let name = create(&client, "t", 1).await;
    let wasm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins/access-log-json/access-log-json.wasm");
    let admin = client.admin();
    let plugin = admin.upload_plugin("log".parse().unwrap(), std::fs::read(wasm).unwrap()).await.unwrap();
    let deploy =
        DeployTransform { on_error: OnError::Reject, ..DeployTransform::new(name.clone(), plugin.name.clone()) };
    let deployed = admin.deploy_transform(deploy).await.unwrap();
    assert_eq!((deployed.spec.plugin_hash, admin.plugins().await.unwrap()), (plugin.hash, vec![plugin]));

    let producer = client.producer(ProducerConfig::default());
    let good = r#"127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 2326"#;
    let mut handles = Vec::new();
    for line in [good, "no log line", good] {
        handles.push(producer.send(&name, Record::unkeyed(line, NOW)).await.unwrap());
    }
    let mut rejected = Vec::new();
    for handle in handles {
        let delivery = within(handle).await.unwrap();
        rejected.push(matches!(delivery.outcome(), Outcome::Rejected(reject) if !reject.text.is_empty()));
    }
    assert_eq!(rejected, [false, true, false]);
    let books = producer.books();
    assert_eq!((books.records_in, books.kept, books.rejected), (3, 2, 1));
    // The rejected record left a gap.
    let read = drain(client.consumer(whole(&name, 1))).await;
    assert_eq!(read.iter().map(|record| record.offset.0).collect::<Vec<_>>(), [0, 2]);
}
