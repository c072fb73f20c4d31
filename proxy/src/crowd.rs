//! How many connections each client address has, so that none takes every place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::routing::rate::network;

/// Connections by client address, of all workers. Looked at when a connection begins and ends, never for a request.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    counts: Mutex<HashMap<IpAddr, usize>>,
    refused: AtomicU64,
}

/// One connection's place; given back when dropped.
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    network: IpAddr,
}

impl Crowd {
    /// Takes a place for a connection, where its address has fewer than `most`.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Place> {
        let network = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= most {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *count += 1;
        Some(Place { crowd: Arc::clone(self), network })
    }

    /// Returns how many connections were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_so_many_places_and_leaves_nothing_behind() {
        let crowd = Arc::new(Crowd::default());
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let places: Vec<Place> = (0..3).filter_map(|_| crowd.enter(one, 2)).collect();
        assert_eq!((places.len(), crowd.refused()), (2, 1));
        assert!(crowd.enter(other, 2).is_some());
        drop(places);
        assert!(crowd.counts.lock().unwrap().is_empty());
    }
}
