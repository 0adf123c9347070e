//! Whether a user's queue has room for more campaign calls. Asked last, once they are counted: an
//! answer that it has not undoes the whole transaction.

use callq_domain::{CallType, QueueFull, StoreError};
use diesel::PgConnection;
use uuid::Uuid;

use crate::engine::pace;
use crate::rows::{count, small_count};
use crate::{Failure, functions};

/// Refuses if, with the `asked` that have just been counted in, more calls of the user's campaigns
/// under way wait than may. Needs the engine's lock, under which alone they are counted.
///
/// # Errors
/// [`StoreError::QueueFull`].
pub(super) fn check_room(conn: &mut PgConnection, user: Uuid, asked: u64) -> Result<(), Failure> {
    let found = functions::count_queued_campaign_calls(conn, user)?;
    let (Some(waiting), Some(most)) = (found.waiting, found.most) else {
        return Ok(());
    };
    if waiting <= i64::from(most) || asked == 0 {
        return Ok(());
    }
    Err(StoreError::QueueFull(QueueFull {
        call_type: CallType::Campaign,
        limit: small_count("max_queued_campaign_calls", most)?,
        waiting: count("campaign_slots.due", waiting)?.saturating_sub(asked),
        asked,
        pace: pace(found.slots, found.samples, found.mean_hold_ms),
    })
    .into())
}
