//! A TOML document as a tree in which every key and value knows its place, and in which the command line can replace values.

use crate::source::{Diagnostic, Diagnostics, Located, Sources, Span, nearest};
use toml::de::{DeTable, DeValue};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Boolean(bool),
    /// Values in order.
    Array(Vec<Node>),
    /// Keys and values, in the order of the text.
    Table(Table),
    /// What descriptions have no use for: floating-point numbers, dates.
    Other(&'static str),
}

/// A value and its place.
pub type Node = Located<Value>;
/// Keys and values.
pub type Table = Vec<(Located<String>, Node)>;

impl Value {
    /// The kind of value, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "text",
            Self::Integer(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

fn convert(value: &DeValue<'_>, span: Span, base: usize, diagnostics: &mut Diagnostics) -> Node {
    let value = match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).map_or_else(
            |_| {
                diagnostics.error(span, format!("the number {number} is too large"), "", "write a number below 2^63");
                Value::Integer(0)
            },
            Value::Integer,
        ),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Array(array) => Value::Array(
            array
                .iter()
                .map(|element| convert(element.get_ref(), Span::at(base, &element.span()), base, diagnostics))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, base, diagnostics)),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Located::new(value, span)
}

fn convert_table(table: &DeTable<'_>, base: usize, diagnostics: &mut Diagnostics) -> Table {
    let mut entries: Table = table
        .iter()
        .map(|(key, value)| {
            let key_span = Span::at(base, &key.span());
            (
                Located::new(key.get_ref().to_string(), key_span),
                convert(value.get_ref(), Span::at(base, &value.span()), base, diagnostics),
            )
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    entries
}

/// Parses a text that was added to the sources at `base`.
pub fn parse(text: &str, base: usize, diagnostics: &mut Diagnostics) -> Table {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = Span::at(base, &error.span().unwrap_or(0..0));
        diagnostics.error(
            span,
            error.message().to_string(),
            "not valid TOML",
            "see https://toml.io for the grammar",
        );
    }
    convert_table(table.get_ref(), base, diagnostics)
}

/// Applies one `PATH=VALUE`: `vm.debian.vcpus=2` goes through tables by key and through lists of tables by their `name`. The last part may be new.
pub fn set(document: &mut Table, assignment: &str, sources: &mut Sources, diagnostics: &mut Diagnostics) {
    let base = sources.add(format!("--set {assignment}"), assignment);
    let whole = Span {
        start: base,
        end: base + assignment.len(),
    };
    let example = "write it like --set vm.debian.vcpus=2";
    let Some((path, text)) = assignment.split_once('=') else {
        diagnostics.error(whole, "an override needs PATH=VALUE", "no `=` here", example);
        return;
    };
    let value_at = base + path.len() + 1;
    let value_span = Span {
        start: value_at,
        end: value_at + text.len(),
    };
    // What is no TOML value is text: shells eat quotes.
    let value = match DeValue::parse(text) {
        Ok(value) if !text.trim().is_empty() => convert(value.get_ref(), value_span, value_at, diagnostics),
        _ => Located::new(Value::String(text.to_string()), value_span),
    };
    let mut offset = base;
    let keys: Vec<Located<String>> = path
        .split('.')
        .map(|key| {
            let span = Span {
                start: offset,
                end: offset + key.len(),
            };
            offset = span.end + 1;
            Located::new(key.trim().to_string(), span)
        })
        .collect();
    let Some((last, mut path)) = keys.split_last() else { return };
    let mut table = document;
    while let [key, rest @ ..] = path {
        // A table of plain keys may be missing; whether it may be there at all is said by whoever reads it.
        if rest.is_empty() && !table.iter().any(|(name, _)| name.value == key.value) {
            table.push((key.clone(), Located::new(Value::Table(Table::new()), key.span)));
        }
        let Some(index) = table.iter().position(|(name, _)| name.value == key.value) else {
            diagnostics.push(not_found(key, table.iter().map(|(name, _)| name.value.as_str())));
            return;
        };
        match &mut table[index].1.value {
            Value::Table(inner) => {
                table = inner;
                path = rest;
            }
            Value::Array(elements) => {
                let [name, rest @ ..] = rest else {
                    diagnostics.error(whole, format!("`{}` is a list: name one of it, and a key", key.value), "", example);
                    return;
                };
                let names: Vec<String> = elements.iter().filter_map(|element| name_of(element).map(str::to_string)).collect();
                let chosen = elements.iter_mut().find(|element| name_of(element) == Some(name.value.as_str()));
                let Some(Node {
                    value: Value::Table(inner),
                    ..
                }) = chosen
                else {
                    diagnostics.push(not_found(name, names.iter().map(String::as_str)));
                    return;
                };
                table = inner;
                path = rest;
            }
            other => {
                let message = format!("`{}` is {}, nothing stands below it", key.value, other.kind());
                diagnostics.error(key.span, message, "", example);
                return;
            }
        }
    }
    match table.iter_mut().find(|(name, _)| name.value == last.value) {
        Some(entry) => *entry = (last.clone(), value),
        None => table.push((last.clone(), value)),
    }
}

fn name_of(node: &Node) -> Option<&str> {
    let Value::Table(table) = &node.value else { return None };
    table
        .iter()
        .find(|(key, _)| key.value == "name")
        .and_then(|(_, value)| match &value.value {
            Value::String(name) => Some(name.as_str()),
            _ => None,
        })
}

fn not_found<'a>(key: &Located<String>, known: impl Iterator<Item = &'a str> + Clone) -> Diagnostic {
    let help = match nearest(&key.value, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are: {}", known.collect::<Vec<_>>().join(", ")),
    };
    Diagnostic::error(
        key.span,
        format!("the system has no `{}` to override", key.value),
        "not found",
        help,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str, assignment: &str) -> (Table, Vec<Diagnostic>) {
        let (mut sources, mut diagnostics) = (Sources::default(), Diagnostics::default());
        let base = sources.add("t", text);
        let mut table = parse(text, base, &mut diagnostics);
        set(&mut table, assignment, &mut sources, &mut diagnostics);
        (table, diagnostics.sorted())
    }

    fn lookup<'a>(table: &'a Table, key: &str) -> &'a Value {
        &table.iter().find(|(name, _)| name.value == key).expect("key").1.value
    }

    #[test]
    fn set_finds_elements_of_lists_by_name() {
        let (table, errors) = apply("[[vm]]\nname='a'\n[[vm]]\nname='b'\nvcpus=1\n", "vm.b.vcpus=4");
        assert!(errors.is_empty());
        let Value::Array(vms) = lookup(&table, "vm") else { panic!() };
        let Value::Table(second) = &vms[1].value else { panic!() };
        assert_eq!(lookup(second, "vcpus"), &Value::Integer(4));
    }

    #[test]
    fn set_takes_text_without_quotes_and_adds_keys() {
        let (table, errors) = apply("[kernel]\n", "kernel.memory=512 MiB");
        assert!(errors.is_empty());
        let Value::Table(kernel) = lookup(&table, "kernel") else { panic!() };
        assert_eq!(lookup(kernel, "memory"), &Value::String("512 MiB".into()));
    }

    #[test]
    fn set_of_something_unknown_is_refused_with_a_suggestion() {
        for (assignment, expected) in [("vm.debain.vcpus=1", "debian"), ("vn.debian.vcpus=1", "vm"), ("vm", "--set")] {
            let (_, errors) = apply("[[vm]]\nname='debian'\n", assignment);
            assert!(errors[0].help.contains(expected), "{assignment}: {}", errors[0].help);
        }
        let (_, errors) = apply("[[vm]]\nname='debian'\n", "vm.debian.name.x=1");
        assert!(errors[0].message.contains("nothing stands below"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_and_any_override_are_answered(text in ".{0,200}", assignment in ".{0,40}") {
            let _ = apply(&text, &assignment);
        }
    }
}
