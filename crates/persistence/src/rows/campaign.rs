//! Rows of `campaigns`, with what waits, is up and has ended of each.

use std::collections::BTreeMap;

use callq_domain::{
    AgentId, CallRate, Campaign, CampaignFields, CampaignId, CampaignProgress, CampaignStatus,
    ConcurrencyLimit, Country, DayOfWeek, LegalHours, NewCampaign, OpenWindow, Pacing, RetryCause,
    RetryPolicy, RetryRule, UserId, Weekdays, Weight,
};
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use diesel::sql_types::{Array, BigInt, Bool, Date, Nullable, Text, Timestamptz};
use diesel::{AsChangeset, Insertable, QueryableByName};
use uuid::Uuid;

use super::user::number_limit;
use super::{call_rate, count, small_count, unreadable};
use crate::Failure;
use crate::schema::campaigns;

/// A campaign, selected with [`CampaignRow::SELECT`].
#[derive(QueryableByName)]
#[diesel(table_name = campaigns)]
pub(crate) struct CampaignRow {
    pub(crate) id: Uuid,
    user_id: Uuid,
    agent_id: Uuid,
    name: String,
    next_action: String,
    first_call_time: NaiveTime,
    last_call_time: NaiveTime,
    start_date: NaiveDate,
    end_date: Option<NaiveDate>,
    campaign_timezone: Option<String>,
    use_custom_timezone: bool,
    use_contact_timezone: bool,
    max_retries: i32,
    retry_interval_minutes: i32,
    max_concurrent_calls: Option<i32>,
    calls_per_second: Option<f64>,
    weight: i32,
    max_calls_per_number_per_day: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    retries: Option<String>,
    #[diesel(sql_type = Array<Text>)]
    weekdays: Vec<String>,
    #[diesel(sql_type = Array<Date>)]
    holidays: Vec<NaiveDate>,
    #[diesel(sql_type = Nullable<Text>)]
    legal_hours: Option<String>,
    #[diesel(sql_type = Text)]
    zone: String,
    country: Option<String>,
    status: String,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    #[diesel(embed)]
    window: WindowRow,
    #[diesel(embed)]
    progress: ProgressRow,
}

/// Its hours, as they stand.
#[derive(QueryableByName)]
struct WindowRow {
    #[diesel(sql_type = Bool)]
    open: bool,
    #[diesel(sql_type = Bool)]
    has_opened: bool,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    opens_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    closes_at: Option<DateTime<Utc>>,
}

/// Counters of one campaign, or sums of those of several.
#[derive(QueryableByName)]
pub(crate) struct ProgressRow {
    #[diesel(sql_type = BigInt)]
    waiting: i64,
    #[diesel(sql_type = BigInt)]
    active: i64,
    #[diesel(sql_type = BigInt)]
    completed: i64,
    #[diesel(sql_type = BigInt)]
    failed: i64,
    #[diesel(sql_type = BigInt)]
    cancelled: i64,
    #[diesel(sql_type = BigInt)]
    expired: i64,
}

impl CampaignRow {
    /// All there is to say of campaigns. A condition may name the campaign `c`.
    pub(crate) const SELECT: &'static str = "SELECT c.*, \
        (SELECT json_agg(json_build_array(r.outcome, r.times, r.after_minutes))::text \
            FROM campaign_retries r WHERE r.campaign_id = c.id) AS retries, \
        CASE WHEN c.use_custom_timezone THEN c.campaign_timezone ELSE u.time_zone END AS zone, \
        k.open AND (NOT c.use_contact_timezone OR coalesce(w.opened, false)) AS open, \
        NOT k.keeps_hours OR k.opened_at IS NOT NULL AS has_opened, w.opens_at, \
        nullif(w.closes_at, 'infinity') AS closes_at, s.due::bigint + s.later AS waiting, \
        (SELECT count(*) FROM active_calls a \
            WHERE a.user_id = c.user_id AND a.campaign_id = c.id) AS active, \
        s.completed::bigint AS completed, s.failed::bigint AS failed, \
        s.cancelled::bigint AS cancelled, s.expired::bigint AS expired \
        FROM campaigns c JOIN campaign_counts s ON s.campaign_id = c.id \
        JOIN campaign_slots k ON k.campaign_id = c.id JOIN users u ON u.id = c.user_id \
        LEFT JOIN LATERAL (SELECT w.opens_at, w.closes_at, w.opened FROM campaign_windows w \
            WHERE w.campaign_id = c.id AND (NOT c.use_contact_timezone OR EXISTS ( \
                SELECT FROM call_queue q WHERE q.campaign_id = c.id AND q.zone = w.zone \
                    AND q.call_type = 'campaign' AND q.wakes_at IS NULL)) \
            ORDER BY w.opens_at LIMIT 1) w ON true";

