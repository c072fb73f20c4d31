//! What a service wants done between a visitor and its application, as a file says it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde_spanned::Spanned;

use super::{Check, shorten};
use crate::edge::file::{self, OneOrMore, Switch};
use crate::edge::{
    Access, Algorithm, BasicAuth, Compress, Consistent, FieldName, HeaderChanges, OldAssets, PasswordHash, PathGlob,
    RateLimit, Redirect, RedirectStatus, RequestHeaders, ResponseHeaders, Rewrite, StaticFiles, Template, users_of,
};
use crate::error;
use crate::file::{Number, Options, Text};
use crate::name::parse_host;
use crate::network::Network;
use crate::options::ServiceOptions;

const NETWORK: &str = "write 10.0.0.0/8, 2001:db8::/32, a single address, private, or cloudflare";

impl Check<'_> {
    /// Adds the settings to the other options.
    pub(super) fn edge(&mut self, options: ServiceOptions, file: &mut Options) -> ServiceOptions {
        let changes = |text: Option<Spanned<file::HeaderChanges>>| text.map(|text| (text.span(), text.into_inner()));
        let request = changes(file.request_headers.take());
        let response = changes(file.response_headers.take());
        ServiceOptions {
            redirects: self.each(file.redirects.take(), Self::redirect),
            canonical_host: file.canonical_host.take().and_then(|text| self.canonical_host(&text)),
            rewrite: self.each(file.rewrite.take(), Self::rewrite),
            request_headers: request.map_or_else(RequestHeaders::default, |(span, file)| {
                let (changes, places) = self.changes(file);
                self.faultless(RequestHeaders(changes), &span, &places)
            }),
            response_headers: response.map_or_else(ResponseHeaders::default, |(span, file)| {
                let (changes, places) = self.changes(file);
                self.faultless(ResponseHeaders(changes), &span, &places)
            }),
            security_headers: file.security_headers.unwrap_or_default(),
            access: self.each(file.access.take(), Self::access),
            basic_auth: self.each(file.basic_auth.take(), Self::basic_auth),
            rate_limits: self.each(file.rate_limits.take(), Self::rate_limit),
            compress: file.compress.take().and_then(|file| self.compress(file)),
            static_files: self.each(file.r#static.take(), Self::static_files),
            old_assets: file.old_assets.take().and_then(|file| self.old_assets(file)),
            ..options
        }
    }

    /// Reads each table of a list, which may be one table alone.
    fn each<F, T>(
        &mut self,
        list: Option<Spanned<OneOrMore<F>>>,
        read: fn(&mut Self, F, &Range<usize>) -> Option<T>,
    ) -> Vec<T> {
        let Some(list) = list else { return Vec::new() };
        let whole = list.span();
        let mut all = Vec::new();
        for one in list.into_inner().0 {
            // Of one table alone the place is that of the key.
            let span = if one.span().is_empty() { whole.clone() } else { one.span() };
            all.extend(read(self, one.into_inner(), &span));
        }
        all
    }

    /// Tells what is wrong with a setting, each fault at its key where that has a place.
    fn faultless<T: Consistent>(&mut self, setting: T, whole: &Range<usize>, places: &Places) -> T {
        for fault in setting.faults() {
            let place = places.iter().find(|(key, _)| *key == fault.key).map_or(whole, |(_, span)| span);
            self.refuse(place.clone(), fault.what, &fault.hint);
        }
        setting
    }

    fn redirect(&mut self, file: file::Redirect, whole: &Range<usize>) -> Option<Redirect> {
        let places = places([("pattern", file.pattern.as_ref().map(Text::span)), ("to", Some(file.to.span()))]);
        let status = file.status.map(|number| self.status(&number));
        let from = self.optional(file.from, "begin it with `/`; each `*` stands for anything: /old/*");
        let pattern = self.optional(file.pattern, PATTERN);
        let host = self.optional(file.host, "write www.example.com or *.example.com");
        let to = self.word(&file.to, Template::HINT);
        let redirect =
            Redirect { from: from?, pattern: pattern?, host: host?, to: to?, status: status.unwrap_or_default() };
        Some(self.faultless(redirect, whole, &places))
    }

    fn status(&mut self, number: &Number) -> RedirectStatus {
        RedirectStatus::try_from(*number.get_ref()).unwrap_or_else(|wrong| {
            self.refuse(number.span(), wrong, "the default is 308");
            RedirectStatus::default()
        })
    }

    fn canonical_host(&mut self, text: &Text) -> Option<String> {
        let parsed = parse_host(text.get_ref());
        parsed.map_err(|error| self.refuse(text.span(), error.to_string(), "write a host alone: example.com")).ok()
    }

    fn rewrite(&mut self, file: file::Rewrite, whole: &Range<usize>) -> Option<Rewrite> {
        let places = places([("pattern", file.pattern.as_ref().map(Text::span)), ("to", Some(file.to.span()))]);
        let prefix = self.optional(file.prefix, "");
        let pattern = self.optional(file.pattern, PATTERN);
        let to = self.word(&file.to, Template::HINT);
        Some(self.faultless(Rewrite { prefix: prefix?, pattern: pattern?, to: to? }, whole, &places))
    }

    fn changes(&mut self, file: file::HeaderChanges) -> (HeaderChanges, Places) {
        let first = |names: &BTreeMap<Text, Text>| names.keys().map(Text::span).min_by_key(|span| span.start);
        let found = places([
            ("set", first(&file.set)),
            ("add", first(&file.add)),
            ("remove", file.remove.first().map(Text::span)),
        ]);
        let changes = HeaderChanges {
            set: self.fields(file.set),
            add: self.fields(file.add),
            remove: file.remove.iter().filter_map(|name| self.word(name, "")).collect(),
        };
        (changes, found)
    }

    fn fields(&mut self, fields: BTreeMap<Text, Text>) -> BTreeMap<FieldName, Template> {
        let mut read = BTreeMap::new();
        for (name, value) in fields {
            let (parsed, value) = (self.word::<FieldName>(&name, ""), self.word(&value, Template::HINT));
            let (Some(parsed), Some(value)) = (parsed, value) else { continue };
            if read.insert(parsed, value).is_some() {
                let what = format!("`{}` is there twice, in other letters", shorten(name.get_ref()));
                self.refuse(name.span(), what, "leave one of them out");
            }
        }
        read
    }

    fn access(&mut self, file: file::Access, whole: &Range<usize>) -> Option<Access> {
        let places = places([("deny", file.deny.first().map(Text::span))]);
        let networks = |check: &mut Self, texts: &[Text]| -> Vec<Network> {
            texts.iter().filter_map(|text| check.word(text, NETWORK)).collect()
        };
        let (allow, deny) = (networks(self, &file.allow), networks(self, &file.deny));
        let is_whole = allow.len() == file.allow.len() && deny.len() == file.deny.len();
        let access = Access { path: self.optional(file.path, "")?, allow, deny };
        // What is wrong with a network is told already.
        Some(if is_whole { self.faultless(access, whole, &places) } else { access })
    }

    fn basic_auth(&mut self, file: file::BasicAuth, whole: &Range<usize>) -> Option<BasicAuth> {
        let first = file.users.keys().map(Text::span).min_by_key(|span| span.start);
        let places = places([("users", first), ("realm", file.realm.as_ref().map(Text::span))]);
        let known = self.problems.len();
        let mut users = BTreeMap::new();
        for (name, hash) in &file.users {
            users
                .extend(self.word::<PasswordHash>(hash, PasswordHash::HINT).map(|hash| (name.get_ref().clone(), hash)));
        }
        for (name, hash) in file.users_file.map(|text| self.users_file(&text)).unwrap_or_default() {
            users.entry(name).or_insert(hash);
        }
        let except = file.except.iter().filter_map(|text| self.word(text, "")).collect();
        let path = self.optional(file.path, "");
        let realm = file.realm.map_or_else(|| BasicAuth::REALM.to_owned(), Text::into_inner);
        let auth = BasicAuth { realm, users, path: path?, except };
        Some(if self.problems.len() == known { self.faultless(auth, whole, &places) } else { auth })
    }

    fn users_file(&mut self, text: &Text) -> BTreeMap<String, PasswordHash> {
        let path = self.source.beside(Path::new(text.get_ref()));
        let shown = shorten(text.get_ref());
        let read = match error::read(&path) {
            Ok(read) => read,
            Err(error) => {
                let hint = "name a file of `name:hash` lines; a relative path begins in this file's folder";
                self.refuse(text.span(), format!("`{shown}` can't be read: {error}"), hint);
                return BTreeMap::new();
            }
        };
        self.files.push((path, error::fingerprint(&read)));
        users_of(&read).unwrap_or_else(|(line, wrong)| {
            self.refuse(text.span(), format!("`{shown}`, line {line}: {wrong}"), PasswordHash::HINT);
            BTreeMap::new()
        })
    }

    fn rate_limit(&mut self, file: file::RateLimit, whole: &Range<usize>) -> Option<RateLimit> {
        let places = places([
            ("requests", file.requests.as_ref().map(Number::span)),
            ("burst", file.burst.as_ref().map(Number::span)),
            ("per", file.per.as_ref().map(Text::span)),
        ]);
        let per = file.per.map_or(RateLimit::PER, |text| self.duration("per", Some(text), RateLimit::PER));
        let limit = RateLimit {
            requests: self.rate("requests", file.requests),
            per,
            burst: self.rate("burst", file.burst),
            connections: self.rate("connections", file.connections),
            by: self.optional(file.by, "write address, or header:X-Api-Key")?.unwrap_or_default(),
            path: self.optional(file.path, "")?,
        };
        Some(self.faultless(limit, whole, &places))
    }

    fn compress(&mut self, file: Spanned<Switch<file::Compress>>) -> Option<Compress> {
        let whole = file.span();
        let file = match file.into_inner() {
            Switch::Is(is) => return is.then(Compress::default),
            Switch::With(file) => file,
        };
        let default = Compress::default();
        let first = |texts: &Option<Vec<Text>>| texts.as_ref()?.first().map(Text::span);
        let places = places([("types", first(&file.types)), ("algorithms", first(&file.algorithms))]);
        let words = Algorithm::ALL.map(|algorithm| (algorithm.word(), Some(algorithm)));
        let min_bytes = self.number("min_bytes", file.min_bytes, 1024, 0..=1024 * 1024 * 1024);
        let compress = Compress {
            types: file.types.map_or(default.types, |types| types.into_iter().map(Text::into_inner).collect()),
            min_bytes: min_bytes as u64,
            algorithms: file.algorithms.map_or(default.algorithms, |texts| {
                texts.into_iter().filter_map(|text| self.choice("algorithm", Some(text), &words)).collect()
            }),
        };
        Some(self.faultless(compress, &whole, &places))
    }

    fn static_files(&mut self, file: file::StaticFiles, whole: &Range<usize>) -> Option<StaticFiles> {
        let places = places([
            ("folder", Some(file.folder.span())),
            ("index", file.index.as_ref().map(Text::span)),
            ("fallback", file.fallback.as_ref().map(Text::span)),
        ]);
        let cache = file.cache.map(|text| self.long_duration(&text));
        let files = StaticFiles {
            path: self.word(&file.path, "write where the files are found: /static")?,
            folder: file.folder.into_inner().into(),
            index: file.index.map_or_else(|| StaticFiles::INDEX.to_owned(), Text::into_inner),
            fallback: file.fallback.map(Text::into_inner),
            cache: cache.flatten(),
            auth: file.auth.unwrap_or(true),
            fallthrough: file.fallthrough.unwrap_or(false),
        };
        Some(self.faultless(files, whole, &places))
    }

    /// A time that a browser keeps something, which may be a year.
    fn long_duration(&mut self, text: &Text) -> Option<std::time::Duration> {
        match crate::duration::parse(text.get_ref()) {
            Ok(time) if !time.is_zero() => Some(time),
            Ok(_) => {
                self.refuse(text.span(), "a time of zero", "leave it out: then a browser asks each time");
                None
            }
            Err(wrong) => {
                self.refuse(text.span(), wrong, "write 1h, 30days or 1y");
                None
            }
        }
    }

    fn old_assets(&mut self, file: Spanned<file::OldAssets>) -> Option<OldAssets> {
        let whole = file.span();
        let file = file.into_inner();
        let is_empty = file.paths.is_empty();
        let minutes =
            self.number("minutes", file.minutes, OldAssets::MINUTES as usize, 1..=OldAssets::MOST_MINUTES as usize);
        let hint = "begin it with `/`; each `*` stands for anything: /assets/*";
        let paths: Vec<PathGlob> = file.paths.iter().filter_map(|text| self.word(text, hint)).collect();
        let assets = OldAssets { paths, minutes: u32::try_from(minutes).unwrap_or(OldAssets::MINUTES) };
        Some(if is_empty { self.faultless(assets, &whole, &Vec::new()) } else { assets })
    }

    /// A host that visitors are sent to has to be one of the service's, or its requests would go elsewhere.
    pub(super) fn canonical_is_own(&mut self, place: &Range<usize>, host: &str, domains: &[Text]) {
        let takes = |pattern: &str| match pattern.strip_prefix("*.") {
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|front| front.ends_with('.')),
            None => pattern == "*" || parse_host(pattern).is_ok_and(|domain| domain == host),
        };
        if !domains.is_empty() && !domains.iter().any(|domain| takes(&domain.get_ref().to_ascii_lowercase())) {
            let what = format!("`{host}` is none of the service's domains, so nobody who is sent there would arrive");
            self.refuse(place.clone(), what, "add it to `domains`");
        }
    }

    /// Parses what may be absent; `None`: it is there and wrong, which is told.
    fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        text: Option<Text>,
        hint: &str,
    ) -> Option<Option<T>> {
        match text {
            None => Some(None),
            Some(text) => self.word(&text, hint).map(Some),
        }
    }
}

const PATTERN: &str = "write a regular expression: ^/user/([0-9]+)$";

/// Where the keys of a setting stand.
type Places = Vec<(&'static str, Range<usize>)>;

fn places<const N: usize>(keys: [(&'static str, Option<Range<usize>>); N]) -> Places {
    keys.into_iter().filter_map(|(key, span)| Some((key, span?))).collect()
}
