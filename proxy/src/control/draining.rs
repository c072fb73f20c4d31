//! The end of a run: the last requests are waited for, and at the deadline what is left is ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use config::admin::Event;
use config::name::ServiceName;

use super::slot::Drain;
use super::{Control, Handle};
use crate::upstream::inflight::Progress;
use crate::upstream::run::{Deadlines, Run, RunId};

/// After the drain deadline, what was told to end is waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Tunnels and event streams take so long to end as they should: the time that spreads them, and a handshake.
const GOODBYES: Duration = Duration::from_secs(8);

/// Workers that are busy may hear of so many cuts at once.
const REMEMBERED_CUTS: usize = 64;

/// Waits for a run that was marked, and tells its end.
pub(super) async fn drain_run(handle: Rc<Handle>, name: ServiceName, run: Arc<Run>, deadlines: Deadlines) {
    if end_run(&handle, &run, deadlines).await != Progress::Superseded {
        handle.with(|control| control.drained(&name, run.id()));
    }
}

/// Waits for a run that was marked; at each deadline ends what is left of its kind.
pub(super) async fn end_run(handle: &Rc<Handle>, run: &Run, deadlines: Deadlines) -> Progress {
    let Deadlines { requests, tunnels } = deadlines;
    handle.predecessor.hurry();
    let began = tokio::time::Instant::now();
    let cut = |id| handle.with(|control| control.cut(id));
    let mut stages: [(Duration, &dyn Fn()); 3] = [
        (requests, &|| {
            run.cut_off();
            cut(run.id());
        }),
        (tunnels, &|| {
            run.close_long();
            // Woken only: each closes in its own time.
            cut(run.id());
        }),
        (requests.max(tunnels) + GOODBYES, &|| {
            run.cut_long();
            cut(run.id().long());
        }),
    ];
    stages.sort_by_key(|(after, _)| *after);
    for (after, end) in stages {
        if let Ok(end) = tokio::time::timeout_at(began + after, run.drained()).await {
            return end;
        }
        end();
    }
    tokio::time::timeout(LAST_WORDS, run.drained()).await.unwrap_or_else(|_| run.progress())
}

impl Control {
    /// Notes the end of a drain, and tells it.
    pub(crate) fn drained(&mut self, name: &ServiceName, run: RunId) {
        let Some(service) = self.services.get_mut(name) else { return };
        service.drains += 1;
        // Another version may have been staged over it meanwhile.
        let Some((_, slot)) = self.find_run(run) else { return };
        let Some(service) = self.services.get_mut(name) else { return };
        let counts = service.counts(slot);
        let Some(Drain { began, ended }) = service.slot_mut(slot).as_mut().and_then(|state| state.drain.as_mut())
        else {
            return;
        };
        let seconds = began.elapsed().as_secs_f64();
        *ended = Some((seconds, counts));
        self.news.push(Event::Drained { service: name.clone(), slot, seconds, counts });
    }

    /// Ends the tunnels and streams of events of every run as they should end; each takes its turn.
    pub(super) fn close_all_long(&self) {
        for state in self.services.values().flat_map(|service| [&service.blue, &service.green]).flatten() {
            state.run.close_long();
            self.cut(state.run.id());
        }
    }

    /// Makes every worker end what is left of a run.
    fn cut(&self, cut: RunId) {
        if let Some(shared) = &self.shared {
            shared.cut.send_modify(|runs| {
                if runs.len() == REMEMBERED_CUTS {
                    runs.remove(0);
                }
                runs.push(cut);
            });
        }
    }
}
