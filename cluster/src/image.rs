//! Container images as OCI archives, made without a container engine: one layer with a few files,
//! and the same bytes each time.
//!
//! An archive is a tar file with an OCI image layout; `ctr images import`, `podman load` and
//! `skopeo copy oci-archive:` read it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
};

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Why there is no image archive.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Packing failed: a path is too long for a tar file, for example.
    #[error("cannot pack {name} into an image: {reason}; check its paths inside the image")]
    Pack {
        /// The image.
        name: String,
        /// Why not.
        reason: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write {path}: {reason}; check the folder's rights and free space")]
    Write {
        /// Which file.
        path: String,
        /// Why not.
        reason: io::Error,
    },
}

/// The processors that images are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Architecture {
    /// OCI's name, which is Go's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// That of the machine, whose programs run in its clusters.
    #[must_use]
    pub fn own() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }
}

/// What goes into an image.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    architecture: Architecture,
    entrypoint: Vec<String>,
    arguments: Vec<String>,
    /// Content by path, without the slash at the beginning; in order, so that bytes repeat.
    files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// An empty image. `name` is `repository:tag`; `entrypoint` is run when nothing else is said.
    #[must_use]
    pub fn new(name: &str, architecture: Architecture, entrypoint: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            architecture,
            entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
            arguments: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// Sets the entry point's arguments when nothing else is said.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Adds an executable file.
    #[must_use]
    pub fn program(mut self, path: &str, content: Vec<u8>) -> Self {
        self.files.insert(path.trim_start_matches('/').to_owned(), content);
        self
    }

    /// Writes the archive in one step, so that nobody reads half of it.
    ///
    /// # Errors
    /// If it cannot be packed or written.
    pub fn write(&self, path: &Path) -> Result<(), ImageError> {
        let archive = self.archive().map_err(|reason| {
            let name = self.name.clone();
            ImageError::Pack { name, reason }
        })?;
        let write = || {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let draft = path.with_extension(format!("{}.tmp", std::process::id()));
            fs::write(&draft, &archive)?;
            fs::rename(&draft, path)
        };
        write().map_err(|reason| ImageError::Write { path: path.display().to_string(), reason })
    }

    /// The archive's bytes.
    fn archive(&self) -> io::Result<Vec<u8>> {
        let layer = self.layer()?;
        let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
        gzip.write_all(&layer)?;
        let packed = gzip.finish()?;
        let config = self.config(&layer).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &packed)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": self.architecture.name()});
        let (_, tag) = self.name.rsplit_once(':').unwrap_or((&self.name, "latest"));
        // containerd takes the name from the first, other tools take the tag from the second.
        entry["annotations"] = json!({
            "io.containerd.image.name": qualified(&self.name),
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let mut archive = tar::Builder::new(Vec::new());
        append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", 0o644, index.to_string().as_bytes())?;
        for blob in [&manifest, &config, &packed] {
            append(&mut archive, &format!("blobs/sha256/{}", sha256(blob)), 0o644, blob)?;
        }
        archive.into_inner()
    }

    /// The files as a tar file, with the folders that they are in.
    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        let mut folders: Vec<String> = Vec::new();
        for (path, content) in &self.files {
            for (at, _) in path.match_indices('/') {
                let folder = format!("{}/", path.get(..at).unwrap_or_default());
                if !folders.contains(&folder) {
                    append(&mut layer, &folder, 0o755, &[])?;
                    folders.push(folder);
                }
            }
            append(&mut layer, path, 0o755, content)?;
        }
        layer.into_inner()
    }

    fn config(&self, layer: &[u8]) -> Value {
        let mut run = json!({"Entrypoint": self.entrypoint, "Env": ["PATH=/"]});
        if !self.arguments.is_empty() {
            run["Cmd"] = json!(self.arguments);
        }
        json!({
            "os": "linux",
            "architecture": self.architecture.name(),
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer))]},
        })
    }
}

/// The name as container runtimes complete it: with a registry, and `library` below Docker's.
fn qualified(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

fn descriptor(kind: &str, content: &[u8]) -> Value {
    json!({
        "mediaType": kind,
        "digest": format!("sha256:{}", sha256(content)),
        "size": content.len(),
    })
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Root's, of no time; a path with a slash at its end is a folder.
fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    let folder = path.ends_with('/');
    header.set_entry_type(if folder { tar::EntryType::Directory } else { tar::EntryType::Regular });
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len().try_into().map_err(io::Error::other)?);
    archive.append_data(&mut header, path, content)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn image() -> Image {
        Image::new("thing:1", Architecture::Amd64, &["/bin/thing"])
            .program("/bin/thing", b"content".to_vec())
    }

    fn entries(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(bytes)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect()
    }

    fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let content = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!(sha256(content), digest);
        assert_eq!(descriptor["size"], content.len());
        content
    }

    #[test]
    fn every_part_is_found_by_its_digest() {
        let files = entries(&image().archive().unwrap());
        assert!(files.contains_key("oci-layout"));
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let entry = &index["manifests"][0];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], "docker.io/library/thing:1");
        let manifest: Value = serde_json::from_slice(blob(&files, entry)).unwrap();
        let config: Value = serde_json::from_slice(blob(&files, &manifest["config"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/bin/thing");
        let mut layer = Vec::new();
        flate2::read::GzDecoder::new(blob(&files, &manifest["layers"][0]))
            .read_to_end(&mut layer)
            .unwrap();
        let diff = format!("sha256:{}", sha256(&layer));
        assert_eq!(config["rootfs"]["diff_ids"][0], diff.as_str());
        let inside = entries(&layer);
        assert_eq!(inside["bin/thing"], b"content");
        assert!(inside.contains_key("bin/"), "{:?}", inside.keys());
    }

    #[test]
    fn the_bytes_do_not_depend_on_when_and_in_which_order() {
        let one = image().program("a", b"1".to_vec()).archive().unwrap();
        let two = Image::new("thing:1", Architecture::Amd64, &["/bin/thing"])
            .program("a", b"1".to_vec())
            .program("/bin/thing", b"content".to_vec());
        assert!(one == two.archive().unwrap());
        assert!(one != image().archive().unwrap());
    }

    #[test]
    fn names_are_completed_as_runtimes_do() {
        assert_eq!(qualified("enforcer:1"), "docker.io/library/enforcer:1");
        assert_eq!(qualified("me/enforcer:1"), "docker.io/me/enforcer:1");
        assert_eq!(qualified("localhost/pause:1"), "localhost/pause:1");
        assert_eq!(qualified("r.example:5000/x:1"), "r.example:5000/x:1");
    }
}
