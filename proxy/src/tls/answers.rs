//! What an authority finds when it looks whether a domain is ours: a file on port 80, or a certificate on port 443.
//!
//! Nobody else asks for either, so all of it is behind one look at a number that is nearly always zero.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// What an authority asks to speak that looks at a certificate (RFC 8737 section 3).
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";

/// What is answered now.
#[derive(Default)]
pub(crate) struct Answers {
    open: AtomicUsize,
    now: ArcSwap<Open>,
}

#[derive(Default, Clone)]
struct Open {
    /// By their tokens.
    files: FxHashMap<String, Arc<str>>,
    /// By their hosts.
    certificates: FxHashMap<String, Arc<CertifiedKey>>,
}

/// An answer; it is given until this is dropped.
pub(crate) struct Answering {
    answers: Arc<Answers>,
    what: What,
}

enum What {
    File(String),
    Certificate(String),
}

impl Answers {
    /// Tells whether there is anything to answer.
    pub(crate) fn are_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) != 0
    }

    /// Returns the file of a token.
    pub(crate) fn file(&self, token: &str) -> Option<Arc<str>> {
        self.now.load().files.get(token).cloned()
    }

    /// Answers a token with a text.
    pub(crate) fn add_file(self: &Arc<Self>, token: &str, text: &str) -> Answering {
        let text: Arc<str> = text.into();
        self.change(|open| drop(open.files.insert(token.to_owned(), Arc::clone(&text))));
        Answering { answers: Arc::clone(self), what: What::File(token.to_owned()) }
    }

    /// Shows a certificate to whoever looks at a host.
    pub(crate) fn add_certificate(self: &Arc<Self>, host: &str, certified: &Arc<CertifiedKey>) -> Answering {
        self.change(|open| drop(open.certificates.insert(host.to_owned(), Arc::clone(certified))));
        Answering { answers: Arc::clone(self), what: What::Certificate(host.to_owned()) }
    }

    fn change(&self, change: impl Fn(&mut Open)) {
        self.now.rcu(|now| {
            let mut open = Open::clone(now);
            change(&mut open);
            open
        });
        let now = self.now.load();
        self.open.store(now.files.len() + now.certificates.len(), Ordering::Relaxed);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.answers.change(|open| match &self.what {
            What::File(token) => drop(open.files.remove(token)),
            What::Certificate(host) => drop(open.certificates.remove(host)),
        });
    }
}

/// Tells whether it is an authority that says hello.
pub(crate) fn is_look(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == PROTOCOL))
}

impl ResolvesServerCert for Answers {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.to_ascii_lowercase();
        self.now.load().certificates.get(&host).cloned()
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.now.load().certificates.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_until_it_is_dropped_and_then_there_is_nothing_to_look_for() {
        let answers = Arc::<Answers>::default();
        assert!(!answers.are_open());
        let one = answers.add_file("one", "1");
        let two = answers.add_file("two", "2");
        assert!(answers.are_open() && answers.file("one").as_deref() == Some("1"));
        drop(one);
        assert_eq!((answers.file("one"), answers.file("two").as_deref()), (None, Some("2")));
        drop(two);
        assert!(!answers.are_open());
    }
}
