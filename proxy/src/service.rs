//! The seam between hyper and the handler: what hyper calls for each request, whatever its version.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::answer::AnswerBody;
use crate::client::Client;
use crate::handler::{self, Arrived};
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
        let (parts, incoming) = request.into_parts();
        let content = Arrived { incoming, upgrade };
        let serving = self.client.serving();
        let client = Rc::clone(&self.client);
        let worker = Rc::clone(&self.worker);
        Box::pin(async move { Ok(handler::handle(&worker, &client, &parts, content, serving).await) })
    }
}
