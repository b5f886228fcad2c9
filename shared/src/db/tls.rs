//! TLS to PostgreSQL. Whether it is used is the URL's choice (`sslmode`).

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::ConfigError;

/// A connector that trusts the public authorities (which sign RDS Proxy's certificates) and those in `ca_file`
/// (for RDS itself: the region's bundle that AWS publishes).
pub(super) fn connector(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, ConfigError> {
    let invalid = |source: Box<dyn std::error::Error + Send + Sync>| ConfigError::invalid("DATABASE_CA_FILE", source);
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    if let Some(file) = ca_file {
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| invalid(error.into()))? {
            let certificate = certificate.map_err(|error| invalid(error.into()))?;
            roots.add(certificate).map_err(|error| invalid(error.into()))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
