//! A proxy whose successor serves only answers what it still has: it orders no certificates any more, whatever keeps it alive.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tests::client;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::upgrade_site::{Site, has_ended};

const PATIENCE: Duration = Duration::from_secs(10);

/// An authority that lets everyone wait.
async fn silent_authority() -> (SocketAddr, mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, asks) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if asked.send(stream).is_err() {
                return;
            }
        }
    });
    (address, asks)
}

/// Waits until whoever asks has given up.
async fn given_up(mut ask: TcpStream) {
    let mut heard = [0; 1024];
    let end = async { while ask.read(&mut heard).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, end).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_proxy_gives_its_orders_of_certificates_up_and_takes_them_up_where_nobody_takes_over() {
    let (authority, mut asks) = silent_authority().await;
    let tls = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let acme = format!("listen_tls = [\"{tls}\"]\n[acme]\ndirectory = \"https://{authority}/dir\"\n");
    let site = Site::new(&acme).await;
    let wanted = json!({ "domains": ["shop.test"], "tls": "auto" });
    let put = site.call("PUT", "/v1/services/shop", &wanted);
    assert!(put.starts_with("HTTP/1.1 200"), "{put}");
    let old = site.pid();
    let of_old = ask_of(&mut asks, old).await;

    // A successor that comes to nothing: what was given up for it is ordered again.
    let broken = site.path("broken.toml");
    std::fs::write(&broken, format!("metrics = \"{}\"\n{acme}", site.address)).unwrap();
    let (config, state) = (broken.display().to_string(), site.path("state").display().to_string());
    let here = site.address.to_string();
    let (code, said) = site.upgrade(&["--config", &config, "--state", &state, "--listen", &here]).await;
    assert!(code == Some(1) && said.contains("serves on"), "{code:?} {said}");
    given_up(of_old).await;
    let of_old = ask_of(&mut asks, old).await;

    // One that serves, while a request keeps the old process alive.
    let mut slow = client(site.address).await.unwrap();
    slow.send("GET /slow/20000 HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    let (code, said) = site.upgrade(&[]).await;
    assert_eq!(code, Some(0), "{said}");
    given_up(of_old).await;
    ask_of(&mut asks, site.pid()).await;
    assert!(site.pid() != old && !has_ended(old), "the old one has a request to answer");
}

/// Waits until a process asks.
async fn ask_of(asks: &mut mpsc::UnboundedReceiver<TcpStream>, pid: u32) -> TcpStream {
    let asked = async {
        loop {
            let ask = asks.recv().await.unwrap();
            // While sockets come and go the kernel's table may lack one that is there; an ask let go of is made again in a minute.
            let (from, to) = (ask.peer_addr().unwrap(), ask.local_addr().unwrap());
            if (0..20).find_map(|_| owner_of(from, to)) == Some(pid) {
                return ask;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap()
}

/// Returns the process that has the socket of a connection between these addresses: others may be from the same one.
fn owner_of(from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let ends = [from, to].map(|address| format!("0100007F:{:04X}", address.port()));
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let line =
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|words| words[1..3] == ends)?;
    let socket = format!("socket:[{}]", line[9]);
    let has_it = |pid: &u32| {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|link| link.to_str() == Some(&socket))
    };
    let pids = std::fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(has_it)
}
