//! An image that holds one static program and nothing else: put together here, loaded through the API.

use std::collections::BTreeMap;

use bollard::body_full;
use bollard::query_parameters::ImportImageOptions;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Docker;
use super::binary::Machine;
use super::labels;
use super::place::hex;
use super::refusal::{found, refusal};
use crate::engine::EngineError;

/// The user and group that programs of ours run as.
pub(super) const UID: u64 = 65532;

/// An image that is put together and not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProgramImage {
    /// Name and tag.
    pub(super) reference: String,
    archive: Bytes,
}

/// What an image is made of.
pub(super) struct Content<'a> {
    pub(super) machine: Machine,
    /// The program's path in the image.
    pub(super) path: &'a str,
    /// The checked binary.
    pub(super) program: &'a [u8],
    /// Words that always follow the program's name.
    pub(super) words: &'a [String],
    /// The TCP port that it listens on.
    pub(super) port: Option<u16>,
    /// Folders in the image, parents first.
    pub(super) folders: &'a [Folder],
    /// Files besides the program.
    pub(super) files: &'a [(&'a str, &'a [u8])],
    /// Labels besides that of the build.
    pub(super) labels: &'a [(&'a str, String)],
}

/// A folder in an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder {
    pub(super) path: &'static str,
    /// Whether the program's user writes in it: a volume takes the owner of the folder that it is mounted over.
    pub(super) is_own: bool,
}

/// Puts an image together; the same content gives the same image, bit for bit. Without a tag of its own it is named by the
/// beginning of its id, which is the hash of all that is in it.
///
/// # Errors
/// Those of writing a tar archive into memory, of which there should be none.
pub(super) fn build(name: &str, tag: Option<&str>, content: &Content<'_>) -> std::io::Result<ProgramImage> {
    let layer = layer(content)?;
    let diff_id = format!("sha256:{}", hex(&Sha256::digest(&layer)));
    let mut labels: BTreeMap<&str, String> = content.labels.iter().cloned().collect();
    labels.insert(labels::BUILD, hex(&Sha256::digest(content.program)));
    let entrypoint: Vec<&str> = [content.path].into_iter().chain(content.words.iter().map(String::as_str)).collect();
    let ports: BTreeMap<String, _> = content.port.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let config = json!({
        "architecture": content.machine.docker(),
        "os": "linux",
        // A fixed moment: the image's id depends on what is in it and on nothing else.
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "User": format!("{UID}:{UID}"),
            "Entrypoint": entrypoint,
            "ExposedPorts": ports,
            "WorkingDir": "/",
            "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "bgctl" }],
    });
    let config = config.to_string();
    let id = hex(&Sha256::digest(config.as_bytes()));
    let reference = format!("{name}:{}", tag.unwrap_or(&id[..12]));
    let manifest = json!([{ "Config": format!("{id}.json"), "RepoTags": [reference], "Layers": ["layer.tar"] }]);
    let mut archive = tar::Builder::new(Vec::with_capacity(layer.len() + 16 * 1024));
    append(&mut archive, &format!("{id}.json"), config.as_bytes(), Entry::ROOT_FILE)?;
    append(&mut archive, "layer.tar", &layer, Entry::ROOT_FILE)?;
    append(&mut archive, "manifest.json", manifest.to_string().as_bytes(), Entry::ROOT_FILE)?;
    Ok(ProgramImage { reference, archive: archive.into_inner()?.into() })
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
    const OWN_FOLDER: Self = Self { mode: 0o700, owner: UID, kind: tar::EntryType::Directory };
}

