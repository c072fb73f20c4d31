//! Typed client of the proxy's admin protocol, over any byte stream.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use config::admin::journal::{History, Journal};
use config::admin::request::{
    Canary, Delete, Drain, Endpoints, Flip, Lease, Maintenance, Pause, Preview, Resume, ServiceSettings, Stage,
};
use config::admin::response::{self, Flipped, Paused, ServiceStatus, Status, Version};
use config::admin::{AdminError, BODY_BYTES, Call, ErrorCode, Event, LEASE_HEADER, Verb};
use config::brought::{Brought, CertificateName};
use config::name::ServiceName;
use config::settings::ProxySettings;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::{AdminStream, Engine, EngineError};

/// An answer is no longer than this; a status of thousands of services fits well.
const ANSWER_BYTES: usize = 64 * BODY_BYTES;

/// The end of a stream follows its last line at once.
const END: Duration = Duration::from_millis(100);

/// What a call could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The proxy refused.
    #[error(transparent)]
    Refused(#[from] AdminError),
    /// The engine could not open a stream to it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The socket can't be opened.
    #[error("connect to the proxy at {path}: {source}", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No proxy runs there.
    #[error("no proxy runs there")]
    NoProxy,
    /// The stream broke, or what came is not the protocol: the outcome of the call is unknown.
    #[error("the proxy's answer was lost: {0}")]
    Broken(String),
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// How the socket is reached.
#[derive(Clone)]
pub enum Door {
    /// On this machine.
    Socket(PathBuf),
    /// Through the engine: one relay a connection.
    Engine(Arc<Engine>),
}

impl Door {
    async fn open(&self) -> Result<Box<dyn AdminStream>, Error> {
        match self {
            Self::Socket(path) => {
                let stream = tokio::net::UnixStream::connect(path).await;
                let stream = stream.map_err(|source| Error::Connect { path: path.clone(), source })?;
                Ok(Box::new(stream))
            }
            Self::Engine(engine) => engine.admin().await?.ok_or(Error::NoProxy),
        }
    }
}

/// Which generation of a service a change is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// This one; another is refused as stale. Zero is a service that is not there.
    Generation(u64),
    /// Whichever it is.
    Any,
}