    /// As it is stored: one that was started is active, though its first hours may not have come.
    pub(crate) fn status(&self) -> Result<CampaignStatus, Failure> {
        CampaignStatus::from_name(&self.status)
            .ok_or_else(|| unreadable("campaigns.status", &self.status))
    }

    fn pacing(&self) -> Result<Pacing, Failure> {
        let limit = |calls: i32| {
            ConcurrencyLimit::new(calls.into())
                .map_err(|_| unreadable("campaigns.max_concurrent_calls", calls))
        };
        Ok(Pacing {
            max_concurrent_calls: self.max_concurrent_calls.map(limit).transpose()?,
            calls_per_second: (self.calls_per_second)
                .map(|calls| call_rate("campaigns.calls_per_second", calls))
                .transpose()?,
            weight: Weight::new(self.weight.into())
                .ok_or_else(|| unreadable("campaigns.weight", self.weight))?,
        })
    }

    pub(crate) fn into_campaign(self) -> Result<Campaign, Failure> {
        let status = match self.status()? {
            CampaignStatus::Active if !self.window.has_opened => CampaignStatus::Scheduled,
            status => status,
        };
        let pacing = self.pacing()?;
        Ok(Campaign {
            id: CampaignId::from(self.id),
            user_id: UserId::from(self.user_id),
            zone: (self.zone.parse())
                .map_err(|_| unreadable("campaigns.campaign_timezone", &self.zone))?,
            status,
            window: self.window.opens_at.map(|opens_at| OpenWindow {
                opens_at,
                closes_at: self.window.closes_at,
            }),
            is_open: self.window.open,
            progress: self.progress.into_progress(status)?,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            fields: CampaignFields {
                name: self.name,
                agent_id: AgentId::from(self.agent_id),
                next_action: self.next_action,
                first_call_time: self.first_call_time,
                last_call_time: self.last_call_time,
                start_date: self.start_date,
                end_date: self.end_date,
                campaign_timezone: self.campaign_timezone,
                use_custom_timezone: self.use_custom_timezone,
                use_contact_timezone: self.use_contact_timezone,
                weekdays: Weekdays::from_names(&self.weekdays).map_err(|_| {
                    unreadable("campaigns.weekdays", format!("{:?}", self.weekdays))
                })?,
                holidays: self.holidays.into_iter().collect(),
                legal_hours: self.legal_hours.as_deref().map(legal_hours).transpose()?,
                retries: RetryPolicy {
                    max_retries: small_count("campaigns.max_retries", self.max_retries)?,
                    interval_minutes: small_count(
                        "campaigns.retry_interval_minutes",
                        self.retry_interval_minutes,
                    )?,
                    rules: retry_rules(self.retries.as_deref().unwrap_or("[]"))?,
                },
                pacing,
                country: self.country.map(country_of).transpose()?,
                max_calls_per_number_per_day: number_limit(self.max_calls_per_number_per_day)?,
            },
        })
    }
}

fn legal_hours(name: &str) -> Result<LegalHours, Failure> {
    LegalHours::from_name(name).ok_or_else(|| unreadable("campaigns.legal_hours", name))
}

/// Reads what [`CampaignRow::SELECT`] makes of `campaign_retries`.
fn retry_rules(json: &str) -> Result<BTreeMap<RetryCause, RetryRule>, Failure> {
    let unreadable = || unreadable("campaign_retries", json);
    let rows: Vec<(String, u32, Vec<u32>)> =
        serde_json::from_str(json).map_err(|_| unreadable())?;
    rows.into_iter()
        .map(|(cause, times, after)| {
            let cause = RetryCause::from_name(&cause)?;
            Some((cause, RetryRule::new(times, after).ok()?))
        })
        .collect::<Option<_>>()
        .ok_or_else(unreadable)
}

