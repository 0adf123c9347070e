//! What stands in the path and the query: ids, pages and filters.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use callq_domain::{Page, PageRequest};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// The `{id}` of a path.
///
/// A text that is no UUID names nothing that could exist, so it is 404 like any unknown id.
pub(crate) struct PathId<T>(pub(crate) T);

impl<T: FromStr> FromRequest for PathId<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let id = request.match_info().query("id").parse();
        ready(id.map(Self).map_err(|_| Problem::not_found("object")))
    }
}

/// The query, by name. A name given twice keeps its last value; unknown names are ignored.
pub(crate) struct Query(HashMap<String, String>);

impl FromRequest for Query {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let read = web::Query::<HashMap<String, String>>::from_query(request.query_string());
        ready(
            read.map(|query| Self(query.into_inner()))
                .map_err(|_| Problem::invalid("query", "cannot be read")),
        )
    }
}

/// Most entries of a page, and how many there are unless asked.
const MAX_PAGE: u16 = 200;
const DEFAULT_PAGE: u16 = 50;

impl Query {
    /// The page that is asked for.
    pub(crate) fn page(&self) -> Result<PageRequest, Problem> {
        let limit = match self.0.get("limit") {
            None => DEFAULT_PAGE,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_PAGE).contains(limit))
                .ok_or_else(|| {
                    let fault = format!("must be a whole number from 1 to {MAX_PAGE}");
                    Problem::invalid("limit", fault)
                })?,
        };
        let cursor = self
            .0
            .get("cursor")
            .filter(|text| !text.is_empty())
            .cloned();
        Ok(PageRequest { limit, cursor })
    }

    /// The value of `name` as `read` understands it, or a fault that says what it `must_be`.
    pub(crate) fn filter<T>(
        &self,
        name: &str,
        must_be: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(Problem::invalid(name, format!("must be {must_be}"))),
        }
    }
}

/// The query of a list, for its description.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Query::page` reads")]
pub(crate) struct PageParams {
    /// Entries on a page, 1 to 200; 50 unless given.
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct PageResponse<T> {
    /// Its entries.
    items: Vec<T>,
    /// Where the next page begins; null after the last.
    next_cursor: Option<String>,
}

impl<T> PageResponse<T> {
    /// A page whose entries are shown as `show` says.
    pub(crate) fn of<D>(page: Page<D>, show: impl Fn(D) -> T) -> Self {
        Self {
            items: page.items.into_iter().map(show).collect(),
            next_cursor: page.next_cursor,
        }
    }
}
