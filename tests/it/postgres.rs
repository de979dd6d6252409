//! PostgreSQL as a node meets it at its start: what is wrong with it is said clearly, and its schema comes up to date
//! once, however many nodes start and wherever one of them dies.

use harness::postgres::{self, Database, Server};
use sluice::config::{ByteSize, DatabaseConfig, Span};
use sluice::outbox::prepare;
use std::time::Duration;

fn config(url: String) -> DatabaseConfig {
    DatabaseConfig {
        url,
        readers: 2,
        queue_max: 64,
        commit_items_max: 64,
        commit_bytes_max: ByteSize(1 << 20),
        cache_bytes: ByteSize(1 << 20),
        connections: 4,
        lanes: 2,
        answer_timeout: Span(Duration::from_secs(10)),
        prepared_statements: !harness::environment::pgbouncer(),
        partition_transactions: 4096,
    }
}

/// Starts as a node does, and tells what it would tell the operator, with its cause.
fn start(url: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(prepare(&config(url.to_owned()))).map_err(|error| {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    })
}

fn server() -> Option<&'static Server> {
    postgres::server()
}

fn tables(database: &Database) -> usize {
    database
        .rows("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace")
        .len()
}

#[test]
fn a_fresh_database_gets_its_schema_and_a_second_start_changes_nothing() {
    let Some(server) = server() else { return };
    let database = server.database();
    start(&database.url()).unwrap();
    assert_eq!(database.ask("SELECT count(*) FROM slots").as_deref(), Some("64"));
    let (before, applied) = (tables(&database), database.rows("SELECT version, applied_at FROM sluice_schema"));
    start(&database.url()).unwrap();
    assert_eq!((tables(&database), database.rows("SELECT version, applied_at FROM sluice_schema")), (before, applied));
}

#[test]
fn nodes_that_start_together_migrate_once() {
    let Some(server) = server() else { return };
    let database = server.database();
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| start(&database.url()))).collect();
        for one in starts {
            one.join().unwrap().unwrap();
        }
    });
    let once = "SELECT count(*) = max(version) AND count(*) = count(DISTINCT version) FROM sluice_schema";
    assert_eq!(database.ask(once).as_deref(), Some("t"));
    // The ranges follow each other without a gap, and one log has the partitions of the other.
    let gaps = "SELECT count(*) FROM log_ranges a WHERE to_xid <> coalesce(
                    (SELECT min(b.from_xid) FROM log_ranges b WHERE b.from_xid > a.from_xid), a.to_xid)";
    assert_eq!(database.ask(gaps).as_deref(), Some("0"));
    let partitions = |log: &str| {
        database.rows(&format!("SELECT inhrelid FROM pg_inherits WHERE inhparent = '{log}'::regclass")).len()
    };
    let ranges = database.rows("SELECT from_xid FROM log_ranges").len();
    assert_eq!((partitions("outbox"), partitions("records")), (ranges, ranges));
}

#[test]
fn a_crash_in_the_middle_of_a_migration_leaves_nothing_and_the_next_start_does_it() {
    let Some(server) = server() else { return };
    let database = server.database();
    // The migration fails at its end, when everything before was done: a table of that name is there already.
    database.run("CREATE TABLE dead (id int)");
    let said = start(&database.url()).unwrap_err();
    assert!(said.contains("already exists"), "{said}");
    assert_eq!(tables(&database), 1, "nothing is half done");
    database.run("DROP TABLE dead");
    start(&database.url()).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let Some(server) = server() else { return };
    let database = server.database();
    start(&database.url()).unwrap();
    database.run("INSERT INTO sluice_schema (version, name) VALUES (99, '0099_later')");
    let said = start(&database.url()).unwrap_err();
    assert!(
        said.contains("has schema 99, this program knows up to") && said.contains("use the newer program"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_with_the_url_or_the_server_is_said_with_what_to_do() {
    if harness::environment::pgbouncer() {
        // A pooler answers in words of its own.
        return;
    }
    let Some(server) = server() else { return };
    let database = server.database();
    let url = database.url();
    let (base, _) = url.rsplit_once('/').unwrap();
    let address = base.rsplit_once('@').unwrap().1;
    let cases = [
        (format!("{base}/nowhere_at_all"), "has no database `nowhere_at_all`: correct database.url, or create it"),
        ("postgres://postgres@127.0.0.1:1/x".to_owned(), "no PostgreSQL answers at 127.0.0.1:1: check host and port"),
        (format!("{base}/x?sslmode=sideways"), "database.url cannot be read"),
        (format!("postgres://postgres@{address}/{}?sslmode=require", database.name()), "no encrypted connection to"),
    ];
    for (url, expected) in cases {
        let said = start(&url).unwrap_err();
        assert!(said.contains(expected), "{url}: {said}");
    }
}

#[test]
fn a_wrong_password_is_told_without_showing_it() {
    if harness::environment::postgres().is_some() || harness::environment::pgbouncer() {
        return;
    }
    let Some(server) = server() else { return };
    let database = server.database();
    make_stranger(server, &database);
    let url = |password: &str| {
        let address = database.url().rsplit_once('@').unwrap().1.to_owned();
        format!("postgres://stranger:{password}@{address}")
    };
    let said = start(&url("hunter2")).unwrap_err();
    assert!(said.contains("refuses the password of user `stranger`: correct the user or the password"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let said = start(&url("right")).unwrap_err();
    assert!(
        said.contains("user `stranger` lacks rights in database") && said.contains("GRANT CREATE, USAGE"),
        "{said}"
    );
    database.run("GRANT CREATE, USAGE ON SCHEMA public TO stranger");
    start(&url("right")).unwrap();
}

fn make_stranger(server: &Server, database: &Database) {
    server.run(
        "DO $$ BEGIN CREATE ROLE stranger LOGIN PASSWORD 'right'; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    );
    database.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
}

#[test]
fn the_connection_is_encrypted_where_the_url_asks_for_it_and_only_to_the_right_server() {
    let Some(programs) = postgres::programs().filter(|_| !harness::environment::pgbouncer()) else { return };
    let ours = tempfile::tempdir().unwrap();
    let folder = ours.path();
    let server = Server::start_with(&programs, &["ssl=on"], |data| {
        postgres::make_certificates(folder);
        for name in ["server.pem", "server.key"] {
            let target = if name == "server.pem" { "server.crt" } else { name };
            let copied =
                std::process::Command::new("cp").arg("-p").arg(folder.join(name)).arg(data.join(target)).status();
            assert!(copied.unwrap().success());
        }
    });
    let authority = folder.join("ca.pem").display().to_string();
    let url = |parameters: &str| format!("{}?{parameters}", server.url("postgres"));
    start(&url("sslmode=require")).unwrap();
    start(&url(&format!("sslmode=verify-full&sslrootcert={authority}"))).unwrap();
    // An authority that did not sign the server's certificate.
    let other = tempfile::tempdir().unwrap();
    postgres::make_certificates(other.path());
    let said =
        start(&url(&format!("sslmode=verify-full&sslrootcert={}", other.path().join("ca.pem").display()))).unwrap_err();
    assert!(said.contains("no encrypted connection to"), "{said}");
    let said = start(&url("sslmode=verify-full&sslrootcert=/nowhere/ca.pem")).unwrap_err();
    assert!(said.contains("sslrootcert names /nowhere/ca.pem: No such file"), "{said}");
}
