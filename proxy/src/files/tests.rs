//! A folder's files, as requests find them.

use std::future::poll_fn;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use http::Request;
use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("index.html", "<h1>home");
    write("app.css", "body {}");
    write("docs/index.html", "<h1>docs");
    write("empty/x", "");
    write(".env", "SECRET=1");
    folder
}

/// What an answer is, for comparing.
#[derive(Debug, PartialEq)]
struct Got {
    status: u16,
    kind: String,
    cache: String,
    location: String,
    body: String,
}

async fn ask(folder: &TempDir, options: StaticFiles, request: Request<()>) -> Option<Got> {
    let options = StaticFiles { folder: folder.path().to_owned(), ..options };
    let (parts, ()) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let Served { status, headers, body } = match serve(&options, &parts, &path).await {
        Outcome::Served(served) => *served,
        Outcome::Missing => return None,
        Outcome::WrongMethod => return Some(only(405)),
        Outcome::Forbidden => return Some(only(403)),
        Outcome::Failed(error) => panic!("{error}"),
    };
    let mut bytes = Vec::new();
    if let Some(mut body) = body {
        assert_eq!(headers[header::CONTENT_LENGTH], body.remaining().to_string());
        while let Some(piece) = poll_fn(|cx| body.poll_piece(cx)).await {
            bytes.extend_from_slice(&piece.unwrap());
        }
    }
    let field = |name| headers.get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap()).to_owned();
    Some(Got {
        status: status.as_u16(),
        kind: field(header::CONTENT_TYPE),
        cache: field(header::CACHE_CONTROL),
        location: field(header::LOCATION),
        body: String::from_utf8(bytes).unwrap(),
    })
}

fn only(status: u16) -> Got {
    Got { status, kind: String::new(), cache: String::new(), location: String::new(), body: String::new() }
}

fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).unwrap()
}

fn plain() -> StaticFiles {
    StaticFiles {
        path: "/".parse().unwrap(),
        folder: PathBuf::new(),
        index: "index.html".to_owned(),
        fallback: None,
        cache: None,
        auth: true,
        fallthrough: false,
    }
}

#[tokio::test]
async fn a_file_is_served_as_what_it_is_and_nothing_else_is() {
    let folder = folder();
    let css = ask(&folder, plain(), get("/app.css")).await.unwrap();
    assert_eq!((css.status, css.kind.as_str(), css.body.as_str()), (200, "text/css; charset=utf-8", "body {}"));
    let empty = ask(&folder, plain(), get("/empty/x")).await.unwrap();
    assert_eq!((empty.status, empty.body.as_str()), (200, ""));
    for none in
        ["/empty", "/empty/", "/none", "/.env", "/%2eenv", "/app.css/", "/app.css/x", "/%2e%2e/x", &"/x".repeat(3000)]
    {
        assert_eq!(ask(&folder, plain(), get(none)).await, None, "{none}");
    }
    let head = ask(&folder, plain(), Request::head("/app.css").body(()).unwrap()).await.unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(ask(&folder, plain(), Request::post("/app.css").body(()).unwrap()).await, Some(only(405)));
}

#[tokio::test]
async fn what_is_no_plain_file_is_not_opened_and_no_link_leads_out() {
    let (folder, outside) = (folder(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    symlink(outside.path(), folder.path().join("out")).unwrap();
    symlink("app.css", folder.path().join("link.css")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    for none in ["/out/secret.txt", "/out", "/pipe", "/socket"] {
        assert_eq!(ask(&folder, plain(), get(none)).await, None, "{none}");
    }
    assert_eq!(ask(&folder, plain(), get("/link.css")).await.unwrap().body, "body {}");
    let locked = folder.path().join("app.css");
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o0)).unwrap();
    // Nobody is refused who is root.
    if File::open(&locked).is_err() {
        assert_eq!(ask(&folder, plain(), get("/app.css")).await, Some(only(403)));
    }
    drop(std::fs::remove_dir_all(folder.path()));
    assert_eq!(ask(&folder, plain(), get("/app.css")).await, None);
}

#[tokio::test]
async fn an_index_stands_for_its_folder_whose_address_ends_in_a_slash() {
    let folder = folder();
    for (path, body) in [("/", "<h1>home"), ("/docs/", "<h1>docs"), ("//docs//", "<h1>docs")] {
        assert_eq!(ask(&folder, plain(), get(path)).await.unwrap().body, body, "{path}");
    }
    for (path, location) in
        [("/docs", "/docs/"), ("/docs?a=b", "/docs/?a=b"), ("//docs", "/docs/"), ("/docs?x=//y", "/docs/?x=//y")]
    {
        let got = ask(&folder, plain(), get(path)).await.unwrap();
        assert_eq!((got.status, got.location.as_str()), (301, location), "{path}");
    }
    assert_eq!(ask(&folder, plain(), get("/empty/")).await, None);
}

#[tokio::test]
async fn pages_that_are_no_files_are_answered_by_one_and_what_a_page_needs_is_not() {
    let folder = folder();
    let year = Duration::from_secs(31_536_000);
    let options = || StaticFiles { fallback: Some("/index.html".to_owned()), cache: Some(year), ..plain() };
    for page in ["/users/7", "/none/", "/empty/"] {
        let got = ask(&folder, options(), get(page)).await.unwrap();
        assert_eq!((got.status, got.body.as_str(), got.cache.as_str()), (200, "<h1>home", "no-cache"), "{page}");
    }
    let browser = |path: &str, accept: &str| Request::get(path).header(header::ACCEPT, accept).body(()).unwrap();
    let html = "text/html,application/xhtml+xml,*/*;q=0.8";
    assert_eq!(ask(&folder, options(), browser("/users/john.doe", html)).await.unwrap().body, "<h1>home");
    assert_eq!(ask(&folder, options(), browser("/assets/old.js", "*/*")).await, None);
    assert_eq!(ask(&folder, options(), get("/assets/old.js")).await, None);
    assert_eq!(ask(&folder, options(), browser("/.env", html)).await, None);
    let css = ask(&folder, options(), get("/app.css")).await.unwrap();
    assert_eq!(css.cache, "max-age=31536000");
}