fn layer(content: &Content<'_>) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::with_capacity(content.program.len() + 16 * 1024));
    for folder in content.folders {
        let entry = if folder.is_own { Entry::OWN_FOLDER } else { Entry::ROOT_FOLDER };
        append(&mut layer, folder.path, &[], entry)?;
    }
    for (path, bytes) in content.files {
        append(&mut layer, path.trim_start_matches('/'), bytes, Entry::ROOT_FILE)?;
    }
    append(&mut layer, content.path.trim_start_matches('/'), content.program, Entry::PROGRAM)?;
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
    /// Loads an image where the engine lacks one of its name; tells whether it did.
    pub(super) async fn load_image(&self, image: &ProgramImage) -> Result<bool, EngineError> {
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
            None => Err(EngineError::Refused(format!("{what}: the engine took the image and does not have it"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const PROGRAM: Content<'_> = Content {
        machine: Machine::X86_64,
        path: "/program",
        program: b"program",
        words: &[],
        port: None,
        folders: &[Folder { path: "run/", is_own: false }, Folder { path: "run/own/", is_own: true }],
        files: &[("/etc/file", b"text")],
        labels: &[],
    };

    /// Path, owner, mode and bytes of everything in an archive.
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

    fn part(archive: &[u8], name: &str) -> Vec<u8> {
        entries(archive).into_iter().find(|(path, ..)| path == name).unwrap().3
    }

    fn config(image: &ProgramImage) -> (String, serde_json::Value) {
        let manifest: serde_json::Value = serde_json::from_slice(&part(&image.archive, "manifest.json")).unwrap();
        let name = manifest[0]["Config"].as_str().unwrap().to_owned();
        let config = serde_json::from_slice(&part(&image.archive, &name)).unwrap();
        (name, config)
    }

    #[test]
    fn the_same_content_gives_the_same_image_and_another_gives_another() {
        let image = build("name", None, &PROGRAM).unwrap();
        assert_eq!(image, build("name", None, &PROGRAM).unwrap());
        let others = [
            Content { program: b"other", ..PROGRAM },
            Content { machine: Machine::Arm64, ..PROGRAM },
            Content { port: Some(8080), ..PROGRAM },
            Content { files: &[("/etc/file", b"more")], ..PROGRAM },
        ];
        for other in others {
            assert_ne!(image.reference, build("name", None, &other).unwrap().reference);
        }
        assert_eq!(build("name", Some("v1"), &PROGRAM).unwrap().reference, "name:v1");
    }

    #[test]
    fn the_archive_names_its_parts_by_their_hashes() {
        let image = build("name", None, &PROGRAM).unwrap();
        let (name, config) = config(&image);
        assert_eq!(name, format!("{}.json", hex(&Sha256::digest(part(&image.archive, &name)))));
        assert!(name.starts_with(image.reference.strip_prefix("name:").unwrap()));
        let diff_id = format!("sha256:{}", hex(&Sha256::digest(part(&image.archive, "layer.tar"))));
        assert_eq!(config["rootfs"]["diff_ids"][0], diff_id);
    }

    #[test]
    fn the_configuration_says_what_to_run_and_where_it_listens() {
        let words = ["serve".to_owned()];
        let content = Content { words: &words, port: Some(8080), labels: &[("a", "b".to_owned())], ..PROGRAM };
        let config = config(&build("name", None, &content).unwrap()).1["config"].clone();
        assert_eq!((&config["Entrypoint"], &config["User"]), (&json!(["/program", "serve"]), &json!("65532:65532")));
        assert_eq!((&config["ExposedPorts"], &config["Labels"]["a"]), (&json!({ "8080/tcp": {} }), &json!("b")));
        assert_eq!(config["Labels"][labels::BUILD], hex(&Sha256::digest(b"program")));
    }

    #[test]
    fn the_folders_that_are_written_to_belong_to_the_programs_user() {
        let layer = entries(&layer(&PROGRAM).unwrap());
        let found = |name: &str| layer.iter().find(|(path, ..)| path == name).unwrap();
        assert_eq!((found("run/own/").1, found("run/own/").2), (UID, 0o700));
        assert_eq!((found("run/").1, found("run/").2), (0, 0o755));
        let program = found("program");
        assert_eq!((program.1, program.2, program.3.as_slice()), (0, 0o755, b"program".as_slice()));
        assert_eq!(found("etc/file").3, b"text");
    }
}
