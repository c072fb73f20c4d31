//! A body that streams events, one JSON object a line, for as long as whoever reports them does.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use config::admin::{AdminError, ErrorCode, Event};
use http_body::{Body, Frame};
use tokio::sync::{broadcast, mpsc};

/// Events that wait for a slow reader.
const QUEUE: usize = 64;

/// The body.
pub(super) struct EventBody(pub(super) mpsc::Receiver<Event>);

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(line(&event)))))
    }
}

/// Returns everything that is broadcast from now on. A reader too slow to keep up is told so, and the stream ends.
pub(super) fn follow(mut events: broadcast::Receiver<Event>) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_local(async move {
        loop {
            let event = tokio::select! {
                () = sender.closed() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(event) => {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    let error = AdminError::new(ErrorCode::Internal, format!("{missed} events were missed"))
                        .hint("read faster, or ask for /v1/status and follow again");
                    // A reader that is gone needs no reason.
                    drop(sender.send(Event::Error(error)).await);
                    return;
                }
            }
        }
    });
    receiver
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_else(|error| {
        tracing::error!(%error, "an event can't be written");
        Vec::new()
    });
    line.push(b'\n');
    line.into()
}
