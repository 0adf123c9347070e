//! All that stands written in the database, read by the names that are promised to stay: the views
//! `queue_items`, `call_records` and `priority_violations`, `get_call_queue_position` and
//! `audit_counters`; the rest through the ports.

use callq_domain::{
    CallId, CallType, CampaignId, CampaignStore, ItemStatus, OperatorStore, PageRequest,
    QueueItemId, StoreError, UserId,
};
use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use uuid::Uuid;

use super::answers::{ItemState, State, UserState};
use super::reference::Reference;
use super::stage::Stage;

/// Prepared once: they run after every operation.
const PREPARE: &str = "
    PREPARE items AS
        SELECT i.id, i.user_id, i.call_type::text AS call_type, i.status::text AS status, i.attempts,
            i.call_id, get_call_queue_position(i.id) AS position,
            (SELECT r.status::text FROM call_records r WHERE r.id = i.call_id) AS call_status
        FROM queue_items i;
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
        let mut items: Vec<ItemState> = rows
            .into_iter()
            .map(|row| {
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
                }
            })
            .collect();
        items.sort_by_key(|item| item.item);
        items
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
