//! Header fields of probes: their values go to the proxy and stay there, whoever deploys next or goes back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tests::{Site, client};

use crate::programs::PROGRAMS;

/// A program that answers probes that have its own value of a field with 200, every other with 401.
fn version(site: &Site, name: &str, secret: &str) -> String {
    let script = format!(
        "exec python3 -c '\n\
         import http.server, os\n\
         class H(http.server.BaseHTTPRequestHandler):\n\
        \x20   def do_GET(self):\n\
        \x20       ok = self.headers.get(\"X-Probe\") == \"{secret}\" or \"bgproxy-health\" not in self.headers.get(\"User-Agent\", \"\")\n\
        \x20       self.send_response(200 if ok else 401)\n\
        \x20       self.send_header(\"X-Version\", \"{name}\")\n\
        \x20       self.send_header(\"Content-Length\", \"0\")\n\
        \x20       self.end_headers()\n\
        \x20   def log_message(self, *all): pass\n\
         http.server.ThreadingHTTPServer((\"127.0.0.1\", int(os.environ[\"PORT\"])), H).serve_forever()'"
    );
    site.script(name, &script)
}

/// Returns every file below a folder, but for those of the proxy's state, that has a word in it.
fn with_word(folder: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(with_word(&path, word));
        } else if fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(word)) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probes_fields_are_kept_by_the_proxy_alone_and_each_version_is_probed_with_its_own() {
    const TEST: &str = "a_probes_fields_are_kept";
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        return tests::skipped(TEST, "python3 is not there");
    }
    let site = Site::new(PROGRAMS);
    site.up().await;
    let answered = async || {
        let answer = client(site.address()).await.unwrap().get("shop.test", "/").await.unwrap().unwrap();
        answer.field("x-version").unwrap_or_default().to_owned()
    };
    let switch = async |image: &str, more: &[&str]| {
        let ended = site.switch(image, more).end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.talk);
        assert!(!format!("{:?}{}", ended.events, ended.talk).contains("hunter"), "{}", ended.talk);
    };
    let v1 = version(&site, "v1", "hunter-one");
    switch(&v1, &["--health-header", "X-Probe=hunter-one"]).await;
    // The next one is not told it.
    switch(&version(&site, "v2", "hunter-one"), &[]).await;
    assert_eq!(answered().await, "v2");
    switch(&version(&site, "v3", "hunter-three"), &["--health-header", "X-Probe=hunter-three"]).await;
    // What was before is started again, and wants what it was deployed with.
    let back = site.bgctl(&["rollback", "shop"]).await;
    assert_eq!((back.code, answered().await.as_str()), (Some(0), "v2"), "{}", back.talk);
    let config = site.bgctl(&["config", "shop"]).await;
    let headers = &config.events[0][0]["settings"]["health"]["headers"];
    assert_eq!(*headers, serde_json::json!([["X-Probe", "***"]]));

    // Nowhere but in the programs that compare it, and in the proxy's saved state.
    let folder = Path::new(&v1).parent().unwrap();
    let found = with_word(folder, "hunter-");
    let strangers: Vec<&String> = found.iter().filter(|path| !path.contains("/services/")).collect();
    let own: Vec<String> = ["v1", "v2", "v3"].iter().map(|name| folder.join(name).display().to_string()).collect();
    assert!(strangers.iter().all(|path| own.contains(path)) && strangers.len() < found.len(), "{found:?}");

    // A kill of the proxy forgets none; a name that nobody ever gave is refused in words.
    site.kill("--admin");
    site.up().await;
    switch(&version(&site, "v4", "hunter-one"), &[]).await;
    assert_eq!(answered().await, "v4");
    let failing = version(&site, "v5", "hunter-five");
    let failed = site.switch(&failing, &["--deadline", "1s"]).end().await;
    assert_eq!(failed.code, Some(5), "{}", failed.talk);
    assert_eq!(answered().await, "v4");
    tokio::time::timeout(Duration::from_secs(30), async { switch(&v1, &[]).await }).await.unwrap();
}
