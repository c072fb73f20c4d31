//! What becomes of a request that goes to no version, or not yet: connection -> handler -> **aside**.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Response, StatusCode};

use crate::answer::AnswerBody;
use crate::asked::Asked;
use crate::compress;
use crate::edge::Stopped;
use crate::error::Error;
use crate::files::{self, Outcome, Served};
use crate::headers;
use crate::respond;
use crate::routing::table::Service;
use crate::secure;
use crate::telemetry::record::Record;
use crate::upstream::run::Tally;
use crate::way::{Cleared, Refusal, Way};
use crate::worker::Worker;

/// Goes a way that leads to no version; returns the answer, or nothing where the request is to look for its way again with what it
/// has behind it then.
///
/// # Errors
/// Where the way ends in an answer of ours.
///
/// # Cancel safety
/// Dropping it gives its place in the queue of a gate away.
pub(crate) async fn go(
    worker: &Worker,
    asked: &Asked<'_>,
    address: IpAddr,
    way: Way<'_>,
    cleared: &mut Cleared,
    record: &mut Option<&mut Record>,
) -> Result<Option<Response<AnswerBody>>, Refusal> {
    let (service, answer) = match way {
        Way::Open(_) => return Ok(None),
        Way::File(service, at) => {
            let answer = answer_file(worker, asked, &service, at, address).await;
            let answer = answer.map_err(|error| Refusal::of(&service, error))?;
            cleared.has_no_file = answer.is_none();
            (service, answer.map(|answer| answer.map(|body| body.let_in(cleared.passed.take()))))
        }
        Way::Judged(service, edge) => match edge.judge(&asked.seen(&service, address), &worker.passwords).await {
            Ok(passed) => {
                cleared.passed = Some(passed);
                return Ok(None);
            }
            Err(Stopped::Refused(error)) => return Err(Refusal::of(&service, error)),
            Err(Stopped::Redirect { status, location }) => {
                let mut answer = respond::redirected(status, location, asked.request_id);
                edge.answer(answer.headers_mut(), &asked.seen(&service, address));
                (service, Some(answer))
            }
        },
        Way::Closed(service, gate) => {
            if let Some(live) = &service.live {
                live.run.tally(worker.index, Tally::Held);
            }
            return if gate.pass().await { Ok(None) } else { Err(Refusal::of(&service, Error::Paused)) };
        }
        Way::Healthy(service) => (service, Some(respond::healthy(asked.request_id))),
        Way::Enter(service, entry) => (service, Some(respond::entered(*entry, asked.request_id))),
        Way::Https(service, location) => (service, Some(secure::led(location, asked.request_id))),
    };
    if let Some(answer) = &answer {
        is_ours(worker, &service, record.as_deref_mut(), answer.status());
    }
    Ok(answer)
}

/// Counts an answer that no slot has a part in, and notes whose it is.
pub(crate) fn is_ours(worker: &Worker, service: &Service, record: Option<&mut Record>, status: StatusCode) {
    service.counters.own(worker.index, status.as_u16());
    if let Some(record) = record {
        record.is_of(service);
    }
}

/// Answers a request out of a folder of its service; `None`: the application is to be asked.
async fn answer_file(
    worker: &Worker,
    asked: &Asked<'_>,
    service: &Arc<Service>,
    at: usize,
    address: IpAddr,
) -> Result<Option<Response<AnswerBody>>, Error> {
    let (request, wanted) = (asked.request, &service.options.static_files[at]);
    let rest = request.uri.path().strip_prefix(wanted.path.trimmed()).unwrap_or_default();
    let Served { status, mut headers, body } = match files::serve(wanted, request, rest).await {
        Outcome::Served(served) => *served,
        Outcome::Missing if wanted.fallthrough => return Ok(None),
        Outcome::Missing => return Err(Error::NoFile),
        Outcome::WrongMethod => return Err(Error::OnlyRead),
        Outcome::Forbidden => return Err(Error::Forbidden),
        Outcome::Failed(error) => return Err(Error::NotRead(error)),
    };
    service.counters.file(worker.index);
    if let Some(edge) = &service.edge {
        edge.answer(&mut headers, &asked.seen(service, address));
    }
    let coding = service.options.compress.as_ref().and_then(|rules| {
        compress::apply(rules, (&request.method, &request.headers), status, &mut headers, &worker.compressing)
    });
    let body = body.map_or_else(|| AnswerBody::bytes(""), AnswerBody::file);
    let body = if let Some(coding) = coding { body.compressed(coding) } else { body };
    Ok(Some(headers::prepare(status, headers, asked.request_id, body)))
}
