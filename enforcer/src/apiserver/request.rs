//! Requests whose answers are read piece by piece: an answer can be larger than what it says to us.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Method, Request, StatusCode, body::Bytes, header};
use kube::client::Body;
use tokio::time::{error::Elapsed, timeout};

use super::{ApiError, ApiServer};

/// As much of a refusal as is read.
const MOST_OF_A_REFUSAL: usize = 64 << 10;
/// What a refusal may take to arrive.
const REFUSAL: Duration = Duration::from_secs(5);

/// An answer that is coming.
#[derive(Debug)]
pub struct Answer {
    url: String,
    body: Body,
}

impl ApiServer {
    /// Asks for `path` (with its query) and waits at most `within` for the answer to begin.
    ///
    /// # Errors
    /// If no answer comes, or a refusal.
    pub async fn get(&self, path: &str, within: Duration) -> Result<Answer, ApiError> {
        self.ask(Method::GET, path, None, within).await
    }

    /// Changes `path` by a JSON patch (RFC 6902).
    ///
    /// # Errors
    /// If no answer comes, or a refusal.
    pub async fn json_patch(
        &self,
        path: &str,
        patch: Vec<u8>,
        within: Duration,
    ) -> Result<Answer, ApiError> {
        self.ask(Method::PATCH, path, Some(("application/json-patch+json", patch)), within).await
    }

    /// What came is not what an API server sends.
    #[must_use]
    pub fn not_understood(&self, reason: impl ToString) -> ApiError {
        ApiError::NotUnderstood { url: self.url().to_owned(), reason: reason.to_string() }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        content: Option<(&'static str, Vec<u8>)>,
        within: Duration,
    ) -> Result<Answer, ApiError> {
        let url = self.url().to_owned();
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(header::ACCEPT, "application/json");
        let body = match content {
            None => Body::empty(),
            Some((kind, bytes)) => {
                request = request.header(header::CONTENT_TYPE, kind);
                Body::from(bytes)
            }
        };
        let request = request.body(body).map_err(|error| ApiError::NotUnderstood {
            url: url.clone(),
            reason: format!("no request can be made for {path}: {error}"),
        })?;
        let silent = |_: Elapsed| ApiError::Silent { url: url.clone(), after: within };
        let client = self.client();
        let response = timeout(within, client.send(request))
            .await
            .map_err(silent)?
            .map_err(|error| ApiError::transport(&url, &error))?;
        let status = response.status();
        let mut answer = Answer { url, body: response.into_body() };
        if status == StatusCode::OK {
            return Ok(answer);
        }
        let mut text = Vec::new();
        while let Ok(Some(piece)) = answer.piece(REFUSAL).await
            && text.len() < MOST_OF_A_REFUSAL
        {
            text.extend_from_slice(&piece);
        }
        Err(ApiError::answer(status, &text))
    }
}

impl Answer {
    /// The next piece; `None` at the end. Nothing is lost if this is dropped at its await.
    ///
    /// # Errors
    /// If it breaks off, or nothing comes within `within`.
    pub async fn piece(&mut self, within: Duration) -> Result<Option<Bytes>, ApiError> {
        loop {
            let frame = match timeout(within, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(ApiError::body(&self.url, &error)),
                Err(Elapsed { .. }) => {
                    return Err(ApiError::Silent { url: self.url.clone(), after: within });
                }
            };
            // Trailers mean nothing here.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole, for what is known to be small.
    ///
    /// # Errors
    /// If it breaks off, is larger than `most`, or nothing comes within `within`.
    pub async fn whole(mut self, most: usize, within: Duration) -> Result<Vec<u8>, ApiError> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece(within).await? {
            if all.len() + piece.len() > most {
                let reason = format!("an answer of more than {most} bytes");
                return Err(ApiError::NotUnderstood { url: self.url, reason });
            }
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}
