//! The page on a first Django application, followed to the letter with Debian's packages in the place of those of a registry.

use std::fs;
use std::path::Path;

use tests::client;

use crate::docker_host::{TestGateway, debian_image, docker, gateway};
use crate::programs::PROGRAMS;

const BASE: &str = "bluegreen-test/django-base:bookworm";

/// Returns the blocks of one kind, in their order.
fn blocks(page: &str, kind: &str) -> Vec<String> {
    let fence = format!("```{kind}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Replaces what must be there.
fn replaced<T: AsRef<str>>(text: &str, changes: &[(&str, T)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in: {text}");
        text.replace(from, to.as_ref())
    })
}

async fn shell(gateway: &TestGateway, folder: &Path, line: &str) -> String {
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
    let ran = tokio::process::Command::new("sh")
        .args(["-euc", line])
        .current_dir(folder.join("shop"))
        .envs([("PATH", path.as_str()), ("BG_GATEWAY", &gateway.name), ("DOCKER_BUILDKIT", "0")])
        .output()
        .await
        .unwrap();
    let data = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{line}: {data} {}", String::from_utf8_lossy(&ran.stderr));
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_django_application_is_deployed_as_its_page_says() {
    const TEST: &str = "a_first_django_application";
    let Some(gateway) = gateway(TEST).await else { return };
    if !debian_image(TEST, BASE, "python3-django,gunicorn,libjs-jquery", "[\"python3\"]") {
        return;
    }
    let page = include_str!("../../docs/first-app-django.md");
    let folder = tempfile::tempdir().unwrap();
    let shop = folder.path().join("shop");
    fs::create_dir_all(folder.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(PROGRAMS.bgctl, folder.path().join("bin/bgctl")).unwrap();
    let project = "django-admin startproject shop /project/shop && chmod -R a+w /project/shop";
    fs::create_dir(&shop).unwrap();
    let mount = format!("{}:/project", folder.path().display());
    docker(&["run", "--rm", "-v", &mount, BASE, "sh", "-c", project]).unwrap();

    let python = blocks(page, "python");
    let append = |file: &str, text: &str| {
        let path = shop.join("shop").join(file);
        fs::write(&path, fs::read_to_string(&path).unwrap() + "\n" + text).unwrap();
    };
    let sqlite =
        [("django.db.backends.postgresql", "django.db.backends.sqlite3"), ("\"shop\"", "\"/app/media/db.sqlite3\"")];
    append("settings.py", &replaced(&python[0], &sqlite));
    append("urls.py", &python[1]);
    let base = [
        ("python:3.13-slim", BASE),
        ("COPY requirements.txt .\n", ""),
        ("RUN pip install --no-cache-dir -r requirements.txt", "RUN ln -sf python3 /usr/bin/python"),
    ];
    fs::write(shop.join("Dockerfile"), replaced(&blocks(page, "dockerfile")[0], &base)).unwrap();
    let image = format!("{}/shop", gateway.name);
    let (network, uploads) = (gateway.named("database"), gateway.named("shop-uploads"));
    let own = [("shop:1", format!("{image}:1")), ("\"database\"", format!("\"{network}\"")), ("shop-uploads", uploads)];
    fs::write(shop.join("bluegreen.toml"), replaced(&blocks(page, "toml")[0], &own)).unwrap();
    fs::write(shop.join("shop.env"), "SECRET_KEY=not-told\nPOSTGRES_PASSWORD=not-told\n").unwrap();
    fs::write(shop.join("db.env"), "POSTGRES_PASSWORD=not-told\nPOSTGRES_DB=shop\n").unwrap();

    let sh = blocks(page, "sh");
    assert_eq!(sh.len(), 3);
    let publish = format!("127.0.0.1:{}:80", gateway.port);
    let up =
        gateway.bgctl(&["up", "--publish", &publish, "--proxy-binary", gateway.proxy_binary.to_str().unwrap()]).await;
    assert_eq!(up.code, Some(0), "{}", up.talk);
    let database = [
        ("create database", format!("create {network}")),
        ("--network database", format!("--network {network}")),
        ("--name db ", format!("--name {} ", gateway.named("db"))),
        ("db-data", gateway.named("db-data")),
        ("postgres:17", format!("{BASE} sleep infinity")),
    ];
    shell(&gateway, folder.path(), &replaced(&sh[0], &database)).await;
    shell(&gateway, folder.path(), &replaced(&sh[1], &[("shop:1", format!("{image}:1"))])).await;
    let mut visitor = client(gateway.address()).await.unwrap();
    let answer = visitor.get("shop.example.com", "/up").await.unwrap().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    // The migrations were done, on the volume that every version has.
    let inside = async |words: &[&str]| {
        let ran = gateway.bgctl(&[&["exec", "shop", "--"], words].concat()).await;
        assert_eq!(ran.code, Some(0), "{}", ran.talk);
        ran.events
    };
    inside(&["sh", "-c", "python manage.py migrate --check > /dev/null"]).await;
    inside(&["sh", "-c", "echo 42 > /app/media/upload"]).await;
    shell(&gateway, folder.path(), &replaced(&sh[1], &[("shop:1", format!("{image}:2"))])).await;
    assert_eq!(inside(&["cat", "/app/media/upload"]).await, [serde_json::json!(42)]);
    let said = shell(&gateway, folder.path(), &sh[2]).await;
    assert!(said.contains(&format!("{image}:2")), "{said}");
    for version in ["1", "2"] {
        drop(docker(&["rmi", "-f", &format!("{image}:{version}")]));
    }
}
