//! The proxy's image: one layer with the static `bgproxy`, put together here and loaded through the API.

use bollard::body_full;
use bollard::query_parameters::ImportImageOptions;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Docker;
use super::binary::Machine;
use super::connect::hex;
use super::labels;
use super::refusal::{found, refusal};
use crate::engine::EngineError;

/// The user and group that the proxy and the holder run as.
pub(super) const UID: u64 = 65532;
/// The program's path in the image.
pub(super) const PROGRAM: &str = "/bgproxy";

/// An image that is put together and not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProxyImage {
    /// Name and tag; the tag is the beginning of the image's id, which is the hash of all that is in it.
    pub(super) reference: String,
    archive: Bytes,
}

/// What goes into the image.
pub(super) struct Content<'a> {
    /// The checked binary.
    pub(super) program: &'a [u8],
    pub(super) machine: Machine,
    /// The networks whose forwarded headers the proxy believes.
    pub(super) trusted_proxies: &'a [String],
}

/// Puts the image together; the same content gives the same image, bit for bit.
///
/// # Errors
/// Those of writing a tar archive into memory, of which there should be none.
pub(super) fn build(name: &str, content: &Content<'_>) -> std::io::Result<ProxyImage> {
    let Content { program, machine, trusted_proxies } = *content;
    let layer = layer(program, &config_file(trusted_proxies))?;
    let diff_id = format!("sha256:{}", hex(&Sha256::digest(&layer)));
    let config = json!({
        "architecture": machine.docker(),
        "os": "linux",
        // A fixed moment: the image's id depends on what is in it and on nothing else.
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": format!("{UID}:{UID}"),
            "Entrypoint": [PROGRAM],
            "WorkingDir": "/",
            "Labels": { labels::BUILD: hex(&Sha256::digest(program)) },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "bgctl up" }],
    });
    let config = config.to_string();
    let id = hex(&Sha256::digest(config.as_bytes()));
    let reference = format!("{name}:{}", &id[..12]);
    let manifest = json!([{ "Config": format!("{id}.json"), "RepoTags": [reference], "Layers": ["layer.tar"] }]);
    let mut archive = tar::Builder::new(Vec::with_capacity(layer.len() + 16 * 1024));
    append(&mut archive, &format!("{id}.json"), config.as_bytes(), Entry::ROOT_FILE)?;
    append(&mut archive, "layer.tar", &layer, Entry::ROOT_FILE)?;
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes(), Entry::ROOT_FILE)?;
    Ok(ProxyImage { reference, archive: archive.into_inner()?.into() })
}

/// What stands in front of a file or a folder in an archive.
#[derive(Clone, Copy)]
struct Entry {
    mode: u32,
    owner: u64,
    kind: tar::EntryType,
}

impl Entry {
    const ROOT_FILE: Self = Self { mode: 0o644, owner: 0, kind: tar::EntryType::Regular };
    const PROGRAM: Self = Self { mode: 0o755, owner: 0, kind: tar::EntryType::Regular };
    const ROOT_FOLDER: Self = Self { mode: 0o755, owner: 0, kind: tar::EntryType::Directory };
    /// A volume takes the owner of the folder that it is mounted over, so the folders are in the image.
    const OWN_FOLDER: Self = Self { mode: 0o700, owner: UID, kind: tar::EntryType::Directory };
}

/// Writes the proxy's own file, `bgproxy.toml`.
fn config_file(trusted_proxies: &[String]) -> String {
    let mut file = "# Written by `bgctl up`.\n".to_owned();
    if !trusted_proxies.is_empty() {
        // Networks are checked before they come here, so there is nothing in them to escape.
        file.push_str(&format!("trusted_proxies = [\"{}\"]\n", trusted_proxies.join("\", \"")));
    }
    file
}

fn layer(program: &[u8], file: &str) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::with_capacity(program.len() + 16 * 1024));
    for folder in ["etc/", "etc/bluegreen/", "run/", "var/", "var/lib/"] {
        append(&mut layer, folder, &[], Entry::ROOT_FOLDER)?;
    }
    for folder in ["run/bluegreen/", "var/lib/bluegreen/"] {
        append(&mut layer, folder, &[], Entry::OWN_FOLDER)?;
    }
    append(&mut layer, config::paths::PROXY_CONFIG.trim_start_matches('/'), file.as_bytes(), Entry::ROOT_FILE)?;
    append(&mut layer, PROGRAM.trim_start_matches('/'), program, Entry::PROGRAM)?;
    layer.into_inner()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], entry: Entry) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(entry.kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.owner);
    header.set_gid(entry.owner);
    header.set_size(bytes.len() as u64);
    header.set_mtime(0);
    archive.append_data(&mut header, path, bytes)
}

