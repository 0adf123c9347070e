//! What a client says of a campaign, and the rules it must follow.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use callq_domain::{
    CampaignFields, CampaignId, ConcurrencyLimit, ContactId, LegalHours, NewCampaign, Pacing,
    RetryCause, RetryPolicy, RetryRule, UserId, Weekdays,
};
use chrono::NaiveDate;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::fields;
use crate::problem::Problem;

/// Contacts of one campaign.
const MAX_CONTACTS: usize = 100_000;

/// Minutes in a week, the longest pause between two tries.
const WEEK_MINUTES: u32 = 7 * 24 * 60;

/// Dates on which nobody is called: a leap year of them.
const MAX_HOLIDAYS: usize = 366;

/// Calls to one contact after the first.
const MAX_RETRIES: u32 = 20;

/// What is said of a campaign.
#[derive(Deserialize, ToSchema)]
pub(crate) struct CampaignRequest {
    /// A name for people, 1 to 200 characters.
    name: String,
    /// Who talks.
    agent_id: Uuid,
    /// What the campaign is for, in your words; `call` unless given.
    next_action: String,
    /// Whom to call, in this order, each once; 1 to 100,000. Required when a campaign is made, and
    /// left out when it is replaced or a list says it.
    contact_ids: Option<Vec<Uuid>>,
    /// Local time from which calls may be made, `HH:MM` or `HH:MM:SS`.
    #[schema(example = "09:00")]
    first_call_time: String,
    /// Local time until which calls may be made. Before `first_call_time` it means over midnight.
    #[schema(example = "18:00")]
    last_call_time: String,
    /// First local day, `YYYY-MM-DD`.
    #[schema(example = "2030-05-01")]
    start_date: String,
    /// Last local day; none means no end.
    end_date: Option<String>,
    /// An IANA zone for the times above; your own unless given.
    campaign_timezone: Option<String>,
    /// Whether `campaign_timezone` holds; true if it is given.
    use_custom_timezone: Option<bool>,
    /// Whether its hours go by the clock of each contact: by the contact's `time_zone`, or else the
    /// zone of its number, or else the zone above. False unless given; changes in a draft only.
    use_contact_timezone: Option<bool>,
    /// On which days its hours begin: some of `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`; every
    /// day unless given.
    #[schema(example = json!(["mon", "tue", "wed", "thu", "fri"]))]
    weekdays: Option<Vec<String>>,
    /// Dates on which nobody is called, at most 366.
    #[schema(example = json!(["2030-12-25"]))]
    holidays: Option<Vec<String>>,
    /// Hours within which its own are cut: `tcpa`, `ofcom` or `trai`.
    legal_hours: Option<String>,
    /// Calls to a contact after the first that did not get through, 0 to 20; unless given, all that
    /// `retries` asks for, or none.
    max_retries: Option<i64>,
    /// Minutes between them, 1 to 10,080; 60 unless given.
    retry_interval_minutes: Option<i64>,
    /// What holds instead after `busy`, `no-answer`, `failed` or `machine`: how many times, and
    /// how long before each. Without it calls are made again after the first three alike, and not
    /// after a machine. `max_retries` bounds the sum.
    #[schema(example = json!({"busy": {"times": 3, "after_minutes": [5, 15, 60]}, "failed": {"times": 0}}))]
    retries: Option<BTreeMap<String, RetryRuleRequest>>,
    /// How many of its calls may be up at once, 1 to 1,000,000; as many as you may have unless given.
    max_concurrent_calls: Option<i64>,
    /// How many of its calls may start in a second, 0.001 to 1,000; any number unless given.
    calls_per_second: Option<f64>,
    /// Its turns beside those of your other campaigns, 1 to 1,000; 1 unless given.
    weight: Option<i64>,
    /// Where its lists are from, an ISO 3166 country code of two letters: numbers in national form
    /// are read as this country's.
    #[schema(example = "DE")]
    country: Option<String>,
    /// How often it may call one number within any 24 hours, 1 to 1,000, the calls of all your
    /// campaigns counted in; what an admin set for you unless that is more.
    max_calls_per_number_per_day: Option<i64>,
}

