//! Looks into the database, as anyone with psql could.

use anyhow::Context;
use diesel::connection::SimpleConnection;
use diesel::deserialize::QueryableByName;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

pub(crate) fn connect(url: &str) -> anyhow::Result<PgConnection> {
    PgConnection::establish(url).context("the database cannot be looked into")
}

/// The rows of a query whose one column is the text `line`.
pub(crate) fn lines(conn: &mut PgConnection, query: &str) -> anyhow::Result<Vec<String>> {
    let rows: Vec<Line> = sql_query(query).load(conn)?;
    Ok(rows.into_iter().map(|row| row.line).collect())
}

/// The rows of a query.
pub(crate) fn rows<T>(conn: &mut PgConnection, query: &str) -> anyhow::Result<Vec<T>>
where
    T: QueryableByName<diesel::pg::Pg> + 'static,
{
    Ok(sql_query(query).load(conn)?)
}

/// The one number that an expression gives.
pub(crate) fn number(conn: &mut PgConnection, expression: &str) -> anyhow::Result<i64> {
    let row: Number = sql_query(format!("SELECT ({expression})::bigint AS n")).get_result(conn)?;
    Ok(row.n)
}

/// Runs statements.
pub(crate) fn execute(url: &str, statements: &str) -> anyhow::Result<()> {
    Ok(connect(url)?.batch_execute(statements)?)
}
