//! A UDP relay between clients and a broker: it can lose everything, and move to another port as a NAT does.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinSet};

/// Larger than any packet.
const PACKET_BYTES: usize = 65_536;

pub(crate) struct Network {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    /// Ends with the value.
    _relay: JoinSet<()>,
}

impl Network {
    /// A relay in front of `broker`.
    pub(crate) async fn towards(broker: SocketAddr) -> Network {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = socket.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let mut relay = JoinSet::new();
        relay.spawn(run(socket, broker, Arc::clone(&cut)));
        Network { address, cut, _relay: relay }
    }

    /// What clients dial.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Loses every packet from now on, both ways.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// Carries packets again.
    pub(crate) fn heal(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

async fn run(socket: Arc<UdpSocket>, broker: SocketAddr, cut: Arc<AtomicBool>) {
    let mut upstreams: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut back = JoinSet::new();
    let mut packet = vec![0; PACKET_BYTES];
    loop {
        // An earlier send may have been refused by the host; the network does not care.
        let Ok((bytes, from)) = socket.recv_from(&mut packet).await else { continue };
        if cut.load(Ordering::SeqCst) {
            continue;
        }
        let upstream = match upstreams.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let upstream = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                upstream.connect(broker).await.unwrap();
                back.spawn(carry_back(Arc::clone(&upstream), Arc::clone(&socket), from, Arc::clone(&cut)));
                new.insert(upstream)
            }
        };
        let _ = upstream.send(&packet[..bytes]).await;
    }
}

async fn carry_back(upstream: Arc<UdpSocket>, socket: Arc<UdpSocket>, to: SocketAddr, cut: Arc<AtomicBool>) {
    let mut packet = vec![0; PACKET_BYTES];
    loop {
        match upstream.recv(&mut packet).await {
            Ok(bytes) if !cut.load(Ordering::SeqCst) => drop(socket.send_to(&packet[..bytes], to).await),
            Ok(_) => {}
            // The broker is down and its host says so: time for somebody else.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}
