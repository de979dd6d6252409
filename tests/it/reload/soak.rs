//! Many reloads under load: no order fails, nothing is left behind in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness::{Route, TestGateway, environment, order, wait_until};

use super::{LIMIT, digest, file, plugin, replace, version};

/// Reloads where nothing else is said; `.ci/run` says more.
const RELOADS: usize = 40;

/// What the process may grow by after the first tenth. A version that stayed behind each time would cost far more over
/// a thousand reloads.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

#[test]
fn reloads_under_load_fail_no_order_and_leave_no_memory_behind() {
    let reloads = environment::reloads().unwrap_or(RELOADS);
    let route = Route { plugins: vec!["marked".to_owned()], replies: None, ..Route::default() };
    let gateway = TestGateway::with().plugin("marked", version(1)).route(route).start();
    let (posted, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (before, after) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let lines: Vec<String> = (0..8).map(|_| order().to_string()).collect();
                let results = gateway.post_batch(&lines, &[]);
                assert!(results.iter().all(|result| result["status"] == 202), "{results:?}");
                posted.fetch_add(8, Ordering::SeqCst);
            }
        });
        let mut before = 0;
        for number in 0..reloads {
            let bytes = version(u32::try_from(number % 2).unwrap() + 1);
            let expected = digest(&bytes);
            replace(&file(&gateway), &bytes);
            wait_until("the next version serves", LIMIT, || {
                let plugin = plugin(&gateway, "marked");
                if plugin["digest"] == *expected { Ok(()) } else { Err(plugin) }
            });
            if number == reloads / 10 {
                before = gateway.resident_bytes();
            }
        }
        is_over.store(true, Ordering::SeqCst);
        (before, gateway.resident_bytes())
    });
    let posted = posted.into_inner();
    wait_until("every order is published", LIMIT, || {
        let orders = gateway.admin().get("/overview").json()["orders"].clone();
        if orders["PUBLISHED"] == posted { Ok(()) } else { Err((orders, posted)) }
    });
    assert!(gateway.metric("sluice_plugin_faults_total", "").abs() < f64::EPSILON);
    let generations = gateway.metric("sluice_plugin_generation", "");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let expected = reloads as f64;
    assert!((generations - expected).abs() <= 1.0, "{generations} generations of {reloads} reloads");
    let grown = after.saturating_sub(before);
    environment::say(&format!("{reloads} reloads under {posted} orders: {} KiB more", grown >> 10));
    assert!(grown < GROWTH_BYTES_MAX, "from {before} to {after} bytes in {reloads} reloads");
}
