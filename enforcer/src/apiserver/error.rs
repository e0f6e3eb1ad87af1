//! What can go wrong with a request, told apart by what has to be done about it.

use std::{error::Error, io, time::Duration};

use hyper::StatusCode;
use kube::core::Status;

use crate::error_chain;

/// Why a request did not bring what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no connection.
    #[error(
        "no API server answers at {url}: {reason}; check that it runs and that this node reaches it"
    )]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// The server's certificate proves nothing.
    #[error(
        "the certificate of the API server at {url} is not trusted: {reason}; check the \
         certificate authority in the kubeconfig or service account, and that this is the right \
         server"
    )]
    Certificate {
        /// Where the server is.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Our credentials prove nothing.
    #[error(
        "the API server does not accept our credentials: {0}; check the token or client \
         certificate, and whether it has expired"
    )]
    Credentials(String),
    /// RBAC, or another authorizer, says no.
    #[error("{0}")]
    Forbidden(String),
    /// The server has no such resource.
    #[error("{0}")]
    NotFound(String),
    /// The version asked for is too old: list again.
    #[error("the API server no longer has the changes since the last one seen: {0}")]
    Gone(String),
    /// The request was refused in its form: perhaps the server is too old for it.
    #[error("the API server refuses the request ({code}): {reason}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// What the server said.
        reason: String,
    },
    /// The server is not able to answer now.
    #[error("the API server cannot answer ({code}): {reason}")]
    Unavailable {
        /// HTTP status.
        code: u16,
        /// What the server said.
        reason: String,
    },
    /// Nothing came for too long.
    #[error("the API server at {url} sent nothing for {} s", after.as_secs())]
    Silent {
        /// Where the server is.
        url: String,
        /// How long it was waited.
        after: Duration,
    },
    /// The connection broke off.
    #[error("the connection to the API server at {url} broke off: {reason}")]
    Broken {
        /// Where the server is.
        url: String,
        /// How.
        reason: String,
    },
    /// What came is no answer of an API server.
    #[error("what answers at {url} is no API server, or a proxy spoils its answers: {reason}")]
    NotUnderstood {
        /// Where it is.
        url: String,
        /// What came.
        reason: String,
    },
}

impl ApiError {
    /// A request that did not get as far as an answer.
    pub(super) fn transport(url: &str, error: &kube::Error) -> Self {
        let (url, reason) = (url.to_owned(), root_cause(error));
        if matches!(error, kube::Error::Auth(_)) {
            return Self::Credentials(error_chain(error));
        }
        // The TLS library's errors are not ours to name as types; its words are stable.
        if reason.contains("certificate") && !reason.contains("CertificateRequired") {
            return Self::Certificate { url, reason };
        }
        Self::Unreachable { url, reason }
    }

    /// A body that broke off.
    pub(super) fn body(url: &str, error: &kube::Error) -> Self {
        Self::Broken { url: url.to_owned(), reason: root_cause(error) }
    }

    /// An answer that is not the one wanted. The body should hold a Status.
    pub(super) fn answer(code: StatusCode, body: &[u8]) -> Self {
        let reason = match serde_json::from_slice::<Status>(body) {
            Ok(status) if !status.message.is_empty() => status.message,
            _ => {
                let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
                if text.is_empty() { code.to_string() } else { text }
            }
        };
        Self::status(code.as_u16(), reason)
    }

    /// What a status code says, of an answer or in a watch.
    #[must_use]
    pub fn status(code: u16, reason: String) -> Self {
        match code {
            401 => Self::Credentials(reason),
            403 => Self::Forbidden(reason),
            404 => Self::NotFound(reason),
            410 => Self::Gone(reason),
            429 | 500.. => Self::Unavailable { code, reason },
            _ => Self::Refused { code, reason },
        }
    }
}

impl ApiError {
    /// Whether the server gave up waiting, for its cache to be as far as was asked for perhaps.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Unavailable { code: 504, .. })
    }
}

/// What lies at the bottom of an error: the layers above only say that they could not.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    loop {
        // The TLS library's errors come inside of those of the system, which hide them.
        let inner = deepest.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| deepest.source()) {
            Some(source) => deepest = source,
            None => return deepest.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart_by_what_to_do() {
        let says = |code: u16| ApiError::status(code, "x".into());
        assert_eq!(says(401), ApiError::Credentials("x".into()));
        assert_eq!(says(403), ApiError::Forbidden("x".into()));
        assert_eq!(says(404), ApiError::NotFound("x".into()));
        assert_eq!(says(410), ApiError::Gone("x".into()));
        for code in [429, 500, 503, 504] {
            assert_eq!(says(code), ApiError::Unavailable { code, reason: "x".into() });
        }
        for code in [400, 405, 422] {
            assert_eq!(says(code), ApiError::Refused { code, reason: "x".into() });
        }
    }

    #[test]
    fn the_reason_is_the_servers_or_the_text_as_it_is() {
        let of = |body: &str| match ApiError::answer(StatusCode::FORBIDDEN, body.as_bytes()) {
            ApiError::Forbidden(reason) => reason,
            other => panic!("{other}"),
        };
        assert_eq!(of(r#"{"kind":"Status","message":"no"}"#), "no");
        assert_eq!(of("<html>"), "<html>");
        assert_eq!(of(""), "403 Forbidden");
        assert_eq!(of(&"x".repeat(5000)).len(), 200);
    }

    #[test]
    fn the_cause_beneath_the_system_is_found() {
        let inner = io::Error::other("invalid peer certificate: UnknownIssuer");
        let error = kube::Error::Service(Box::new(io::Error::other(inner)));
        let error = ApiError::transport("https://x", &error);
        assert!(matches!(error, ApiError::Certificate { .. }), "{error}");
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = ApiError::transport("https://x", &kube::Error::Service(Box::new(refused)));
        assert!(error.to_string().starts_with("no API server answers at https://x: "), "{error}");
    }
}
