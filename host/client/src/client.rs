//! The entry: a connection, and what is made from it.

use protocol::control::Welcome;

use crate::{
    admin::Admin,
    config::{ClientConfig, ConsumerConfig, ProducerConfig},
    consumer::Consumer,
    error::ConnectError,
    link::Link,
    producer::Producer,
};

/// A connection to a broker, kept up in the background: when it breaks, what was in flight is sent again on the next
/// one, and readers go on where they were.
///
/// Cheap to clone; producers, consumers and admins share it. It lives until the last of them is gone, or
/// [`close`](Client::close) is called. Needs a Tokio runtime.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use client::{Client, ClientConfig, Identity};
///
/// let identity = Identity::load("weir-data/identity/admin.pem")?;
/// let client = Client::connect(ClientConfig::new(["127.0.0.1:7433"], identity)).await?;
/// println!("{}", client.admin().status().await?.broker);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    link: Link,
}

impl Client {
    /// Connects, and proves that a weir broker is there that takes this identity.
    ///
    /// # Errors
    /// When no broker of the list can be reached or takes us: the error of the last one tried.
    pub async fn connect(config: ClientConfig) -> Result<Client, ConnectError> {
        Ok(Client { link: Link::connect(config).await? })
    }

    /// A producer of its own identity, for any topics. Does nothing until something is sent.
    #[must_use]
    pub fn producer(&self, config: ProducerConfig) -> Producer {
        Producer::start(self.link.clone(), config)
    }

    /// A consumer of these partitions. Begins to read at once.
    #[must_use]
    pub fn consumer(&self, config: ConsumerConfig) -> Consumer {
        Consumer::start(self.link.clone(), config)
    }

    /// The administrator's requests.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.link.clone())
    }

    /// What the broker said of itself on the current connection; `None` while there is none.
    #[must_use]
    pub fn welcome(&self) -> Option<Welcome> {
        self.link.current().map(|session| session.welcome().clone())
    }

    /// Ends the connection, for producers and consumers of this client too. Close producers first: what they have not
    /// sent is lost.
    pub async fn close(self) {
        self.link.close().await;
    }
}
