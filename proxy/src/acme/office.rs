//! What looking after certificates is done with.

use std::rc::Rc;
use std::sync::Arc;

use config::acme::AcmeSettings;
use tokio::sync::{mpsc, watch};

use super::clock::Clock;
use crate::control::Handle;
use crate::control::reload::Order;
use crate::worker::Shared;

/// What looks after certificates.
pub(crate) struct Office {
    pub(crate) handle: Rc<Handle>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: watch::Receiver<AcmeSettings>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) clock: Clock,
}
