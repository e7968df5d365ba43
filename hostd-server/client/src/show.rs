//! Tables.

use serde_json::Value;

/// A value as text that does not drive the terminal.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or(0.0)),
        other => other.to_string(),
    };
    // A guest's or file's name must not drive the terminal.
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| &value[name])
}

/// Most columns of a table whose columns nobody chose.
const MOST_COLUMNS: usize = 8;

/// Columns of a list that nobody chose any for: what its items have that is not made of parts.
pub fn columns(items: &[Value]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    for (name, value) in items.iter().filter_map(Value::as_object).flatten() {
        if !value.is_object() && !value.is_array() && !value.is_null() && columns.len() < MOST_COLUMNS && !columns.contains(&name.as_str())
        {
            columns.push(name);
        }
    }
    columns
}

/// A table of those columns, or JSON.
pub fn list(items: &[Value], columns: &[&str], json: bool) {
    if json {
        println!("{}", Value::Array(items.to_vec()));
        return;
    }
    let titles = columns
        .iter()
        .map(|column| column.rsplit('.').next().unwrap_or(column).to_uppercase())
        .collect();
    let rows: Vec<Vec<String>> = std::iter::once(titles)
        .chain(
            items
                .iter()
                .map(|item| columns.iter().map(|column| cell(at(item, column))).collect()),
        )
        .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|index| rows.iter().map(|row| row[index].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(text, width)| format!("{text:<width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    }
}

/// Names and values, or JSON.
pub fn one(value: &Value, json: bool) {
    if json {
        println!("{value}");
        return;
    }
    fn walk(value: &Value, name: &str) {
        match value {
            Value::Object(fields) => fields
                .iter()
                .for_each(|(own, value)| walk(value, &if name.is_empty() { own.clone() } else { format!("{name}.{own}") })),
            other => println!("{name:<32} {}", cell(other)),
        }
    }
    walk(value, "");
}