/// How often to call again after one outcome.
#[derive(Deserialize, ToSchema)]
pub(crate) struct RetryRuleRequest {
    /// 0 to 100.
    times: i64,
    /// Minutes before the first call after it, the second, and so on, each 1 to 43,200; the last
    /// holds for all that follow. `retry_interval_minutes` unless given.
    after_minutes: Option<Vec<u32>>,
}

impl CampaignRequest {
    pub(super) fn into_campaign(self, user_id: UserId) -> Result<NewCampaign, Problem> {
        let Some(contact_ids) = &self.contact_ids else {
            return Err(Problem::invalid("contact_ids", "is required"));
        };
        let contact_ids = contacts_of(contact_ids)?;
        Ok(NewCampaign {
            id: CampaignId::new(),
            user_id,
            contact_ids,
            fields: self.into_fields()?,
        })
    }

    /// What is said of a campaign that is there already. Its list is changed by other requests.
    pub(super) fn into_replacement(self) -> Result<CampaignFields, Problem> {
        if self.contact_ids.is_some() {
            let fault = "cannot be replaced; leave it out, and add, cancel or requeue contacts \
                         under `/api/campaigns/{id}/contacts`";
            return Err(Problem::invalid("contact_ids", fault));
        }
        self.into_fields()
    }

    /// A campaign that a list is to fill: it names nobody itself.
    pub(crate) fn into_list_campaign(self, user_id: UserId) -> Result<NewCampaign, Problem> {
        if self.contact_ids.is_some() {
            let fault = "must be left out: the list says whom to call";
            return Err(Problem::invalid("contact_ids", fault));
        }
        Ok(NewCampaign {
            id: CampaignId::new(),
            user_id,
            contact_ids: Vec::new(),
            fields: self.into_fields()?,
        })
    }

    fn into_fields(self) -> Result<CampaignFields, Problem> {
        let retries = self.retry_policy()?;
        let pacing = self.pacing()?;
        let start_date = fields::date("start_date", &self.start_date)?;
        let end_date = self
            .end_date
            .map(|text| fields::date("end_date", &text))
            .transpose()?;
        if end_date.is_some_and(|end| end < start_date) {
            return Err(Problem::invalid(
                "end_date",
                "must not be before `start_date`",
            ));
        }
        let campaign_timezone = fields::time_zone("campaign_timezone", self.campaign_timezone)?;
        let use_custom_timezone = self
            .use_custom_timezone
            .unwrap_or(campaign_timezone.is_some());
        if use_custom_timezone && campaign_timezone.is_none() {
            let fault = "is required while `use_custom_timezone` is true";
            return Err(Problem::invalid("campaign_timezone", fault));
        }
        let weekdays = self.weekdays.map_or(Ok(Weekdays::ALL), |names| {
            Weekdays::from_names(&names).map_err(|error| Problem::invalid("weekdays", error))
        })?;
        let holidays = holidays_of(self.holidays.as_deref().unwrap_or_default())?;
        let legal_hours = self
            .legal_hours
            .as_deref()
            .map(legal_hours_of)
            .transpose()?;
        let fields = CampaignFields {
            name: fields::required_text("name", self.name, 200)?,
            agent_id: self.agent_id.into(),
            next_action: fields::required_text("next_action", self.next_action, 200)?,
            first_call_time: fields::time_of_day("first_call_time", &self.first_call_time)?,
            last_call_time: fields::time_of_day("last_call_time", &self.last_call_time)?,
            start_date,
            end_date,
            campaign_timezone,
            use_custom_timezone,
            use_contact_timezone: self.use_contact_timezone.unwrap_or(false),
            weekdays,
            holidays,
            legal_hours,
            retries,
            pacing,
            country: fields::country("country", self.country.as_deref())?,
            max_calls_per_number_per_day: self
                .max_calls_per_number_per_day
                .map(fields::number_limit)
                .transpose()?,
        };
        // Whole seconds and the order of dates are seen to above.
        let hours = fields.hours();
        hours.map_err(|error| Problem::invalid("first_call_time", error))?;
        Ok(fields)
    }

