//! One plugin in many languages: the same orders get the same verdict and the same bytes from each.
//!
//! [`orders`] makes orders, good ones and such with every flaw that `plugin-sdk/order-check.md` speaks of; [`model`] says
//! what has to become of them, with arithmetic of its own; [`languages`](guests) are the plugins of a folder, in the
//! gateway's own host. What differs is shrunk to the smallest order on which it still differs.

mod guests;
mod model;
mod orders;

use harness::environment::{languages, say, seed};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sluice::config::PluginsConfig;

use guests::Guests;
use model::{Answer, Line, net};

/// Orders that every language is asked about.
const ORDERS: usize = 10_000;
/// Orders of one call, as the relay makes them.
const BATCH: usize = 64;
/// Steps on the way to a smaller order.
const STEPS_MAX: usize = 2_000;

/// Somebody who answers for orders in the place of the reference plugin.
trait Language {
    fn name(&self) -> &str;
    /// Answer *i* belongs to order *i*.
    fn judge(&self, orders: &[String]) -> Vec<Answer>;
}

/// An order on which a language does not do as the model.
#[derive(Debug)]
struct Difference {
    language: String,
    /// The smallest that was found.
    order: String,
    expected: Answer,
    found: Answer,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { language, order, expected, found } = self;
        write!(f, "{language} differs on {order}\nexpected: {expected:?}\nfound:    {found:?}")
    }
}

/// Asks all languages about generated orders; stops at the first difference, and shrinks it.
fn compare(languages: &[&dyn Language], count: usize, seed: u64) -> Result<(), Box<Difference>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = orders::order();
    let mut left = count;
    while left > 0 {
        let trees: Vec<_> = (0..left.min(BATCH)).map(|_| strategy.new_tree(&mut runner).unwrap()).collect();
        left -= trees.len();
        let orders: Vec<String> = trees.iter().map(ValueTree::current).collect();
        let expected: Vec<Answer> = orders.iter().map(|order| model::judge(order, net)).collect();
        for language in languages {
            let found = language.judge(&orders);
            assert_eq!(found.len(), orders.len(), "{} answers for each order", language.name());
            if let Some(at) = (0..orders.len()).find(|at| found[*at] != expected[*at]) {
                return Err(Box::new(smallest(*language, trees.into_iter().nth(at).unwrap())));
            }
        }
    }
    Ok(())
}

/// Makes the order smaller for as long as the language still differs on it.
fn smallest(language: &dyn Language, mut tree: impl ValueTree<Value = String>) -> Difference {
    let differs = |order: String| {
        let expected = model::judge(&order, net);
        let found = language.judge(std::slice::from_ref(&order)).remove(0);
        (found != expected).then(|| Difference { language: language.name().to_owned(), order, expected, found })
    };
    // Alone it may do as it should; then the order says so by what it is.
    let mut last = differs(tree.current());
    for _ in 0..STEPS_MAX {
        let goes_on = match differs(tree.current()) {
            Some(difference) => {
                last = Some(difference);
                tree.simplify()
            }
            None => tree.complicate(),
        };
        if !goes_on {
            break;
        }
    }
    last.unwrap_or_else(|| {
        let order = tree.current();
        let answer = model::judge(&order, net);
        let language = format!("{}, in a batch but not alone,", language.name());
        Difference { language, order, expected: answer.clone(), found: answer }
    })
}

/// The model itself as a language, with a sum of its own.
struct Native {
    name: &'static str,
    net: fn(&[Line]) -> String,
}

impl Language for Native {
    fn name(&self) -> &str {
        self.name
    }

    fn judge(&self, orders: &[String]) -> Vec<Answer> {
        orders.iter().map(|order| model::judge(order, self.net)).collect()
    }
}

/// A decimal with two to four places, as somebody writes it who counts in floating point.
fn written(net: f64) -> String {
    let text = format!("{net:.4}");
    let short = text.trim_end_matches('0');
    let places = short.len() - short.find('.').unwrap() - 1;
    if places < 2 { text[..text.len() - 2].to_owned() } else { short.to_owned() }
}

/// How many lines an order has.
fn lines_of(order: &str) -> usize {
    let order: serde_json::Value = serde_json::from_str(order).unwrap();
    order["lines"].as_array().unwrap().len()
}

fn price(line: &Line) -> f64 {
    // At most 11 digits: exact.
    line.price as f64 / 10_000.0
}

#[test]
fn every_language_gives_the_same_verdict_and_the_same_bytes() {
    let Some(folder) = languages() else {
        say("SKIPPED: the languages were not compared, since SLUICE_TEST_LANGUAGES names no folder of LANGUAGE.wasm");
        return;
    };
    let guests = Guests::load(&folder);
    let all: Vec<&dyn Language> = guests.iter().map(|guest| guest as &dyn Language).collect();
    assert!(!all.is_empty(), "{} has no LANGUAGE.wasm", folder.display());
    let seed = seed().unwrap_or_else(|| u64::from(std::process::id()));
    if let Err(difference) = compare(&all, ORDERS, seed) {
        panic!("SLUICE_TEST_SEED={seed}: {difference}");
    }
    let names: Vec<&str> = all.iter().map(|language| language.name()).collect();
    say(&format!("{ORDERS} orders, the same bytes from {}", names.join(", ")));
}

#[test]
fn a_sum_in_floating_point_is_caught() {
    let net: fn(&[Line]) -> String =
        |lines| written(lines.iter().map(|line| f64::from(line.quantity) * price(line)).sum());
    let difference = compare(&[&Native { name: "float", net }], ORDERS, 1).unwrap_err();
    // Only sums beyond 2^53 ten-thousandths go wrong: one line can have one.
    assert!(lines_of(&difference.order) <= 2, "{difference}");
    assert!(matches!(difference.found, Answer::Enrich { .. }), "{difference}");
}

#[test]
fn a_line_rounded_to_cents_is_caught_and_shrunk_to_one_line() {
    let net: fn(&[Line]) -> String = |lines| {
        written(lines.iter().map(|line| (f64::from(line.quantity) * price(line) * 100.0).round() / 100.0).sum())
    };
    let difference = compare(&[&Native { name: "cents", net }], ORDERS, 2).unwrap_err();
    assert_eq!(lines_of(&difference.order), 1, "{difference}");
    assert!(difference.order.len() < 150, "{difference}");
}

#[test]
fn the_model_agrees_with_itself() {
    compare(&[&Native { name: "model", net }], 1_000, 3).unwrap();
}

/// The limits as shipped, but for the memory: a language may bring a whole interpreter along.
fn limits() -> PluginsConfig {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "[plugins]\nmemory_bytes_max = \"256MiB\"\n").unwrap();
    sluice::config::Config::load(Some(&file)).unwrap().plugins
}
