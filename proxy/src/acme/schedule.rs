//! When an authority is asked for which domain: pure, so that days of it are tested in no time.

use std::time::{Duration, SystemTime};

/// The pause after a first failure. Let's Encrypt takes five failed proofs of a name in an hour: with this and [`FACTOR`] it is
/// asked five times in the first one.
const FIRST: Duration = Duration::from_secs(60);
/// Each pause is so many times the one before.
const FACTOR: u32 = 3;
/// The longest pause: a certificate is renewed with a third of its life left, so even a week holds more than twenty tries.
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);
/// What an authority asks us to wait is heard up to this.
const LONGEST_ASKED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often an authority is asked when to renew at the least, also where it was out of reach or does not know the question
/// (RFC 9773 section 4.3.2).
const ASK_LATER: Duration = Duration::from_secs(24 * 60 * 60);

/// A number of 0 to 1 that spreads what many proxies would do at once.
pub(super) type Spread = f64;

/// A pause after failures, each longer than the one before.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct BackOff {
    /// Failures in a row.
    pub(super) failures: u32,
    /// Nothing is tried before then.
    pub(super) until: Option<SystemTime>,
    /// The other side asked for it.
    is_asked: bool,
}

impl BackOff {
    /// Notes a failure, and what the other side asks to wait.
    pub(super) fn failed(&mut self, now: SystemTime, asked: Option<Duration>, spread: Spread) {
        let pause = FIRST.saturating_mul(FACTOR.saturating_pow(self.failures)).min(LONGEST);
        // From four fifths of it to six fifths.
        let pause = pause.mul_f64(0.8 + 0.4 * spread);
        let asked = asked.map(|asked| asked.min(LONGEST_ASKED));
        self.is_asked = asked.is_some_and(|asked| asked > pause);
        self.until = Some(now + asked.map_or(pause, |asked| asked.max(pause)));
        self.failures = self.failures.saturating_add(1);
    }

    /// Ends the pause, as something may be other than it was; one that the other side asked for is kept.
    pub(super) fn hurry(&mut self) {
        if !self.is_asked {
            *self = Self::default();
        }
    }

    fn ends(&self) -> SystemTime {
        self.until.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// The life of a certificate that is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Life {
    /// When it began.
    pub(super) from: SystemTime,
    /// When it ends.
    pub(super) to: SystemTime,
    /// Another authority issued it than the one that is asked now.
    pub(super) is_of_another: bool,
}

impl Life {
    /// Returns when it is renewed, as far as the authority says nothing else: after two thirds of it, or somewhat before.
    fn renewal(&self, spread: Spread) -> SystemTime {
        if self.is_of_another {
            return SystemTime::UNIX_EPOCH;
        }
        let life = self.to.duration_since(self.from).unwrap_or_default();
        self.from + life.mul_f64(2.0 / 3.0 - 0.02 * spread)
    }
}

/// A domain.
#[derive(Debug, Clone, Default)]
pub(super) struct Case {
    /// The certificate that is there.
    pub(super) life: Option<Life>,
    /// What went wrong with it alone.
    pub(super) back_off: BackOff,
    /// When the authority wants it renewed.
    window: Option<(SystemTime, SystemTime)>,
    /// When it is asked for that again.
    ask: Option<SystemTime>,
    /// Of this certificate.
    spread: Spread,
}

impl Case {
    /// Notes a certificate.
    pub(super) fn got(&mut self, life: Life, spread: Spread) {
        *self = Self { life: Some(life), spread, ..Self::default() };
    }

    /// Returns when a certificate is to be ordered; `authority` is what went wrong with all domains.
    pub(super) fn due(&self, authority: &BackOff) -> SystemTime {
        let wanted = match (&self.life, self.window) {
            (None, _) => SystemTime::UNIX_EPOCH,
            (Some(life), Some((from, to))) if !life.is_of_another => {
                let window = to.duration_since(from).unwrap_or_default();
                from + window.mul_f64(self.spread)
            }
            (Some(life), _) => life.renewal(self.spread),
        };
        wanted.max(self.back_off.ends()).max(authority.ends())
    }

    /// Returns when the authority is to be asked when to renew; `None` where there is nothing to renew.
    pub(super) fn asks(&self, authority: &BackOff) -> Option<SystemTime> {
        self.life.as_ref().filter(|life| !life.is_of_another)?;
        Some(self.ask.unwrap_or(SystemTime::UNIX_EPOCH).max(authority.ends()))
    }

