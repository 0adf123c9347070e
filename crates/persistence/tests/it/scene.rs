//! A database with a store on it, and short ways to fill it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use callq_domain::{
    AccountStore, Admission, AgentFields, AgentId, Attempt, CallId, Campaign, CampaignFields,
    CampaignId, CampaignProgress, CampaignStatus, CampaignStore, ConcurrencyLimit, ContactFields,
    ContactId, DirectoryStore, Ending, EngineStore, ExecutionId, NewCampaign, NewDirectCall,
    NewToken, NewUser, OperatorStore, Outcome, OwnershipStore, Pacing, PageRequest, PhoneNumber,
    ProgressBatch, ProviderName, QueueItemId, ReservedCall, RetryPolicy, Return, Role, ServerId,
    SlotBatch, Target, TokenHash, TokenId, UserId, Weekdays,
};
use callq_persistence::{Database, PostgresStore, connect};
use callq_testing::TestDatabase;
use chrono::{NaiveDate, NaiveTime};
use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Text};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};
use uuid::Uuid;

pub(crate) struct Scene {
    pub(crate) store: PostgresStore,
    pub(crate) server: ServerId,
    made: AtomicU32,
    // Dropped last: with it goes the database.
    pub(crate) database: TestDatabase,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::new();
        let pool = Database::new(database.url(), 8).unwrap();
        let scene = Self {
            store: PostgresStore::new(pool, ProviderName::new("simulator").unwrap()),
            server: ServerId::new(),
            made: AtomicU32::new(0),
            database,
        };
        let lease = Duration::from_secs(3_600);
        scene.store.renew_lease(scene.server, lease).await.unwrap();
        scene
    }

    pub(crate) fn number(&self) -> u32 {
        self.made.fetch_add(1, Ordering::Relaxed)
    }

    /// A user with room for two calls.
    pub(crate) async fn user(&self) -> UserId {
        let user = new_user(&format!("user{}@example.com", self.number()));
        let token = new_token(user.id);
        self.store.create_user(user, token).await.unwrap().id
    }

    pub(crate) async fn agent(&self, user: UserId) -> AgentId {
        let id = AgentId::new();
        let made = self.store.create_agent(id, user, agent_fields("Ada"));
        made.await.unwrap().id
    }

    pub(crate) async fn contact(&self, user: UserId) -> ContactId {
        let id = ContactId::new();
        let fields = contact_fields(&phone_number(self.number()));
        self.store
            .create_contact(id, user, fields)
            .await
            .unwrap()
            .id
    }

    pub(crate) async fn contacts(&self, user: UserId, count: usize) -> Vec<ContactId> {
        let ids: Vec<ContactId> = (0..count).map(|_| ContactId::new()).collect();
        if ids.is_empty() {
            return ids;
        }
        let rows: Vec<String> = ids
            .iter()
            .map(|id| format!("('{id}', '{user}', '{}')", phone_number(self.number())))
            .collect();
        self.sql(&format!(
            "INSERT INTO contacts (id, user_id, phone_number) VALUES {}",
            rows.join(", ")
        ));
        ids
    }

    /// A draft with so many contacts of its own.
    pub(crate) async fn draft(&self, user: UserId, contacts: usize) -> CampaignId {
        let agent = self.agent(user).await;
        let contacts = self.contacts(user, contacts).await;
        let campaign = new_campaign(user, agent, contacts);
        self.store.create_campaign(campaign).await.unwrap().id
    }

    /// A campaign under way with so many contacts of its own.
    pub(crate) async fn campaign(&self, user: UserId, contacts: usize) -> CampaignId {
        let id = self.draft(user, contacts).await;
        self.set_status(user, id, CampaignStatus::Active).await;
        id
    }

    pub(crate) async fn progress(&self, user: UserId, id: CampaignId) -> CampaignProgress {
        let found = self.store.campaign(user, id).await;
        found.unwrap().unwrap().progress
    }

    pub(crate) async fn set_status(
        &self,
        user: UserId,
        id: CampaignId,
        status: CampaignStatus,
    ) -> Campaign {
        let changed = self.store.set_campaign_status(user, id, status);
        changed.await.unwrap()
    }

    pub(crate) async fn limit(&self, user: UserId, calls: i64) {
        let change = callq_domain::UserChange {
            concurrent_calls_limit: Some(ConcurrencyLimit::new(calls).unwrap()),
            ..Default::default()
        };
        self.store.update_user(user, change).await.unwrap();
    }

    pub(crate) async fn direct_call(&self, user: UserId, agent: AgentId) -> Admission {
        let number = phone_number(self.number()).parse().unwrap();
        self.admit(direct_call(user, agent, Target::Number(number)))
            .await
    }

    /// A direct call that finds no slot.
    pub(crate) async fn waiting_call(&self, user: UserId, agent: AgentId) -> QueueItemId {
        match self.direct_call(user, agent).await {
            Admission::Queued(queued) => queued.item_id,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    /// A direct call that gets a slot.
    pub(crate) async fn started_call(&self, user: UserId, agent: AgentId) -> ReservedCall {
        match self.direct_call(user, agent).await {
            Admission::Started(call) => *call,
            other => panic!("expected to start, got {other:?}"),
        }
    }

    pub(crate) async fn admit(&self, call: NewDirectCall) -> Admission {
        let batch = SlotBatch {
            admissions: vec![call],
            ..SlotBatch::default()
        };
        let outcome = self.store.settle(self.server, &batch).await.unwrap();
        outcome.admissions.into_iter().next().unwrap()
    }

    /// Settles nothing in particular.
    pub(crate) async fn look(&self) -> callq_domain::SlotOutcome {
        let batch = SlotBatch::default();
        self.store.settle(self.server, &batch).await.unwrap()
    }

    /// Gives free slots to at most so many waiting calls.
    pub(crate) async fn dispatch(&self, reserve: u32) -> Vec<ReservedCall> {
        let batch = SlotBatch {
            reserve,
            ..SlotBatch::default()
        };
        self.store
            .settle(self.server, &batch)
            .await
            .unwrap()
            .reserved
    }

    /// Has a provider take a call.
    pub(crate) async fn place(&self, attempt: Attempt) {
        let placed = ProgressBatch {
            placed: vec![(attempt, ExecutionId::new("execution").unwrap())],
            ..ProgressBatch::default()
        };
        let outcome = self.store.record_progress(self.server, &placed).await;
        assert_eq!(outcome.unwrap().placed, [true]);
    }

    pub(crate) async fn end(&self, call_id: CallId, outcome: Outcome) {
        self.end_because(call_id, outcome, None).await;
    }

    pub(crate) async fn end_because(
        &self,
        call_id: CallId,
        outcome: Outcome,
        reason: Option<&str>,
    ) {
        let batch = SlotBatch {
            endings: vec![Ending {
                call_id,
                attempt: None,
                outcome,
                execution_id: None,
                reason: reason.map(Into::into),
                duration_seconds: Some(7),
            }],
            ..SlotBatch::default()
        };
        self.store.settle(self.server, &batch).await.unwrap();
    }

    /// Puts a call back into the queue: its provider has no room.
    pub(crate) async fn give_back(&self, attempt: Attempt) {
        let batch = SlotBatch {
            returns: vec![Return {
                attempt,
                delay: Duration::from_secs(600),
                reason: "provider is busy".into(),
                if_unknown: false,
            }],
            ..SlotBatch::default()
        };
        self.store.settle(self.server, &batch).await.unwrap();
    }

    pub(crate) async fn assert_counters_equal_rows(&self) {
        assert_eq!(self.store.audit().await.unwrap(), []);
    }

    /// Returns once so many connections wait for a lock.
    pub(crate) async fn until_waiting_for_lock(&self, connections: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while self.count(waiting) < connections {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn connection(&self) -> PgConnection {
        connect(self.database.url()).unwrap()
    }

    pub(crate) fn sql(&self, statements: &str) {
        self.connection().batch_execute(statements).unwrap();
    }

    pub(crate) fn count(&self, query: &str) -> i64 {
        count(&mut self.connection(), query)
    }
}

/// The number a query answers.
pub(crate) fn count(connection: &mut PgConnection, query: &str) -> i64 {
    #[derive(QueryableByName)]
    struct CountRow {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    sql_query(format!("SELECT ({query})::bigint AS count"))
        .get_result::<CountRow>(connection)
        .unwrap()
        .count
}

/// The texts a query answers, one a row.
pub(crate) fn texts(connection: &mut PgConnection, query: &str) -> Vec<String> {
    #[derive(QueryableByName)]
    struct TextRow {
        #[diesel(sql_type = Text)]
        text: String,
    }
    let rows: Vec<TextRow> = sql_query(format!("SELECT q.text FROM ({query}) q (text)"))
        .load(connection)
        .unwrap();
    rows.into_iter().map(|row| row.text).collect()
}

pub(crate) fn new_user(email: &str) -> NewUser {
    NewUser {
        id: UserId::new(),
        email: email.parse().unwrap(),
        role: Role::User,
        concurrent_calls_limit: ConcurrencyLimit::new(2).unwrap(),
        time_zone: "Europe/Berlin".into(),
        credits: None,
    }
}

/// A token that nobody else has.
pub(crate) fn new_token(user_id: UserId) -> NewToken {
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let hash: Vec<u8> = [one.as_bytes().as_slice(), other.as_bytes()].concat();
    NewToken {
        id: TokenId::new(),
        user_id,
        hash: TokenHash(hash.try_into().unwrap()),
        expires_at: None,
    }
}

pub(crate) fn agent_fields(name: &str) -> AgentFields {
    AgentFields {
        name: name.into(),
        provider: None,
        provider_agent_id: None,
        caller_id: None,
        settings: None,
    }
}

pub(crate) fn contact_fields(number: &str) -> ContactFields {
    ContactFields {
        phone_number: number.parse().unwrap(),
        name: None,
        time_zone: None,
        user_data: None,
    }
}

pub(crate) fn new_campaign(
    user_id: UserId,
    agent_id: AgentId,
    contact_ids: Vec<ContactId>,
) -> NewCampaign {
    NewCampaign {
        id: CampaignId::new(),
        user_id,
        fields: CampaignFields {
            name: "Spring".into(),
            agent_id,
            next_action: "remind".into(),
            // At any time.
            first_call_time: NaiveTime::MIN,
            last_call_time: NaiveTime::MIN,
            start_date: NaiveDate::from_ymd_opt(2020, 11, 22).unwrap(),
            end_date: None,
            campaign_timezone: Some("Asia/Kolkata".into()),
            use_custom_timezone: true,
            use_contact_timezone: false,
            weekdays: Weekdays::ALL,
            holidays: BTreeSet::new(),
            legal_hours: None,
            retries: RetryPolicy {
                max_retries: 0,
                interval_minutes: 15,
                rules: BTreeMap::new(),
            },
            pacing: Pacing::FREE,
            country: None,
            max_calls_per_number_per_day: None,
        },
        contact_ids,
    }
}

pub(crate) fn direct_call(user_id: UserId, agent_id: AgentId, target: Target) -> NewDirectCall {
    NewDirectCall {
        item_id: QueueItemId::new(),
        user_id,
        agent_id,
        target,
        contact_name: None,
        user_data: None,
        caller_id: None,
        scheduled_for: None,
        expires_in: None,
        idempotency: None,
    }
}

/// A valid number, different for each `nth`.
pub(crate) fn phone_number(nth: u32) -> String {
    format!("+1415555{:04}", 1000 + nth % 9000)
}

pub(crate) fn first_page(limit: u16) -> PageRequest {
    PageRequest {
        limit,
        cursor: None,
    }
}

pub(crate) fn page_after(limit: u16, cursor: Option<String>) -> PageRequest {
    assert!(cursor.is_some(), "there is no further page");
    PageRequest { limit, cursor }
}

pub(crate) fn parsed(number: &str) -> PhoneNumber {
    number.parse().unwrap()
}
