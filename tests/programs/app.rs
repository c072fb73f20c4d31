//! The fake application as a program: `app VERSION LOADING-MS [LEDGER]` answers 503 while it loads, on `PORT` of 127.0.0.1,
//! or of the address that `BIND` names,
//! and notes each request in the ledger. The path that `FAILS` names is answered 500.

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use tests::{Behaviour, upstream_at};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let version = args.next().ok_or("no version")?;
    let loading = Duration::from_millis(args.next().ok_or("no time")?.parse()?);
    let port: u16 = std::env::var("PORT")?.parse()?;
    let address = std::env::var("BIND").map_or(Ok(Ipv4Addr::LOCALHOST), |address| address.parse())?;
    let app = upstream_at((address, port).into(), &version).await;
    app.behave(Behaviour::Status(503));
    if let Some(ledger) = args.next() {
        app.keep_ledger(ledger.as_ref())?;
    }
    writeln!(std::io::stdout(), "{version} loads")?;
    tokio::time::sleep(loading).await;
    app.behave(Behaviour::Answer);
    if let Ok(path) = std::env::var("FAILS") {
        app.behave_for(&path, Behaviour::Status(500));
    }
    writeln!(std::io::stdout(), "{version} is ready")?;
    std::future::pending().await
}
