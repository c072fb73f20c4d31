//! Every default, each with its reason.

use std::time::Duration;

/// A link to a preview holds long enough to be sent to a colleague.
pub const PREVIEW: Duration = Duration::from_secs(3600);
/// What most applications answer, and what needs no setting.
pub const HEALTH_PATH: &str = "/";
/// A probe that takes longer than this on one host is not an application that is ready.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);
/// Short, so that a switch goes on within a fraction of a second after the application is ready.
pub const HEALTH_INTERVAL: Duration = Duration::from_millis(200);
/// Two in a row: one pass may be luck of an application that is still starting its workers.
pub const HEALTH_PASSES: u32 = 2;
/// How often the endpoints of a slot that is live or warm are probed: often enough to tell the truth in the status, rarely enough not to be noticed.
pub const LIVE_HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// The whole wait for a new slot to become healthy.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How long requests on the old slot may go on after the flip.
pub const DRAIN: Duration = Duration::from_secs(30);
/// How long the old slot is kept warm after the flip.
pub const BAKE: Duration = Duration::from_secs(10);
/// Requests that both versions must have had before they are compared: fewer say nothing about a share.
pub const JUDGED_REQUESTS: u32 = 50;
/// So many more of a hundred requests may fail than before: below that a difference is no reason to take a version away.
pub const MARGIN_ERRORS: u8 = 5;
/// A request is slow that takes so many times what was usual before: a cold cache doubles, a fault multiplies.
pub const SLOW_FACTOR: u32 = 4;
/// So many more of a hundred requests may be slow.
pub const MARGIN_SLOW: u8 = 20;
/// How far back the old version's own figures count: long enough for a quiet site, short enough to be of the same hour.
pub const BASELINE: Duration = Duration::from_secs(300);
/// A repeatable request's body is kept up to this in the bake, so that the old version can answer it too.
pub const REPLAYED_BYTES: usize = 64 * 1024;
/// A lease lives this long after its holder was last heard: a killed bgctl blocks the next one no longer than this.
pub const LEASE: Duration = Duration::from_secs(15);

/// The complete head of a request, from its first byte (nginx: 60 s; shorter is harder to hurt).
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// TLS handshakes under way at once, all workers together: more wait their turn, within the time for a head.
pub const HANDSHAKES: usize = 1024;
/// A certificate that ends within this is told of: time enough to get another by hand.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// A client connection without a request (nginx's keepalive_timeout).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A body, of a request or an answer, in which nothing moves.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Connecting to an application on the same host or network.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the whole request sent to the head of the answer (nginx's proxy_read_timeout).
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// The block of header fields, of requests and of answers, in bytes.
pub const HEADER_BYTES: usize = 64 * 1024;
/// Header fields in one message.
pub const HEADER_FIELDS: usize = 200;
/// The request target, in bytes.
pub const TARGET_BYTES: usize = 16 * 1024;
/// Client connections at once, all workers together; leaves room for as many upstream ones below the usual limit of open files.
pub const CONNECTIONS: usize = 8192;
/// An upstream connection waits this long for its next request: less than the 5 s after which Node.js and uvicorn close theirs.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(4);
/// Idle upstream connections a worker keeps for each address.
pub const UPSTREAM_IDLE_CONNECTIONS: usize = 256;
/// A request waits so long for an application that was healthy a moment ago.
pub const HOLD: Duration = Duration::from_secs(10);
/// How long ago that moment may be.
pub const HOLD_AFTER_HEALTH: Duration = Duration::from_secs(10);
/// Requests of one service that wait at once; more are answered 502 at once.
pub const HELD_REQUESTS: usize = 256;
/// A request waits so long for a paused service: as long as a visitor may stare at an empty page.
pub const PAUSE_WAIT: Duration = Duration::from_secs(30);
/// Requests of one paused service that wait at once.
pub const PAUSED_REQUESTS: u32 = 1024;
/// A pause that nobody ends is over after this: whoever made it may have died.
pub const PAUSE_LASTS: Duration = Duration::from_secs(5 * 60);
/// How long SIGTERM waits for requests in flight.
pub const SHUTDOWN: Duration = Duration::from_secs(30);
