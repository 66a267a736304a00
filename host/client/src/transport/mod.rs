//! QUIC as weir uses it: settings, dialling, and what a failed handshake means.
//!
//! Owns every setting of TLS and QUIC on the client's side. Knows no frame.
//!
//! Start at [`dial`].

mod socket;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use protocol::{
    frame::{ALPN, TLS_SERVER_NAME},
    limits,
};
use quinn::{
    ConnectionError, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::QuicClientConfig,
};
use rustls::{RootCertStore, crypto::aws_lc_rs};
use tokio::net::UdpSocket;

use crate::{
    error::ConnectError,
    identity::{Identity, IdentityError},
};

const KEEP_ALIVE: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT_MS: u32 = 30_000;

/// What one stream may have sent us unread: twice a frame, so that a frame never waits for window.
const STREAM_WINDOW_BYTES: u32 = 2 * limits::FRAME_BYTES_MAX as u32;

/// What all streams together may have sent us unread. Credit bounds subscriptions below this, so control never starves.
const CONNECTION_WINDOW_BYTES: u32 = 2 * limits::CREDIT_BYTES_MAX as u32;

/// What we may have sent unacknowledged: the bandwidth-delay product of 1 Gbit/s and 60 ms.
const SEND_WINDOW_BYTES: u64 = 8 << 20;

/// How often a dialling socket asks whether the address refuses it.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// TLS and QUIC settings for an identity; made once per client.
pub(crate) fn quic_config(identity: &Identity) -> Result<quinn::ClientConfig, IdentityError> {
    let unusable = |reason: String| IdentityError::Unusable { reason };
    let mut provider = aws_lc_rs::default_provider();
    // With AES in hardware, as nearly everywhere, it is the quickest of the three; QUIC cannot do without it anyway.
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let mut roots = RootCertStore::empty();
    roots.add(identity.ca()).map_err(|error| unusable(error.to_string()))?;
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.chain(), identity.key())
        .map_err(|error| unusable(error.to_string()))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];

    let crypto = QuicClientConfig::try_from(tls).map_err(|error| unusable(error.to_string()))?;
    Ok(quinn::ClientConfig::new(Arc::new(crypto)))
}

fn transport_config(payload_bytes: u16) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(payload_bytes);
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .mtu_discovery_config(Some(discovery))
        // A broker opens no streams towards a client, and sends no datagrams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    transport
}

/// The largest UDP payload towards an address: what Ethernet carries; on loopback that of jumbo frames, which cost a
/// third per byte.
fn payload_bytes_max(address: SocketAddr) -> u16 {
    if address.ip().is_loopback() { 8_952 } else { 1_452 }
}

/// An established connection and the endpoint it lives on: a socket of its own for each, so that a new one is not
/// held up by what the network remembers of the old one's port.
pub(crate) struct Dialled {
    pub(crate) connection: quinn::Connection,
    pub(crate) endpoint: quinn::Endpoint,
}

/// Connects to one address, or says why not. Returns early when the address refuses: nobody listens there.
pub(crate) async fn dial(
    config: &quinn::ClientConfig,
    broker: &str,
    address: SocketAddr,
    timeout: Duration,
) -> Result<Dialled, ConnectError> {
    let socket = |cause| ConnectError::Socket { broker: broker.to_owned(), cause };
    let payload_bytes = payload_bytes_max(address);
    let endpoint = endpoint(address, payload_bytes).map_err(socket)?;
    let mut config = config.clone();
    config.transport_config(Arc::new(transport_config(payload_bytes)));
    let connecting = endpoint
        .connect_with(config, address, TLS_SERVER_NAME)
        .map_err(|error| ConnectError::Address { broker: broker.to_owned(), reason: error.to_string() })?;
    tokio::select! {
        done = connecting => match done {
            Ok(connection) => Ok(Dialled { connection, endpoint }),
            Err(error) => Err(explain(broker, &error)),
        },
        () = refused(address) => Err(ConnectError::Refused { broker: broker.to_owned() }),
        () = tokio::time::sleep(timeout) => Err(ConnectError::NoAnswer { broker: broker.to_owned(), waited: timeout }),
    }
}

fn endpoint(towards: SocketAddr, payload_bytes: u16) -> io::Result<quinn::Endpoint> {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(payload_bytes).map_err(io::Error::other)?;
    let socket = socket::bind(any_port(towards), payload_bytes)?;
    quinn::Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime))
}

fn any_port(towards: SocketAddr) -> SocketAddr {
    match towards {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Returns when the host says that nobody listens on the port, else never. QUIC's own socket is not connected and
/// so never hears of it; this one is, and sends a byte that every QUIC server ignores.
async fn refused(address: SocketAddr) {
    let listen = async {
        let socket = UdpSocket::bind(any_port(address)).await?;
        socket.connect(address).await?;
        loop {
            socket.send(&[0]).await?;
            // Whatever a server might answer to a byte is of no interest.
            let _ = tokio::time::timeout(PROBE_EVERY, socket.recv(&mut [0; 16])).await.unwrap_or(Ok(0))?;
        }
        #[expect(unreachable_code, reason = "names the type of the block")]
        Ok::<(), io::Error>(())
    };
    match listen.await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        _ => std::future::pending().await,
    }
}

/// What a broken connection tells about the peer.
pub(crate) fn explain(broker: &str, error: &ConnectionError) -> ConnectError {
    let broker = broker.to_owned();
    match error {
        ConnectionError::VersionMismatch => ConnectError::NotWeir { broker, reason: error.to_string() },
        ConnectionError::TransportError(inner) => explain_code(broker, inner.code.into(), &error.to_string()),
        ConnectionError::ConnectionClosed(inner) => explain_code(broker, inner.error_code.into(), &error.to_string()),
        ConnectionError::TimedOut => {
            ConnectError::NoAnswer { broker, waited: Duration::from_millis(IDLE_TIMEOUT_MS.into()) }
        }
        other => ConnectError::Lost { broker, reason: other.to_string() },
    }
}

/// QUIC carries a TLS alert as 0x100 + its number.
fn explain_code(broker: String, code: u64, text: &str) -> ConnectError {
    const NO_APPLICATION_PROTOCOL: u64 = 120;
    const CERTIFICATE_ALERTS: [u64; 9] = [41, 42, 43, 44, 45, 46, 48, 49, 116];
    let reason = text.to_owned();
    match code.checked_sub(0x100) {
        Some(NO_APPLICATION_PROTOCOL) => ConnectError::NotWeir { broker, reason },
        Some(alert) if CERTIFICATE_ALERTS.contains(&alert) => ConnectError::WrongIdentity { broker, reason },
        _ => ConnectError::Lost { broker, reason },
    }
}
