//! TLS for every listener: what is offered, and who is let in.
//!
//! TLS 1.3 only; aws-lc-rs with AES-128-GCM first; a client shows a certificate that the broker's CA signed, or the
//! handshake fails with the alert that says why. Resumption is on (sessions live in memory), 0-RTT is off: a replayed
//! frame could be a produced batch.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
    server::WebPkiClientVerifier,
};

use crate::identity::Identity;

/// The broker's key does not fit its certificate, or the CA's certificate is none.
#[derive(Debug, thiserror::Error)]
#[error("identity in the data directory does not hold together: {reason}")]
pub struct TlsError {
    reason: String,
}

fn tls_error(reason: impl std::fmt::Display) -> TlsError {
    TlsError { reason: reason.to_string() }
}

/// The cryptography of this broker.
fn provider() -> Arc<CryptoProvider> {
    // AES-128-GCM first: with AES instructions it is the cheapest per byte, and QUIC's own packets use it anyway.
    let cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}

/// The server side of a handshake that speaks `alpn`.
pub(crate) fn server_config(identity: &Identity, alpn: &[u8]) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let mut roots = RootCertStore::empty();
    roots.add(identity.ca.clone()).map_err(tls_error)?;
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(tls_error)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![identity.certificate.clone(), identity.ca.clone()], identity.key.clone_key())
        .map_err(tls_error)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// Who a certificate speaks of: its common name.
pub(crate) fn principal(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}
