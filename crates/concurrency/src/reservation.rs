//! Calls that got a slot, on their way from the engine to whoever places them.

use std::sync::Arc;

use callq_domain::{PlacementReport, ReservedCall};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::engine::Shared;

/// Calls that got a slot and must now be placed, in the order of their turns.
pub type Reservations = mpsc::UnboundedReceiver<Reservation>;

/// A call that got a slot and must now be placed by this server: sent to its provider once.
pub struct Reservation {
    /// The call.
    pub call: ReservedCall,
    /// Where to say what became of the placement, if someone waits for it at the door.
    pub report: Option<oneshot::Sender<PlacementReport>>,
    _place: Option<Placing>,
}

/// One of the places among calls being placed; free again when dropped.
struct Placing {
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl Drop for Placing {
    fn drop(&mut self) {
        let was_full = self.shared.placing.available_permits() == 0;
        drop(self.permit.take());
        if was_full {
            self.shared.wake.notify_one();
        }
    }
}

impl Reservation {
    pub(crate) fn from_queue(call: ReservedCall, shared: &Arc<Shared>) -> Self {
        // The budget of the batch was the number of permits free, and only the engine takes them.
        let place = Arc::clone(&shared.placing)
            .try_acquire_owned()
            .ok()
            .map(|permit| Placing {
                permit: Some(permit),
                shared: Arc::clone(shared),
            });
        Self {
            call,
            report: None,
            _place: place,
        }
    }

    pub(crate) fn at_the_door(
        call: ReservedCall,
        report: oneshot::Sender<PlacementReport>,
    ) -> Self {
        Self {
            call,
            report: Some(report),
            _place: None,
        }
    }
}
