//! What a client says of a campaign, and the rules it must follow.

use std::collections::HashSet;

use callq_domain::{CampaignFields, CampaignId, ContactId, NewCampaign, UserId};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::fields;
use crate::problem::Problem;

/// Contacts of one campaign.
const MAX_CONTACTS: usize = 100_000;

/// Minutes in a week, the longest pause between two tries.
const WEEK_MINUTES: u32 = 7 * 24 * 60;

/// What is said of a campaign.
#[derive(Deserialize, ToSchema)]
pub(crate) struct CampaignRequest {
    /// A name for people, 1 to 200 characters.
    name: String,
    /// Who talks.
    agent_id: Uuid,
    /// What the campaign is for, in your words; `call` unless given.
    next_action: String,
    /// Whom to call, in this order, each once; 1 to 100,000.
    contact_ids: Vec<Uuid>,
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
    /// Calls to a contact after the first that did not get through, 0 to 20; 0 unless given.
    max_retries: Option<i64>,
    /// Minutes between them, 1 to 10,080; 60 unless given.
    retry_interval_minutes: Option<i64>,
}

impl CampaignRequest {
    pub(super) fn into_campaign(self, user_id: UserId) -> Result<NewCampaign, Problem> {
        let contact_ids = contacts_of(&self.contact_ids)?;
        Ok(NewCampaign {
            id: CampaignId::new(),
            user_id,
            contact_ids,
            fields: self.into_fields()?,
        })
    }

    fn into_fields(self) -> Result<CampaignFields, Problem> {
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
        Ok(CampaignFields {
            name: fields::required_text("name", self.name, 200)?,
            agent_id: self.agent_id.into(),
            next_action: fields::required_text("next_action", self.next_action, 200)?,
            first_call_time: fields::time_of_day("first_call_time", &self.first_call_time)?,
            last_call_time: fields::time_of_day("last_call_time", &self.last_call_time)?,
            start_date,
            end_date,
            campaign_timezone,
            use_custom_timezone,
            max_retries: fields::whole_number("max_retries", self.max_retries.unwrap_or(0), 0, 20)?,
            retry_interval_minutes: fields::whole_number(
                "retry_interval_minutes",
                self.retry_interval_minutes.unwrap_or(60),
                1,
                WEEK_MINUTES,
            )?,
        })
    }
}

fn contacts_of(ids: &[Uuid]) -> Result<Vec<ContactId>, Problem> {
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
