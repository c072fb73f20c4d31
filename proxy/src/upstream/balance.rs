//! Which endpoint of a slot gets the next request, where there are several: the less busy of two, and none that just
//! refused a connection. Each worker goes by what it knows itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::run::RunId;

/// So many failed requests in a row and an endpoint is ejected (Envoy's consecutive_gateway_failure).
const FAILURES: u32 = 5;
/// An endpoint that refused a connection, or failed so often, is not tried first for so long; the probes find out what is
/// the matter.
const EJECTION: Duration = Duration::from_secs(5);

/// One endpoint of a run, by its place in the slot's list.
type Key = (RunId, usize);

/// What one worker knows of endpoints that have company.
#[derive(Default)]
pub(crate) struct Balance {
    known: RefCell<HashMap<Key, Known>>,
}

#[derive(Default)]
struct Known {
    busy: u32,
    ejected: Option<Instant>,
    /// Failed requests in a row.
    failures: u32,
}

/// A request on its way to an endpoint; dropped with the end of its answer.
pub(crate) struct Busy {
    balance: Rc<Balance>,
    key: Key,
}

impl Balance {
    /// Returns the places of all endpoints in the order in which they are to be tried. `turn` goes round; a good endpoint
    /// that a visitor wants to stay with comes first.
    pub(crate) fn order(&self, run: RunId, healthy: &[bool], turn: usize, wanted: Option<usize>) -> Vec<usize> {
        let now = Instant::now();
        let known = self.known.borrow();
        let of = |place: usize| known.get(&(run, place));
        let is_ejected =
            |place: usize| of(place).and_then(|known| known.ejected).is_some_and(|since| now - since < EJECTION);
        let count = healthy.len();
        let mut order: Vec<usize> = (0..count).map(|step| (turn + step) % count).collect();
        // Stable: those of one kind stay in turn.
        order.sort_by_key(|place| (!healthy[*place], is_ejected(*place)));
        let good = order.iter().filter(|place| healthy[**place] && !is_ejected(**place)).count();
        if let Some(at) = wanted.and_then(|wanted| order[..good].iter().position(|place| *place == wanted)) {
            order.swap(0, at);
        } else if good > 1 {
            // The second is any of the others, each time another one.
            let other = 1 + (turn / count) % (good - 1);
            let busy = |place: usize| of(place).map_or(0, |known| known.busy);
            if busy(order[other]) < busy(order[0]) {
                order.swap(0, other);
            }
        }
        order
    }

    /// Counts a request in until the guard is dropped.
    pub(crate) fn busy(self: &Rc<Self>, run: RunId, place: usize) -> Busy {
        let key = (run, place);
        self.known.borrow_mut().entry(key).or_default().busy += 1;
        Busy { balance: Rc::clone(self), key }
    }

    /// Notes that an endpoint could not be connected to.
    pub(crate) fn eject(&self, run: RunId, place: usize) {
        self.known.borrow_mut().entry((run, place)).or_default().ejected = Some(Instant::now());
    }

    /// Notes how a request ended; true where the endpoint is ejected for it.
    pub(crate) fn judge(&self, run: RunId, place: usize, failed: bool) -> bool {
        let mut known = self.known.borrow_mut();
        let known = known.entry((run, place)).or_default();
        known.failures = if failed { known.failures + 1 } else { 0 };
        let is_ejected = known.failures >= FAILURES;
        if is_ejected {
            known.failures = 0;
            known.ejected = Some(Instant::now());
        }
        is_ejected
    }

    /// Returns how many requests are on their way to the endpoints of a run from a place on.
    pub(crate) fn busy_from(&self, run: RunId, from: usize) -> u64 {
        let known = self.known.borrow();
        known
            .iter()
            .filter(|((of, place), _)| *of == run && *place >= from)
            .map(|(_, known)| u64::from(known.busy))
            .sum()
    }

    /// Forgets what is known of runs that `keeps` refuses.
    pub(crate) fn sweep(&self, keeps: impl Fn(RunId) -> bool) {
        self.known.borrow_mut().retain(|(run, _), known| known.busy > 0 || keeps(*run));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(known) = self.balance.known.borrow_mut().get_mut(&self.key) {
            known.busy = known.busy.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use config::name::Slot;

    use super::super::run::Run;
    use super::*;

    fn run() -> RunId {
        Run::new(Slot::Blue, 1).id()
    }

    #[test]
    fn the_less_busy_of_two_is_first_and_every_endpoint_is_tried() {
        let (balance, run) = (Rc::new(Balance::default()), run());
        let _busy: Vec<Busy> = (0..3).map(|_| balance.busy(run, 0)).collect();
        for turn in 0..20 {
            let mut order = balance.order(run, &[true, true], turn, None);
            assert_eq!(order[0], 1, "turn {turn}");
            order.sort_unstable();
            assert_eq!(order, [0, 1]);
        }
    }

    #[test]
    fn what_is_unhealthy_or_refused_a_connection_comes_last() {
        let (balance, run) = (Rc::new(Balance::default()), run());
        balance.eject(run, 1);
        for turn in 0..20 {
            let order = balance.order(run, &[true, true, false, true], turn, None);
            assert!(matches!(order[..], [0 | 3, 0 | 3, 1, 2]), "{order:?}");
        }
    }

    #[test]
    fn idle_endpoints_are_used_in_turn() {
        let (balance, run) = (Rc::new(Balance::default()), run());
        let firsts: Vec<usize> = (0..6).map(|turn| balance.order(run, &[true; 3], turn, None)[0]).collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_visitor_stays_with_its_endpoint_while_that_is_good() {
        let (balance, run) = (Rc::new(Balance::default()), run());
        let _busy: Vec<Busy> = (0..3).map(|_| balance.busy(run, 2)).collect();
        let first = |healthy: &[bool], turn| balance.order(run, healthy, turn, Some(2))[0];
        assert!((0..9).all(|turn| first(&[true; 3], turn) == 2));
        assert!((0..9).all(|turn| first(&[true, true, false], turn) != 2));
        // Failures in a row eject it, and with an answer in between they don't.
        for round in 0..3 {
            assert!((0..4).all(|_| !balance.judge(run, 2, true)), "{round}");
            assert!(!balance.judge(run, 2, false));
        }
        let ejected = (0..5).filter(|_| balance.judge(run, 2, true)).count();
        assert_eq!(ejected, 1);
        assert!((0..9).all(|turn| first(&[true; 3], turn) != 2));
    }

    #[test]
    fn a_run_that_is_gone_is_forgotten_once_nothing_is_on_its_way() {
        let (balance, run) = (Rc::new(Balance::default()), run());
        let busy = balance.busy(run, 0);
        balance.sweep(|_| false);
        assert_eq!(balance.known.borrow().len(), 1);
        drop(busy);
        balance.sweep(|_| false);
        assert!(balance.known.borrow().is_empty());
    }
}
