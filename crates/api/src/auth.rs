//! Who is asking. A token is looked up by its hash at each request, so that one that is revoked
//! stops working at once. What was found is kept only for when the database cannot be asked.

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::sync::{Mutex, PoisonError};

use actix_web::dev::{Payload, ServiceRequest};
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use callq_domain::{Identity, Role, StoreError, TokenHash, UserId};
use chrono::{DateTime, TimeDelta, Utc};

use crate::api::Api;
use crate::front::RequestId;
use crate::problem::Problem;
use crate::token::hash_token;

/// How long a finding is trusted while the database is away. Whatever needs the database fails
/// then all the same; the metrics page, which is wanted most at that moment, does not.
const TRUST: TimeDelta = TimeDelta::minutes(5);

/// Findings kept at once.
const CAPACITY: usize = 10_000;

/// Tokens that were found valid a moment ago. What was not found is never kept, so that a token
/// works from the moment it is made.
#[derive(Default)]
pub(crate) struct TokenCache(Mutex<HashMap<TokenHash, (Identity, DateTime<Utc>)>>);

impl TokenCache {
    fn get(&self, hash: TokenHash, now: DateTime<Utc>) -> Option<Identity> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (identity, found_at) = entries.get(&hash)?;
        is_fresh(*found_at, now).then_some(*identity)
    }

    fn put(&self, hash: TokenHash, identity: Identity, now: DateTime<Utc>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CAPACITY {
            entries.retain(|_, (_, found_at)| is_fresh(*found_at, now));
        }
        if entries.len() >= CAPACITY {
            entries.clear();
        }
        entries.insert(hash, (identity, now));
    }
}

fn is_fresh(found_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    // A clock that was set back makes an entry stale rather than immortal.
    (TimeDelta::zero()..TRUST).contains(&(now - found_at))
}

/// Finds out who is asking, and whether it asks too often.
pub(crate) async fn authenticate(api: &Api, request: &ServiceRequest) -> Result<Identity, Problem> {
    let hash = bearer_token(request).map(hash_token).ok_or_else(|| {
        Problem::unauthorized("Send `Authorization: Bearer TOKEN` with a token of yours.")
    })?;
    let now = api.now();
    let identity = match api.ports.accounts.authenticate(hash).await {
        Ok(found) => {
            let identity = found.ok_or_else(unknown_token)?;
            api.tokens.put(hash, identity, now);
            identity
        }
        Err(away @ StoreError::Unavailable(_)) => api.tokens.get(hash, now).ok_or(away)?,
        Err(error) => return Err(error.into()),
    };
    if identity.token_expires_at.is_some_and(|end| end <= now) {
        return Err(unknown_token());
    }
    if let Some(rate) = &api.rate {
        rate.check(identity.user_id)?;
    }
    Ok(identity)
}

fn unknown_token() -> Problem {
    Problem::unauthorized("The token is unknown, revoked or over.")
}

fn bearer_token(request: &ServiceRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The user who is asking.
#[derive(Clone, Copy)]
pub(crate) struct Caller(pub(crate) Identity);

impl Caller {
    pub(crate) fn user(self) -> UserId {
        self.0.user_id
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let identity = request.extensions().get::<Identity>().copied();
        ready(identity.map(Self).ok_or_else(unknown_token))
    }
}

/// Proof that an admin is asking.
pub(crate) struct Admin {
    pub(crate) user_id: UserId,
    pub(crate) request_id: RequestId,
}

impl FromRequest for Admin {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        let extensions = request.extensions();
        let identity = extensions.get::<Identity>();
        ready(match (identity, extensions.get::<RequestId>()) {
            (Some(identity), Some(request_id)) if identity.role == Role::Admin => Ok(Self {
                user_id: identity.user_id,
                request_id: request_id.clone(),
            }),
            (Some(_), _) => Err(Problem::forbidden()),
            (None, _) => Err(unknown_token()),
        })
    }
}

#[cfg(test)]
mod tests {
    use callq_domain::TokenId;

    use super::*;

    fn identity() -> Identity {
        Identity {
            user_id: UserId::new(),
            role: Role::User,
            token_id: TokenId::new(),
            token_expires_at: None,
        }
    }

    #[test]
    fn a_finding_is_trusted_for_five_minutes_and_not_before_it_was_made() {
        let (cache, hash, now) = (TokenCache::default(), hash_token("t"), Utc::now());
        cache.put(hash, identity(), now);
        assert!(
            cache
                .get(hash, now + TRUST - TimeDelta::milliseconds(1))
                .is_some()
        );
        assert!(cache.get(hash, now + TRUST).is_none());
        assert!(cache.get(hash, now - TimeDelta::seconds(1)).is_none());
    }

    #[test]
    fn the_cache_never_outgrows_its_capacity() {
        let (cache, now) = (TokenCache::default(), Utc::now());
        for number in 0..=CAPACITY {
            cache.put(hash_token(&number.to_string()), identity(), now);
        }
        assert!(cache.0.lock().expect("not poisoned").len() <= CAPACITY);
    }
}
