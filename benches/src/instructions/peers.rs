//! The two ends of the counted requests: a visitor and an application, which both do the same each time.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::Kind;
use crate::error::Error;

const BODY_BYTES: usize = 16 * 1024;
const ANSWER_BYTES: usize = 64 * 1024;
/// What a browser sends with each request.
const FIELDS: &str = "Host: shop.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\nCookie: session=0123456789abcdef; theme=dark\r\n";

/// An application that lives until the process ends, a thread for each connection.
#[derive(Debug)]
pub(super) struct Application {
    address: SocketAddr,
}

impl Application {
    pub(super) fn start(kind: Kind) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("listen for the application"))?;
        let address = listener.local_addr().map_err(Error::io("listen for the application"))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that breaks is the visitor's to tell.
                thread::spawn(move || serve(stream, kind));
            }
        });
        Ok(Self { address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn serve(mut stream: TcpStream, kind: Kind) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let body = if kind == Kind::Large { ANSWER_BYTES } else { 30 };
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: application\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/html\r\n\
         Content-Length: {body}\r\nCache-Control: no-cache\r\nSet-Cookie: session=0123456789abcdef\r\n\r\n"
    );
    let answer = [head.into_bytes(), vec![b'x'; body]].concat();
    let mut read = Vec::new();
    loop {
        let head = read_head(&mut stream, &mut read)?;
        let expected = head + if kind == Kind::Post { BODY_BYTES } else { 0 };
        while read.len() < expected {
            fill(&mut stream, &mut read)?;
        }
        read.drain(..expected);
        stream.write_all(&answer)?;
    }
}

/// Asks again and again.
#[derive(Debug)]
pub(super) struct Visitor {
    kind: Kind,
    address: SocketAddr,
    request: Vec<u8>,
    stream: Option<TcpStream>,
    read: Vec<u8>,
}

impl Visitor {
    pub(super) fn new(kind: Kind, address: SocketAddr) -> Self {
        let request = match kind {
            Kind::Small | Kind::Large => format!("GET /a/page?of=9 HTTP/1.1\r\n{FIELDS}\r\n"),
            Kind::Fresh => format!("GET /a/page?of=9 HTTP/1.1\r\n{FIELDS}Connection: close\r\n\r\n"),
            Kind::Post => format!(
                "POST /a/form HTTP/1.1\r\n{FIELDS}Content-Length: {BODY_BYTES}\r\n\r\n{}",
                "x".repeat(BODY_BYTES)
            ),
        };
        Self { kind, address, request: request.into_bytes(), stream: None, read: Vec::new() }
    }

    /// Sends a request and takes its answer, which has to be the right one.
    pub(super) fn ask(&mut self, number: u32) -> Result<(), Error> {
        let asked = self.exchange();
        let kind = self.kind.name();
        asked.map_err(|error| {
            let read = String::from_utf8_lossy(&self.read);
            Error::Load(format!("request {number} of kind `{kind}`: {error}, after {read:?}"))
        })
    }

    fn exchange(&mut self) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address)?,
        };
        stream.set_nodelay(true)?;
        stream.write_all(&self.request)?;
        let head = read_head(&mut stream, &mut self.read)?;
        let text = String::from_utf8_lossy(&self.read[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let Some(length) = length.filter(|_| text.starts_with("http/1.1 200 ")) else {
            return Err(io::Error::other(format!("not the right answer: {text}")));
        };
        while self.read.len() < head + length {
            fill(&mut stream, &mut self.read)?;
        }
        self.read.clear();
        if self.kind != Kind::Fresh {
            self.stream = Some(stream);
        }
        Ok(())
    }
}

/// Reads to the end of a head, and returns how long it is.
fn read_head(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return Ok(end + 4);
        }
        fill(stream, read)?;
    }
}

fn fill(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 64 * 1024];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => {
            read.extend_from_slice(&piece[..count]);
            Ok(())
        }
    }
}
