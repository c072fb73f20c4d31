//! What control should say and keep: nothing here is control's own.

use std::collections::HashMap;

use config::name::Slot;

/// What a probe finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Good,
    Bad,
    Nothing,
}

/// A slot, as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// Tells it apart from those before it.
    pub(super) port: u16,
    pub(super) probed: bool,
    pub(super) was_live: bool,
    pub(super) healthy: bool,
    pub(super) passes: u32,
    pub(super) failures: u32,
    /// Whether the second endpoint is healthy, where there is one; nobody probes it.
    pub(super) second: Option<bool>,
}

impl Version {
    pub(super) fn is_healthy(&self) -> bool {
        self.healthy && self.second != Some(false)
    }
}

/// What should be on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) routed: bool,
    pub(super) live: Option<Slot>,
    pub(super) slots: HashMap<Slot, Version>,
    pub(super) maintenance: bool,
}

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) id: String,
    pub(super) steps: usize,
    pub(super) is_open: bool,
    pub(super) flipped_back: bool,
}

/// A lease that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: String,
    /// Its holder was heard lately.
    pub(super) is_fresh: bool,
}

/// The service, as it should be.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) exists: bool,
    pub(super) now: Disk,
    pub(super) paused: bool,
    /// The slot that is gone back to while the bake goes on.
    pub(super) bake: Option<Slot>,
    /// The slot that has a share of the visitors.
    pub(super) canary: Option<Slot>,
    /// It has none yet, as it was not found healthy since the start.
    pub(super) is_waiting: bool,
    /// What of it should be on the disk.
    pub(super) shown: Option<(Slot, Version)>,
    /// The slot to which a flip is a rename.
    pub(super) prepared: Option<Slot>,
    pub(super) json: Option<Disk>,
    pub(super) previous: Option<Disk>,
    pub(super) lease: Option<Held>,
    pub(super) lease_kept: Option<String>,
    /// The latest first.
    pub(super) journal: Vec<Noted>,
    pub(super) journal_kept: Vec<Noted>,
    /// Nothing can be written.
    pub(super) is_full: bool,
    /// Something is in force that could not be saved.
    pub(super) is_ahead: bool,
    /// The call changed something.
    pub(super) is_changed: bool,
    pub(super) next_number: u16,
}

impl Model {
    /// What a removal leaves.
    pub(super) fn forget(&mut self) {
        let (next_number, is_full) = (self.next_number, self.is_full);
        *self = Self { next_number, is_full, ..Self::default() };
    }

    pub(super) fn number(&mut self) -> u16 {
        self.next_number += 1;
        self.next_number
    }

    /// What is saved: a slot that was only staged is not.
    fn to_save(&self) -> Disk {
        let mut disk = self.now.clone();
        disk.slots.retain(|_, version| version.was_live);
        disk
    }

    pub(super) fn prepare(&mut self) {
        if self.json.is_some() {
            self.previous.clone_from(&self.json);
        }
    }

    /// Something was changed and saved.
    pub(super) fn save(&mut self) {
        self.prepare();
        self.json = Some(self.to_save());
        (self.prepared, self.is_ahead, self.is_changed) = (None, false, true);
    }

    /// What a start finds.
    pub(super) fn restart(&mut self, found: Option<Disk>) {
        (self.paused, self.bake, self.canary, self.prepared, self.is_ahead) = (false, None, None, None, false);
        self.exists = found.is_some();
        self.json.clone_from(&found);
        self.now = found.unwrap_or_default();
        let is_current = |shown: &(Slot, Version)| self.now.live == Some(shown.0.other());
        // Of a service that is lost nothing is looked at.
        if self.exists && !self.shown.as_ref().is_some_and(is_current) {
            self.shown = None;
        }
        if let Some((slot, version)) = self.shown.clone().filter(|_| self.exists) {
            self.canary = Some(slot);
            self.is_waiting = version.probed;
            self.now.slots.insert(slot, version);
        }
        for (slot, version) in &mut self.now.slots {
            // What was live is believed to be still.
            version.healthy = self.now.live == Some(*slot) || !version.probed;
            version.second = version.second.map(|_| version.healthy);
            (version.passes, version.failures) = (0, 0);
        }
        self.lease_kept.take_if(|_| !self.exists);
        self.lease = self.lease_kept.clone().map(|id| Held { id, is_fresh: true });
        self.journal.clone_from(&self.journal_kept);
    }

    /// In memory alone.
    pub(super) fn flip(&mut self, to: Slot, bake: bool) {
        let old = self.now.live.replace(to);
        self.now.routed = true;
        self.now.slots.get_mut(&to).unwrap().was_live = true;
        (self.bake, self.canary, self.prepared, self.is_changed) = (old.filter(|_| bake), None, None, true);
        self.shown = None;
    }

    pub(super) fn probe(&mut self, slot: Slot, outcome: Found) {
        let Some(version) = self.now.slots.get_mut(&slot) else { return };
        if outcome == Found::Good {
            (version.passes, version.failures) = (version.passes + 1, 0);
        } else {
            (version.passes, version.failures) = (0, version.failures + 1);
        }
        version.healthy = if version.healthy { version.failures < 2 } else { version.passes >= 2 };
        self.is_waiting &= self.canary != Some(slot) || !version.is_healthy();
    }

    /// Tells whether somebody holds the lease.
    pub(super) fn is_held(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.is_fresh)
    }

    /// A lease in force, or none any more.
    pub(super) fn keep_lease(&mut self, lease: Option<Held>) {
        self.lease_kept = lease.as_ref().map(|lease| lease.id.clone()).filter(|_| !self.is_full);
        self.lease = lease;
    }

    /// A service that was leased and never made leaves nothing behind.
    pub(super) fn forget_unmade(&mut self) {
        if !self.exists && !self.is_held() {
            (self.lease, self.lease_kept) = (None, None);
        }
    }

    pub(super) fn write_journal(&mut self) {
        self.journal_kept.clone_from(&self.journal);
    }

    pub(super) fn note_flip_back(&mut self) {
        if let Some(open) = self.journal.iter_mut().find(|noted| noted.is_open) {
            open.flipped_back = true;
            if !self.is_full {
                self.write_journal();
            }
        }
    }
}
