//! Files of a folder beside the application: `/static` and `/media`, or the whole of a single-page application.
//!
//! All that waits for the disk is done on threads for it, never on a worker's own. (tower-http's ServeDir was looked at: it
//! brings tower, follows links out of the folder, and its bodies are boxed futures of another kind than ours.)

mod beneath;
mod conditions;
mod kinds;
mod place;
mod reading;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use config::edge::StaticFiles;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};

pub(crate) use reading::Reading;

use conditions::{Version, Wanted};
use place::Place;

/// An answer out of a folder.
pub(crate) struct Served {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its fields.
    pub(crate) headers: HeaderMap,
    /// Its body, where it has one.
    pub(crate) body: Option<Reading>,
}

/// What became of a request for a file.
pub(crate) enum Outcome {
    /// It is answered.
    Served(Box<Served>),
    /// There is no such file.
    Missing,
    /// Files are there to be read, and that alone.
    WrongMethod,
    /// It is there, and may not be read.
    Forbidden,
    /// The disk fails.
    Failed(io::Error),
}

/// What was found on the disk.
enum Found {
    File(Opened),
    /// A folder that has an index, asked for without its slash.
    Folder,
}

struct Opened {
    file: File,
    /// Where, below the folder.
    path: PathBuf,
    modified: SystemTime,
    length: u64,
    /// The first bytes, where they were asked for.
    start: Option<Bytes>,
    /// It is not what was asked for by its name: an index, or what stands for pages that are no files.
    stands_for_another: bool,
}

/// What is looked for: all of it owned, since it goes to another thread.
struct Look {
    folder: PathBuf,
    place: Option<Place>,
    index: String,
    fallback: Option<PathBuf>,
    /// The first bytes are wanted too.
    with_start: bool,
}

/// Returns the place of the folder whose files a path asks for: that of the longest prefix.
pub(crate) fn find(folders: &[StaticFiles], method: &Method, path: &str) -> Option<usize> {
    let is_read = method == Method::GET || method == Method::HEAD;
    let takes = |files: &StaticFiles| files.path.takes(path) && (is_read || !files.fallthrough);
    let found = folders.iter().enumerate().filter(|(_, files)| takes(files));
    found.max_by_key(|(_, files)| files.path.trimmed().len()).map(|(at, _)| at)
}

/// Answers a request for a file below a folder; `rest` is what follows the prefix in its path.
///
/// # Cancel safety
/// Dropping it leaves at most one read that nobody waits for.
pub(crate) async fn serve(files: &StaticFiles, request: &Parts, rest: &str) -> Outcome {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Outcome::WrongMethod;
    }
    let place = Place::read(rest);
    let is_page = |place: &Place| !place.has_ending || prefers_html(&request.headers);
    let falls_back = place.as_ref().is_some_and(is_page);
    if place.is_none() && !falls_back {
        return Outcome::Missing;
    }
    let is_conditional = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE]
        .iter()
        .any(|name| request.headers.contains_key(name));
    let look = Look {
        folder: files.folder.clone(),
        place,
        index: files.index.clone(),
        // It begins with a slash, which is the folder.
        fallback: files.fallback.as_deref().filter(|_| falls_back).map(|path| path.trim_start_matches('/').into()),
        with_start: request.method == Method::GET && !is_conditional,
    };
    let found = tokio::task::spawn_blocking(move || look.find()).await.map_err(io::Error::other);
    match found.and_then(|found| found) {
        Ok(Some(Found::File(opened))) => Outcome::Served(Box::new(answer(files, request, opened))),
        Ok(Some(Found::Folder)) => Outcome::Served(Box::new(with_slash(request))),
        Ok(None) => Outcome::Missing,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(path = request.uri.path(), folder = %files.folder.display(), "a file may not be read by the proxy");
            Outcome::Forbidden
        }
        Err(error) => Outcome::Failed(error),
    }
}

