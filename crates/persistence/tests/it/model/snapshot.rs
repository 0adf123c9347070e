//! All that stands written in the database, read by the names that are promised to stay: the views
//! `queue_items`, `call_records`, `call_events` and `priority_violations`, `get_call_queue_position`
//! and `audit_counters`; the rest through the ports.

use std::collections::BTreeMap;

use callq_domain::{
    CallId, CallType, CampaignId, CampaignStore, ItemStatus, OperatorStore, PageRequest,
    QueueItemId, ServerId, StoreError, UserId,
};
use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use uuid::Uuid;

use super::answers::{ItemState, State, Step, Times, UserState, Who};
use super::reference::Reference;
use super::stage::{OPENING, Stage};

mod lists;

/// Prepared once: they run after every operation.
const PREPARE: &str = "
    PREPARE items AS
        SELECT i.id, i.user_id, i.call_type::text AS call_type, i.status::text AS status, i.attempts,
            i.call_id, get_call_queue_position(i.id) AS position,
            (SELECT r.status::text FROM call_records r WHERE r.id = i.call_id) AS call_status,
            i.phone_number, i.contact_name, i.user_data::text AS user_data, i.reason,
            i.scheduled_for, i.wakes_at, i.expires_at, i.due_at, i.started_at, i.finished_at
        FROM queue_items i;
    PREPARE steps AS
        SELECT item_id, at, attempt, status, reason, server FROM call_events;
    PREPARE faults AS
        SELECT a.counter || ' of ' || a.subject || ': ' || a.kept || ', recounted ' || a.counted AS fault
        FROM audit_counters() a
        UNION ALL
        SELECT 'priority violation: ' || v::text FROM priority_violations v;";

#[derive(QueryableByName)]
struct ItemRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    user_id: Uuid,
    #[diesel(sql_type = Text)]
    call_type: String,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Integer)]
    attempts: i32,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    call_id: Option<Uuid>,
    #[diesel(sql_type = Nullable<BigInt>)]
    position: Option<i64>,
    #[diesel(sql_type = Nullable<Text>)]
    call_status: Option<String>,
    #[diesel(sql_type = Text)]
    phone_number: String,
    #[diesel(sql_type = Nullable<Text>)]
    contact_name: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    user_data: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    scheduled_for: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    wakes_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    expires_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Timestamptz)]
    due_at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    finished_at: Option<DateTime<Utc>>,
}

#[derive(QueryableByName)]
struct StepRow {
    #[diesel(sql_type = SqlUuid)]
    item_id: Uuid,
    #[diesel(sql_type = Timestamptz)]
    at: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Integer>)]
    attempt: Option<i32>,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    server: Option<Uuid>,
}

#[derive(QueryableByName)]
struct FaultRow {
    #[diesel(sql_type = Text)]
    fault: String,
}

#[derive(QueryableByName)]
struct IdRow {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

impl Stage {
    pub(super) fn prepare_snapshots(&mut self) {
        self.clock.connection().batch_execute(PREPARE).unwrap();
    }

    /// Counters that differ from their rows, and campaign calls that went before direct ones.
    pub(crate) fn faults(&mut self) -> Vec<String> {
        let rows: Vec<FaultRow> = sql_query("EXECUTE faults")
            .load(self.clock.connection())
            .unwrap();
        rows.into_iter().map(|row| row.fault).collect()
    }

    pub(crate) async fn state(&mut self, reference: &Reference) -> Result<State, StoreError> {
        let items = self.items(reference);
        let system = self.store.system_state().await?;
        let mut campaigns = Vec::new();
        for campaign in &reference.campaigns {
            let owner = self.universe.users[campaign.owner];
            let found = self.store.campaign(owner, campaign.id).await?;
            let found = found.ok_or(StoreError::NotFound)?;
            campaigns.push((found.status, found.progress));
        }
        Ok(State {
            items,
            users: self.loads().await?,
            system: system.slots,
            dispatch_paused: system.dispatch_paused,
            campaigns,
        })
    }

    fn items(&mut self, reference: &Reference) -> Vec<ItemState> {
        let rows: Vec<ItemRow> = sql_query("EXECUTE items")
            .load(self.clock.connection())
            .unwrap();
        let items = rows.into_iter().map(|row| self.item(row, reference));
        let mut items: Vec<ItemState> = items.collect();
        items.sort_by_key(|item| item.item);
        items
    }

    fn item(&self, row: ItemRow, reference: &Reference) -> ItemState {
        let id = QueueItemId::from(row.id);
        let call = row.call_id.map(CallId::from);
        ItemState {
            item: reference.number(id),
            of: reference.user_number(UserId::from(row.user_id)),
            call_type: CallType::from_name(&row.call_type).unwrap(),
            status: ItemStatus::from_name(&row.status).unwrap(),
            attempts: row.attempts.try_into().unwrap(),
            position: row.position.map(|position| position.try_into().unwrap()),
            called: call.is_some_and(|call| self.knows(id, call)),
            call: row.call_status,
            who: Who {
                number: row.phone_number,
                name: row.contact_name,
                data: row.user_data,
            },
            reason: row.reason,
            times: Times {
                scheduled_for: row.scheduled_for.and_then(in_script),
                wakes_at: row.wakes_at.and_then(in_script),
                expires_at: row.expires_at.and_then(in_script),
                due_at: in_script(row.due_at),
                started_at: row.started_at.and_then(in_script),
                finished_at: row.finished_at.and_then(in_script),
            },
        }
    }

    /// What happened to each item, step by step.
    pub(crate) fn stories(&mut self) -> BTreeMap<QueueItemId, Vec<Step>> {
        let rows: Vec<StepRow> = sql_query("EXECUTE steps")
            .load(self.clock.connection())
            .unwrap();
        let mut stories: BTreeMap<_, Vec<Step>> = BTreeMap::new();
        for row in rows {
            let step = Step {
                at: in_script(row.at),
                attempt: row.attempt.map(|attempt| attempt.try_into().unwrap()),
                status: row.status,
                reason: row.reason,
                server: row.server.map(ServerId::from),
            };
            let story = stories.entry(QueueItemId::from(row.item_id));
            story.or_default().push(step);
        }
        for story in stories.values_mut() {
            story.sort();
        }
        stories
    }

    async fn loads(&self) -> Result<Vec<UserState>, StoreError> {
        let page = PageRequest {
            limit: 200,
            cursor: None,
        };
        let loads = self.store.user_loads(page).await?.items;
        let of = |user: &UserId| {
            let load = loads
                .iter()
                .find(|load| load.user.id == *user)
                .ok_or(StoreError::NotFound)?;
            Ok(UserState {
                direct: (load.direct.queued, load.direct.processing),
                campaign: (load.campaign.queued, load.campaign.processing),
            })
        };
        self.universe.users.iter().map(of).collect()
    }

    /// A campaign's calls, in order.
    pub(super) fn campaign_items(&mut self, campaign: CampaignId) -> Vec<QueueItemId> {
        let rows: Vec<IdRow> =
            sql_query("SELECT id FROM call_queue WHERE campaign_id = $1 ORDER BY position")
                .bind::<SqlUuid, _>(campaign.as_uuid())
                .load(self.clock.connection())
                .unwrap();
        rows.into_iter()
            .map(|row| QueueItemId::from(row.id))
            .collect()
    }
}

/// A time of the script, in milliseconds; none for one by the machine's own clock.
fn in_script(at: DateTime<Utc>) -> Option<i64> {
    Some(at.timestamp_millis()).filter(|ms| *ms >= OPENING)
}
