//! When campaign calls give up by themselves: a default of the whole system, judged once, as they are
//! laid out. So starting a campaign stays one row's change, whatever its size.

use callq_domain::{CampaignFields, StoreError};
use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use super::Owner;
use super::zones::{self, OWN};
use crate::Failure;
use crate::rows::unreadable;

#[derive(QueryableByName)]
struct LifeRow {
    #[diesel(sql_type = Timestamptz)]
    now: DateTime<Utc>,
    #[diesel(sql_type = Nullable<Integer>)]
    seconds: Option<i32>,
    #[diesel(sql_type = Text)]
    time_zone: String,
}

/// When calls of a campaign that are laid out now expire, if they do. Their time counts from now, or
/// from the campaign's next hours by its own clock if these come later: nobody is to expire before it
/// could be called. See [`follow_clocks`] for those of other clocks.
pub(super) fn lapses_at(
    conn: &mut PgConnection,
    user: Uuid,
    fields: &CampaignFields,
) -> Result<Option<DateTime<Utc>>, Failure> {
    let life = LifeRow::read(conn, user)?;
    life.lapses_at(fields, OWN)
}

/// Has calls that go by their contacts' clocks give up by these: those that this transaction has laid
/// out, with the time that is the campaign's own.
pub(super) fn follow_clocks(
    conn: &mut PgConnection,
    owner: Owner,
    fields: &CampaignFields,
) -> Result<(), Failure> {
    let Some(own) = owner.lapses_at.filter(|_| owner.by_zone) else {
        return Ok(());
    };
    let life = LifeRow::read(conn, owner.user)?;
    for zone in zones::of_campaign(conn, owner.campaign)? {
        if zone == OWN {
            continue;
        }
        sql_query(
            "UPDATE call_queue SET expires_at = $3 \
             WHERE campaign_id = $1 AND zone = $2 AND call_type = 'campaign' AND wakes_at IS NULL \
                 AND queued_at = now() AND expires_at = $4",
        )
        .bind::<SqlUuid, _>(owner.campaign)
        .bind::<Text, _>(&zone)
        .bind::<Nullable<Timestamptz>, _>(life.lapses_at(fields, &zone)?)
        .bind::<Timestamptz, _>(own)
        .execute(conn)?;
    }
    Ok(())
}

impl LifeRow {
    fn read(conn: &mut PgConnection, user: Uuid) -> QueryResult<Self> {
        sql_query(
            "SELECT engine_now() AS now, y.campaign_call_ttl_seconds AS seconds, u.time_zone \
             FROM users u CROSS JOIN system_state y WHERE u.id = $1",
        )
        .bind::<SqlUuid, _>(user)
        .get_result(conn)
    }

    /// By the clock of a zone of its calls, as [`zones`] has them.
    fn lapses_at(
        &self,
        fields: &CampaignFields,
        zone: &str,
    ) -> Result<Option<DateTime<Utc>>, Failure> {
        let Some(seconds) = self.seconds else {
            return Ok(None);
        };
        let own = fields
            .zone(&self.time_zone)
            .ok_or_else(|| unreadable("users.time_zone", &self.time_zone))?;
        let hours = fields
            .hours()
            .map_err(|error| StoreError::Internal(format!("a campaign's hours: {error}")))?;
        let from = hours
            .next_window(zone.parse().unwrap_or(own), self.now)
            .map_or(self.now, |window| window.opens_at.max(self.now));
        Ok(Some(from + TimeDelta::seconds(i64::from(seconds))))
    }
}
