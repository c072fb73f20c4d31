//! What a configuration becomes, without a disk and without a network.

use config::error::Source;
use config::project;

use super::*;
use crate::nginx;

fn imported(text: &str) -> (String, Vec<Note>) {
    let imported = import(&[nginx::load_dump(text).unwrap()]);
    let file = write(&imported, "a test");
    (file, imported.notes)
}

fn services(text: &str) -> Vec<project::Service> {
    let (file, _) = imported(text);
    let reading = project::Reading { judge: &|_, _| Ok(()), variable: &|_| None, target: None };
    let parsed = project::parse(&Source::new(project::FILE, file.as_str()), reading);
    parsed.unwrap_or_else(|problems| panic!("{}\n{file}", problems[0].render())).services
}

#[test]
fn servers_and_locations_become_services_and_equal_ones_become_one() {
    let text = "upstream app { server 10.0.0.1:3000; server 10.0.0.2; keepalive 8; }
        server { listen 80; server_name shop.test www.shop.test;
          location / { proxy_pass http://app; proxy_set_header Host $host; }
          location /cart { proxy_pass http://app; proxy_set_header Host $host; }
          location /api/ { proxy_pass http://127.0.0.1:4000/; client_max_body_size 0; proxy_read_timeout 5m; proxy_set_header Host $host; } }";
    let services = services(text);
    let shown: Vec<(String, usize)> =
        services.iter().map(|one| (one.name.to_string(), one.to.as_ref().unwrap().len())).collect();
    assert_eq!(shown, [("shop".to_owned(), 2), ("shop-api".to_owned(), 1)]);
    assert_eq!(services[0].to.as_ref().unwrap()[1].to_string(), "10.0.0.2:80");
    assert!(services[0].deployment.paths.is_none() && services[0].no_health);
    assert_eq!(services[0].options.as_ref().unwrap().request_bytes, Some(1024 * 1024));
    let api = &services[1];
    assert_eq!((api.deployment.strip_path, api.options.as_ref().unwrap().request_bytes), (Some(true), None));
    assert_eq!(api.options.as_ref().unwrap().response_timeout, Some(std::time::Duration::from_secs(300)));
    assert!(imported(text).1.is_empty(), "{:?}", imported(text).1);
}

#[test]
fn what_has_no_equal_is_told_with_its_line_and_what_to_do() {
    let text = "server {\n  server_name a.test;\n  location ~ /\\.ht { deny all; }\n  location / {\n    proxy_set_header Host $host;\n\
                    proxy_pass http://127.0.0.1:3000;\n    proxy_cache main;\n    sub_filter a b;\n    frobnicate on;\n  }\n\
                  location /php { fastcgi_pass 127.0.0.1:9000; }\n}\n";
    let (file, notes) = imported(text);
    let shown: Vec<(usize, &str, Weight)> =
        notes.iter().map(|note| (note.place.line, note.directive.as_str(), note.weight)).collect();
    assert_eq!(
        shown,
        [
            (3, "location ~ /\\.ht", Weight::LessProtected),
            (7, "proxy_cache main", Weight::LeftOut),
            (8, "sub_filter a b", Weight::LeftOut),
            (9, "frobnicate on", Weight::LeftOut),
            (11, "fastcgi_pass 127.0.0.1:9000", Weight::LeftOut),
        ]
    );
    assert!(notes.iter().all(|note| !note.what.is_empty() && !note.instead.is_empty()));
    assert!(file.contains("to = [\"127.0.0.1:3000\"]"), "{file}");
}

/// A place that nginx keeps visitors out of is kept closed, or not written as a service at all.
#[test]
fn what_keeps_visitors_out_is_never_lost() {
    let pass = "proxy_set_header Host $host; proxy_pass http://127.0.0.1:3000;";
    for guard in [
        "auth_request /auth;",
        "internal;",
        "deny all;",
        "limit_except GET { deny all; }",
        "allow 10.0.0.0/8; deny 192.0.2.1; deny all;",
        "auth_basic shop; auth_basic_user_file users;",
        "allow 10.0.0.0/8; deny all;",
        "secure_link $arg_md5;",
    ] {
        let (file, _) = imported(&format!("server {{ location / {{ {guard} {pass} }} }}"));
        let is_comment = !file.contains("\n[services.");
        let is_guarded = file.contains("\naccess = ") || file.contains("\nbasic_auth = ");
        assert!(is_comment || is_guarded, "{guard}\n{file}");
    }
}

#[test]
fn the_server_that_takes_every_host_has_no_domains_and_certificates_are_taken_over() {
    let text = "http { set_real_ip_from 10.0.0.0/8; keepalive_timeout 65;
        server { listen 443 ssl default_server; server_name a.test; ssl_certificate a.pem; ssl_certificate_key a.key;
          location / { proxy_set_header Host $host; proxy_pass http://127.0.0.1:3000; } } }";
    let (file, _) = imported(text);
    for line in [
        "# domains = [\"a.test\"]",
        "cert = \"/etc/nginx/a.pem\"",
        "trusted_proxies = [\"10.0.0.0/8\"]",
        "idle_timeout = \"1m 5s\"",
        "[services.a]",
    ] {
        assert!(file.contains(line), "`{line}` is not in\n{file}");
    }
    assert!(services(text)[0].deployment.domains.is_none());
}

#[test]
fn the_page_names_every_word() {
    let page = include_str!("../../../docs/from-nginx.md");
    for word in vocabulary::words() {
        assert!(page.contains(&format!("`{word}")), "docs/from-nginx.md lacks `{word}`");
    }
}
