//! `bgctl maintenance`: visitors are shown a page.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use ::config::admin::request;
use ::config::name::ServiceName;
use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::{has_visitors, known};
use crate::context::{Context, who};
use crate::error::{Error, ExitCode};

/// Answer 503 with a page; a health path other than `/` is still answered 200
#[derive(Debug, Args)]
pub struct Maintenance {
    /// The service
    service: ServiceName,
    /// Whether it begins or ends
    state: State,
    /// What visitors are told
    #[arg(long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Serve this address or network all the same (again for more)
    #[arg(long, value_name = "CIDR", value_parser = network)]
    allow: Vec<IpNet>,
    /// Make a cookie with which a browser is served all the same, and print it
    #[arg(long)]
    pass: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    On,
    Off,
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| format!("`{text}` is no address or network such as 10.0.0.0/8"))
}

impl Maintenance {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let Self { service: name, state, message, allow, pass } = self;
        let on = state == State::On;
        context.say_target(&format!("maintenance of {name} {}", if on { "on" } else { "off" })).await?;
        let mut client = context.admin().await?;
        let service = known(&mut client, &name).await?;
        if on {
            has_visitors(&service)?;
        }
        client.acquire(&name, who(), "maintenance".to_owned()).await?;
        let pass = (on && pass).then(secret);
        let wanted = request::Maintenance { on, message, allow, pass };
        let outcome = client.maintenance(&name, &wanted).await;
        // A lease that can't be given back ends by itself.
        let _gone = client.release().await;
        let service = outcome?;
        if on {
            context.ui.announce(&format!("MAINTENANCE: visitors of {name} are shown a page"));
            // What was allowed before this is not any more, so that it is said each time.
            context.ui.say(&bypass(&wanted));
            context.ui.say(&format!("the way back: {}", context.line_with("maintenance", &name, "off")));
        } else {
            context.ui.announce(&format!("{name} serves its visitors"));
        }
        let cookie = wanted.pass.map(|pass| format!("bg-pass-{name}={pass}"));
        if context.ui.tone().json {
            context.ui.document(&serde_json::json!({ "service": service, "cookie": cookie }));
        } else if let Some(cookie) = cookie {
            context.ui.data(&cookie);
        }
        Ok(ExitCode::DONE)
    }
}

/// Says who is served all the same.
fn bypass(wanted: &request::Maintenance) -> String {
    let networks = wanted.allow.iter().map(ToString::to_string);
    let cookie = wanted.pass.iter().map(|_| "whoever sends the cookie below".to_owned());
    let all: Vec<String> = networks.chain(cookie).collect();
    if all.is_empty() {
        return "all of them: `--allow` and `--pass` let some in".to_owned();
    }
    format!("served all the same: {}", all.join(", "))
}

/// Returns 128 bits that nobody guesses: two hashers with keys of the system's own randomness.
fn secret() -> String {
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}