fn country_of(code: String) -> Result<Country, Failure> {
    code.parse()
        .map_err(|_| unreadable("campaigns.country", &code))
}

impl ProgressRow {
    /// A draft's calls are laid out already, but not in the queue until it is started.
    pub(crate) fn into_progress(self, status: CampaignStatus) -> Result<CampaignProgress, Failure> {
        let waiting = count("campaign_counts.due", self.waiting)?;
        let (pending, queued) = match status {
            CampaignStatus::Draft => (waiting, 0),
            _ => (0, waiting),
        };
        let mut progress = CampaignProgress {
            total: 0,
            pending,
            queued,
            processing: count("active_calls", self.active)?,
            completed: count("campaign_counts.completed", self.completed)?,
            failed: count("campaign_counts.failed", self.failed)?,
            cancelled: count("campaign_counts.cancelled", self.cancelled)?,
            expired: count("campaign_counts.expired", self.expired)?,
        };
        progress.total = progress.pending
            + progress.queued
            + progress.processing
            + progress.completed
            + progress.failed
            + progress.cancelled
            + progress.expired;
        Ok(progress)
    }
}

/// A campaign to be inserted, or what is said of one anew; the database adds the rest.
#[derive(Insertable, AsChangeset)]
#[diesel(table_name = campaigns, treat_none_as_null = true)]
pub(crate) struct NewCampaignRow<'a> {
    id: Uuid,
    user_id: Uuid,
    agent_id: Uuid,
    name: &'a str,
    next_action: &'a str,
    first_call_time: NaiveTime,
    last_call_time: NaiveTime,
    start_date: NaiveDate,
    end_date: Option<NaiveDate>,
    campaign_timezone: Option<&'a str>,
    use_custom_timezone: bool,
    use_contact_timezone: bool,
    weekdays: Vec<&'static str>,
    holidays: Vec<NaiveDate>,
    legal_hours: Option<&'static str>,
    max_retries: i32,
    retry_interval_minutes: i32,
    max_concurrent_calls: Option<i32>,
    calls_per_second: Option<f64>,
    weight: i32,
    country: Option<String>,
    max_calls_per_number_per_day: Option<i32>,
}

impl<'a> NewCampaignRow<'a> {
    pub(crate) fn new(campaign: &'a NewCampaign) -> Self {
        Self::of(
            campaign.id.into(),
            campaign.user_id.into(),
            &campaign.fields,
        )
    }

    pub(crate) fn of(id: Uuid, user_id: Uuid, fields: &'a CampaignFields) -> Self {
        Self {
            id,
            user_id,
            agent_id: fields.agent_id.into(),
            name: &fields.name,
            next_action: &fields.next_action,
            first_call_time: fields.first_call_time,
            last_call_time: fields.last_call_time,
            start_date: fields.start_date,
            end_date: fields.end_date,
            campaign_timezone: fields.campaign_timezone.as_deref(),
            use_custom_timezone: fields.use_custom_timezone,
            use_contact_timezone: fields.use_contact_timezone,
            weekdays: fields.weekdays.iter().map(DayOfWeek::as_str).collect(),
            holidays: fields.holidays.iter().copied().collect(),
            legal_hours: fields.legal_hours.map(LegalHours::as_str),
            // A number beyond the column's range is refused by its CHECK, like any other bad one.
            max_retries: i32::try_from(fields.retries.max_retries).unwrap_or(i32::MAX),
            retry_interval_minutes: i32::try_from(fields.retries.interval_minutes)
                .unwrap_or(i32::MAX),
            max_concurrent_calls: (fields.pacing.max_concurrent_calls)
                .map(|limit| i32::try_from(limit.get()).unwrap_or(i32::MAX)),
            calls_per_second: fields.pacing.calls_per_second.map(CallRate::get),
            weight: fields.pacing.weight.get().into(),
            country: fields.country.map(|country| country.to_string()),
            max_calls_per_number_per_day: (fields.max_calls_per_number_per_day)
                .map(|limit| i32::from(limit.get())),
        }
    }
}
