//! Looks at passwords, which takes long on purpose: on threads of its own, and once for each that was right.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use config::edge::{HashKind, PasswordHash};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustc_hash::FxHashMap;
use sha2::Sha256;
use tokio::sync::oneshot;

use crate::clock;
use crate::error::Error;
use crate::routing::rate::network;

/// Threads that look at passwords: beside the workers, which must not wait for them.
const THREADS: usize = 2;
/// Passwords that wait for one of them; more are answered 503.
const WAITING: usize = 128;
/// Those of one address that wait or are looked at, on one worker; more are answered 429.
const WAITING_OF_ONE: u32 = 8;
/// A password that was right is not looked at again for so long.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// How many of them are remembered.
const MOST_REMEMBERED: usize = 4096;

/// A password and what it has to match.
struct Job {
    hash: Arc<PasswordHash>,
    password: Vec<u8>,
    reply: oneshot::Sender<bool>,
}

/// What all workers share: the threads, which begin with the first password, and what is known. Whoever is known to one worker
/// waits on no other behind those who guess.
pub(crate) struct Verifier {
    threads: OnceLock<Option<SyncSender<Job>>>,
    /// Of this process alone: what is remembered is worth nothing to whoever gets hold of it later.
    key: [u8; 32],
    /// Those that were right, and until when that is remembered.
    right: RwLock<FxHashMap<[u8; 32], Instant>>,
}

impl Default for Verifier {
    fn default() -> Self {
        let mut key = [0; 32];
        // So few bytes come whole or not at all; without them nothing is remembered for long anyway.
        _ = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
        Self { threads: OnceLock::new(), key, right: RwLock::default() }
    }
}

impl Verifier {
    /// The hash is part of it, so that a password that was changed is forgotten with that.
    fn mark(&self, hash: &PasswordHash, password: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length will do");
        mac.update(hash.reveal().as_bytes());
        mac.update(b"\0");
        mac.update(password);
        mac.finalize().into_bytes().into()
    }

    fn knows(&self, mark: &[u8; 32]) -> bool {
        let now = clock::now();
        self.right.read().unwrap_or_else(PoisonError::into_inner).get(mark).is_some_and(|until| *until > now)
    }

    fn remember(&self, mark: [u8; 32]) {
        let now = clock::now();
        let mut right = self.right.write().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= MOST_REMEMBERED {
            right.retain(|_, until| *until > now);
        }
        if right.len() < MOST_REMEMBERED {
            right.insert(mark, now + REMEMBERED);
        }
    }

    fn send(&self, job: Job) -> Result<(), Error> {
        let sender = self.threads.get_or_init(|| {
            let (sender, jobs) = sync_channel(WAITING);
            let jobs = Arc::new(Mutex::new(jobs));
            let begun = (0..THREADS).filter(|_| {
                let jobs = Arc::clone(&jobs);
                let thread = std::thread::Builder::new().name("passwords".to_owned());
                thread.spawn(move || look(&jobs)).is_ok()
            });
            (begun.count() > 0).then_some(sender)
        });
        let sender = sender.as_ref().ok_or(Error::PasswordsBusy)?;
        sender.try_send(job).map_err(|_| Error::PasswordsBusy)
    }
}

/// Looks at passwords until the proxy ends.
fn look(jobs: &Mutex<Receiver<Job>>) {
    // What serves requests goes first: on Linux this is of the calling thread alone.
    _ = rustix::process::setpriority_process(None, 10);
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { hash, password, reply }) = next else { return };
        // Whoever has gone doesn't need to know.
        if !reply.is_closed() {
            _ = reply.send(matches(&hash, &password));
        }
    }
}

/// Tells whether a password is the one of a hash; neither way of comparing tells by its time where they differ.
pub(super) fn matches(hash: &PasswordHash, password: &[u8]) -> bool {
    match hash.kind() {
        HashKind::Bcrypt => bcrypt::verify(password, hash.reveal()).unwrap_or(false),
        HashKind::Argon2 => argon2(hash.reveal(), password).unwrap_or(false),
    }
}

