//! The seam between hyper and the handler: what hyper calls for each request, whatever its version.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::answer::AnswerBody;
use crate::client::{BodyWatch, Client};
use crate::handler::{self, Arrived};
use crate::respond;
use crate::telemetry::panics;
use crate::upstream::request_body::RequestBody;
use crate::worker::Worker;

/// Hands each request to the handler.
pub(crate) struct Service {
    /// Whose request it is.
    pub(crate) client: Rc<Client>,
    /// Who serves it.
    pub(crate) worker: Rc<Worker>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    // Boxed, so that the connection can be taken apart again (`into_parts` wants it `Unpin`).
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let upgrade = (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
        let (head, incoming) = request.into_parts();
        // The stream of a tunnel is no body.
        let is_empty = upgrade.is_some() || incoming.is_end_stream();
        let body = (!is_empty).then(|| RequestBody::new(incoming, BodyWatch::new(&self.client)));
        let mut arrived = Arrived { head, body, upgrade };
        let serving = self.client.serving();
        let client = Rc::clone(&self.client);
        let worker = Rc::clone(&self.worker);
        Box::pin(async move {
            let answered = {
                // Pinned here: given away as it is, there would be room for it twice.
                let handling = pin!(handler::handle(&worker, &client, &mut arrived, serving));
                panics::contained(handling).await
            };
            worker.scratch.keep_fields(arrived.head.headers);
            let mut answer = answered.unwrap_or_else(|_| respond::panicked());
            if client.announces_end() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        })
    }
}
