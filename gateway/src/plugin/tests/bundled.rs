//! The bundled plugins in the host, as embedded.

use super::*;

use crate::order::Source;

const CHAIN: [&str; 2] = ["order-rules", "customer-enricher"];

fn bundled_host(limits: &PluginsConfig) -> PluginHost {
    let table = br#"{"customers":{"17850":{"name":"Maria Rossi","segment":"trade"}}}"#;
    let sources = super::super::bundled().into_iter().map(|(name, component)| PluginSource {
        origin: PluginOrigin::Bundled,
        config_json: if name == "customer-enricher" { table.to_vec() } else { b"{}".to_vec() },
        ..source(name, component)
    });
    host(limits, sources.collect())
}

fn order(customer: &str, quantity: i64) -> Bytes {
    format!(
        r#"{{"customerId":"{customer}","weight":1.50,"currency":"GBP","lines":[{{"quantity":{quantity},"unitPrice":"2.55"}}]}}"#
    )
    .into()
}

#[test]
fn an_order_is_judged_and_enriched() {
    let host = bundled_host(&limits());
    let judgements = judge(&host, &CHAIN, [order("17850", 6), order("1", 6), order("17850", 0)]);
    assert_eq!(judgements.iter().map(word).collect::<Vec<_>>(), ["patched", "patched", "reject"]);
    let expected = r#"{"customerId":"17850","weight":1.50,"currency":"GBP","lines":[{"quantity":6,"unitPrice":"2.55"}],"totals":{"net":"15.30"},"customer":{"name":"Maria Rossi","segment":"trade"}}"#;
    assert_eq!(body(&judgements[0]), expected);
    assert!(body(&judgements[1]).ends_with(r#","totals":{"net":"15.30"}}"#));
    let Decision::Reject(problems) = &judgements[2].decision else { panic!("{judgements:?}") };
    assert_eq!((problems[0].pointer.as_deref(), problems[0].source), (Some("/lines/0/quantity"), Source::Plugin));
    let runs =
        |index: usize| -> Vec<_> { judgements[index].runs.iter().map(|run| (&*run.name, run.verdict)).collect() };
    assert_eq!(runs(0), [("order-rules", "enrich"), ("customer-enricher", "enrich")]);
    assert_eq!(runs(1), [("order-rules", "enrich"), ("customer-enricher", "accept")]);
    assert_eq!(runs(2), [("order-rules", "reject")]);
    let digests: Vec<_> = host.generation().plugins().into_iter().map(|plugin| plugin.digest).collect();
    assert_eq!(judgements[0].runs[1].digest, digests[1]);
    assert!(digests.iter().all(|digest| digest.starts_with("sha256:") && digest.len() == 71), "{digests:?}");
}

#[test]
fn results_stand_at_the_places_of_their_candidates() {
    let host = bundled_host(&PluginsConfig { batch_orders_max: 7, batch_bytes_max: ByteSize(1000), ..limits() });
    let judgements = judge(&host, &CHAIN[..1], (0..500).map(|number| order("1", number)));
    for (number, judgement) in judgements.iter().enumerate() {
        if number == 0 {
            assert_eq!(word(judgement), "reject");
        } else {
            assert!(body(judgement).contains(&format!("\"quantity\":{number},")), "{judgement:?}");
        }
    }
}

#[test]
fn the_largest_legal_orders_pass() {
    let host = bundled_host(&limits());
    let line =
        r#"{"stockCode":"85123A","description":"WHITE HANGING HEART T-LIGHT HOLDER","quantity":6,"unitPrice":"2.55"},"#;
    let lines = line.repeat((1 << 20) / line.len() - 2);
    let large = format!(r#"{{"customerId":"17850","currency":"GBP","lines":[{}]}}"#, lines.trim_end_matches(','));
    let short = r#"{"quantity":1,"unitPrice":"0.1"},"#.repeat(31_000);
    let dense = format!(r#"{{"customerId":"17850","currency":"GBP","lines":[{}]}}"#, short.trim_end_matches(','));
    let text =
        format!(r#"{{"customerId":"17850","currency":"GBP","note":"{}","lines":[{line}1]}}"#, "x".repeat(1_000_000));
    let judgements = judge(&host, &CHAIN, [large, dense, text].map(Bytes::from));
    assert_eq!(judgements.iter().map(word).collect::<Vec<_>>(), ["patched", "patched", "reject"]);
}

#[test]
fn an_absent_plugin_is_a_fault_and_an_empty_chain_passes() {
    let host = bundled_host(&limits());
    let judgements = judge(&host, &["order-rules", "nowhere"], [order("1", 6), order("1", 0)]);
    assert_eq!(judgements.iter().map(word).collect::<Vec<_>>(), ["absent", "reject"]);
    assert_eq!(word(&judge(&host, &[], [order("1", 0)])[0]), "pass");
    assert!(judge(&host, &CHAIN, []).is_empty());
}

#[test]
fn one_order_can_be_judged_alone() {
    let host = bundled_host(&limits());
    chain(&host, &CHAIN);
    let pace = Pace::default();
    wait(async {
        let many = (0..200).map(|_| candidate(order("17850", 6))).collect();
        let (many, alone) =
            tokio::join!(host.judge("/orders", many, &pace), host.judge_alone("/orders", candidate(order("1", 0))));
        assert!(many.iter().all(|judgement| word(judgement) == "patched"));
        assert_eq!(word(&alone), "reject");
    });
}

#[test]
fn verdicts_and_faults_are_counted() {
    let metrics = Arc::new(Metrics::new());
    let sources = super::super::bundled().into_iter().map(|(name, component)| source(name, component)).collect();
    let host = host_with(&limits(), sources, Arc::clone(&metrics));
    judge(&host, &CHAIN, [order("1", 6), order("1", 6), order("1", 0)]);
    let text = metrics.render();
    for line in [
        r#"sluice_plugin_orders_total{plugin="order-rules",verdict="enrich"} 2"#,
        r#"sluice_plugin_orders_total{plugin="order-rules",verdict="reject"} 1"#,
        r#"sluice_plugin_orders_total{plugin="customer-enricher",verdict="accept"} 2"#,
        r#"sluice_plugin_call_seconds_count{plugin="order-rules"} 1"#,
    ] {
        assert!(text.contains(line), "{line} not in {text}");
    }
}
