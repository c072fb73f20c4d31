//! Two applications, the old version and the new one, which note when each request began to arrive.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::error::Error;

/// A request of the load begins with this, and its number follows; probes of a proxy don't.
pub const PATH: &str = "/r/";
/// No head is longer.
const HEAD_BYTES: usize = 16 * 1024;

/// The start of a request of the load.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The request's number.
    pub id: usize,
    /// When its first byte was read.
    pub at: Instant,
}

/// Two running applications; they end when dropped.
#[derive(Debug)]
pub struct Backends {
    addresses: [SocketAddr; 2],
    arrivals: [Arc<Mutex<Vec<Arrival>>>; 2],
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backends {
    /// Starts both on free ports, on one thread of their own.
    ///
    /// # Errors
    /// Where a socket or the thread is not to be had.
    pub fn start() -> Result<Self, Error> {
        let listen = || {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let ((blue, blue_listener), (green, green_listener)) =
            listen().and_then(|blue| Ok((blue, listen()?))).map_err(Error::io("listen for the applications"))?;
        let arrivals: [Arc<Mutex<Vec<Arrival>>>; 2] = Default::default();
        let noted = arrivals.clone();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::io("start the applications"))?;
        let run = move || {
            runtime.block_on(async {
                for (listener, arrivals) in [blue_listener, green_listener].into_iter().zip(noted) {
                    let listener = TcpListener::from_std(listener).expect("the runtime has its reactor");
                    tokio::spawn(accept(listener, arrivals));
                }
                // Sent or dropped, it is over.
                _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("backends".to_owned()).spawn(run);
        let thread = thread.map_err(Error::io("start the applications"))?;
        Ok(Self { addresses: [blue, green], arrivals, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns where they listen.
    pub fn addresses(&self) -> [SocketAddr; 2] {
        self.addresses
    }

    /// Returns what one has received so far, in order.
    pub fn arrivals(&self, backend: usize) -> MutexGuard<'_, Vec<Arrival>> {
        // Nothing is ever half done to the list.
        self.arrivals[backend].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has no more to say.
            _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, arrivals: Arc<Mutex<Vec<Arrival>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&arrivals)));
    }
}

/// Answers requests without bodies until the other end closes or asks for it.
async fn serve(mut stream: TcpStream, arrivals: Arc<Mutex<Vec<Arrival>>>) {
    _ = stream.set_nodelay(true);
    let mut read = Vec::with_capacity(4096);
    let mut began = Instant::now();
    loop {
        let first = read.is_empty();
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return,
            Ok(_) if read.len() > HEAD_BYTES => return,
            Ok(_) if first => began = Instant::now(),
            Ok(_) => {}
        }
        while let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            read.drain(..end + 4);
            let id = head.split(' ').nth(1).and_then(|path| path.strip_prefix(PATH)?.parse().ok());
            if let Some(id) = id {
                arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(Arrival { id, at: began });
            }
            let body = id.map_or_else(String::new, |id| id.to_string());
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() || head.contains("\r\nconnection: close") {
                return;
            }
        }
    }
}