fn argon2(hash: &str, password: &[u8]) -> Option<bool> {
    let parts: Vec<&str> = hash.split('$').collect();
    let ["", algorithm, _, parameters, salt, hash] = parts[..] else { return None };
    let mut numbers = parameters.split(',').filter_map(|parameter| parameter.split_once('=')?.1.parse::<u32>().ok());
    let (memory, passes, lanes) = (numbers.next()?, numbers.next()?, numbers.next()?);
    let (salt, wanted) = (STANDARD_NO_PAD.decode(salt).ok()?, STANDARD_NO_PAD.decode(hash).ok()?);
    let parameters = argon2::Params::new(memory, passes, lanes, Some(wanted.len())).ok()?;
    let algorithm = match algorithm {
        "argon2i" => argon2::Algorithm::Argon2i,
        "argon2d" => argon2::Algorithm::Argon2d,
        _ => argon2::Algorithm::Argon2id,
    };
    let mut made = vec![0; wanted.len()];
    let argon2 = argon2::Argon2::new(algorithm, argon2::Version::V0x13, parameters);
    argon2.hash_password_into(password, &salt, &mut made).ok()?;
    let differs = made.iter().zip(&wanted).fold(0, |differs, (a, b)| differs | (a ^ b));
    Some(std::hint::black_box(differs) == 0)
}

/// The passwords that a worker is asked about.
pub(crate) struct Passwords {
    verifier: Arc<Verifier>,
    waiting: Rc<RefCell<FxHashMap<IpAddr, u32>>>,
}

impl Passwords {
    pub(crate) fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier, waiting: Rc::default() }
    }

    /// Tells whether a password is the one of a hash.
    ///
    /// # Errors
    /// Where too many others wait for the same.
    pub(super) async fn verify(
        &self,
        address: IpAddr,
        hash: &Arc<PasswordHash>,
        password: Vec<u8>,
    ) -> Result<bool, Error> {
        let mark = self.verifier.mark(hash, &password);
        if self.verifier.knows(&mark) {
            return Ok(true);
        }
        let _waits = Waits::begin(&self.waiting, network(address))?;
        let (reply, answer) = oneshot::channel();
        self.verifier.send(Job { hash: Arc::clone(hash), password, reply })?;
        let is_right = answer.await.map_err(|_| Error::PasswordsBusy)?;
        if is_right {
            self.verifier.remember(mark);
        }
        Ok(is_right)
    }
}

/// A password of an address that waits.
struct Waits {
    waiting: Rc<RefCell<FxHashMap<IpAddr, u32>>>,
    address: IpAddr,
}

impl Waits {
    fn begin(waiting: &Rc<RefCell<FxHashMap<IpAddr, u32>>>, address: IpAddr) -> Result<Self, Error> {
        let mut counts = waiting.borrow_mut();
        let count = counts.entry(address).or_default();
        if *count >= WAITING_OF_ONE {
            return Err(Error::TooManyRequests { wait: Duration::ZERO });
        }
        *count += 1;
        Ok(Self { waiting: Rc::clone(waiting), address })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut counts = self.waiting.borrow_mut();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_passwords_of_an_address_wait_and_no_more() {
        let waiting = Rc::default();
        let one = IpAddr::from([192, 0, 2, 1]);
        let mut waits: Vec<_> = (0..WAITING_OF_ONE).map(|_| Waits::begin(&waiting, one).ok().unwrap()).collect();
        assert!(matches!(Waits::begin(&waiting, one), Err(Error::TooManyRequests { .. })));
        assert!(Waits::begin(&waiting, IpAddr::from([192, 0, 2, 2])).is_ok());
        waits.pop();
        assert!(Waits::begin(&waiting, one).is_ok());
        waits.clear();
        assert!(waiting.borrow().is_empty());
    }

    #[test]
    fn more_than_can_wait_are_refused_at_once() {
        // Nobody looks at any.
        let (sender, _jobs) = sync_channel(WAITING);
        let verifier = Verifier { threads: OnceLock::from(Some(sender)), ..Verifier::default() };
        let hash: Arc<PasswordHash> = Arc::new(format!("$2y$05${}", "a".repeat(53)).parse().unwrap());
        let send = || verifier.send(Job { hash: Arc::clone(&hash), password: Vec::new(), reply: oneshot::channel().0 });
        assert!((0..WAITING).all(|_| send().is_ok()));
        assert!(matches!(send(), Err(Error::PasswordsBusy)));
    }
}
