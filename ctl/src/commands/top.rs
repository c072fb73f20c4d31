//! `bgctl top`: the live view.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use ::config::admin::Event;
use ::config::admin::response::Status;
use clap::Args;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::status::notes;
use crate::admin::{self, Client, Door};
use crate::context::Context;
use crate::error::{Error, ExitCode, Signal};
use crate::top::board::{self, RECENT, View};
use crate::top::recent;
use crate::top::sample::Sample;
use crate::top::screen::{Screen, Wish};

/// A look that has no answer after this is said to have none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Live full-screen view: services, slots, rates, what drains and bakes, the last switches
#[derive(Debug, Args)]
pub struct Top {
    /// Print one picture as text, without a terminal
    #[arg(long)]
    once: bool,
    /// Between two looks; rates and the p99 are those of the time in between
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

/// What the proxy says at one moment.
struct Look {
    status: Status,
    sample: Sample,
    at: Instant,
}

/// What those who look and listen found.
enum News {
    Look(Box<Look>),
    Event(Event),
    Lost(String),
}

impl Top {
    pub(crate) async fn run(self, context: &Context<'_>) -> Result<ExitCode, Error> {
        let ui = context.ui;
        if !self.once && (ui.tone().json || !ui.has_screen()) {
            let why = if ui.tone().json { "JSON is for programs" } else { "here is none" };
            return Err(Error::usage(format!("`top` draws on a terminal, and {why}"))
                .hint("`bgctl status --json` is for programs, `bgctl top --once` prints one picture as text"));
        }
        let mut client = context.admin().await?;
        let first = look(&mut client).await?;
        let mut view = View {
            place: context.target().await?,
            now: SystemTime::now(),
            paces: BTreeMap::new(),
            notes: Vec::new(),
            recent: before(&mut client, &first.status).await?,
            status: first.status.clone(),
            trouble: None,
            scroll: 0,
        };
        if self.once {
            sleep(self.interval).await;
            show(&mut view, &first, &look(&mut client).await?);
            ui.text(&board::text(&view, 0));
            return Ok(ExitCode::DONE);
        }
        live(view, first, client, context.door().await?, self.interval).await
    }
}

/// Shows the view until someone leaves it; dropped, it gives the terminal back.
async fn live(
    mut view: View,
    mut last: Look,
    client: Client,
    door: Door,
    interval: Duration,
) -> Result<ExitCode, Error> {
    let lost = |error| Error::usage(format!("draw on the terminal: {error}"));
    let (send, mut news) = mpsc::channel(64);
    let mut watchers = JoinSet::new();
    watchers.spawn(keep_looking(client, door.clone(), interval, send.clone()));
    watchers.spawn(listen(door, interval, send));
    let mut events = VecDeque::from(std::mem::take(&mut view.recent));
    let mut screen = Screen::enter().map_err(lost)?;
    let mut wishes = screen.wishes();
    loop {
        view.recent = events.iter().cloned().collect();
        screen.draw(&view).map_err(lost)?;
        tokio::select! {
            wish = wishes.recv() => match wish {
                None | Some(Wish::Quit) => return Ok(ExitCode::DONE),
                Some(Wish::Interrupt) => return Err(Error::interrupted(Signal::Interrupt)),
                Some(Wish::Up) => view.scroll = view.scroll.saturating_sub(1),
                // The table never has more rows than this.
                Some(Wish::Down) => view.scroll = (view.scroll + 1).min(2 * view.status.services.len()),
                Some(Wish::Redraw) => {}
            },
            Some(found) = news.recv() => match found {
                News::Look(now) => {
                    show(&mut view, &last, &now);
                    last = *now;
                }
                News::Event(event) => {
                    recent::of_event(SystemTime::now(), &event).into_iter().for_each(|line| events.push_front(line));
                    events.truncate(RECENT);
                }
                News::Lost(why) => view.trouble = Some(format!("these numbers are old: {why}; trying again")),
            },
        }
    }
}

/// Puts what a look found into the view.
fn show(view: &mut View, before: &Look, now: &Look) {
    view.now = SystemTime::now();
    view.paces = now.sample.since(&before.sample, now.at - before.at);
    view.notes = now.status.services.iter().flat_map(notes).collect();
    view.status = now.status.clone();
    view.trouble = None;
}

async fn look(client: &mut Client) -> Result<Look, admin::Error> {
    let status = client.status().await?;
    let sample = Sample::parse(&client.metrics().await?);
    Ok(Look { status, sample, at: Instant::now() })
}

/// Returns the last switches of all services, the latest first.
async fn before(client: &mut Client, status: &Status) -> Result<Vec<String>, Error> {
    let mut known = Vec::new();
    for service in &status.services {
        let history = client.history(&service.name).await?;
        let entries = history.into_iter().flat_map(|history| history.entries).take(RECENT);
        known.extend(entries.map(|entry| (entry.began.clone(), recent::of_history(&service.name, &entry))));
    }
    // Times of one form sort as text.
    known.sort_by(|a, b| b.0.cmp(&a.0));
    Ok(known.into_iter().take(RECENT).map(|(_, line)| line).collect())
}

/// Looks again and again, over a new connection where one was lost.
async fn keep_looking(client: Client, door: Door, interval: Duration, news: mpsc::Sender<News>) {
    let mut client = Some(client);
    loop {
        sleep(interval).await;
        let look = async {
            let mut open = match client.take() {
                Some(client) => client,
                None => Client::open(door.clone()).await?,
            };
            let found = look(&mut open).await?;
            client = Some(open);
            Ok::<_, admin::Error>(found)
        };
        let found = match tokio::time::timeout(PATIENCE, look).await {
            Ok(Ok(look)) => News::Look(Box::new(look)),
            Ok(Err(error)) => News::Lost(error.to_string()),
            Err(_) => News::Lost(format!("no answer within {}", ::config::duration::format(PATIENCE))),
        };
        if news.send(found).await.is_err() {
            return;
        }
    }
}

/// Hands over what happens; a stream that ends is opened again. That it ended is for the looks to tell.
async fn listen(door: Door, interval: Duration, news: mpsc::Sender<News>) {
    loop {
        let follow = async {
            let mut events = Client::open(door.clone()).await?.events().await?;
            while let Some(event) = events.next().await? {
                if news.send(News::Event(event)).await.is_err() {
                    break;
                }
            }
            Ok::<_, admin::Error>(())
        };
        drop(follow.await);
        if news.is_closed() {
            return;
        }
        sleep(interval).await;
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match ::config::duration::parse(text)? {
        short if short < Duration::from_millis(100) => Err("a tenth of a second is the shortest".to_owned()),
        interval => Ok(interval),
    }
}