impl Look {
    /// Looks on the disk; `None`: there is nothing.
    fn find(self) -> io::Result<Option<Found>> {
        let root = match beneath::folder(&self.folder) {
            Ok(root) => root,
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "a folder of files can't be opened");
                return if is_missing(&error) { Ok(None) } else { Err(error) };
            }
        };
        let named = self.place.as_ref().map(|place| (place, open(&root, &place.path)));
        match named {
            Some((place, Ok(Some(file)))) if file.metadata()?.is_dir() => {
                let path = place.path.join(&self.index);
                if let Some(file) = open(&root, &path)?.filter(is_file) {
                    if !place.is_folder {
                        return Ok(Some(Found::Folder));
                    }
                    return self.opened(file, path, true).map(Some);
                }
            }
            Some((place, Ok(Some(file)))) if !place.is_folder && is_file(&file) => {
                return self.opened(file, place.path.clone(), false).map(Some);
            }
            Some((_, Err(error))) => return Err(error),
            Some((_, Ok(_))) | None => {}
        }
        if let Some(fallback) = &self.fallback
            && let Some(file) = open(&root, fallback)?.filter(is_file)
        {
            return self.opened(file, fallback.clone(), true).map(Some);
        }
        Ok(None)
    }

    fn opened(&self, file: File, path: PathBuf, stands_for_another: bool) -> io::Result<Found> {
        let about = file.metadata()?;
        let length = about.len();
        let start = if self.with_start { Some(reading::read_piece(&file, 0..length)?) } else { None };
        Ok(Found::File(Opened { file, path, modified: about.modified()?, length, start, stands_for_another }))
    }
}

/// Opens what is there; `None`: nothing that is meant for visitors.
fn open(root: &std::os::fd::OwnedFd, path: &Path) -> io::Result<Option<File>> {
    match beneath::open(root, path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            tracing::warn!(path = %path.display(), "a link leads out of its folder, and is not followed");
            Ok(None)
        }
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_file(file: &File) -> bool {
    file.metadata().is_ok_and(|about| about.is_file())
}

/// No such name, or one that is none here: too long, with a file for a folder, a link in the place of one, a socket.
fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP | Errno::NXIO | Errno::INVAL | Errno::ILSEQ
        )
    )
}

fn answer(files: &StaticFiles, request: &Parts, opened: Opened) -> Served {
    let version = Version::new(opened.modified, opened.length);
    let mut headers = HeaderMap::with_capacity(8);
    let wanted = version.judge(&request.method, &request.headers);
    let text = |text: String| HeaderValue::try_from(text).expect("digits, letters and quotes make a value");
    headers.insert(header::ETAG, text(version.tag));
    headers.insert(header::LAST_MODIFIED, text(httpdate::fmt_http_date(version.modified)));
    let cache = match files.cache {
        // Another version of the application has another page at the same address.
        Some(cache) if !opened.stands_for_another => format!("max-age={}", cache.as_secs()),
        _ => "no-cache".to_owned(),
    };
    headers.insert(header::CACHE_CONTROL, text(cache));
    let (status, bytes) = match wanted {
        Wanted::Only(status) => {
            if status == StatusCode::RANGE_NOT_SATISFIABLE {
                headers.insert(header::CONTENT_RANGE, text(format!("bytes */{}", version.length)));
            }
            if status != StatusCode::NOT_MODIFIED {
                headers.remove(header::CACHE_CONTROL);
                headers.insert(header::CONTENT_LENGTH, 0.into());
            }
            return Served { status, headers, body: None };
        }
        Wanted::Whole => (StatusCode::OK, 0..version.length),
        Wanted::Part(part) => {
            let (first, last) = (part.start, part.end - 1);
            headers.insert(header::CONTENT_RANGE, text(format!("bytes {first}-{last}/{}", version.length)));
            (StatusCode::PARTIAL_CONTENT, part)
        }
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kinds::of(&opened.path)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, (bytes.end - bytes.start).into());
    let has_body = request.method == Method::GET && !bytes.is_empty();
    let body = has_body.then(|| Reading::new(opened.file, bytes, opened.start));
    Served { status, headers, body }
}

/// Sends a browser to a folder's address, so that what its page names is found beside it.
fn with_slash(request: &Parts) -> Served {
    // Two slashes at the beginning would name a host.
    let path = request.uri.path().trim_start_matches('/');
    let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::try_from(format!("/{path}/{query}")) {
        headers.insert(header::LOCATION, location);
    }
    headers.insert(header::CONTENT_LENGTH, 0.into());
    Served { status: StatusCode::MOVED_PERMANENTLY, headers, body: None }
}

/// Tells whether a browser asks for a page, and not for what a page needs: `/john.doe` is a page then, and a script that is gone
/// is not answered by one.
fn prefers_html(request: &HeaderMap) -> bool {
    let accept = request.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

#[cfg(test)]
mod tests;
