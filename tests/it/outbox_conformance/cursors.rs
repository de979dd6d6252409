//! Rows of cursors that no longer lie where a node last saw them are found all the same, and no other row is moved for them.

use sluice::order::{OrderStatus, Slot};

use super::nodes::on_postgres;
use super::world::{ORDERS, World, key_elsewhere};

/// Carries one order of each key from its entry to Kafka.
async fn carry(world: &World, keys: &[&str]) {
    for key in keys {
        let id = world.accept(key).await;
        world.pass().await;
        world.publish().await;
        assert_eq!(world.status(id).await, OrderStatus::Published, "{key}");
    }
}

#[test]
fn cursors_are_found_again_after_their_tables_were_written_anew() {
    on_postgres(async |world, database| {
        let other = key_elsewhere("k");
        let keys = ["k", other.as_str()];
        carry(world, &keys).await;
        let lie_at = || {
            ["decide_cursors", "publish_cursors"].map(|table| {
                database.rows(&format!("SELECT slot, ctid FROM {table} WHERE slot = {}", Slot::of(ORDERS, "k").0))
            })
        };
        let before = lie_at();
        for table in ["decide_cursors", "publish_cursors"] {
            database.run(&format!("VACUUM FULL {table}"));
        }
        assert!(lie_at().iter().zip(&before).all(|(now, before)| now != before), "they lie elsewhere");
        carry(world, &keys).await;
        carry(world, &["k", "k", &other]).await;
    });
}

#[test]
fn a_row_of_another_slot_that_lies_where_a_cursor_lay_is_left_alone() {
    on_postgres(async |world, database| {
        let other = key_elsewhere("k");
        carry(world, &["k", &other]).await;
        let cursors = |table: &str| {
            let untouched =
                [Slot::of(ORDERS, "k").0, Slot::of(ORDERS, &other).0].map(|slot| slot.to_string()).join(",");
            database.rows(&format!("SELECT * FROM {table} WHERE slot NOT IN ({untouched}) ORDER BY slot"))
        };
        let before = ["decide_cursors", "publish_cursors"].map(cursors);
        // Written in the other order, nearly every row lies where that of another slot lay.
        for table in ["decide_cursors", "publish_cursors"] {
            database.run(&format!(
                "CREATE TEMPORARY TABLE turned AS SELECT * FROM {table} ORDER BY slot DESC;
                 TRUNCATE {table}; INSERT INTO {table} SELECT * FROM turned; DROP TABLE turned"
            ));
        }
        carry(world, &["k", &other]).await;
        assert_eq!(["decide_cursors", "publish_cursors"].map(cursors), before);
    });
}
