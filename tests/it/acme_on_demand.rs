//! Hosts that no service names: a visitor's handshake gets a certificate where someone says that it may, within limits.

use serde_json::json;
use tests::{Behaviour, Upstream, client_tls, upstream};

use crate::acme::{DAY, HOST, Place, place};

impl Place {
    /// A visitor's first request by https; why there is none, where there is none.
    async fn visit(&self, host: &str) -> Result<String, String> {
        let trusted = self.pebble.trusted(&[]).await;
        let tls = self.proxy.tls_address().await;
        let mut visitor = client_tls(tls, host, &trusted).await.map_err(|error| error.to_string())?;
        let answer = visitor.get(host, "/").await.map_err(|error| error.to_string())?.ok_or("closed")?;
        Ok(answer.text())
    }
}

/// What was asked, the oldest first.
fn asked(who_knows: &Upstream) -> Vec<String> {
    who_knows.seen().iter().map(|seen| seen.first_line.clone()).collect()
}

async fn on_demand(place: &Place, who_knows: &Upstream, per_hour: u32) {
    let url = format!("http://{}/may?by=proxy", who_knows.address());
    place.ask(json!({ "on_demand": url, "on_demand_per_hour": per_hour })).await;
    place.put(json!({ "domains": ["*"], "tls": "auto" })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_a_visitor_names_gets_a_certificate_where_someone_says_that_it_may() {
    let test = "a_host_that_a_visitor_names_gets_a_certificate_where_someone_says_that_it_may";
    let Some(place) = place(test).await else { return };
    let (who_knows, other) = (upstream("yes").await, upstream("other").await);
    place.proxy.serve("other", other.address()).await;
    on_demand(&place, &who_knows, 30).await;
    // Several visitors of one host are one question, and none of them is turned away.
    let (one, two) = tokio::join!(place.visit("a.customer.test"), place.visit("A.customer.test"));
    assert_eq!((one.as_deref(), two.as_deref()), (Ok("v1"), Ok("v1")));
    assert_eq!(asked(&who_knows), ["GET /may?by=proxy&domain=a.customer.test HTTP/1.1"]);
    assert_eq!(place.visit("a.customer.test").await.as_deref(), Ok("v1"));
    // Now visitors of plain HTTP are led there too, and those of a host without one are not.
    assert_eq!(place.plain_of("a.customer.test").await, 308);
    assert_eq!(place.plain_of("b.customer.test").await, 200);
    // What a service names is its own affair, and no name of this network is anybody's.
    for host in ["other.test", "shop.internal", "localhost"] {
        assert!(place.visit(host).await.is_err(), "{host}");
    }
    // A no is believed for a while, and what can't be known is asked again soon.
    who_knows.behave(Behaviour::Status(404));
    for _ in 0..2 {
        assert!(place.visit("b.customer.test").await.is_err());
    }
    who_knows.behave(Behaviour::Status(500));
    assert!(place.visit("c.customer.test").await.is_err());
    assert_eq!((asked(&who_knows).len(), place.metric("issued").await), (3, 1));
    who_knows.behave(Behaviour::Answer);
    assert!(place.visit("b.customer.test").await.is_err());
    place.clock.advance(DAY);
    for host in ["b.customer.test", "c.customer.test"] {
        assert_eq!(place.visit(host).await.as_deref(), Ok("v1"), "{host}");
    }
    assert_eq!((asked(&who_knows).len(), place.metric("issued").await), (5, 3));
    // Before it is renewed it is asked again, and who may no more is shown no more.
    who_knows.behave(Behaviour::Status(403));
    place.clock.advance(DAY * 1300);
    let gone = async || place.shown("a.customer.test").await.is_none().then_some(());
    tests::eventually("it is shown no more", gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_hosts_are_given_certificates_in_an_hour_and_what_services_name_is_none_of_them() {
    let test = "so_many_hosts_are_given_certificates_in_an_hour_and_what_services_name_is_none_of_them";
    let Some(place) = place(test).await else { return };
    let who_knows = upstream("yes").await;
    on_demand(&place, &who_knows, 2).await;
    for host in ["a.customer.test", "b.customer.test"] {
        assert_eq!(place.visit(host).await.as_deref(), Ok("v1"), "{host}");
    }
    assert!(place.visit("c.customer.test").await.is_err());
    assert_eq!(asked(&who_knows).len(), 2);
    place.put(json!({ "domains": ["*", HOST], "tls": "auto" })).await;
    place.certified().await;
    place.clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(place.visit("c.customer.test").await.as_deref(), Ok("v1"));
    // Other settings begin anew: what is kept is shown without a question.
    place.ask(json!({ "on_demand": format!("http://{}/other", who_knows.address()) })).await;
    assert_eq!(place.visit("a.customer.test").await.as_deref(), Ok("v1"));
    assert!(asked(&who_knows).iter().all(|line| !line.contains("/other")), "{:?}", asked(&who_knows));
}
