//! The files of a configuration: from the disk, or out of what `nginx -T` prints; included ones stand where they are included.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directive::{Directive, Place};
use super::error::Error;
use super::glob;
use super::parse::parse;

/// How `nginx -T` begins each file.
const MARK: &str = "# configuration file ";
/// Where nginx looks for a file that is named without a leading slash, when nothing else says so.
const FOLDER: &str = "/etc/nginx";
/// An include within an include, and so on.
const DEPTH: usize = 16;

/// A configuration with all that it includes.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Its directives.
    pub(crate) directives: Vec<Directive>,
    /// Includes of files that are not here.
    pub(crate) missing: Vec<Missing>,
}

/// An include whose file is not here.
#[derive(Debug, Clone)]
pub(crate) struct Missing {
    /// The directive.
    pub(crate) directive: Directive,
    /// What was looked for, and why it could not be read.
    pub(crate) why: String,
}

/// Reads a file and what it includes. A relative include begins in the folder of this file, as nginx takes it for that of its main file,
/// else in the folder of the one that includes it.
///
/// # Errors
/// Where it can't be read, or is none.
pub(crate) fn load(path: &Path) -> Result<Loaded, Error> {
    let file: Arc<Path> = path.into();
    let whole = |what: String| Error::new(Place { file: Arc::clone(&file), line: 0 }, what);
    let text = read(path).map_err(|error| whole(format!("it can't be read: {error}")))?;
    if is_dump(&text) {
        return load_dump(&text);
    }
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    Reader { source: Source::Disk { folder } }.load(&text, &file)
}

/// Tells whether a text is what `nginx -T` prints.
pub(super) fn is_dump(text: &str) -> bool {
    text.lines().take(64).any(|line| line.strip_prefix(MARK).is_some_and(|rest| rest.ends_with(':')))
}

/// Reads what `nginx -T` prints: every file as nginx itself took it. A text without its marks is a file by itself.
///
/// # Errors
/// Where it is none.
pub(crate) fn load_dump(dump: &str) -> Result<Loaded, Error> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut first = None;
    let mut current: Option<String> = None;
    for line in dump.split_inclusive('\n') {
        let path = line.strip_prefix(MARK).and_then(|rest| rest.trim_end().strip_suffix(':'));
        if let Some(path) = path {
            first.get_or_insert_with(|| path.to_owned());
            current = Some(path.to_owned());
            files.insert(path.to_owned(), String::new());
        } else if let Some(text) = current.as_ref().and_then(|path| files.get_mut(path)) {
            text.push_str(line);
        }
    }
    let (text, path) = match first {
        Some(first) => (files.get(&first).cloned().unwrap_or_default(), first),
        None => (dump.to_owned(), format!("{FOLDER}/nginx.conf")),
    };
    let folder = Path::new(&path).parent().unwrap_or(Path::new(FOLDER)).to_owned();
    Reader { source: Source::Dump { files, folder } }.load(&text, &Path::new(&path).into())
}

/// A configuration may be in whatever encoding its comments are.
fn read(path: &Path) -> std::io::Result<String> {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Where files come from.
enum Source {
    Disk { folder: PathBuf },
    Dump { files: BTreeMap<String, String>, folder: PathBuf },
}

struct Reader {
    source: Source,
}

impl Reader {
    fn load(&self, text: &str, file: &Arc<Path>) -> Result<Loaded, Error> {
        let mut missing = Vec::new();
        let directives = self.expand(parse(text, file)?, 0, &mut missing)?;
        Ok(Loaded { directives, missing })
    }

    fn expand(
        &self,
        directives: Vec<Directive>,
        depth: usize,
        missing: &mut Vec<Missing>,
    ) -> Result<Vec<Directive>, Error> {
        let mut expanded = Vec::new();
        for mut directive in directives {
            if directive.name != "include" || directive.block.is_some() {
                let block = directive.block.take();
                directive.block = block.map(|block| self.expand(block, depth, missing)).transpose()?;
                expanded.push(directive);
                continue;
            }
            let [pattern] = directive.arguments.as_slice() else {
                return Err(Error::new(directive.place, "`include` names one file, or one pattern"));
            };
            if depth == DEPTH {
                let what = format!("more than {DEPTH} files include each other: `{}`", directive.text());
                return Err(Error::new(directive.place, what));
            }
            match self.find(pattern, &directive.place) {
                Ok(found) => {
                    for (path, text) in found {
                        expanded.extend(self.expand(parse(&text, &path.as_path().into())?, depth + 1, missing)?);
                    }
                }
                Err(why) => missing.push(Missing { directive, why }),
            }
        }
        Ok(expanded)
    }

    /// Returns the files that an include means, in the order of their names; a pattern may mean none.
    fn find(&self, pattern: &str, place: &Place) -> Result<Vec<(PathBuf, String)>, String> {
        match &self.source {
            Source::Disk { folder } => {
                let own = place.file.parent().unwrap_or(Path::new(""));
                let paths = [folder.join(pattern), own.join(pattern)];
                let found = paths.iter().map(|path| from_disk(path));
                let mut why = String::new();
                for found in found {
                    match found {
                        Ok(found) if !found.is_empty() => return Ok(found),
                        Err(error) if why.is_empty() => why = error,
                        Ok(_) | Err(_) => {}
                    }
                }
                if why.is_empty() { Ok(Vec::new()) } else { Err(why) }
            }
            Source::Dump { files, folder } => {
                let pattern = folder.join(pattern);
                let pattern: Vec<_> = pattern.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                let is_meant = |path: &str| {
                    let parts: Vec<_> = Path::new(path).iter().map(|part| part.to_string_lossy()).collect();
                    parts.len() == pattern.len() && parts.iter().zip(&pattern).all(|(part, wanted)| fits(wanted, part))
                };
                // Of what nginx has printed nothing is missing.
                let found = files.iter().filter(|(path, _)| is_meant(path));
                Ok(found.map(|(path, text)| (path.into(), text.clone())).collect())
            }
        }
    }
}

fn fits(wanted: &str, name: &str) -> bool {
    if glob::is_pattern(wanted) { glob::matches(wanted, name) } else { wanted == name }
}

fn from_disk(path: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let mut paths = vec![PathBuf::new()];
    for part in path.iter() {
        let text = part.to_string_lossy();
        if !glob::is_pattern(&text) {
            paths.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let mut found = Vec::new();
        for folder in &paths {
            // The working folder is written as nothing.
            let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let Ok(entries) = std::fs::read_dir(listed) else { continue };
            let names = entries.flatten().map(|entry| entry.file_name());
            found.extend(
                names.filter(|name| glob::matches(&text, &name.to_string_lossy())).map(|name| folder.join(name)),
            );
        }
        paths = found;
    }
    let is_one = !glob::is_pattern(&path.to_string_lossy());
    // With a pattern in the middle, what stands behind it need not be there.
    paths.retain(|path| is_one || path.is_file());
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        match read(&path) {
            Ok(text) => found.push((path, text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(format!("{} is not there", path.display()));
            }
            Err(error) => return Err(format!("{} can't be read: {error}", path.display())),
        }
    }
    Ok(found)
}
