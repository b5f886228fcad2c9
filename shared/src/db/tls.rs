//! TLS to PostgreSQL.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio_postgres::config::{Config, Host, SslMode};
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

/// Where the URL leaves it open (`sslmode=prefer`, the default), TLS is required of every server that is not on this
/// machine: "prefer" would go on in the clear when somebody in between says that there is none.
pub(super) fn require(config: &mut Config) {
    let here = |host: &Host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
        Host::Unix(_) => true,
    };
    if config.get_ssl_mode() == SslMode::Prefer && !config.get_hosts().iter().all(here) {
        config.ssl_mode(SslMode::Require);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_required_beyond_this_machine_unless_the_url_says_otherwise() {
        for (url, mode) in [
            ("postgres://u@127.0.0.1/d", SslMode::Prefer),
            ("postgres://u@[::1]/d", SslMode::Prefer),
            ("postgres://u@localhost/d", SslMode::Prefer),
            ("postgres://u@db.internal/d", SslMode::Require),
            ("postgres://u@localhost,db.internal/d", SslMode::Require),
            ("postgres://u@db.internal/d?sslmode=disable", SslMode::Disable),
        ] {
            let mut config: Config = url.parse().unwrap();
            require(&mut config);
            assert_eq!(config.get_ssl_mode(), mode, "{url}");
        }
    }
}
