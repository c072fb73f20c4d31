//! What a look at the routing table costs, and what a swap of it costs, with 1, 100 and 10,000 domains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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
    let service = |(name, _): &(ServiceName, ServiceSettings)| Arc::new(Service::new(name.clone()));
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

/// Publishes a table that was made before, while one worker looks at it as often as it can: the moment of a flip.
///
/// Making the next table and dropping the old one are not timed: of a sample's one publication, the input holds the old
/// table and hands it out as the output, which is dropped after the clock has stopped.
#[divan::bench(args = [1, 100, 10_000], sample_size = 1, sample_count = 1000)]
fn swap(bencher: Bencher<'_, '_>, domains: usize) {
    let next = table(domains);
    let live = Live::new(next.clone());
    let (stop, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = live.reader();
            while !stop.load(Ordering::Relaxed) {
                black_box(reader.current());
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        while looks.load(Ordering::Relaxed) == 0 {
            std::hint::spin_loop();
        }
        bencher.with_inputs(|| (next.clone(), live.current())).bench_local_values(|(next, old)| {
            live.publish(next);
            old
        });
        stop.store(true, Ordering::Relaxed);
    });
}
