//! Who the broker is, and whom it lets in: a CA of its own, its certificate, and the admin's identity file.
//!
//! Owns `<data>/identity/`. Never overwrites a file in it: the directory is prepared beside its place and renamed into it
//! once, whole, so an interrupted first start leaves nothing half made. Callers hold the data directory's lock.
//!
//! ```text
//! identity/           0700
//!   ca.pem  ca.key    the CA; whoever has the key can make identities
//!   broker.pem .key   the broker's certificate
//!   admin.pem         CA certificate, client certificate and key in one file: all that a client needs to join
//! ```
//! A client's principal is the common name of its certificate. Broker and client certificates differ in their extended
//! key usage, so that no client can pose as the broker.
//!
//! Start at [`Identity::open_or_create`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use protocol::frame::TLS_SERVER_NAME;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::private_files::{create_private_dir, sync_dir, write_private_file};

/// The principal of the identity made at the first start.
pub const ADMIN_PRINCIPAL: &str = "admin";

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const BROKER_CERTIFICATE: &str = "broker.pem";
const BROKER_KEY: &str = "broker.key";
const ADMIN_IDENTITY: &str = "admin.pem";

/// The identity directory could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system said no.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there, but is not the PEM it should be.
    #[error("`{}` holds no valid PEM {what}; put the original file back, or move the whole directory away to start with a new CA", path.display())]
    Invalid {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why it was not found.
        source: rustls::pki_types::pem::Error,
    },
    /// Keys or certificates could not be made.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// The broker's certificate and key, and the CA that vouches for its clients.
#[derive(Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads the identity of a data directory; makes one when there is none.
    pub(crate) fn open_or_create(data_dir: &Path) -> Result<Identity, IdentityError> {
        let dir = data_dir.join("identity");
        let exists = dir.try_exists().map_err(|source| io_error("look for", &dir, source))?;
        if !exists {
            create(data_dir, &dir)?;
            tracing::info!(path = %dir.display(), "made a CA, the broker's certificate and an admin identity");
        }
        Identity::open(dir)
    }

    /// The file that makes a client the admin.
    pub(crate) fn admin_path(&self) -> PathBuf {
        self.dir.join(ADMIN_IDENTITY)
    }

    fn open(dir: PathBuf) -> Result<Identity, IdentityError> {
        let ca = read_certificate(&dir.join(CA_CERTIFICATE))?;
        let certificate = read_certificate(&dir.join(BROKER_CERTIFICATE))?;
        let key_path = dir.join(BROKER_KEY);
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?).map_err(|source| IdentityError::Invalid {
            what: "private key",
            path: key_path.clone(),
            source,
        })?;
        Ok(Identity { dir, ca, certificate, key })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    fs::read(path).map_err(|source| io_error("read", path, source))
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(&read(path)?).map_err(|source| IdentityError::Invalid {
        what: "certificate",
        path: path.to_owned(),
        source,
    })
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { action, path: path.to_owned(), source }
}

/// Makes the directory beside its place, then renames it: it is there whole or not at all.
fn create(data_dir: &Path, dir: &Path) -> Result<(), IdentityError> {
    let partial = data_dir.join("identity.partial");
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &partial, error)),
        _ => {}
    }
    create_private_dir(&partial).map_err(|source| io_error("create", &partial, source))?;
    for (name, text) in make()? {
        let path = partial.join(name);
        write_private_file(&path, text.as_bytes()).map_err(|source| io_error("write", &path, source))?;
    }
    sync_dir(&partial).map_err(|source| io_error("sync", &partial, source))?;
    fs::rename(&partial, dir).map_err(|source| io_error("create", dir, source))?;
    sync_dir(data_dir).map_err(|source| io_error("sync", data_dir, source))
}

/// The files of a fresh identity, by name.
fn make() -> Result<Vec<(&'static str, String)>, IdentityError> {
    let ca_key = KeyPair::generate()?;
    let ca = CertifiedIssuer::self_signed(ca_params(&ca_key), ca_key)?;
    let broker_key = KeyPair::generate()?;
    let broker = broker_params()?.signed_by(&broker_key, &ca)?;
    let admin_key = KeyPair::generate()?;
    let admin = client_params(ADMIN_PRINCIPAL).signed_by(&admin_key, &ca)?;
    Ok(vec![
        (CA_CERTIFICATE, ca.pem()),
        (CA_KEY, ca.key().serialize_pem()),
        (BROKER_CERTIFICATE, broker.pem()),
        (BROKER_KEY, broker_key.serialize_pem()),
        (ADMIN_IDENTITY, [ca.pem(), admin.pem(), admin_key.serialize_pem()].concat()),
    ])
}

/// What all our certificates share. They do not expire: an edge host may wake with its clock in 1970 or miss the day of
/// renewal by a year, and what ends an identity's life is its removal, not a date.
fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn ca_params(key: &KeyPair) -> CertificateParams {
    // CAs of different brokers have different names, so that a stranger's certificate is told apart by its issuer and not
    // only by a signature that does not fit.
    let fingerprint: String = crc32c_hex(key.public_key_raw());
    let mut params = params(&format!("weir CA {fingerprint}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn broker_params() -> Result<CertificateParams, rcgen::Error> {
    let mut names = vec![TLS_SERVER_NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(hostname().filter(|name| !names.contains(name)));
    let mut broker = params("weir broker");
    broker.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    broker.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    broker.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(broker)
}

fn client_params(principal: &str) -> CertificateParams {
    let mut client = params(principal);
    client.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    client
}

/// The host's name, where it is a DNS name; other tools that dial the host by it find it in the certificate.
fn hostname() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (!name.is_empty() && name.bytes().all(legal)).then_some(name)
}

fn crc32c_hex(bytes: &[u8]) -> String {
    format!("{:08x}", crc32c::crc32c(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_reused() {
        let data = tempfile::tempdir().unwrap();
        let first = Identity::open_or_create(data.path()).unwrap();
        let admin = fs::read(first.admin_path()).unwrap();
        let again = Identity::open_or_create(data.path()).unwrap();
        assert_eq!(admin, fs::read(again.admin_path()).unwrap());
        assert_eq!((first.ca, first.certificate), (again.ca, again.certificate));
    }

    #[test]
    fn an_admin_identity_is_one_file_with_all_a_client_needs() {
        let data = tempfile::tempdir().unwrap();
        let identity = Identity::open_or_create(data.path()).unwrap();
        let pem = fs::read(identity.admin_path()).unwrap();
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap();
        assert_eq!((certificates.len(), &certificates[0]), (2, &identity.ca));
        assert!(PrivateKeyDer::from_pem_slice(&pem).is_ok());
        assert_eq!(crate::tls::principal(&certificates[1]).as_deref(), Some(ADMIN_PRINCIPAL));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().unwrap();
        let identity = Identity::open_or_create(data.path()).unwrap();
        assert_eq!(fs::metadata(&identity.dir).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&identity.dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_first_start_that_was_interrupted_is_begun_again() {
        let data = tempfile::tempdir().unwrap();
        let partial = data.path().join("identity.partial");
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join(CA_KEY), "half a key").unwrap();
        Identity::open_or_create(data.path()).unwrap();
        assert!(!partial.exists());
    }

    #[test]
    fn a_damaged_identity_is_named_and_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let identity = Identity::open_or_create(data.path()).unwrap();
        let path = identity.dir.join(BROKER_KEY);
        fs::write(&path, "not a key").unwrap();
        let error = Identity::open_or_create(data.path()).unwrap_err();
        assert!(error.to_string().contains("broker.key"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
    }
}
