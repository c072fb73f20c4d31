//! An image's archive without the layers that the other engine has.
//!
//! An engine that is given an archive looks for each layer in its own store first, and opens the archive's copy only where it
//! has none. Which layer a file holds is told by its name in archives of newer engines (`blobs/sha256/<digest>`); in those of older
//! ones by its content alone, so it is read to its end before it is passed on.

use std::collections::HashSet;
use std::io::{self, Read, Seek as _, Write};

use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

/// What became of the layers of an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rewritten {
    /// Layers that were passed on.
    pub(super) sent: usize,
    /// Their bytes, before any compression.
    pub(super) bytes: u64,
}

/// Copies an archive, leaving out the layers whose digests (`sha256:...`, of their uncompressed content) are named.
///
/// # Errors
/// Where either end fails, or what is read is no archive.
pub(super) fn rewrite(archive: impl Read, out: impl Write, without: &HashSet<String>) -> io::Result<Rewritten> {
    let mut archive = Archive::new(archive);
    let mut builder = Builder::new(out);
    let mut rewritten = Rewritten::default();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let header = entry.header().clone();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let layer = Layer::of(&name).filter(|_| header.entry_type() == EntryType::Regular);
        match layer {
            Some(Layer::Named(digest)) if without.contains(&digest) => {}
            Some(Layer::Unnamed) if !without.is_empty() => {
                let (digest, mut file) = spool(&mut entry)?;
                if !without.contains(&digest) {
                    rewritten.count(&header)?;
                    builder.append(&header, &mut file)?;
                }
            }
            Some(layer) => {
                if matches!(layer, Layer::Unnamed) || header.size()? > METADATA {
                    rewritten.count(&header)?;
                }
                builder.append(&header, &mut entry)?;
            }
            None => builder.append(&header, &mut entry)?,
        }
    }
    builder.into_inner()?.flush()?;
    Ok(rewritten)
}

/// A blob of up to this size may as well be a manifest or a configuration; it only matters to the count.
const METADATA: u64 = 16 * 1024;

impl Rewritten {
    /// Counts layers that were passed on.
    pub(super) fn add(&mut self, layers: usize, bytes: u64) {
        self.sent += layers;
        self.bytes += bytes;
    }

    fn count(&mut self, header: &Header) -> io::Result<()> {
        self.sent += 1;
        self.bytes += header.size()?;
        Ok(())
    }
}

/// A file of an archive that may be a layer.
pub(super) enum Layer {
    /// Its name says which.
    Named(String),
    /// Its content does.
    Unnamed,
}

impl Layer {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name.strip_prefix("blobs/sha256/") {
            Some(digest) if !digest.is_empty() => Some(Self::Named(format!("sha256:{digest}"))),
            Some(_) => None,
            None => name.ends_with("/layer.tar").then_some(Self::Unnamed),
        }
    }
}

/// Keeps a layer in a file without a name, and returns its digest.
pub(super) fn spool(layer: &mut impl Read) -> io::Result<(String, std::fs::File)> {
    let mut file = tempfile::tempfile()?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let count = layer.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
    }
    file.rewind()?;
    Ok((named(&digest.finalize()), file))
}

/// Returns a digest as images write it.
pub(super) fn named(digest: &[u8]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        let mut link = Header::new_ustar();
        link.set_entry_type(EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "twin/layer.tar", "../new/layer.tar").unwrap();
        builder.into_inner().unwrap()
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = Archive::new(archive);
        let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    fn digest(content: &[u8]) -> String {
        spool(&mut &content[..]).unwrap().0
    }

    fn rewritten(archive: &[u8], without: &[String]) -> (Rewritten, BTreeMap<String, Vec<u8>>) {
        let mut out = Vec::new();
        let done = rewrite(archive, &mut out, &without.iter().cloned().collect()).unwrap();
        (done, files(&out))
    }

    #[test]
    fn layers_of_an_older_engine_are_told_apart_by_their_content() {
        let whole = archive(&[
            ("base/VERSION", b"1.0"),
            ("base/layer.tar", b"the base"),
            ("new/layer.tar", b"the code"),
            ("config.json", b"{}"),
            ("manifest.json", b"[]"),
        ]);
        let (all, same) = rewritten(&whole, &[]);
        assert_eq!((all, same), (Rewritten { sent: 2, bytes: 16 }, files(&whole)));
        let (done, rest) = rewritten(&whole, &[digest(b"the base"), digest(b"of another image")]);
        assert_eq!(done, Rewritten { sent: 1, bytes: 8 });
        assert!(!rest.contains_key("base/layer.tar"), "{rest:?}");
        let mut expected = files(&whole);
        expected.remove("base/layer.tar");
        assert_eq!(rest, expected);
    }

    #[test]
    fn layers_of_a_newer_engine_are_told_apart_by_their_names() {
        let (base, code) = (digest(b"the base"), digest(&[7; 20_000]));
        let name = |digest: &str| digest.replace("sha256:", "blobs/sha256/");
        let (base_name, code_name) = (name(&base), name(&code));
        let whole = archive(&[
            (base_name.as_str(), b"the base"),
            (code_name.as_str(), &[7; 20_000]),
            ("index.json", b"{}"),
            ("manifest.json", b"[]"),
        ]);
        let (done, rest) = rewritten(&whole, &[base]);
        assert_eq!(done, Rewritten { sent: 1, bytes: 20_000 });
        assert!(!rest.contains_key(&base_name) && rest.contains_key(&code_name), "{rest:?}");
    }

    #[test]
    fn an_archive_that_breaks_off_is_an_error_and_never_a_shorter_one() {
        let whole = archive(&[("new/layer.tar", &[7; 5000])]);
        for cut in [700, 2000, 5300] {
            assert!(rewrite(&whole[..cut], io::sink(), &HashSet::new()).is_err(), "{cut}");
        }
    }
}
