//! The Hubble interface: what goes over the wire, its JSON form, and field masks.
//!
//! The messages and services are made from the `.proto` files at build time. Their names and
//! numbers are those of Cilium 1.19; what the fields mean is said there.

pub mod json;
pub mod mask;
pub mod near;

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// Flows, filters and events.
#[expect(missing_docs, reason = "generated from flow.proto")]
pub mod flow {
    tonic::include_proto!("flow");
}

/// The observer service.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated from observer.proto"
)]
pub mod observer {
    tonic::include_proto!("observer");
}

/// The peer service.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated from peer.proto"
)]
pub mod peer {
    tonic::include_proto!("peer");
}

/// What relays tell.
#[expect(missing_docs, reason = "generated from relay.proto")]
pub mod relay {
    tonic::include_proto!("relay");
}

/// The compiled `.proto` files and those they import (`google.protobuf.FileDescriptorSet`).
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Descriptors of all messages.
#[must_use]
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("our own build wrote it")
    });
    &POOL
}
