//! Messages and services from the `.proto` files, without a `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 5] = [
    "flow/flow.proto",
    "observer/observer.proto",
    "peer/peer.proto",
    "relay/relay.proto",
    // What the details of a flow are in: nothing imports it, readers of the descriptors need it.
    "google/protobuf/struct.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // A response is a flow nearly always, and few are in memory at a time.
        .boxed("observer.GetFlowsResponse.response_types.flow")
        .boxed("observer.ExportEvent.response_types.flow")
        .compile_fds(descriptors)?;
    Ok(())
}
