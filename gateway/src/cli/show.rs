//! Tables for people.

use std::io::{self, Write};

use serde_json::Value;

use super::Output;

/// Prints a list of objects: `columns` are their members, in this order.
pub(super) fn list(output: Output, items: &[Value], columns: &[&str]) -> io::Result<()> {
    let text = match output {
        Output::Json => format!("{}\n", Value::Array(items.to_vec())),
        Output::Table => table(items, columns),
    };
    io::stdout().write_all(text.as_bytes())
}

fn table(items: &[Value], columns: &[&str]) -> String {
    let rows = items.iter().map(|item| columns.iter().map(|column| cell(item.get(column))).collect());
    let header = columns.iter().map(|column| column.to_uppercase()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.replace(char::is_control, " "),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let items =
            [serde_json::json!({"id": 1, "reason": "held-too-long"}), serde_json::json!({"id": 1200, "reason": null})];
        assert_eq!(table(&items, &["id", "reason"]), "ID    REASON\n1     held-too-long\n1200  -\n");
    }
}
