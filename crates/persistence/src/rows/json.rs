//! A jsonb column as the text it is, without a tree of values in between.

use std::io::Write;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Jsonb;
use serde_json::value::RawValue;

/// The version that PostgreSQL puts before the text in jsonb's binary form.
const VERSION: u8 = 1;

/// A jsonb value, both ways.
#[derive(Debug, Clone, FromSqlRow, AsExpression)]
#[diesel(sql_type = Jsonb)]
pub(crate) struct RawJson(pub(crate) Box<RawValue>);

impl FromSql<Jsonb, Pg> for RawJson {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes().split_first() {
            Some((&VERSION, text)) => {
                let text = std::str::from_utf8(text)?.to_owned();
                Ok(Self(RawValue::from_string(text)?))
            }
            _ => Err("jsonb in a form this build does not know".into()),
        }
    }
}

impl ToSql<Jsonb, Pg> for RawJson {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[VERSION])?;
        out.write_all(self.0.get().as_bytes())?;
        Ok(IsNull::No)
    }
}
