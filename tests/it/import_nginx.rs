//! `bgctl import-nginx` against nginx itself: the same requests to both, the same answers, for each configuration of the corpus.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tests::{Upstream, client, eventually, measured, proxy, skipped, upstream};
use tokio::net::{TcpStream, UnixListener};

use crate::programs::PROGRAMS;

/// A configuration with the requests that are sent to it, and what is known to be different.
struct Case {
    name: String,
    text: String,
    requests: Vec<Request>,
    /// A target, what of it differs, from what, to what.
    differs: Vec<(String, String, String, String)>,
    /// What is told to have no equal, in its order.
    notes: Vec<String>,
    /// Options that the file has in the end.
    needs: Vec<String>,
    /// Fields of the answer that are compared.
    same: Vec<String>,
    /// Fields of the request, as the application gets it, that are compared.
    sent: Vec<String>,
}

#[derive(Clone)]
struct Request {
    method: String,
    host: String,
    target: String,
    fields: Vec<String>,
    body: usize,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    status: u16,
    location: Option<String>,
    fields: Vec<Option<String>>,
    body: Option<String>,
    /// Which application got it, and as what.
    seen: Option<Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    application: &'static str,
    line: String,
    host: Option<String>,
    fields: Vec<Option<String>>,
    body: usize,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let lines = |sign: &str| -> Vec<String> {
            text.lines().filter_map(|line| line.strip_prefix(sign)).map(|line| line.trim().to_owned()).collect()
        };
        let difference = |line: &String| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [target, what, from, "->", to, ..] = words.as_slice() else { panic!("{line}") };
            ((*target).to_owned(), (*what).to_owned(), (*from).to_owned(), (*to).to_owned())
        };
        Self {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            requests: lines("#>").iter().map(|line| Request::read(line)).collect(),
            differs: lines("#~").iter().map(difference).collect(),
            notes: lines("#!"),
            needs: lines("#?"),
            same: lines("#="),
            sent: lines("#+"),
            text,
        }
    }
}

impl Request {
    fn read(line: &str) -> Self {
        let mut parts = line.split('|').map(str::trim);
        let words: Vec<&str> = parts.next().unwrap().split_whitespace().collect();
        let [method, host, target] = words.as_slice() else { panic!("{line}") };
        let [method, host, target] = [method, host, target].map(|word| (*word).to_owned());
        let mut request = Self { method, host, target, fields: Vec::new(), body: 0 };
        for part in parts {
            match part.strip_prefix("body ") {
                Some(bytes) => request.body = bytes.parse().unwrap(),
                None => request.fields.push(part.to_owned()),
            }
        }
        request
    }