impl Docker {
    /// Loads the proxy's image where the engine lacks it; tells whether it did.
    pub(super) async fn load_proxy_image(&self, image: &ProxyImage) -> Result<bool, EngineError> {
        let what = format!("load {}", image.reference);
        if found(&what, self.handles.call.inspect_image(&image.reference).await)?.is_some() {
            return Ok(false);
        }
        let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
        let answer = self.handles.long.import_image(options, body_full(image.archive.clone()), None);
        // An error may come inside of the stream, so it is read to its end.
        let _: Vec<_> = answer.try_collect().await.map_err(|error| refusal(&what, error))?;
        match found(&what, self.handles.call.inspect_image(&image.reference).await)? {
            Some(_) => Ok(true),
            None => Err(EngineError::NoProxy(format!("{what}: the engine took the image and does not have it"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn made(program: &[u8], machine: Machine, trusted: &[&str]) -> std::io::Result<ProxyImage> {
        let trusted_proxies: Vec<String> = trusted.iter().map(|network| (*network).to_owned()).collect();
        build("bluegreen-proxy", &Content { program, machine, trusted_proxies: &trusted_proxies })
    }

    #[test]
    fn trusted_networks_stand_in_the_proxys_own_file_and_make_another_image() {
        let plain = made(b"program", Machine::X86_64, &[]).unwrap();
        let trusting = made(b"program", Machine::X86_64, &["10.0.0.0/8", "private"]).unwrap();
        assert_ne!(plain.reference, trusting.reference);
        let networks = ["10.0.0.0/8".to_owned(), "private".to_owned()];
        assert!(config_file(&networks).ends_with("trusted_proxies = [\"10.0.0.0/8\", \"private\"]\n"));
    }

    fn entries(archive: &[u8]) -> Vec<(String, u64, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let (uid, mode) = (entry.header().uid().unwrap(), entry.header().mode().unwrap());
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (path, uid, mode, bytes)
        });
        entries.collect()
    }

    #[test]
    fn the_same_binary_gives_the_same_image_and_another_gives_another() {
        let image = made(b"program", Machine::X86_64, &[]).unwrap();
        assert_eq!(image, made(b"program", Machine::X86_64, &[]).unwrap());
        assert_ne!(image.reference, made(b"other", Machine::X86_64, &[]).unwrap().reference);
        assert_ne!(image.reference, made(b"program", Machine::Arm64, &[]).unwrap().reference);
    }

    #[test]
    fn the_archive_names_its_parts_by_their_hashes() {
        let image = made(b"program", Machine::X86_64, &[]).unwrap();
        let parts = entries(&image.archive);
        let part = |name: &str| &parts.iter().find(|(path, ..)| path == name).unwrap().3;
        let manifest: serde_json::Value = serde_json::from_slice(part("manifest.json")).unwrap();
        let config_name = manifest[0]["Config"].as_str().unwrap();
        assert_eq!(config_name, format!("{}.json", hex(&Sha256::digest(part(config_name)))));
        assert!(config_name.starts_with(image.reference.strip_prefix("bluegreen-proxy:").unwrap()));
        let config: serde_json::Value = serde_json::from_slice(part(config_name)).unwrap();
        let diff_id = format!("sha256:{}", hex(&Sha256::digest(part("layer.tar"))));
        assert_eq!(config["rootfs"]["diff_ids"][0], diff_id);
    }

    #[test]
    fn the_folders_that_are_written_to_belong_to_the_proxys_user() {
        let layer = entries(&layer(b"program", "").unwrap());
        for folder in ["var/lib/bluegreen/", "run/bluegreen/"] {
            assert!(
                layer.iter().any(|(path, uid, mode, _)| path == folder && *uid == UID && *mode == 0o700),
                "{folder}"
            );
        }
        let program = layer.iter().find(|(path, ..)| path == "bgproxy").unwrap();
        assert_eq!((program.1, program.2, program.3.as_slice()), (0, 0o755, b"program".as_slice()));
    }
}
