//! Who a client is: one PEM file that the broker issued.
//!
//! Owns the parsing of that file. Never prints what is in it.
//!
//! Start at [`Identity`].

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// An identity file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("identity file `{}` cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The text is not PEM.
    #[error("identity is not PEM: {reason}")]
    Pem {
        /// What is wrong with it.
        reason: String,
    },
    /// A part is missing.
    #[error("identity has no {part}; it needs the broker's CA certificate, a client certificate and its key")]
    Missing {
        /// Which part.
        part: &'static str,
    },
    /// The parts do not make a usable identity.
    #[error("identity cannot be used: {reason}")]
    Unusable {
        /// Why, in the words of the TLS library.
        reason: String,
    },
}

/// What a client proves itself with and recognises its broker by: the broker's CA certificate, a client certificate
/// (with its chain, if any) and its private key, in this order, in one PEM file.
///
/// Cheap to clone. [`Debug`](fmt::Debug) shows no part of it.
#[derive(Clone)]
pub struct Identity {
    parts: Arc<Parts>,
}

struct Parts {
    ca: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Loads an identity file, as `weir serve` leaves one in its data directory (`identity/admin.pem`).
    ///
    /// # Errors
    /// When the file cannot be read or is no identity.
    pub fn load(path: impl AsRef<Path>) -> Result<Identity, IdentityError> {
        let path = path.as_ref();
        let text = std::fs::read(path).map_err(|cause| IdentityError::Read { path: path.to_owned(), cause })?;
        Identity::from_pem(&text)
    }

    /// Reads an identity from PEM text.
    ///
    /// # Errors
    /// When the text is no identity.
    pub fn from_pem(text: &[u8]) -> Result<Identity, IdentityError> {
        let mut certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(not_pem)?;
        if certificates.is_empty() {
            return Err(IdentityError::Missing { part: "CA certificate" });
        }
        let ca = certificates.remove(0);
        if certificates.is_empty() {
            return Err(IdentityError::Missing { part: "client certificate" });
        }
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
            pem::Error::NoItemsFound => IdentityError::Missing { part: "private key" },
            other => not_pem(other),
        })?;
        Ok(Identity { parts: Arc::new(Parts { ca, chain: certificates, key }) })
    }

    pub(crate) fn ca(&self) -> CertificateDer<'static> {
        self.parts.ca.clone()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.parts.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.parts.key.clone_key()
    }
}

fn not_pem(error: pem::Error) -> IdentityError {
    IdentityError::Pem { reason: error.to_string() }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_missing_part_is_named() {
        for (text, part) in [
            (KEY.to_owned(), "CA certificate"),
            (format!("{CERTIFICATE}{KEY}"), "client certificate"),
            (format!("{CERTIFICATE}{CERTIFICATE}"), "private key"),
        ] {
            let error = Identity::from_pem(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let identity = Identity::from_pem(format!("{CERTIFICATE}{CERTIFICATE}{KEY}").as_bytes()).unwrap();
        assert_eq!(format!("{identity:?}"), "Identity(..)");
    }
}
