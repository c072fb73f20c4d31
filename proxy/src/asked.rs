//! What a request asks, and the request that its application gets for it.

use std::net::IpAddr;
use std::rc::Rc;

use config::name::Slot;
use config::options::Protocol;
use http::HeaderValue;
use http::request::Parts;
use http_body::Body as _;

use crate::edge::{ChangedRequest, Edge, Seen};
use crate::forward::{Content, Head, Request as Forward};
use crate::headers::{Authority, Fields, Forwarded, RequestHead};
use crate::routing::table::Service;
use crate::upstream::exchange::RequestFraming;
use crate::upstream::request_body::RequestBody;
use crate::worker::Worker;

/// What a request asks, whichever version of the service it is sent to.
pub(crate) struct Asked<'r> {
    pub(crate) request: &'r Parts,
    pub(crate) fields: &'r Fields<'r>,
    pub(crate) request_id: &'r HeaderValue,
    pub(crate) authority: Authority<'r>,
    pub(crate) peer: Rc<str>,
    /// The client behind the peer, where there is one that is to be believed.
    pub(crate) behind: Option<String>,
    pub(crate) trusted: bool,
    pub(crate) secure: bool,
    pub(crate) framing: RequestFraming,
}

impl<'r> Asked<'r> {
    /// Returns what rules and variables see of it.
    pub(crate) fn seen<'s>(&'s self, service: &'s Service, address: IpAddr) -> Seen<'s> {
        Seen {
            request: self.request,
            host: &self.authority.host,
            port: self.authority.port,
            address,
            trusted: self.trusted,
            secure: self.secure,
            request_id: self.request_id,
            service: &service.name,
            user: None,
            slot: None,
        }
    }

    /// Returns the request and its target as its service wants them changed.
    fn changed(
        &self,
        edge: &Edge,
        service: &Service,
        goes: &Goes<'_>,
    ) -> (Option<Box<ChangedRequest>>, Option<String>) {
        let seen = Seen { user: goes.user, slot: Some(goes.slot), ..self.seen(service, goes.address) };
        (edge.request(&seen), edge.rewrite(goes.target, &seen))
    }

    /// Returns the request as the application gets it.
    pub(crate) fn outbound(
        &self,
        worker: &Worker,
        service: &Service,
        goes: &Goes<'_>,
        body: Option<RequestBody>,
        wanted: Option<usize>,
    ) -> Forward {
        let edge = service.edge.as_ref().map(|edge| self.changed(edge, service, goes));
        let (changed, rewritten) = edge.unwrap_or_default();
        let length = body.as_ref().filter(|body| body.is_whole()).map(|body| body.size_hint().lower());
        let framing = if length.is_some() { RequestFraming::Length } else { self.framing };
        let websocket = self.fields.asks_for_websocket;
        let is_http2 = !websocket && (service.options.protocol == Protocol::H2c || self.fields.is_grpc);
        let expects_continue = self.fields.expects_continue && length.is_none() && !is_http2;
        let head = RequestHead {
            request: changed.as_ref().map_or(self.request, |changed| &changed.request),
            given: changed.as_ref().map_or(&[], |changed| &changed.fields),
            host: changed.as_ref().and_then(|changed| changed.host.as_deref()).unwrap_or(self.authority.text),
            fields: self.fields,
            authority: &self.authority,
            target: rewritten.as_deref().unwrap_or(goes.target),
            framing,
            length,
            websocket,
            expects_continue,
            forwarded: Forwarded {
                peer: &self.peer,
                client: self.behind.as_deref().unwrap_or(&self.peer),
                trusted: self.trusted,
                secure: self.secure,
                request_id: self.request_id,
            },
        };
        let head = if is_http2 {
            Head::Http2(head.http2())
        } else {
            Head::Http1(worker.scratch.bytes(|out| head.encode(out)))
        };
        let content = Content { method: self.request.method.clone(), body, framing, expects_continue };
        Forward { head, content, wanted }
    }
}

/// Where a request goes, and what is known of it by then.
pub(crate) struct Goes<'r> {
    /// The path and query, before any rewrite.
    pub(crate) target: &'r str,
    pub(crate) address: IpAddr,
    pub(crate) slot: Slot,
    pub(crate) user: Option<&'r str>,
}