    async fn send(&self, to: SocketAddr, applications: &[(&'static str, &Upstream)], case: &Case) -> Outcome {
        let before: Vec<usize> = applications.iter().map(|(_, app)| app.seen_count()).collect();
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        self.fields.iter().for_each(|field| head.push_str(&format!("{field}\r\n")));
        if self.body > 0 {
            head.push_str(&format!("Content-Length: {}\r\n", self.body));
        }
        let mut visitor = client(to).await.unwrap();
        visitor.send(format!("{head}\r\n{}", "x".repeat(self.body))).await.ok();
        let answer = if self.method == "HEAD" {
            visitor.head_answer().await.unwrap()
        } else {
            visitor.answer().await.unwrap().unwrap_or_else(|| panic!("{}: {} is not answered", case.name, self.target))
        };
        let seen = applications.iter().zip(before).find_map(|((name, app), before)| {
            let seen = app.seen_from(before).pop()?;
            let field = |wanted: &str| {
                let lines = seen.head.lines().skip(1).filter_map(|line| line.split_once(':'));
                let mut found = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
                found.next().map(|(_, value)| value.trim().to_owned())
            };
            Some(Seen {
                application: name,
                // The version is between the proxy and the application.
                line: seen.first_line.rsplit_once(' ').unwrap().0.to_owned(),
                host: field("host"),
                fields: case.sent.iter().map(|name| field(name)).collect(),
                body: seen.body_bytes,
            })
        });
        // nginx puts its scheme, host and port before a path; a browser does so by itself (RFC 9110 section 10.2.2).
        let location = answer.field("location").map(|there| match there.starts_with('/') {
            true => format!("http://{}{there}", self.host),
            false => there.replace(&format!(":{}", to.port()), ""),
        });
        Outcome {
            status: answer.status,
            location,
            // We say besides in which characters a password is to be told (RFC 7617 section 2.1).
            fields: case
                .same
                .iter()
                .map(|name| answer.field(name).map(|value| value.replace(", charset=\"UTF-8\"", "")))
                .collect(),
            // Each has its own pages for errors.
            body: (answer.status == 200).then(|| match answer.field("content-encoding") {
                Some("gzip") if !answer.body.is_empty() => {
                    let mut text = String::new();
                    flate2::read::GzDecoder::new(&*answer.body).read_to_string(&mut text).unwrap();
                    text
                }
                _ => answer.text(),
            }),
            seen,
        }
    }
}

/// nginx with one configuration; it ends when dropped.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    async fn start(folder: &Path, case: &Path, address: SocketAddr) -> Self {
        let temporary =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path temp-{name};"));
        let main = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{ worker_connections 256; }}\n\
             http {{\naccess_log off;\ninclude /etc/nginx/mime.types;\n{}\ninclude {};\n}}\n",
            temporary.join("\n"),
            case.display()
        );
        fs::write(folder.join("nginx.conf"), main).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).args(["-e", "error.log", "-c"]).arg(folder.join("nginx.conf"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("nginx listens", async || {
            if child.try_wait().unwrap().is_some() {
                panic!("nginx refuses {}:\n{}", case.display(), fs::read_to_string(folder.join("error.log")).unwrap());
            }
            TcpStream::connect(address).await.ok().map(drop)
        })
        .await;
        Self { child, address }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Puts what the configurations name into a folder.
fn furnish(folder: &Path, app: SocketAddr, other: SocketAddr) {
    for (path, text) in [
        ("files/a.css", "a { color: red }\n".to_owned()),
        ("files/long.css", "a { color: red }\n".repeat(200)),
        ("site/index.html", "<p>the page\n".to_owned()),
        ("site/sub/a.css", "b {}\n".to_owned()),
        ("app.inc", format!("location / {{ proxy_pass http://{app}; proxy_set_header Host $host; }}\n")),
        ("parts/api.inc", format!("location /api/ {{ proxy_pass http://{other}; proxy_set_header Host $host; }}\n")),
        // The word is "secret".
        ("users", "alice:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n".to_owned()),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A port that nothing listens on now.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/nginx");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Runs bgctl to its end, and returns its exit code, its data and its talk.
async fn bgctl(words: &[&str]) -> (Option<i32>, String, String) {
    let output = tokio::process::Command::new(PROGRAMS.bgctl).args(words).stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Hands what comes to a socket in the file system to an application.
fn socket_to(path: &Path, app: SocketAddr) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut far = TcpStream::connect(app).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_and_what_is_imported_from_its_configuration_answer_the_same() {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        skipped("import_nginx", "there is no nginx");
        return;
    }
    let began = Instant::now();
    let (app, other) = (upstream("app").await, upstream("other").await);
    let mut sent = 0;
    let paths = corpus();
    assert!(paths.len() >= 30, "{}", paths.len());
    let mut failures: Vec<String> = Vec::new();
    for path in &paths {
        let case = Case::read(path);
        assert!(!case.requests.is_empty(), "{} asks for nothing", case.name);
        let folder = tempfile::tempdir().unwrap();
        match compare(&case, &folder, &app, &other).await {
            Ok(count) => sent += count,
            Err(found) => failures.extend(found),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    measured(
        "import_nginx",
        &format!("{} configurations, {sent} requests to each, {:?}", paths.len(), began.elapsed()),
    );
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

/// Returns how many requests were answered by both in the same way, or what was not so.
async fn compare(case: &Case, folder: &TempDir, app: &Upstream, other: &Upstream) -> Result<usize, Vec<String>> {
    let at = folder.path();
    furnish(at, app.address(), other.address());
    let listen = free_address();
    let put_in = |text: &str| {
        text.replace("@APP@", &app.address().to_string())
            .replace("@OTHER@", &other.address().to_string())
            .replace("@LISTEN@", &listen.to_string())
            .replace("@SECOND@", &free_address().port().to_string())
            .replace("@DIR@", at.to_str().unwrap())
    };
    let conf = at.join("case.conf");
    fs::write(&conf, put_in(&case.text)).unwrap();
    let _socket = socket_to(&at.join("app.sock"), app.address());
    let proxy = proxy();
    let file = at.join("bluegreen.toml");
    let (conf_word, file_word) = (conf.to_str().unwrap(), file.to_str().unwrap());
    let (code, data, talk) = bgctl(&["--json", "import-nginx", conf_word, "--output", file_word]).await;
    assert_eq!(code, Some(0), "{}: {data}{talk}", case.name);
    let written = fs::read_to_string(&file).unwrap();
    let document: Value = serde_json::from_str(&data).unwrap();
    let told: Vec<String> = document["notes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| note["directive"].as_str().unwrap().to_owned())
        .collect();
    let mut failures = Vec::new();
    let wanted: Vec<String> = case.notes.iter().map(|note| put_in(note)).collect();
    if told != wanted {
        failures.push(format!("{}: told {told:?}, not {wanted:?}", case.name));
    }
    let keys: Vec<&str> = written.lines().filter_map(|line| line.split_once(" = ").map(|(key, _)| key)).collect();
    if let Some(lacking) = case.needs.iter().find(|key| !keys.contains(&key.as_str())) {
        failures.push(format!("{}: `{lacking}` is not in\n{written}", case.name));
    }
    let (code, data, talk) = bgctl(&["check", file_word]).await;
    assert_eq!(code, Some(0), "{}: {data}{talk}\n{written}", case.name);
    let nginx = Nginx::start(at, &conf, listen).await;
    let (code, data, talk) = bgctl(&["--admin", proxy.admin().to_str().unwrap(), "--file", file_word, "apply"]).await;
    assert_eq!(code, Some(0), "{}: {data}{talk}\n{written}", case.name);
    let applications = [("app", app), ("other", other)];
    for request in &case.requests {
        let mut theirs = request.send(nginx.address, &applications, case).await;
        let mut ours = request.send(proxy.address(), &applications, case).await;
        let known = case.differs.iter().filter(|(target, ..)| *target == request.target);
        for (_, what, from, to) in known {
            assert_eq!(what, "status", "{}", case.name);
            let found = (theirs.status.to_string(), ours.status.to_string());
            if found != (from.clone(), to.clone()) {
                failures.push(format!("{}: {} differs otherwise: {found:?}", case.name, request.target));
            }
            // Whom one of them lets in and the other does not has other answers altogether.
            if from[..1] == to[..1] {
                ours.status = theirs.status;
            } else {
                ours = theirs.clone();
            }
        }
        // Where nginx is told nothing of it, it names the address: that was told.
        if let (Some(theirs), Some(ours)) = (&mut theirs.seen, &mut ours.seen)
            && case.notes.iter().any(|note| note.starts_with("proxy_pass"))
        {
            assert_eq!(
                (theirs.host.as_deref(), ours.host.as_ref()),
                (Some(&*app.address().to_string()), Some(&request.host))
            );
            theirs.host.clone_from(&ours.host);
        }
        if theirs != ours {
            failures.push(format!(
                "{}: {} {}{}\n  nginx: {theirs:?}\n  ours:  {ours:?}\n{written}",
                case.name, request.method, request.host, request.target
            ));
        }
    }
    if failures.is_empty() { Ok(case.requests.len()) } else { Err(failures) }
}

/// What is said, and what is left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_there_stays_and_what_has_no_equal_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (conf, file) = (at("shop.conf"), at("bluegreen.toml"));
    let server = |inner: &str| {
        format!(
            "server {{\n  server_name shop.test;\n  location / {{\n    proxy_pass http://127.0.0.1:9;\n    proxy_set_header Host $host;\n{inner}  }}\n}}\n"
        )
    };
    fs::write(&conf, server("    proxy_cache main;\n    limit_conn perip 10;\n")).unwrap();
    let (code, data, talk) = bgctl(&["import-nginx", &conf, "--output", &file]).await;
    assert_eq!(
        (code, data.trim()),
        (Some(0), format!("wrote {file} for shop, with 2 things to look at").as_str()),
        "{talk}"
    );
    assert!(
        talk.contains(&format!("{conf}:6: `proxy_cache main`: answers are not kept\n  instead: put a cache")),
        "{talk}"
    );
    assert!(talk.contains(&format!("warning: {conf}:7: `limit_conn perip 10`")), "{talk}");
    let before = fs::read(&file).unwrap();
    let (code, _, talk) = bgctl(&["import-nginx", &conf, "--output", &file]).await;
    assert_eq!(code, Some(1), "{talk}");
    assert!(talk.contains("is there already, and was left as it is") && fs::read(&file).unwrap() == before, "{talk}");

    // What nginx would refuse is refused with its line, and nothing is written.
    fs::write(&conf, "server {\n  listen 80\n}\n").unwrap();
    let (code, _, talk) = bgctl(&["import-nginx", &conf, "--output", &at("other.toml")]).await;
    assert_eq!((code, talk.contains(&format!("{conf}:2: `listen 80` lacks its `;`"))), (Some(1), true), "{talk}");
    fs::write(&conf, "events {}\n").unwrap();
    let (code, _, talk) = bgctl(&["import-nginx", &conf, "--output", &at("other.toml")]).await;
    assert!(code == Some(1) && talk.contains("no server in it"), "{talk}");
    let (code, _, talk) = bgctl(&["import-nginx", &at("none.conf"), "--output", &at("other.toml")]).await;
    assert!(code == Some(1) && talk.contains("none.conf: it can't be read"), "{talk}");
    assert!(!Path::new(&at("other.toml")).exists());
}

/// `apply` makes addresses live, moves them, and does nothing where they are live; nobody deploys them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_the_file_are_applied_moved_and_never_deployed() {
    let (v1, v2) = (upstream("v1").await, upstream("v2").await);
    let proxy = proxy();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bluegreen.toml");
    let admin = proxy.admin();
    let at = |words: &[&str]| -> Vec<String> {
        let place = ["--admin", admin.to_str().unwrap(), "--file", file.to_str().unwrap()];
        place.iter().chain(words).map(|word| (*word).to_owned()).collect()
    };
    let run = async |words: &[&str]| {
        let words = at(words);
        bgctl(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let write = |app: &Upstream, more: &str| {
        let text =
            format!("[services.wiki]\nto = [\"{}\"]\ndomains = [\"wiki.test\"]\nbake = \"0s\"\n{more}", app.address());
        fs::write(&file, text).unwrap();
    };
    let answered = async || {
        let mut visitor = client(proxy.address()).await.unwrap();
        visitor.get("wiki.test", "/").await.unwrap().unwrap().text()
    };
    write(&v1, "");
    let (code, data, talk) = run(&["plan"]).await;
    assert!(
        code == Some(0) && data.contains("wiki: a new service") && data.contains("+ to: 127.0.0.1:"),
        "{data}{talk}"
    );
    let (code, data, talk) = run(&["apply"]).await;
    assert_eq!((code, answered().await.as_str()), (Some(0), "v1"), "{data}{talk}");
    assert!(data.contains("wiki: to: none -> 127.0.0.1:"), "{data}");
    let (code, data, _) = run(&["apply"]).await;
    assert_eq!((code, data.trim()), (Some(0), "wiki: nothing to change"));

    // Other addresses by a flip, settings alone without one.
    write(&v2, "[services.wiki.options]\nrequest_bytes = \"1MiB\"\n");
    let (code, data, talk) = run(&["apply"]).await;
    assert_eq!((code, answered().await.as_str()), (Some(0), "v2"), "{data}{talk}");
    write(&v2, "[services.wiki.options]\nrequest_bytes = \"2MiB\"\n");
    let (code, data, _) = run(&["apply"]).await;
    assert_eq!((code, data.trim()), (Some(0), "wiki: options.request_bytes: 1MiB -> 2MiB"));

    // An address that is not healthy changes nothing, unless nobody is to ask.
    let gone = free_address();
    let text = |more: &str| {
        format!("[services.wiki]\nto = [\"{gone}\"]\ndomains = [\"wiki.test\"]\ndeadline = \"500ms\"\n{more}")
    };
    fs::write(&file, text("")).unwrap();
    let (code, _, talk) = run(&["apply"]).await;
    assert_eq!((code, answered().await.as_str()), (Some(5), "v2"), "{talk}");
    for words in [&["switch", "wiki"][..], &["deploy", "--service", "wiki"]] {
        let (code, _, talk) = run(words).await;
        assert_eq!(code, Some(1), "{talk}");
        assert!(talk.contains("bgctl does not run") || talk.contains("gives wiki no image"), "{talk}");
    }
    fs::write(&file, "[services.wiki]\nto = []\nimage = \"wiki:1\"\n").unwrap();
    let (code, data, _) = run(&["check"]).await;
    assert!(code == Some(1) && data.contains("`image` and `to` exclude each other"), "{data}");
    fs::write(&file, "[services.wiki]\nno_health = true\n").unwrap();
    let (code, data, _) = run(&["check"]).await;
    assert!(code == Some(1) && data.contains("`no_health` is about addresses"), "{data}");
}
