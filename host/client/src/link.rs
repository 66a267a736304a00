//! The connection that heals: one task that keeps a session up, and everybody else waiting for the current one.
//!
//! Owns dialling, its order and its waits. Never resends anything: who had something in flight does that itself, on the
//! next session.
//!
//! ```text
//!             dial ok                     closed, draining, or silent and another dial succeeds
//!   Down ---------------------> Up ---------------------------------------------------------+
//!    ^  wait, longer each time                                                              |
//!    +--------------------------------------------------------------------------------------+
//! ```
//! Start at [`Link::connect`].

use std::{net::SocketAddr, sync::Arc, time::Duration};

use protocol::limits::STREAMS_PER_CONNECTION_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    clock::Backoff, config::ClientConfig, error::ConnectError, identity::IdentityError, session::Session, transport,
};

/// How long a broker may leave packets unanswered before another connection is tried beside the old one. QUIC's own
/// idle timeout notices the same after 30 s; a broker that was killed and started again is back much earlier.
const SILENCE: Duration = Duration::from_secs(1);

/// Subscriptions of one client: they leave streams for producers, requests and what comes later. More partitions than
/// this are read by fetches, which need no stream of their own.
const SUBSCRIPTIONS_MAX: usize = 3 * STREAMS_PER_CONNECTION_MAX as usize / 4;

/// A handle on the connection; it is kept up while one of these exists.
#[derive(Clone)]
pub(crate) struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    state: watch::Receiver<State>,
    /// Dropped or set: the task ends.
    stop: watch::Sender<bool>,
    config: ClientConfig,
    /// Subscription streams that may still be opened.
    subscriptions: Arc<Semaphore>,
}

#[derive(Clone)]
enum State {
    Up(Arc<Session>),
    Down { last: String },
    Closed,
}

/// The client was closed; no session will come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed;

impl Link {
    /// Connects for the first time: the first broker that takes us, or the error of the last one tried.
    pub(crate) async fn connect(config: ClientConfig) -> Result<Link, ConnectError> {
        let dialler = Dialler::new(&config)?;
        let session = dialler.any().await?;
        let (publish, state) = watch::channel(State::Up(Arc::clone(&session)));
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(keep_up(dialler, session, publish, stopped));
        let subscriptions = Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX));
        Ok(Link { shared: Arc::new(Shared { state, stop, config, subscriptions }) })
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.config().retry_wait_min, self.config().retry_wait_max)
    }

    /// The current session; waits for one while there is none. Cancellation safe.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, Closed> {
        let mut state = self.shared.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Down { .. })).await.map_err(|_| Closed)?;
        match &*state {
            State::Up(session) => Ok(Arc::clone(session)),
            _ => Err(Closed),
        }
    }

    /// The current session, if there is one.
    pub(crate) fn current(&self) -> Option<Arc<Session>> {
        match &*self.shared.state.borrow() {
            State::Up(session) => Some(Arc::clone(session)),
            _ => None,
        }
    }

    /// Returns when another session has taken this one's place, or none ever will. A session that is draining is still
    /// good for what is on it.
    pub(crate) async fn replaced(&self, session: &Arc<Session>) {
        let mut state = self.shared.state.clone();
        let over = |state: &State| match state {
            State::Up(current) => !Arc::ptr_eq(current, session),
            State::Down { .. } => false,
            State::Closed => true,
        };
        let _ = state.wait_for(over).await;
    }

    /// The right to a subscription stream, if there are any left.
    pub(crate) fn subscription(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.shared.subscriptions).try_acquire_owned().ok()
    }

    /// Why there is no session, for the text of a timeout.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &*self.shared.state.borrow() {
            State::Down { last } => Some(last.clone()),
            _ => None,
        }
    }

    /// Ends the connection for everybody who shares it.
    pub(crate) async fn close(&self) {
        let session = self.current();
        self.shared.stop.send_replace(true);
        let mut state = self.shared.state.clone();
        let _ = state.wait_for(|state| matches!(state, State::Closed)).await;
        if let Some(session) = session {
            session.gone().await;
        }
    }
}

