//! Files that are no plugins, and plugins that refuse to start: the error says what was found and what was expected.

use super::*;

fn refusal(component: impl Into<Bytes>) -> String {
    let text = refused(&limits(), source("odd", component)).to_string();
    assert!(text.starts_with("plugin `odd` "), "{text}");
    text
}

fn text(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

#[test]
fn what_is_no_component_is_told_apart() {
    let truncated = super::super::bundled()[0].1;
    for (component, words) in [
        (Vec::new(), "begins with nothing"),
        (b"#!/bin/sh\nexit\n".to_vec(), "begins with #!/bin/s, expected"),
        (truncated[..truncated.len() / 2].to_vec(), "is no valid WebAssembly: unexpected end"),
        (truncated[..6].to_vec(), "is no valid WebAssembly: unexpected end"),
        (vec![0; 4096], "is no WebAssembly: it begins with"),
    ] {
        let error = refusal(component);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_imports_more_than_granted_is_refused_by_name() {
    let error = refusal(text(r#"(component (import "sluice:plugin/secrets@1.0.0" (instance)))"#));
    assert!(error.contains(r#"imports ["sluice:plugin/secrets@1.0.0"], which no plugin can have"#), "{error}");
}

#[test]
fn what_exports_nothing_is_refused() {
    let error = refusal(text("(component)"));
    assert!(error.contains("does not export sluice:plugin/lifecycle"), "{error}");
}

#[test]
fn what_exports_something_else_is_refused() {
    let wat = r#"(component
        (instance $empty)
        (export "sluice:plugin/lifecycle@1.0.0" (instance $empty))
        (export "sluice:plugin/processor@1.0.0" (instance $empty)))"#;
    let error = refusal(text(wat));
    assert!(error.contains("does not fit the contract sluice:plugin@1"), "{error}");
}

#[test]
fn what_loops_or_traps_at_start_is_refused() {
    let spin = "(func $spin (loop $l (br $l))) (start $spin)";
    for (component, words) in [
        (guest("", "", spin), "more than 250 ms of CPU time"),
        (guest("", "(loop $l (br $l))", ""), "more than 250 ms of CPU time"),
        (guest("", "unreachable", ""), "unreachable"),
        (guest("", "(loop $l (drop (memory.grow (i32.const 16))) (br $l))", ""), "bytes of memory"),
    ] {
        let error = refusal(component);
        assert!(error.contains("fails while it is configured") && error.contains(words), "{error}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let limits = PluginsConfig { file_bytes_max: ByteSize(1000), ..limits() };
    let error = refused(&limits, source("odd", vec![0; 1001]));
    assert!(error.to_string().contains("has 1001 bytes, more than the 1000 of"), "{error}");
}

#[test]
fn a_bad_configuration_shows_its_problems() {
    let (name, component) = super::super::bundled()[0];
    let bad = PluginSource { config_json: br#"{"currencies":["eur"]}"#.to_vec(), ..source(name, component) };
    let error = refused(&limits(), bad);
    let expected = "plugin `order-rules` refuses its configuration: /currencies: `eur` is no ISO 4217 code in use";
    assert_eq!(error.to_string(), expected);
}
