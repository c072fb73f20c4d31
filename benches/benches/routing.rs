//! What a look at the routing table costs, and what a swap of it costs, with 1, 100 and 10,000 domains.

use std::sync::Arc;

use config::admin::request::ServiceSettings;
use config::name::ServiceName;
use divan::{Bencher, black_box};
use proxy::routing::live::Live;
use proxy::routing::table::{Index, Routes, Service, Table};

fn main() {
    divan::main();
}

fn table(domains: usize) -> Table {
    let named: Vec<(ServiceName, ServiceSettings)> = (0..domains)
        .map(|n| {
            let domain = format!("shop{n}.example").parse().expect("it is a domain");
            let settings = ServiceSettings { domains: vec![domain], ..ServiceSettings::default() };
            (format!("shop{n}").parse().expect("it is a name"), settings)
        })
        .collect();
    let routes: Vec<_> = named.iter().map(|(name, settings)| Routes { name, settings: Some(settings) }).collect();
    let index = Index::compile(&routes).expect("no two have the same route");
    let service = |(name, _): &(ServiceName, ServiceSettings)| {
        Arc::new(Service { name: name.clone(), live: None, strip_path: false })
    };
    Table::new(Arc::new(index), named.iter().map(service).collect(), Vec::new(), false)
}

/// Finds the service of a request, the load of the table included.
#[divan::bench(args = [1, 100, 10_000])]
fn lookup(bencher: Bencher<'_, '_>, domains: usize) {
    let live = Live::new(table(domains));
    let mut reader = live.reader();
    let host = format!("shop{}.example", domains / 2);
    bencher.bench_local(|| reader.current().find(black_box(&host), black_box("/a/b")).is_some());
}

/// Publishes a table that was made before: the moment of a flip.
#[divan::bench(args = [1, 100, 10_000])]
fn swap(bencher: Bencher<'_, '_>, domains: usize) {
    let next = table(domains);
    let live = Live::new(next.clone());
    bencher.with_inputs(|| next.clone()).bench_local_values(|next| live.publish(next));
}
