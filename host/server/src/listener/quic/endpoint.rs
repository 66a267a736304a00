//! The QUIC endpoint: socket, transport settings, the accept loop.
//!
//! Owns how connections behave and how many there are. Never reads a frame: an accepted connection goes to its
//! [session](crate::session).

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use protocol::limits::STREAMS_PER_CONNECTION_MAX;
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, Incoming, MtuDiscoveryConfig, Runtime, TokioRuntime,
    UdpPoller, VarInt,
    crypto::rustls::QuicServerConfig,
    udp::{RecvMeta, Transmit},
};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    config::{Profile, TransportConfig},
    session::{Session, Shared},
};

/// Largest UDP payload on a path that is not known to carry more: Ethernet less IPv6 and UDP headers, as quinn.
const ETHERNET_PAYLOAD_BYTES: u16 = 1_452;
/// Jumbo frames of 9,000 less the same headers; also right for loopback, where larger ones bring little more.
const JUMBO_PAYLOAD_BYTES: u16 = 8_952;
/// What one UDP send call carries at most, segments together.
const UDP_SEND_BYTES_MAX: usize = 65_507;
/// How many connections may be in their handshake before a newcomer has to prove its address first (QUIC Retry).
const HANDSHAKES_BEFORE_RETRY: usize = 64;
/// As many segments as quinn puts into one send call by itself.
const SEGMENTS_MAX: usize = 10;
/// How often a client of ours asks whether we are there.
const CLIENT_KEEP_ALIVE_MS: u32 = 10_000;

/// Begins to listen on a socket that is bound.
pub(crate) fn listen(socket: UdpSocket, config: &TransportConfig, tls: QuicServerConfig) -> io::Result<Endpoint> {
    let mtu = mtu_bytes_max(config, socket.local_addr()?);
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls));
    server.transport_config(Arc::new(transport(config, mtu)));
    let mut endpoint = EndpointConfig::default();
    endpoint.max_udp_payload_size(mtu).map_err(io::Error::other)?;
    let runtime = Arc::new(TokioRuntime);
    let socket = runtime.wrap_udp_socket(socket)?;
    let socket = CappedSocket { segments: segments(mtu), socket };
    Endpoint::new_with_abstract_socket(endpoint, Some(server), Arc::new(socket), runtime)
}

/// Accepts connections until the broker drains and all sessions are over.
///
/// While it drains newcomers are refused, so that they try elsewhere at once instead of waiting for a silent address.
pub(crate) async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_BEFORE_RETRY));
    let mut drain = shared.drain.clone();
    let mut sessions = JoinSet::new();
    loop {
        let draining = *drain.borrow_and_update();
        if draining && sessions.is_empty() {
            return;
        }
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) if draining => incoming.refuse(),
                Some(incoming) => admit(incoming, &shared, &handshakes, &mut sessions),
                None => return,
            },
            Some(ended) = sessions.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "serving a connection failed");
            },
            changed = drain.changed(), if !draining => if changed.is_err() {
                return;
            },
        }
    }
}

/// Lets a newcomer in, where there is room.
fn admit(incoming: Incoming, shared: &Arc<Shared>, handshakes: &Arc<Semaphore>, sessions: &mut JoinSet<()>) {
    let handshake = handshakes.clone().try_acquire_owned().ok();
    if handshake.is_none() && incoming.may_retry() && !incoming.remote_address_validated() {
        // It can only fail for an address that is validated.
        let _ = incoming.retry();
        return;
    }
    let Ok(connection) = shared.connections.clone().try_acquire_owned() else {
        tracing::warn!(peer = %incoming.remote_address(), "refused: `transport.connections_max` connections are open");
        incoming.refuse();
        return;
    };
    let shared = shared.clone();
    sessions.spawn(async move {
        let peer = incoming.remote_address();
        match incoming.await {
            Ok(accepted) => {
                drop(handshake);
                Session::new(shared, accepted).run().await;
            }
            Err(error) => tracing::info!(%peer, %error, "handshake failed"),
        }
        drop(connection);
    });
}

fn mtu_bytes_max(config: &TransportConfig, address: SocketAddr) -> u16 {
    match config.mtu_bytes_max {
        0 if address.ip().is_loopback() => JUMBO_PAYLOAD_BYTES,
        0 => ETHERNET_PAYLOAD_BYTES,
        set => set,
    }
}

fn segments(mtu: u16) -> usize {
    (UDP_SEND_BYTES_MAX / usize::from(mtu)).clamp(1, SEGMENTS_MAX)
}

fn transport(config: &TransportConfig, mtu: u16) -> quinn::TransportConfig {
    let (stream, connection, send): (u32, u32, u32) = match config.profile {
        Profile::Throughput => (1 << 20, 8 << 20, 2 << 20),
        Profile::Latency => (256 << 10, 2 << 20, 512 << 10),
    };
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(stream))
        .receive_window(VarInt::from_u32(connection))
        .send_window(send.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_CONNECTION_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // No datagrams: without a receive buffer the extension is not offered.
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(config.idle_ms_max))))
        .mtu_discovery_config(Some(discovery))
        .keep_alive_interval(keep_alive(config.idle_ms_max));
    transport
}

/// How often we ask whether a peer is there. Clients do that often enough for the default; where a connection is kept for
/// less, one that only waits for its answer would end, be made again, and wait anew.
fn keep_alive(idle_ms_max: u32) -> Option<Duration> {
    let is_short = (1..3 * CLIENT_KEEP_ALIVE_MS).contains(&idle_ms_max);
    is_short.then(|| Duration::from_millis(u64::from(idle_ms_max).div_ceil(3)))
}

/// A UDP socket that puts fewer segments into one send call than it could.
///
/// quinn sends up to ten segments at once whatever their size; above 6,550 bytes each they exceed what UDP carries in one
/// call, the kernel refuses the call, and quinn takes the packets for lost, every time.
struct CappedSocket {
    segments: usize,
    socket: Arc<dyn AsyncUdpSocket>,
}

impl fmt::Debug for CappedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CappedSocket").field("segments", &self.segments).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for CappedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments().min(self.segments)
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_call_never_carries_more_than_udp_can() {
        for mtu in [1_200, ETHERNET_PAYLOAD_BYTES, 6_550, 6_551, JUMBO_PAYLOAD_BYTES, 40_000, 65_507] {
            assert!(segments(mtu) * usize::from(mtu) <= UDP_SEND_BYTES_MAX, "{mtu}");
        }
        assert_eq!((segments(ETHERNET_PAYLOAD_BYTES), segments(JUMBO_PAYLOAD_BYTES)), (10, 7));
    }
}
