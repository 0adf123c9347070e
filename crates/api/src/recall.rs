//! The answer to a repeat whose first request was accepted by a server that died before it could
//! answer: told from where the call stands now.

use callq_domain::{
    Call, CallId, CallStatus, ItemStatus, Outcome, PlacedItem, QueueItemId, QueueReason, Queued,
    UserId,
};

use crate::answer::Answer;
use crate::api::Api;
use crate::problem::Problem;

/// The answer that the first request would get if it ended now.
pub(crate) async fn answer_from_state(
    api: &Api,
    user_id: UserId,
    item_id: QueueItemId,
) -> Result<Answer, Problem> {
    let placed = api
        .ports
        .queue
        .item(user_id, item_id)
        .await?
        .ok_or_else(|| {
            Problem::internal(format!("the item {item_id} of an idempotency key is gone"))
        })?;
    let mut answer = match (placed.item.status, placed.item.call_id) {
        (ItemStatus::Queued, _) => waiting(api, placed)?,
        (_, Some(call_id)) => called(api, user_id, call_id).await?,
        (status, None) => Answer::over(status.as_str(), format!("/api/queue/{item_id}"))?,
    };
    answer.replayed = true;
    Ok(answer)
}

fn waiting(api: &Api, placed: PlacedItem) -> Result<Answer, Problem> {
    let item = placed.item;
    let place = placed
        .place
        .ok_or_else(|| Problem::internal(format!("the waiting item {} has no place", item.id)))?;
    let told = item
        .reason
        .unwrap_or_else(|| "Waiting for its turn".to_owned());
    let queued = Queued {
        item_id: item.id,
        reason: placed.waiting_reason.unwrap_or(QueueReason::Provider(told)),
        place,
        expires_at: item.expires_at,
    };
    Answer::queued(&queued, api.now())
}

async fn called(api: &Api, user_id: UserId, call_id: CallId) -> Result<Answer, Problem> {
    let found = api.ports.calls.call(user_id, call_id).await?;
    let (call, _) =
        found.ok_or_else(|| Problem::internal(format!("the call {call_id} is gone")))?;
    of_call(&call)
}

fn of_call(call: &Call) -> Result<Answer, Problem> {
    match (call.status, &call.execution_id) {
        (_, Some(execution_id)) => Answer::started(call.id, execution_id),
        (CallStatus::Ended(Outcome::Failed), None) => {
            let reason = call.reason.as_deref().unwrap_or("no reason was recorded");
            Ok(Answer::refused(call.id, reason))
        }
        (status @ CallStatus::Ended(_), None) => {
            Answer::over(status.as_str(), crate::calls::status_url(call.id))
        }
        (status, None) => {
            let message = "The call has a slot; what became of its placement is not known yet";
            Answer::pending(call.id, status.as_str(), message)
        }
    }
}
