//! What is counted of a proxy's rounds: how long a switch took, what came late, what failed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::round::Round;

/// What was measured of one proxy.
#[derive(Debug, Default)]
pub struct Measure {
    /// From the call to the start of the last request that the old application received; zero where none came.
    pub swaps: Vec<Duration>,
    /// The calls' own time.
    pub calls: Vec<Duration>,
    /// Requests sent after the call had returned, and received by the old application.
    pub late: u64,
    /// Switches with a late request.
    pub late_switches: u64,
    /// Switches after which the old application still received requests when the next one had to begin.
    pub restless: u64,
    /// Requests.
    pub requests: u64,
    /// Requests without their right answer.
    pub failed: u64,
    /// Connections of keep-alive clients that the proxy closed.
    pub closed: u64,
    /// From when a request was due until its answer was read.
    pub answers: Vec<Duration>,
    /// From when a request was due until it was sent.
    pub delays: Vec<Duration>,
    /// How long requests were sent.
    pub time: Duration,
    /// The first failures in words, with the time since their round's start.
    pub failures: Vec<(Duration, String)>,
}

/// The middle, the far end and the end of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Half are no larger.
    pub p50: Duration,
    /// Of a hundred, 99 are no larger.
    pub p99: Duration,
    /// None is larger.
    pub max: Duration,
}

impl Measure {
    /// Adds a round.
    pub fn add(&mut self, round: Round) {
        let Round { switches, arrivals, load } = round;
        for (index, switch) in switches.iter().enumerate() {
            let next: Option<Instant> = switches.get(index + 1).map(|next| next.call.began);
            let began = switch.call.began;
            let list = &arrivals[switch.old];
            let from = list.partition_point(|arrival| arrival.at < began);
            let to = next.map_or(list.len(), |next| list.partition_point(|arrival| arrival.at < next));
            let after = &list[from..to];
            self.swaps.push(after.last().map_or(Duration::ZERO, |last| last.at - began));
            self.calls.push(switch.call.returned - began);
            let sent_late = |id: usize| load.requests[id].sent.is_some_and(|sent| sent > switch.call.returned);
            let late = after.iter().filter(|arrival| sent_late(arrival.id)).count() as u64;
            self.late += late;
            self.late_switches += u64::from(late > 0);
            self.restless += u64::from(!switch.rested);
        }
        self.requests += load.requests.len() as u64;
        for request in &load.requests {
            self.delays.extend(request.sent.map(|sent| sent - request.due));
            match request.answered {
                Some(answered) => self.answers.push(answered - request.due),
                None => self.failed += 1,
            }
        }
        let sent = || load.requests.iter().filter_map(|request| request.sent);
        if let (Some(first), Some(last)) = (sent().min(), sent().max()) {
            self.time += last - first;
        }
        self.closed += load.closed;
        self.failures.extend(load.failures);
    }

    /// Returns how many requests were sent a second.
    pub fn rate(&self) -> f64 {
        self.delays.len() as f64 / self.time.as_secs_f64()
    }

    /// Returns all of it as JSON; times are microseconds.
    pub fn json(&self) -> Value {
        let words = |(at, why): &(Duration, String)| format!("{:.3} s: {why}", at.as_secs_f64());
        json!({
            "switches": self.swaps.len(),
            "swap_micros": Spread::of(&self.swaps).json(),
            "call_micros": Spread::of(&self.calls).json(),
            "late_requests": self.late,
            "late_switches": self.late_switches,
            "restless_switches": self.restless,
            "requests": self.requests,
            "failed": self.failed,
            "closed": self.closed,
            "rate": self.rate(),
            "answer_micros": Spread::of(&self.answers).json(),
            "sent_behind_micros": Spread::of(&self.delays).json(),
            "failures": self.failures.iter().map(words).collect::<Vec<_>>(),
        })
    }
}

impl Spread {
    /// Returns the spread of durations by nearest rank; zero where there are none.
    pub fn of(durations: &[Duration]) -> Self {
        let mut sorted = durations.to_vec();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or_default()
        };
        Self { p50: rank(50), p99: rank(99), max: rank(100) }
    }

    fn json(self) -> Value {
        let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
        json!({ "p50": micros(self.p50), "p99": micros(self.p99), "max": micros(self.max) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Arrival;
    use crate::contender::Call;
    use crate::load::{Log, Request};
    use crate::round::Switch;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_spread_is_by_nearest_rank() {
        let durations: Vec<Duration> = (1..=1000).rev().map(ms).collect();
        assert_eq!(Spread::of(&durations), Spread { p50: ms(500), p99: ms(990), max: ms(1000) });
        assert_eq!(Spread::of(&[ms(7)]), Spread { p50: ms(7), p99: ms(7), max: ms(7) });
    }

    /// Two switches, at 10 ms and at 100 ms, whose calls take 2 ms each; request 3 fails.
    #[test]
    fn a_request_that_the_old_application_got_counts_for_its_switch_and_is_late_if_sent_after_the_call() {
        let zero = Instant::now();
        let request = |sent: u64, answered: Option<u64>| Request {
            due: zero + ms(sent),
            sent: Some(zero + ms(sent)),
            answered: answered.map(|at| zero + ms(at)),
        };
        let requests = vec![request(9, Some(11)), request(11, Some(14)), request(13, Some(16)), request(50, None)];
        let arrival = |id, at| Arrival { id, at: zero + ms(at) };
        let switch =
            |old, at| Switch { old, call: Call { began: zero + ms(at), returned: zero + ms(at + 2) }, rested: true };
        let mut measure = Measure::default();
        measure.add(Round {
            switches: vec![switch(0, 10), switch(1, 100)],
            arrivals: [vec![arrival(0, 9), arrival(1, 12), arrival(2, 14), arrival(3, 101)], vec![]],
            load: Log::of(requests, 1),
        });
        assert_eq!(measure.swaps, [ms(4), ms(0)]);
        assert_eq!(measure.calls, [ms(2), ms(2)]);
        assert_eq!((measure.late, measure.late_switches), (1, 1));
        assert_eq!((measure.requests, measure.failed, measure.closed), (4, 1, 1));
        assert_eq!(Spread::of(&measure.answers).max, ms(3));
    }
}
