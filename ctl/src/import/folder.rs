//! `root`, `alias` and `try_files` as a folder that is served.

use super::location::{self, Spot};
use super::notes::Notes;
use super::{serving, toml};

/// Returns an entry of `static`; `last` is the end of `try_files`. None where no folder is named.
pub(super) fn entry(spot: &Spot<'_>, last: Option<&str>, notes: &mut Notes) -> Option<String> {
    let alias = spot.chain.own("alias").next();
    let named = alias.or_else(|| spot.chain.last("root"))?;
    let place = serving::beside(named, &spot.chain.put_in(named.argument(0)));
    let path = location::route(&spot.path);
    let place = place.trim_end_matches('/');
    // With `root` the path is a part of the file's.
    let place = if alias.is_some() || path == "/" { place.to_owned() } else { format!("{place}{path}") };
    let index = spot.chain.last("index").map_or("index.html", |index| index.argument(0));
    let fallback = last.filter(|last| last.starts_with('/') && !last.contains('$'));
    // What nginx asks for instead is a path of the site, here it is one of the folder.
    let within = fallback.and_then(|file| file.strip_prefix(path.trim_end_matches('/')));
    let within = within.filter(|file| file.starts_with('/'));
    if let (Some(_), None, Some(tries)) = (fallback, within, spot.chain.last("try_files")) {
        let instead = "put the page into the folder, and name it as `fallback`";
        notes.left_out(tries, "the page for what is not there is not in the folder, so it is a 404", instead);
    }
    let cache = spot.chain.word("expires").and_then(|text| serving::time(&text)).map(config::duration::format);
    Some(toml::table(&[
        ("path", Some(toml::literal(&path))),
        ("folder", Some(toml::literal(if place.is_empty() { "/" } else { &place }))),
        ("index", Some(toml::literal(index)).filter(|_| index != "index.html")),
        ("fallback", within.map(toml::literal)),
        ("cache", cache.as_deref().map(toml::text)),
    ]))
}
