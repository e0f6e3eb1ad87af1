//! The NRI messages and fields in use (package `nri.pkg.api.v1alpha1`), written by hand: what is not
//! named here is passed over when it is read.

use prost::Message;

/// The service that the runtime calls.
pub(super) const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service that the plugin calls.
pub(super) const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// `Event.RUN_POD_SANDBOX`.
pub(super) const RUN_POD_SANDBOX: i32 = 1;

/// The bit of an event in [`ConfigureResponse::events`].
pub(super) const fn event_bit(event: i32) -> i32 {
    1 << (event - 1)
}

/// The first call: who the plugin is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RegisterPluginRequest {
    #[prost(string, tag = "1")]
    pub(super) plugin_name: String,
    /// Two digits; plugins are called in this order.
    #[prost(string, tag = "2")]
    pub(super) plugin_idx: String,
}

/// Who the runtime is.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConfigureRequest {
    #[prost(string, tag = "2")]
    pub(super) runtime_name: String,
    #[prost(string, tag = "3")]
    pub(super) runtime_version: String,
}

/// What the plugin wants to hear of.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConfigureResponse {
    /// Bits of [`event_bit`]; 0 would mean all.
    #[prost(int32, tag = "2")]
    pub(super) events: i32,
    /// Runtimes with NRI 0.11 and older pass it over.
    #[prost(message, optional, tag = "3")]
    pub(super) failure_policy: Option<FailurePolicy>,
}

/// What the runtime does when the plugin does not answer. Without it a request goes on as if the
/// plugin had agreed, and the plugin is cut off.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct FailurePolicy {
    /// The request fails.
    #[prost(bool, tag = "1")]
    pub(super) fail_request: bool,
    /// One answer that comes late does not end the connection.
    #[prost(bool, tag = "2")]
    pub(super) keep_connected: bool,
}

/// What runs already, perhaps in several parts.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SynchronizeRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) pods: Vec<PodSandbox>,
    #[prost(bool, tag = "3")]
    pub(super) more: bool,
}

/// The answer to a part.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct SynchronizeResponse {
    /// Repeats the request's: says that the plugin knows of parts.
    #[prost(bool, tag = "2")]
    pub(super) more: bool,
}

/// A sandbox is about to run, from runtimes with NRI 0.12 or newer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) pod: Option<PodSandbox>,
}

/// The same, and other events, from older runtimes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StateChangeEvent {
    #[prost(int32, tag = "1")]
    pub(super) event: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) pod: Option<PodSandbox>,
}

/// Nothing; every answer without fields.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Empty {}

/// A pod.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandbox {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) uid: String,
    #[prost(string, tag = "4")]
    pub(super) namespace: String,
    #[prost(message, optional, tag = "8")]
    pub(super) linux: Option<LinuxPodSandbox>,
    /// Runtimes with NRI 0.6 do not have it.
    #[prost(string, repeated, tag = "10")]
    pub(super) ips: Vec<String>,
}

/// A pod on Linux.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LinuxPodSandbox {
    #[prost(message, repeated, tag = "5")]
    pub(super) namespaces: Vec<LinuxNamespace>,
}

/// A namespace that is not the runtime's own.
#[derive(Clone, PartialEq, Message)]
pub(super) struct LinuxNamespace {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) path: String,
}