/// A connection to one proxy, under a lease once one is taken.
pub struct Client {
    door: Door,
    sender: SendRequest<Full<Bytes>>,
    lease: Option<(ServiceName, String)>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::NoProxy`] where none runs, [`Error::Connect`] where its socket can't be opened.
    pub async fn open(door: Door) -> Result<Self, Error> {
        let sender = handshake(&door).await?;
        Ok(Self { door, sender, lease: None })
    }

    /// Returns what answers.
    ///
    /// # Errors
    /// As of every call: [`Error::Refused`], [`Error::Broken`].
    pub async fn version(&mut self) -> Result<Version, Error> {
        self.answer(Call::Version, None, None::<&()>).await
    }

    /// Returns the state of the whole proxy.
    ///
    /// # Errors
    /// As of every call.
    pub async fn status(&mut self) -> Result<Status, Error> {
        self.answer(Call::Status, None, None::<&()>).await
    }

    /// Returns a service, or `None` where there is none of that name.
    ///
    /// # Errors
    /// As of every call.
    pub async fn service(&mut self, name: &ServiceName) -> Result<Option<ServiceStatus>, Error> {
        match self.answer(Call::Service(name.clone()), None, None::<&()>).await {
            Ok(service) => Ok(Some(service)),
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::UnknownService => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a service or changes its routes.
    ///
    /// # Errors
    /// As of every call.
    pub async fn put(&mut self, name: &ServiceName, at: Match, settings: &ServiceSettings) -> Result<(), Error> {
        self.request(Call::Put(name.clone()), Some(at), Some(settings)).await?.collect_answer().await.map(drop)
    }

    /// Takes a service's routes away, waits for the requests under way, and forgets it.
    ///
    /// # Errors
    /// As of every call.
    pub async fn delete(&mut self, name: &ServiceName, at: Match, delete: &Delete) -> Result<(), Error> {
        let call = Call::Delete(name.clone());
        self.request(call, Some(at), Some(delete)).await?.collect_answer().await.map(drop)
    }

    /// Puts endpoints into a slot and follows its health; the last line is `healthy` or `error`.
    ///
    /// # Errors
    /// As of every call.
    pub async fn stage(&mut self, name: &ServiceName, at: Match, stage: &Stage) -> Result<Events, Error> {
        self.follow(Call::Act(name.clone(), Verb::Stage), Some(at), Some(stage)).await
    }

    /// Makes a slot live.
    ///
    /// # Errors
    /// As of every call; after [`Error::Broken`] only [`Client::service`] tells whether it was done.
    pub async fn flip(&mut self, name: &ServiceName, at: Match, flip: &Flip) -> Result<Flipped, Error> {
        self.answer(Call::Act(name.clone(), Verb::Flip), Some(at), Some(flip)).await
    }

    /// Waits until nothing is in flight on a slot that was live; the last line is `drained` or `error`.
    ///
    /// # Errors
    /// As of every call.
    pub async fn drain(&mut self, name: &ServiceName, drain: &Drain) -> Result<Events, Error> {
        self.follow(Call::Act(name.clone(), Verb::Drain), None, Some(drain)).await
    }

    /// Holds a service's requests, and waits until nothing is in flight on its live slot, or the call's `drain` is over.
    ///
    /// # Errors
    /// As of every call.
    pub async fn pause(&mut self, name: &ServiceName, pause: &Pause) -> Result<Paused, Error> {
        self.answer(Call::Act(name.clone(), Verb::Pause), Some(Match::Any), Some(pause)).await
    }

    /// Lets held requests go.
    ///
    /// # Errors
    /// As of every call.
    pub async fn resume(&mut self, name: &ServiceName) -> Result<ServiceStatus, Error> {
        self.answer(Call::Act(name.clone(), Verb::Resume), Some(Match::Any), Some(&Resume {})).await
    }

    /// Sends a share of a service's visitors to its idle slot.
    ///
    /// # Errors
    /// As of every call.
    pub async fn canary(&mut self, name: &ServiceName, wanted: &Canary) -> Result<ServiceStatus, Error> {
        self.answer(Call::Act(name.clone(), Verb::Canary), Some(Match::Any), Some(wanted)).await
    }

    /// Returns a link to the version that waits in a service's idle slot.
    ///
    /// # Errors
    /// As of every call.
    pub async fn preview(&mut self, name: &ServiceName, wanted: &Preview) -> Result<response::Preview, Error> {
        self.answer(Call::Act(name.clone(), Verb::Preview), Some(Match::Any), Some(wanted)).await
    }

    /// Changes the endpoints of a service's live slot and follows that; the last line is `endpoints` or `error`.
    ///
    /// # Errors
    /// As of every call.
    pub async fn endpoints(&mut self, name: &ServiceName, at: Match, wanted: &Endpoints) -> Result<Events, Error> {
        self.follow(Call::Act(name.clone(), Verb::Endpoints), Some(at), Some(wanted)).await
    }

    /// Shows a service's visitors a page, or no more.
    ///
    /// # Errors
    /// As of every call.
    pub async fn maintenance(&mut self, name: &ServiceName, wanted: &Maintenance) -> Result<ServiceStatus, Error> {
        self.answer(Call::Act(name.clone(), Verb::Maintenance), Some(Match::Any), Some(wanted)).await
    }

    /// Writes a line into a service's journal; a proxy that keeps none is no hindrance.
    ///
    /// # Errors
    /// As of every call.
    pub async fn journal(&mut self, name: &ServiceName, line: &Journal) -> Result<(), Error> {
        let call = Call::Act(name.clone(), Verb::Journal);
        match self.request(call, None, Some(line)).await?.collect_answer().await {
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::NotThereYet => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Returns what was done to a service; `None` where nothing is known of it.
    ///
    /// # Errors
    /// As of every call.
    pub async fn history(&mut self, name: &ServiceName) -> Result<Option<History>, Error> {
        match self.answer(Call::History(name.clone()), None, None::<&()>).await {
            Ok(history) => Ok(Some(history)),
            Err(Error::Refused(refusal))
                if matches!(refusal.code, ErrorCode::UnknownService | ErrorCode::NotThereYet) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the log of a service's last instance that failed; `None` where none is kept.
    ///
    /// # Errors
    /// As of every call.
    pub async fn failed_log(&mut self, name: &ServiceName) -> Result<Option<String>, Error> {
        match self.request(Call::Log(name.clone()), None, None::<&()>).await?.collect_answer().await {
            Ok(log) => Ok(Some(String::from_utf8_lossy(&log).into_owned())),
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::UnknownService => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the proxy's own settings; `None` where it is of a build that takes none.
    ///
    /// # Errors
    /// As of every call.
    pub async fn proxy(&mut self) -> Result<Option<response::Proxy>, Error> {
        match self.answer(Call::Proxy, None, None::<&()>).await {
            Ok(proxy) => Ok(Some(proxy)),
            Err(Error::Refused(refusal)) if refusal.code == ErrorCode::NoSuchCall => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts the proxy's own settings in force, in the place of those before.
    ///
    /// # Errors
    /// As of every call.
    pub async fn put_proxy(&mut self, at: Match, settings: &ProxySettings) -> Result<(), Error> {
        self.request(Call::PutProxy, Some(at), Some(settings)).await?.collect_answer().await.map(drop)
    }

    /// Brings a certificate, which is shown from the next handshake on.
    ///
    /// # Errors
    /// As of every call.
    pub async fn put_certificate(&mut self, name: &CertificateName, brought: &Brought) -> Result<(), Error> {
        let call = Call::PutCertificate(name.clone());
        self.request(call, None, Some(brought)).await?.collect_answer().await.map(drop)
    }

    /// Returns the metrics, in Prometheus' text form.
    ///
    /// # Errors
    /// As of every call.
    pub async fn metrics(&mut self) -> Result<String, Error> {
        let text = self.request(Call::Metrics, None, None::<&()>).await?.collect_answer().await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Follows what happens in the proxy.
    ///
    /// # Errors
    /// As of every call.
    pub async fn events(&mut self) -> Result<Events, Error> {
        self.follow(Call::Events, None, None::<&()>).await
    }

    /// Takes the lease of a service; every later call of this client is under it.
    ///
    /// # Errors
    /// [`ErrorCode::Locked`] with who holds it and since when.
    pub async fn acquire(&mut self, name: &ServiceName, who: String, what: String) -> Result<(), Error> {
        let lease = self.lease_call(name, &Lease::Acquire { who, what }).await?;
        self.lease = Some((name.clone(), lease.lease));
        Ok(())
    }

    /// Keeps the lease while nothing else is called.
    ///
    /// # Errors
    /// As of every call.
    pub async fn renew(&mut self) -> Result<(), Error> {
        let Some((name, lease)) = self.lease.clone() else { return Ok(()) };
        self.lease_call(&name, &Lease::Renew { lease }).await.map(drop)
    }

    /// Gives the lease back, where one is held.
    ///
    /// # Errors
    /// As of every call; the lease then ends by itself.
    pub async fn release(&mut self) -> Result<(), Error> {
        let Some((name, lease)) = self.lease.clone() else { return Ok(()) };
        let released = self.lease_call(&name, &Lease::Release { lease }).await;
        self.lease = None;
        released.map(drop)
    }

    async fn lease_call(&mut self, name: &ServiceName, lease: &Lease) -> Result<response::Lease, Error> {
        self.answer(Call::Act(name.clone(), Verb::Lease), None, Some(lease)).await
    }

    async fn answer<T: DeserializeOwned>(
        &mut self,
        call: Call,
        at: Option<Match>,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let bytes = self.request(call, at, body).await?.collect_answer().await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Broken(error.to_string()))
    }

    async fn follow(&mut self, call: Call, at: Option<Match>, body: Option<&impl Serialize>) -> Result<Events, Error> {
        let response = self.request(call, at, body).await?;
        if response.status().is_success() {
            return Ok(Events { body: response.into_body(), rest: BytesMut::new() });
        }
        Err(response.collect_answer().await.err().unwrap_or_else(|| Error::Broken("no events came".to_owned())))
    }

    async fn request(
        &mut self,
        call: Call,
        at: Option<Match>,
        body: Option<&impl Serialize>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder().method(call.method()).uri(call.path()).header(header::HOST, "bgproxy");
        match at {
            Some(Match::Generation(generation)) => {
                request = request.header(header::IF_MATCH, format!("\"{generation}\""));
            }
            Some(Match::Any) => request = request.header(header::IF_MATCH, "*"),
            None => {}
        }
        if let Some((_, lease)) = &self.lease {
            request = request.header(LEASE_HEADER, lease);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|error| Error::Broken(error.to_string()))?
            }
            None => Vec::new(),
        };
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| Error::Broken(error.to_string()))?;
        // A stream that was dropped half-way took its connection with it.
        if self.sender.ready().await.is_err() {
            self.sender = handshake(&self.door).await?;
        }
        Ok(self.sender.send_request(request).await?)
    }
}

async fn handshake(door: &Door) -> Result<SendRequest<Full<Bytes>>, Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(door.open().await?)).await?;
    // It ends with the sender, and tells its error through it.
    drop(tokio::spawn(async move { connection.await.ok() }));
    Ok(sender)
}

/// Reads a whole answer, or the refusal in it.
trait CollectAnswer {
    async fn collect_answer(self) -> Result<Bytes, Error>;
}

impl CollectAnswer for Response<Incoming> {
    async fn collect_answer(self) -> Result<Bytes, Error> {
        let status = self.status();
        let body = Limited::new(self.into_body(), ANSWER_BYTES).collect().await;
        let bytes = body.map_err(|error| Error::Broken(error.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        let refusal = serde_json::from_slice::<AdminError>(&bytes);
        Err(refusal.map_or_else(|_| Error::Broken(format!("status {status} without a reason")), Error::Refused))
    }
}

/// A stream of events, one JSON object a line. Dropping it ends the call, not what the call began.
pub struct Events {
    body: Incoming,
    rest: BytesMut,
}

impl Events {
    /// Reads the end of a stream whose last line has come, so that its connection can be used again.
    pub async fn finish(mut self) {
        let end = async { while let Ok(Some(_)) = self.next().await {} };
        // Where the end does not follow, the next call takes a new connection.
        drop(tokio::time::timeout(END, end).await);
    }

    /// Returns the next event, `None` at the end; an event that this version doesn't know is skipped.
    ///
    /// # Errors
    /// [`Error::Broken`] where the stream was cut.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: what came is kept until a line is whole.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end);
                self.rest.advance(1);
                if let Ok(event) = serde_json::from_slice(&line) {
                    return Ok(Some(event));
                }
            }
            if self.rest.len() > BODY_BYTES {
                return Err(Error::Broken("a line without end".to_owned()));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Some(data) = frame?.data_ref() {
                        self.rest.extend_from_slice(data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}