    /// Notes what the authority said of when to renew, and how long that holds.
    pub(super) fn told(&mut self, now: SystemTime, told: Option<((SystemTime, SystemTime), Duration)>) {
        // Where it is out of reach, what it said before holds: it may have been that all are to be renewed at once.
        let again = match told {
            None => ASK_LATER,
            Some((window, again)) => {
                self.window = Some(window);
                again.clamp(FIRST, ASK_LATER)
            }
        };
        self.ask = Some(now + again);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000
    }

    fn life() -> Life {
        Life { from: start(), to: start() + DAY * 90, is_of_another: false }
    }

    fn renewed() -> Case {
        let mut case = Case::default();
        case.got(life(), 0.0);
        case
    }

    /// Plays the tries from one time to another, all of which fail; returns when they were.
    fn outage(case: &mut Case, from: SystemTime, to: SystemTime) -> Vec<SystemTime> {
        let (mut tries, mut now) = (Vec::new(), from);
        loop {
            now = now.max(case.due(&BackOff::default()));
            if now > to {
                return tries;
            }
            tries.push(now);
            case.back_off.failed(now, None, 0.5);
        }
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let case = renewed();
        assert_eq!(case.due(&BackOff::default()), start() + DAY * 60);
        let mut spread = Case::default();
        spread.got(life(), 1.0);
        let earliest = spread.due(&BackOff::default());
        assert!(earliest > start() + DAY * 58 && earliest < start() + DAY * 59);
        let mut other = Case::default();
        other.got(Life { is_of_another: true, ..life() }, 0.0);
        assert_eq!(other.due(&BackOff::default()), SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn an_outage_of_five_days_is_outlived_by_the_certificate_and_costs_few_tries() {
        let mut case = renewed();
        let (began, ended) = (start() + DAY * 60, start() + DAY * 65);
        let tries = outage(&mut case, began, ended);
        assert!((20..40).contains(&tries.len()), "{}", tries.len());
        let first_hour = tries.iter().filter(|at| **at < began + HOUR).count();
        assert!(first_hour <= 5, "Let's Encrypt takes five an hour, and these were {first_hour}");
        // The next try is some hours after the end of it, and weeks before the certificate's own.
        let next = case.due(&BackOff::default());
        assert!(next > ended && next < ended + LONGEST * 2 && next < life().to);
        case.got(Life { from: next, to: next + DAY * 90, is_of_another: false }, 0.0);
        assert_eq!(case.due(&BackOff::default()), next + DAY * 60);
    }

    #[test]
    fn what_the_authority_asks_to_wait_is_waited_and_no_hurry_ends_it() {
        let mut case = Case::default();
        case.back_off.failed(start(), Some(DAY), 0.5);
        assert_eq!(case.due(&BackOff::default()), start() + DAY);
        case.back_off.hurry();
        assert_eq!(case.due(&BackOff::default()), start() + DAY);
        let mut case = Case::default();
        case.back_off.failed(start(), Some(Duration::from_secs(1)), 0.5);
        assert_eq!(case.due(&BackOff::default()), start() + FIRST);
        case.back_off.hurry();
        assert_eq!(case.due(&BackOff::default()), SystemTime::UNIX_EPOCH);
        case.back_off.failed(start(), Some(DAY * 1000), 0.5);
        assert_eq!(case.due(&BackOff::default()), start() + LONGEST_ASKED);
        // What is wrong with the authority holds for every domain.
        let mut authority = BackOff::default();
        authority.failed(start(), Some(DAY * 2), 0.5);
        assert_eq!(renewed().due(&authority).max(start()), start() + DAY * 60);
        assert_eq!(Case::default().due(&authority), start() + DAY * 2);
    }

    #[test]
    fn the_authority_says_when_to_renew_and_what_it_said_holds_while_it_is_silent() {
        let mut case = renewed();
        assert_eq!(case.asks(&BackOff::default()), Some(SystemTime::UNIX_EPOCH));
        let window = (start() + DAY * 10, start() + DAY * 12);
        case.told(start(), Some((window, HOUR * 6)));
        assert_eq!(case.due(&BackOff::default()), window.0);
        assert_eq!(case.asks(&BackOff::default()), Some(start() + HOUR * 6));
        // Revoked: its window is over.
        case.told(start() + HOUR * 6, Some(((start(), start() + HOUR), HOUR * 6)));
        assert!(case.due(&BackOff::default()) <= start() + HOUR);
        case.told(start() + HOUR * 12, None);
        assert!(case.due(&BackOff::default()) <= start() + HOUR);
        assert_eq!(case.asks(&BackOff::default()), Some(start() + HOUR * 12 + ASK_LATER));
        assert_eq!(Case::default().asks(&BackOff::default()), None);
    }
}