/// Keeps a session up until the last handle is gone.
async fn keep_up(
    dialler: Dialler,
    mut session: Arc<Session>,
    publish: watch::Sender<State>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let next = tokio::select! {
            // An error means that the last handle is gone.
            _ = stopped.wait_for(|stop| *stop) => None,
            next = dialler.replacement(&session, &publish) => Some(next),
        };
        let Some(next) = next else {
            publish.send_replace(State::Closed);
            session.close("client closed");
            return;
        };
        tracing::info!(broker = next.broker(), "connected again");
        publish.send_replace(State::Up(Arc::clone(&next)));
        session.close("replaced");
        session = next;
    }
}

/// Makes sessions.
struct Dialler {
    brokers: Vec<String>,
    name: String,
    timeout: Duration,
    quic: quinn::ClientConfig,
    backoff: Backoff,
}

impl Dialler {
    fn new(config: &ClientConfig) -> Result<Dialler, IdentityError> {
        Ok(Dialler {
            brokers: config.brokers.clone(),
            name: config.name.clone(),
            timeout: config.connect_timeout,
            quic: transport::quic_config(&config.identity)?,
            backoff: Backoff::new(config.retry_wait_min, config.retry_wait_max),
        })
    }

    /// Watches `session`, and returns what takes its place.
    async fn replacement(&self, session: &Session, publish: &watch::Sender<State>) -> Arc<Session> {
        loop {
            let trouble = tokio::select! {
                error = session.closed() => error.to_string(),
                () = session.draining() => "the broker is going away".to_owned(),
                () = session.silent(SILENCE) => {
                    // It may only be slow: keep it until somebody better is found or it is known to be gone.
                    match self.beside(session).await {
                        Some(next) => return next,
                        None => continue,
                    }
                }
            };
            tracing::info!(broker = session.broker(), trouble, "connection lost");
            publish.send_replace(State::Down { last: trouble });
            return self.until_up(publish).await;
        }
    }

    /// Tries once for another session beside a silent one. `None` when the old one should be looked at again.
    async fn beside(&self, session: &Session) -> Option<Arc<Session>> {
        match self.any().await {
            Ok(next) => Some(next),
            Err(error) => {
                tracing::debug!(broker = session.broker(), error = %error, "silent, and no other connection");
                if matches!(error, ConnectError::Refused { .. }) {
                    // Its host says so itself: nobody is there any more.
                    session.close("nobody listens");
                }
                None
            }
        }
    }

    async fn until_up(&self, publish: &watch::Sender<State>) -> Arc<Session> {
        let mut backoff = self.backoff.clone();
        loop {
            match self.any().await {
                Ok(session) => return session,
                Err(error) => {
                    tracing::debug!(error = %error, "cannot connect yet");
                    publish.send_replace(State::Down { last: error.to_string() });
                }
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Tries the brokers in order.
    async fn any(&self) -> Result<Arc<Session>, ConnectError> {
        let mut last = ConnectError::NoBroker;
        for broker in &self.brokers {
            match self.one(broker).await {
                Ok(session) => return Ok(Arc::new(session)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Tries the addresses of one broker in order.
    async fn one(&self, broker: &str) -> Result<Session, ConnectError> {
        let unusable = |reason: String| ConnectError::Address { broker: broker.to_owned(), reason };
        let addresses: Vec<SocketAddr> =
            tokio::net::lookup_host(broker).await.map_err(|error| unusable(error.to_string()))?.collect();
        let mut last = unusable("it has no address".to_owned());
        for address in addresses {
            let open = async {
                let dialled = transport::dial(&self.quic, broker, address, self.timeout).await?;
                Session::open(broker, dialled, &self.name).await
            };
            let no_answer = || ConnectError::NoAnswer { broker: broker.to_owned(), waited: self.timeout };
            match tokio::time::timeout(self.timeout, open).await.unwrap_or_else(|_| Err(no_answer())) {
                Ok(session) => return Ok(session),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
