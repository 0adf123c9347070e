//! Users and tokens.

use callq_domain::{AccountStore, CampaignStore, Role, StoreError, TokenHash, TokenId, UserId};
use chrono::{TimeDelta, Utc};
use diesel::connection::SimpleConnection;

use crate::scene::{Scene, first_page, new_token, new_user};

#[tokio::test]
async fn a_new_user_is_found_by_id_email_and_token() {
    let scene = Scene::new().await;
    let mut new = new_user("ada@example.com");
    new.role = Role::Admin;
    new.credits = Some(12);
    let token = new_token(new.id);
    let hash = token.hash;

    let made = scene
        .store
        .create_user(new.clone(), token.clone())
        .await
        .unwrap();

    assert_eq!(
        (made.id, made.role, made.credits),
        (new.id, Role::Admin, Some(12))
    );
    assert_eq!(made.time_zone, "Europe/Berlin");
    assert_eq!((made.weight.get(), made.direct_reserved_slots), (1, 0));
    assert_eq!(scene.store.user(new.id).await, Ok(Some(made.clone())));
    assert_eq!(scene.store.user_by_email(&new.email).await, Ok(Some(made)));
    let identity = scene.store.authenticate(hash).await.unwrap().unwrap();
    assert_eq!(
        (identity.user_id, identity.role, identity.token_id),
        (new.id, Role::Admin, token.id)
    );
    assert_eq!(identity.token_expires_at, None);
}

#[tokio::test]
async fn an_email_is_taken_once_and_a_refusal_leaves_nothing_behind() {
    let scene = Scene::new().await;
    let first = new_user("ada@example.com");
    let second = new_user("ada@example.com");
    let token = new_token(second.id);
    scene
        .store
        .create_user(first.clone(), new_token(first.id))
        .await
        .unwrap();

    let refused = scene.store.create_user(second.clone(), token.clone()).await;

    let sentence = "a user with this email exists".to_owned();
    assert_eq!(refused, Err(StoreError::Conflict(sentence)));
    assert_eq!(scene.store.user(second.id).await, Ok(None));
    assert_eq!(scene.store.authenticate(token.hash).await, Ok(None));
}

#[tokio::test]
async fn a_user_whose_token_cannot_be_stored_is_not_made() {
    let scene = Scene::new().await;
    let first = new_user("ada@example.com");
    let token = new_token(first.id);
    scene.store.create_user(first, token.clone()).await.unwrap();
    let second = new_user("bob@example.com");
    let mut same_secret = new_token(second.id);
    same_secret.hash = token.hash;

    let refused = scene.store.create_user(second.clone(), same_secret).await;

    assert!(
        matches!(refused, Err(StoreError::Internal(_))),
        "{refused:?}"
    );
    assert_eq!(scene.store.user(second.id).await, Ok(None));
}

#[tokio::test]
async fn nobody_is_found_where_nobody_is() {
    let scene = Scene::new().await;
    let nobody = "nobody@example.com".parse().unwrap();

    assert_eq!(scene.store.user(UserId::new()).await, Ok(None));
    assert_eq!(scene.store.user_by_email(&nobody).await, Ok(None));
    assert_eq!(scene.store.authenticate(TokenHash([7; 32])).await, Ok(None));
}

#[tokio::test]
async fn a_token_that_is_over_proves_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (mut ended, mut later) = (new_token(user), new_token(user));
    ended.expires_at = Some(Utc::now() - TimeDelta::seconds(1));
    later.expires_at = Some(Utc::now() + TimeDelta::hours(1));

    scene.store.create_token(ended.clone()).await.unwrap();
    scene.store.create_token(later.clone()).await.unwrap();

    assert_eq!(scene.store.authenticate(ended.hash).await, Ok(None));
    let identity = scene.store.authenticate(later.hash).await.unwrap().unwrap();
    assert_eq!(identity.token_id, later.id);
    let kept = identity.token_expires_at.unwrap();
    assert_eq!(
        kept.timestamp_micros(),
        later.expires_at.unwrap().timestamp_micros()
    );
}

#[tokio::test]
async fn a_revoked_token_proves_nothing_and_is_revoked_once() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (token, other) = (new_token(user), new_token(user));
    scene.store.create_token(token.clone()).await.unwrap();
    scene.store.create_token(other.clone()).await.unwrap();

    scene.store.revoke_token(token.id).await.unwrap();

    assert_eq!(scene.store.authenticate(token.hash).await, Ok(None));
    assert!(
        scene
            .store
            .authenticate(other.hash)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(
        scene.store.revoke_token(token.id).await,
        Err(StoreError::NotFound)
    );
    assert_eq!(
        scene.store.revoke_token(TokenId::new()).await,
        Err(StoreError::NotFound)
    );
}

#[tokio::test]
async fn a_token_needs_its_user() {
    let scene = Scene::new().await;

    let refused = scene.store.create_token(new_token(UserId::new())).await;

    assert_eq!(refused, Err(StoreError::NotFound));
}

#[tokio::test]
async fn tokens_asked_for_while_a_look_up_is_under_way_share_the_next() {
    let scene = Scene::new().await;
    let mut tokens = Vec::new();
    for nth in 0..3 {
        let user = new_user(&format!("user{nth}@example.com"));
        let token = new_token(user.id);
        tokens.push((user.id, token.hash, token.id));
        scene.store.create_user(user, token).await.unwrap();
    }
    let revoked = tokens[2].2;
    let ask = |hash: TokenHash| {
        let store = scene.store.clone();
        tokio::spawn(async move { store.authenticate(hash).await.unwrap() })
    };
    let mut blocker = scene.connection();
    blocker
        .batch_execute("BEGIN; LOCK TABLE api_tokens IN ACCESS EXCLUSIVE MODE")
        .unwrap();

    let first = ask(tokens[0].1);
    scene.until_waiting_for_lock(1).await;
    let behind: Vec<_> = (0..60).map(|nth| ask(tokens[nth % 3].1)).collect();
    let stranger = ask(TokenHash([7; 32]));
    tokio::task::yield_now().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    assert_eq!(scene.count(waiting), 1);
    // Whoever asked first goes away; the look-up does not.
    first.abort();
    blocker
        .batch_execute(&format!(
            "UPDATE api_tokens SET revoked_at = now() WHERE id = '{revoked}'; COMMIT"
        ))
        .unwrap();

    for (nth, asked) in behind.into_iter().enumerate() {
        let (user, _, token) = tokens[nth % 3];
        let found = asked.await.unwrap();
        let expected = (token != revoked).then_some((user, token));
        assert_eq!(found.map(|it| (it.user_id, it.token_id)), expected);
    }
    assert_eq!(stranger.await.unwrap(), None);
}

#[tokio::test]
async fn a_token_is_found_though_every_idle_connection_broke() {
    let scene = Scene::new().await;
    let user = new_user("ada@example.com");
    let token = new_token(user.id);
    scene.store.create_user(user, token.clone()).await.unwrap();
    let ask = |_| {
        let store = scene.store.clone();
        tokio::spawn(async move { store.campaigns(UserId::new(), first_page(5)).await })
    };
    let asked: Vec<_> = (0..8).map(ask).collect();
    for one in asked {
        drop(one.await.unwrap());
    }

    let broken = scene.count(
        "SELECT count(*) FROM pg_stat_activity, LATERAL pg_terminate_backend(pid) \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );

    assert!(broken > 0);
    let found = scene.store.authenticate(token.hash).await.unwrap();
    assert_eq!(found.map(|it| it.token_id), Some(token.id));
}
