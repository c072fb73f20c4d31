//! Which service takes a request.

use std::sync::Arc;

use config::admin::request::ServiceSettings;
use config::name::{PathPrefix, ServiceName};

use super::table::{Index, Routes, Service, Table, Taken, escapes};

fn compile(services: &[(&str, &[&str], &[&str])]) -> Result<Table, Taken> {
    let named: Vec<(ServiceName, ServiceSettings)> = services
        .iter()
        .map(|(name, domains, paths)| {
            let settings = ServiceSettings {
                domains: domains.iter().map(|domain| domain.parse().unwrap()).collect(),
                paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
                ..ServiceSettings::default()
            };
            (name.parse().unwrap(), settings)
        })
        .collect();
    let routes: Vec<_> = named.iter().map(|(name, settings)| Routes { name, settings: Some(settings) }).collect();
    let index = Index::compile(&routes)?;
    let services = named.iter().map(|(name, _)| Arc::new(Service::new(name.clone()))).collect();
    Ok(Table::new(Arc::new(index), services, Vec::new(), false))
}

fn found(table: &Table, host: &str, path: &str) -> String {
    table.find(host, path).map_or_else(|| "-".to_owned(), |matched| matched.service.name.to_string())
}

#[test]
fn the_most_specific_host_wins_then_the_longest_prefix() {
    let table = compile(&[
        ("all", &[], &[]),
        ("wild", &["*.example"], &[]),
        ("deep", &["*.shop.example"], &[]),
        ("shop", &["shop.example"], &["/", "/api"]),
        ("apiv2", &["shop.example"], &["/api/v2"]),
    ])
    .unwrap();
    assert_eq!(found(&table, "shop.example", "/"), "shop");
    assert_eq!(found(&table, "shop.example", "/api/v2/x"), "apiv2");
    assert_eq!(found(&table, "shop.example", "/api/v22"), "shop");
    assert_eq!(found(&table, "a.shop.example", "/"), "deep");
    assert_eq!(found(&table, "a.b.shop.example", "/"), "deep");
    assert_eq!(found(&table, "other.example", "/"), "wild");
    assert_eq!(found(&table, "example", "/"), "all");
    assert_eq!(found(&table, "", "/"), "all");
    assert_eq!(found(&table, "shop.internal", "/anything"), "shop");
}

#[test]
fn a_host_without_a_fitting_path_leaves_the_request_to_the_next() {
    let table = compile(&[("all", &["*"], &[]), ("api", &["a.example"], &["/api"])]).unwrap();
    assert_eq!(found(&table, "a.example", "/api"), "api");
    assert_eq!(found(&table, "a.example", "/"), "all");
}

#[test]
fn the_same_route_for_two_services_is_refused_with_its_holder() {
    let taken = compile(&[("a", &["x.example"], &["/p"]), ("b", &["x.example"], &["/p/"])]).err().unwrap();
    assert_eq!(taken.to_string(), "x.example/p is wanted by a and by b");
    assert!(compile(&[("a", &[], &[]), ("b", &["*"], &[])]).is_err());
}

#[test]
fn dot_segments_that_leave_the_prefix_are_seen_in_every_spelling() {
    let api: PathPrefix = "/api".parse().unwrap();
    for path in
        ["/api/..", "/api/../admin", "/api/%2e%2e/admin", "/api/.%2E/admin", "/api/x/../../y", "/api/..%2fadmin"]
    {
        assert!(escapes(path, &api), "{path}");
    }
    for path in ["/api/x/../y", "/api/a..b", "/api/...", "/api/%20", "/api/./x"] {
        assert!(!escapes(path, &api), "{path}");
    }
    assert!(escapes("/../x", &PathPrefix::root()));
    assert!(!escapes("/a/../x", &PathPrefix::root()));
}
