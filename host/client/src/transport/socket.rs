//! The UDP socket under QUIC, with a bound on what one send call carries.
//!
//! quinn sends up to ten segments at once whatever their size; above 6,550 bytes each they exceed what UDP carries in
//! one call, the kernel refuses the call, and quinn takes the packets for lost, every time.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// What one UDP send call carries at most, segments together.
const SEND_BYTES_MAX: usize = 65_507;

/// As many segments as quinn puts into one send call by itself.
const SEGMENTS_MAX: usize = 10;

/// A socket on `address` for packets of at most `payload_bytes`.
pub(super) fn bind(address: SocketAddr, payload_bytes: u16) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let socket = TokioRuntime.wrap_udp_socket(UdpSocket::bind(address)?)?;
    Ok(Arc::new(Capped { segments: segments(payload_bytes), socket }))
}

fn segments(payload_bytes: u16) -> usize {
    (SEND_BYTES_MAX / usize::from(payload_bytes)).clamp(1, SEGMENTS_MAX)
}

struct Capped {
    segments: usize,
    socket: Arc<dyn AsyncUdpSocket>,
}

impl fmt::Debug for Capped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capped").field("segments", &self.segments).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Capped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
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
        for payload_bytes in [1_200, 1_452, 6_550, 6_551, 8_952, 40_000, 65_507] {
            assert!(segments(payload_bytes) * usize::from(payload_bytes) <= SEND_BYTES_MAX, "{payload_bytes}");
        }
        assert_eq!((segments(1_452), segments(8_952)), (10, 7));
    }
}