    fn pacing(&self) -> Result<Pacing, Problem> {
        let limit = |calls| {
            let most = ConcurrencyLimit::MAX;
            let calls = fields::whole_number("max_concurrent_calls", calls, 1, most)?;
            ConcurrencyLimit::new(calls.into())
                .map_err(|error| Problem::invalid("max_concurrent_calls", error))
        };
        let calls_per_second = self
            .calls_per_second
            .map(|calls| fields::call_rate("calls_per_second", calls));
        Ok(Pacing {
            max_concurrent_calls: self.max_concurrent_calls.map(limit).transpose()?,
            calls_per_second: calls_per_second.transpose()?,
            weight: fields::weight(self.weight.unwrap_or(1))?,
        })
    }

    fn retry_policy(&self) -> Result<RetryPolicy, Problem> {
        let interval = self.retry_interval_minutes.unwrap_or(60);
        let interval_minutes =
            fields::whole_number("retry_interval_minutes", interval, 1, WEEK_MINUTES)?;
        let rules = self.retries.iter().flatten();
        let rules: BTreeMap<RetryCause, RetryRule> = rules
            .map(|(outcome, rule)| rule.read(outcome, interval_minutes))
            .collect::<Result<_, _>>()?;
        let asked: u32 = rules.values().map(RetryRule::times).sum();
        let max_retries = self.max_retries.unwrap_or(asked.min(MAX_RETRIES).into());
        Ok(RetryPolicy {
            max_retries: fields::whole_number("max_retries", max_retries, 0, MAX_RETRIES)?,
            interval_minutes,
            rules,
        })
    }
}

impl RetryRuleRequest {
    fn read(
        &self,
        outcome: &str,
        interval_minutes: u32,
    ) -> Result<(RetryCause, RetryRule), Problem> {
        let field = format!("retries.{outcome}");
        let cause = RetryCause::from_name(outcome).ok_or_else(|| {
            let fault = "is no outcome; name `busy`, `no-answer`, `failed` or `machine`";
            Problem::invalid(&field, fault)
        })?;
        let times = format!("{field}.times");
        let after = self.after_minutes.clone();
        RetryRule::new(
            fields::whole_number(&times, self.times, 0, RetryRule::MOST)?,
            after.unwrap_or_else(|| vec![interval_minutes]),
        )
        .map(|rule| (cause, rule))
        .map_err(|error| Problem::invalid(&format!("{field}.after_minutes"), error))
    }
}

fn holidays_of(texts: &[String]) -> Result<BTreeSet<NaiveDate>, Problem> {
    if texts.len() > MAX_HOLIDAYS {
        let fault = format!("must hold at most {MAX_HOLIDAYS} dates");
        return Err(Problem::invalid("holidays", fault));
    }
    let dates = texts.iter().enumerate();
    dates
        .map(|(nth, text)| fields::date(&format!("holidays[{nth}]"), text))
        .collect()
}

fn legal_hours_of(name: &str) -> Result<LegalHours, Problem> {
    LegalHours::from_name(name)
        .ok_or_else(|| Problem::invalid("legal_hours", "must be `tcpa`, `ofcom` or `trai`"))
}

/// Contacts as a client names them: some, not too many, each once.
pub(super) fn contacts_of(ids: &[Uuid]) -> Result<Vec<ContactId>, Problem> {
    if !(1..=MAX_CONTACTS).contains(&ids.len()) {
        let fault = format!("must hold 1 to {MAX_CONTACTS} ids");
        return Err(Problem::invalid("contact_ids", fault));
    }
    let mut seen = HashSet::with_capacity(ids.len());
    match ids.iter().position(|id| !seen.insert(id)) {
        None => Ok(ids.iter().copied().map(ContactId::from).collect()),
        Some(index) => Err(Problem::invalid(
            &format!("contact_ids[{index}]"),
            "is in the list already; name each contact once",
        )),
    }
}
