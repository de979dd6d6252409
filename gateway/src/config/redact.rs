//! A configuration that can be shown: secrets become `***`.

use super::{Config, DatabaseConfig};

/// What stands for a secret.
const HIDDEN: &str = "***";

impl Config {
    /// The same with its secrets hidden: the password in `database.url`, librdkafka's credentials, and what looks like a
    /// secret in the configuration of a plugin.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut shown = self.clone();
        shown.database.url = without_password(&self.database.url);
        for properties in [&mut shown.kafka.properties, &mut shown.kafka.producer, &mut shown.kafka.consumer] {
            for (name, value) in properties {
                if is_secret_property(name) {
                    HIDDEN.clone_into(value);
                }
            }
        }
        for table in shown.plugins.config.values_mut() {
            hide(table);
        }
        shown
    }
}

impl DatabaseConfig {
    /// The URL with its password hidden.
    #[must_use]
    pub fn shown_url(&self) -> String {
        without_password(&self.url)
    }
}

/// `scheme://user:PASSWORD@host`; also without a user, and `password=` among the parameters.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (rest, parameters) = rest.split_once('?').map_or((rest, None), |(rest, parameters)| (rest, Some(parameters)));
    let authority_end = rest.find('/').unwrap_or(rest.len());
    // A password may hold an unescaped `/`, then the last `@` lies behind it.
    let at = rest.rfind('@').filter(|at| *at < authority_end || rest[..*at].contains(':'));
    let shown = match at.and_then(|at| rest[..at].find(':').map(|colon| (colon, at))) {
        Some((colon, at)) => format!("{}:{HIDDEN}{}", &rest[..colon], &rest[at..]),
        None => rest.to_owned(),
    };
    let parameters = parameters.map(|parameters| {
        let shown = parameters.split('&').map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if looks_secret(name) => format!("{name}={HIDDEN}"),
            _ => parameter.to_owned(),
        });
        format!("?{}", shown.collect::<Vec<_>>().join("&"))
    });
    format!("{scheme}://{shown}{}", parameters.unwrap_or_default())
}

/// All of `sasl.*` but the mechanism, keys of TLS, and anything that is named like a secret.
fn is_secret_property(name: &str) -> bool {
    let is_mechanism = matches!(name, "sasl.mechanism" | "sasl.mechanisms");
    (name.starts_with("sasl.") && !is_mechanism) || name.starts_with("ssl.key") || looks_secret(name)
}

fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "credential", "api_key", "api-key", "apikey"]
        .iter()
        .any(|word| name.contains(word))
}

fn hide(table: &mut toml::Table) {
    for (name, value) in table {
        match value {
            _ if looks_secret(name) => *value = HIDDEN.into(),
            toml::Value::Table(inner) => hide(inner),
            toml::Value::Array(items) => items.iter_mut().filter_map(toml::Value::as_table_mut).for_each(hide),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::assemble;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        for (url, shown) in [
            ("sqlite://sluice.db", "sqlite://sluice.db"),
            ("postgres://me:hunter2@db/sluice", "postgres://me:***@db/sluice"),
            ("postgres://:hunter2@db/sluice", "postgres://:***@db/sluice"),
            ("postgres://me:hun/t@er2@db:5432/sluice", "postgres://me:***@db:5432/sluice"),
            (
                "postgres://me@db/sluice?sslmode=require&password=hunter2",
                "postgres://me@db/sluice?sslmode=require&password=***",
            ),
            ("postgres://db:5432/sluice", "postgres://db:5432/sluice"),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let text = "[plugins.config.order-rules]\nnested = [{ apiToken = \"hunter2\", visible = 1 }]";
        let mut config = assemble(Some(("t", text)), []).unwrap();
        for (name, value) in [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "hunter2"),
            ("sasl.password", "hunter2"),
            ("ssl.key.location", "hunter2"),
            ("ssl.keystore.password", "hunter2"),
            ("ssl.ca.location", "/etc/ca.pem"),
        ] {
            config.kafka.properties.insert(name.to_owned(), value.to_owned());
        }
        let shown = toml::to_string(&config.redacted()).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        for kept in ["sasl_ssl", "SCRAM-SHA-512", "/etc/ca.pem", "visible"] {
            assert!(shown.contains(kept), "{kept} in {shown}");
        }
    }
}
