//! The other end of the local socket.

use std::path::Path;

use enforcer_hubble::observer::observer_client::ObserverClient;
use tonic::transport::{Channel, Endpoint};

/// Longest answer, bytes: one flow, however many policies it names.
const LONGEST_ANSWER: usize = 4 << 20;

/// A connection to the observer that listens on a unix socket.
///
/// # Errors
/// If nobody listens there, or may not be asked.
pub async fn connect(socket: &Path) -> Result<ObserverClient<Channel>, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let channel = endpoint.connect().await?;
    Ok(ObserverClient::new(channel).max_decoding_message_size(LONGEST_ANSWER))
}
