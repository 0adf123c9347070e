//! The database's clock in the hands of a test, and a way back to how a database was.
//!
//! Every settlement takes its time once, right after the lock that comes first. A database that a
//! test has all to itself answers there with the time that the test says. All SQL that knows how
//! the engine tells the time, or what tables there are, is here.

use callq_persistence::connect;
use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::sql_types::{Bool, Timestamptz};
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};

/// The test's own schema: its clock, and the database as it was.
const SET_UP: &str = "
    CREATE SCHEMA test;
    CREATE TABLE test.clock (at timestamptz NOT NULL);
    INSERT INTO test.clock VALUES (clock_timestamp());

    CREATE FUNCTION test.tables() RETURNS SETOF name LANGUAGE sql STABLE AS $$
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
            AND relname <> '__diesel_schema_migrations'
    $$;

    CREATE FUNCTION test.remember() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_table name;
    BEGIN
        FOR v_table IN SELECT test.tables() LOOP
            EXECUTE format('CREATE TABLE test.%1$I AS SELECT * FROM public.%1$I', v_table);
        END LOOP;
    END
    $$;

    CREATE FUNCTION test.go_back() RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_table name;
    BEGIN
        -- No trigger and no foreign key: everything goes, and everything there was comes back.
        SET LOCAL session_replication_role = replica;
        FOR v_table IN SELECT test.tables() LOOP
            EXECUTE format('DELETE FROM public.%1$I', v_table);
            EXECUTE format('INSERT INTO public.%1$I OVERRIDING SYSTEM VALUE SELECT * FROM test.%1$I', v_table);
        END LOOP;
        -- Each script begins near a fold, and shorter ones fold where the whole one did.
        PERFORM setval('campaign_tallies_nth_seq', 26);
    END
    $$;";

/// The engine tells the time by a function of its own.
const ENGINE_NOW: &str = "
    CREATE OR REPLACE FUNCTION engine_now() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        RETURN (SELECT at FROM test.clock);
    END
    $$;";

/// The engine tells the time where it takes its lock.
const LOCK_ENGINE: &str = "
    CREATE OR REPLACE FUNCTION lock_engine() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        PERFORM FROM system_state FOR NO KEY UPDATE;
        RETURN (SELECT at FROM test.clock);
    END
    $$;";

/// A database whose time the test tells. It must be the test's own.
pub(crate) struct DatabaseClock {
    connection: PgConnection,
}

impl DatabaseClock {
    /// Takes the clock over, and remembers the database as it is.
    pub(crate) fn take(url: &str) -> Self {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = Bool)]
            engine_now: bool,
        }
        let mut connection = connect(url).unwrap();
        let row: Row =
            sql_query("SELECT to_regprocedure('engine_now()') IS NOT NULL AS engine_now")
                .get_result(&mut connection)
                .unwrap();
        connection.batch_execute(SET_UP).unwrap();
        let override_clock = if row.engine_now {
            ENGINE_NOW
        } else {
            LOCK_ENGINE
        };
        connection.batch_execute(override_clock).unwrap();
        connection.batch_execute("SELECT test.remember()").unwrap();
        Self { connection }
    }

    /// Says what time it is.
    pub(crate) fn set(&mut self, now_ms: i64) {
        let now: DateTime<Utc> = DateTime::from_timestamp_millis(now_ms).unwrap();
        sql_query("UPDATE test.clock SET at = $1")
            .bind::<Timestamptz, _>(now)
            .execute(&mut self.connection)
            .unwrap();
    }

    /// Puts every row back as it was when the clock was taken.
    pub(crate) fn go_back(&mut self) {
        self.connection
            .batch_execute("SELECT test.go_back()")
            .unwrap();
    }

    /// Takes dead rows away, of which going back leaves many.
    pub(crate) fn vacuum(&mut self) {
        self.connection.batch_execute("VACUUM").unwrap();
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
