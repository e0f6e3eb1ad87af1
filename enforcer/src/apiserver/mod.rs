//! The Kubernetes API server: where it is, how it is asked, and what its refusals mean.

mod config;
mod error;
mod request;

pub use config::{ApiServer, ConfigError};
pub use error::ApiError;
pub use request::Answer;
