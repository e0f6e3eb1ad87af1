//! The Kubernetes API server: where it is, how it is asked, and what its refusals mean.

mod config;
mod error;
pub mod notice;
mod request;
pub mod taint;

pub use config::{ApiServer, ConfigError};
pub use error::ApiError;
pub use request::Answer;
