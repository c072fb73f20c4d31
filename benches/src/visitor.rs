//! One client of the load: a plain socket that never tries anything twice.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::backend::PATH;
use crate::load::Log;

/// A request that has no answer by then has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sent as `Host`.
pub(crate) const HOST: &str = "bench.test";

/// Whether a client uses its connection again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// One connection for as long as the server keeps it.
    KeepAlive,
    /// A connection for each request.
    Fresh,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Visitor {
    address: SocketAddr,
    habit: Habit,
    connection: Option<TcpStream>,
    /// Requests that are due and wait for the one under way.
    queue: VecDeque<usize>,
    under_way: Option<(usize, Instant)>,
    read: Vec<u8>,
}

impl Visitor {
    pub(crate) fn new(address: SocketAddr, habit: Habit) -> Self {
        Self { address, habit, connection: None, queue: VecDeque::new(), under_way: None, read: Vec::new() }
    }

    /// Returns the socket, for waiting on it.
    pub(crate) fn connection(&self) -> Option<&TcpStream> {
        self.connection.as_ref()
    }

    /// Tells whether nothing is due and nothing under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_none()
    }

    /// Takes on a request that is due now.
    pub(crate) fn take_on(&mut self, id: usize) {
        self.queue.push_back(id);
    }

    /// Sends what is due, unless a request is under way.
    pub(crate) fn send(&mut self, log: &mut Log) {
        while self.under_way.is_none() {
            let Some(id) = self.queue.pop_front() else { return };
            match self.send_request(id) {
                Ok(at) => {
                    self.under_way = Some((id, at));
                    log.sent(id, at);
                }
                Err(error) => {
                    self.connection = None;
                    log.failed(id, &format!("send: {error}"));
                }
            }
        }
    }

    fn send_request(&mut self, id: usize) -> io::Result<Instant> {
        let mut connection = match &self.connection {
            Some(connection) => connection,
            None => {
                // Blocking: on loopback the handshake is over within the call.
                let connection = TcpStream::connect_timeout(&self.address, PATIENCE)?;
                connection.set_nodelay(true)?;
                connection.set_nonblocking(true)?;
                self.connection.insert(connection)
            }
        };
        let closes = if self.habit == Habit::Fresh { "Connection: close\r\n" } else { "" };
        let request = format!("GET {PATH}{id} HTTP/1.1\r\nHost: {HOST}\r\n{closes}\r\n");
        self.read.clear();
        let at = Instant::now();
        // A socket without anything in its buffer takes a hundred bytes at once.
        if connection.write(request.as_bytes())? < request.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(at)
    }

    /// Reads what has come: part of an answer, or the end of the connection.
    pub(crate) fn receive(&mut self, log: &mut Log) {
        let Some(mut connection) = self.connection.as_ref() else { return };
        let mut buffer = [0; 4096];
        let why = match connection.read(&mut buffer) {
            Ok(0) => "the connection was closed without an answer".to_owned(),
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                return self.judge(log);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => format!("read: {error}"),
        };
        self.connection = None;
        if self.habit == Habit::KeepAlive {
            log.closed();
        }
        if let Some((id, _)) = self.under_way.take() {
            log.failed(id, &why);
        }
    }

    fn judge(&mut self, log: &mut Log) {
        let Some((id, _)) = self.under_way else {
            // Said unasked, such as 408: a server's last words.
            self.connection = None;
            return log.closed();
        };
        match parse(&self.read, id) {
            Verdict::More => return,
            Verdict::Right => log.answered(id),
            Verdict::Wrong(why) => {
                log.failed(id, &why);
                self.connection = None;
            }
        }
        self.under_way = None;
        let closes = says_close(&self.read);
        if closes && self.habit == Habit::KeepAlive {
            log.closed();
        }
        if closes || self.habit == Habit::Fresh {
            self.connection = None;
        }
    }

    /// Gives up on a request that has waited for too long.
    pub(crate) fn give_up(&mut self, now: Instant, log: &mut Log) {
        if let Some((id, _)) = self.under_way.take_if(|(_, sent)| now > *sent + PATIENCE) {
            self.connection = None;
            log.failed(id, &format!("no answer in {PATIENCE:?}"));
        }
    }
}

enum Verdict {
    More,
    Right,
    Wrong(String),
}

fn head(read: &[u8]) -> Option<(String, &[u8])> {
    let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(&read[..end]).to_ascii_lowercase(), &read[end + 4..]))
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines()
        .skip(1)
        .find_map(|line| line.split_once(':').filter(|(known, _)| *known == name).map(|(_, v)| v.trim()))
}

fn says_close(read: &[u8]) -> bool {
    head(read).is_some_and(|(head, _)| field(&head, "connection") == Some("close"))
}

/// Judges what was read of an answer.
fn parse(read: &[u8], id: usize) -> Verdict {
    let Some((head, body)) = head(read) else { return Verdict::More };
    if !head.starts_with("http/1.1 200 ") {
        return Verdict::Wrong(format!("answered {}", head.lines().next().unwrap_or_default()));
    }
    let Some(length) = field(&head, "content-length").and_then(|length| length.parse::<usize>().ok()) else {
        return Verdict::Wrong("an answer of unknown length".to_owned());
    };
    if body.len() < length {
        return Verdict::More;
    }
    if body == id.to_string().as_bytes() {
        Verdict::Right
    } else {
        Verdict::Wrong(format!("the answer to another request: {}", String::from_utf8_lossy(body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_right_when_it_is_whole_and_to_this_request() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n17";
        assert!(matches!(parse(answer, 17), Verdict::Right));
        assert!(matches!(parse(&answer[..answer.len() - 1], 17), Verdict::More));
        assert!(matches!(parse(answer, 18), Verdict::Wrong(_)));
        assert!(matches!(parse(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", 17), Verdict::Wrong(_)));
    }

    #[test]
    fn an_announced_close_is_seen_whatever_its_case() {
        assert!(says_close(b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n"));
        assert!(!says_close(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nconnection: close"));
    }
}
