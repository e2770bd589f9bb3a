//! The way to a relay: TCP, TLS (rustls with ring, Mozilla's roots), the WebSocket handshake, and its limits.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::http::header::{RETRY_AFTER, USER_AGENT};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, http};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::error::{Error, ErrorKind, Result};
use crate::relay::url::RelayUrl;

/// Longest message and frame that is read; what is longer ends the connection.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// What a relay that does not read may leave in our memory: an event of 1 MiB, with room for its escapes.
const WRITE_BYTES_MAX: usize = 2 << 20;
/// Longest wait that a relay may ask for at the handshake.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// An open connection.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoConnection {
    pub(crate) why: String,
    /// The HTTP status with which the handshake was answered, if it was.
    pub(crate) status: Option<u16>,
    /// How long the relay asks us to stay away.
    pub(crate) retry_after: Option<Duration>,
}

/// TLS settings, the same for all relays.
pub(crate) fn tls() -> Result<Arc<ClientConfig>> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.map_err(|source| Error::new(ErrorKind::Internal, "no tls version is usable").with_source(source))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Connects to a relay within `timeout`.
pub(crate) async fn connect(
    url: &RelayUrl,
    tls: &Arc<ClientConfig>,
    user_agent: &str,
    timeout: Duration,
) -> std::result::Result<Socket, NoConnection> {
    open(url.text(), tls, user_agent, timeout, MESSAGE_BYTES_MAX).await
}

/// Connects to any websocket within `timeout`; a message or frame of more than `message_bytes_max` ends the connection.
pub(crate) async fn open(
    url: &str,
    tls: &Arc<ClientConfig>,
    user_agent: &str,
    timeout: Duration,
    message_bytes_max: usize,
) -> std::result::Result<Socket, NoConnection> {
    let failed = |why: String| NoConnection { why, status: None, retry_after: None };
    let uri: http::Uri = url.parse().map_err(|error| failed(format!("the url does not parse: {error}")))?;
    let request = ClientRequestBuilder::new(uri).with_header(USER_AGENT.as_str(), user_agent);
    let limits = WebSocketConfig::default()
        .read_buffer_size(32 << 10)
        .write_buffer_size(8 << 10)
        .max_write_buffer_size(WRITE_BYTES_MAX)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    let connector = Connector::Rustls(Arc::clone(tls));
    let connecting = Box::pin(connect_async_tls_with_config(request, Some(limits), true, Some(connector)));
    match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(response))) => Err(NoConnection {
            why: format!("the relay answers the handshake with http status {}", response.status()),
            status: Some(response.status().as_u16()),
            retry_after: retry_after(response.headers()),
        }),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no connection within {timeout:?}"))),
    }
}

/// `Retry-After` in seconds; its other form, a date, is left to the backoff.
fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let secs = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(secs).min(RETRY_AFTER_MAX))
}
