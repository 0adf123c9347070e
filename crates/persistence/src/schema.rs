//! The tables that Diesel's query builder reads and writes, as far as it does. All else is SQL:
//! see `functions.rs` and the store modules.

diesel::table! {
    users (id) {
        id -> Uuid,
        email -> Text,
        role -> Text,
        concurrent_calls_limit -> Integer,
        direct_reserved_slots -> Integer,
        weight -> Integer,
        campaign_calls_per_second -> Nullable<Double>,
        time_zone -> Text,
        credits -> Nullable<BigInt>,
        max_queued_direct_calls -> Nullable<Integer>,
        max_queued_campaign_calls -> Nullable<Integer>,
        max_calls_per_number_per_day -> Nullable<Integer>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    api_tokens (id) {
        id -> Uuid,
        user_id -> Uuid,
        token_hash -> Binary,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    agents (id) {
        id -> Uuid,
        user_id -> Uuid,
        name -> Text,
        provider -> Nullable<Text>,
        provider_agent_id -> Nullable<Text>,
        caller_id -> Nullable<Text>,
        settings -> Nullable<Jsonb>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    contacts (id) {
        id -> Uuid,
        user_id -> Uuid,
        phone_number -> Text,
        name -> Nullable<Text>,
        time_zone -> Nullable<Text>,
        user_data -> Nullable<Jsonb>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    campaigns (id) {
        id -> Uuid,
        user_id -> Uuid,
        agent_id -> Uuid,
        name -> Text,
        next_action -> Text,
        first_call_time -> Time,
        last_call_time -> Time,
        start_date -> Date,
        end_date -> Nullable<Date>,
        campaign_timezone -> Nullable<Text>,
        use_custom_timezone -> Bool,
        use_contact_timezone -> Bool,
        weekdays -> Array<Text>,
        holidays -> Array<Date>,
        legal_hours -> Nullable<Text>,
        max_retries -> Integer,
        retry_interval_minutes -> Integer,
        max_concurrent_calls -> Nullable<Integer>,
        calls_per_second -> Nullable<Double>,
        weight -> Integer,
        max_calls_per_number_per_day -> Nullable<Integer>,
        status -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        finished_at -> Nullable<Timestamptz>,
        deleted_at -> Nullable<Timestamptz>,
        country -> Nullable<Text>,
    }
}

diesel::table! {
    import_errors (import_id) {
        import_id -> Uuid,
        user_id -> Uuid,
        created_at -> Timestamptz,
        csv -> Text,
    }
}

diesel::table! {
    /// Temporary, in the transaction of an import.
    import_rows (row) {
        row -> BigInt,
        item_id -> Uuid,
        contact_id -> Uuid,
        phone_number -> Text,
        name -> Nullable<Text>,
        time_zone -> Nullable<Text>,
        user_data -> Nullable<Jsonb>,
    }
}

diesel::joinable!(api_tokens -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(api_tokens, users);
