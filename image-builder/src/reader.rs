//! Takes tables apart into types: every key is asked for once, what nobody asked for is unknown and refused.

use crate::{
    document::{Node, Table, Value},
    source::{Diagnostics, Located, Span, nearest},
};

/// One table that is being read.
pub struct Reader<'a> {
    table: &'a Table,
    span: Span,
    what: String,
    asked: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Starts on a table; `what` names it in messages ("server `shell`").
    pub fn new(table: &'a Table, span: Span, what: impl Into<String>) -> Self {
        Self {
            table,
            span,
            what: what.into(),
            asked: Vec::new(),
        }
    }

    /// Starts on a value that has to be a table.
    pub fn from_node(node: &'a Node, what: impl Into<String>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let what = what.into();
        match &node.value {
            Value::Table(table) => Some(Self::new(table, node.span, what)),
            other => {
                let label = format!("this is {}", other.kind());
                diagnostics.error(
                    node.span,
                    format!("{what} must be a table"),
                    label,
                    format!("write `[{what}]` and its keys below"),
                );
                None
            }
        }
    }

    /// Changes how messages name the table, once its name is known.
    pub fn rename(&mut self, what: impl Into<String>) {
        self.what = what.into();
    }

    /// Where the table stands.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }

    /// How messages name it.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The value of a key.
    pub fn get(&mut self, key: &'static str) -> Option<&'a Node> {
        self.asked.push(key);
        self.table.iter().find(|(name, _)| name.value == key).map(|(_, node)| node)
    }

    /// The value of a key that has to be there.
    pub fn require(&mut self, key: &'static str, example: &str, diagnostics: &mut Diagnostics) -> Option<&'a Node> {
        let node = self.get(key);
        if node.is_none() {
            let message = format!("{} has no `{key}`", self.what);
            diagnostics.error(self.span, message, "missing here", format!("add `{key} = {example}`"));
        }
        node
    }

    /// Text of a key that has to be there.
    pub fn require_text(&mut self, key: &'static str, example: &str, diagnostics: &mut Diagnostics) -> Option<Located<String>> {
        let node = self.require(key, example, diagnostics)?;
        text(node, key, diagnostics)
    }

    /// Text of a key.
    pub fn text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Located<String>> {
        let node = self.get(key)?;
        text(node, key, diagnostics)
    }

    /// A number of a key, within bounds.
    pub fn number(
        &mut self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<i64>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Located<i64>> {
        let node = self.get(key)?;
        number(node, key, bounds, diagnostics)
    }

    /// True or false.
    pub fn boolean(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<bool> {
        let node = self.get(key)?;
        match node.value {
            Value::Boolean(value) => Some(value),
            ref other => {
                wrong_kind(
                    node.span,
                    key,
                    "true or false",
                    other,
                    "write `true` or `false` without quotes",
                    diagnostics,
                );
                None
            }
        }
    }

    /// What `parse` makes of the text of a key; its error says what is wrong with it.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
        example: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Located<T>> {
        let node = self.get(key)?;
        parsed(node, key, parse, example, diagnostics)
    }

    /// A list of texts; empty if the key is missing.
    pub fn texts(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Vec<Located<String>> {
        let Some(node) = self.get(key) else { return Vec::new() };
        match &node.value {
            Value::Array(elements) => elements.iter().filter_map(|element| text(element, key, diagnostics)).collect(),
            other => {
                wrong_kind(node.span, key, "a list", other, &format!("write `{key} = [\"...\"]`"), diagnostics);
                Vec::new()
            }
        }
    }

    /// The tables of a list (`[[key]]`).
    pub fn tables(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Vec<Reader<'a>> {
        let Some(node) = self.get(key) else { return Vec::new() };
        match &node.value {
            Value::Array(elements) => elements
                .iter()
                .filter_map(|element| Reader::from_node(element, format!("[{key}]"), diagnostics))
                .collect(),
            other => {
                wrong_kind(
                    node.span,
                    key,
                    "a list of tables",
                    other,
                    &format!("write `[[{key}]]`"),
                    diagnostics,
                );
                Vec::new()
            }
        }
    }

    /// All entries of a table whose keys are names that the author chose.
    pub fn entries(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> &'a [(Located<String>, Node)] {
        let Some(node) = self.get(key) else { return &[] };
        match &node.value {
            Value::Table(table) => table,
            other => {
                wrong_kind(
                    node.span,
                    key,
                    "a table",
                    other,
                    &format!("write `[{key}]` and its entries below"),
                    diagnostics,
                );
                &[]
            }
        }
    }

    /// Refuses the keys that nobody asked for.
    pub fn finish(self, diagnostics: &mut Diagnostics) {
        for (key, _) in self.table {
            if !self.asked.contains(&key.value.as_str()) {
                let help = match nearest(&key.value, self.asked.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", self.asked.join(", ")),
                };
                diagnostics.error(key.span, format!("{} has no key `{}`", self.what, key.value), "unknown key", help);
            }
        }
    }
}

fn wrong_kind(span: Span, key: &str, wanted: &str, found: &Value, help: &str, diagnostics: &mut Diagnostics) {
    diagnostics.error(span, format!("`{key}` must be {wanted}"), format!("this is {}", found.kind()), help);
}

/// A node as text.
pub fn text(node: &Node, key: &str, diagnostics: &mut Diagnostics) -> Option<Located<String>> {
    match &node.value {
        Value::String(text) => Some(Located::new(text.clone(), node.span)),
        other => {
            wrong_kind(node.span, key, "text", other, "put it into double quotes", diagnostics);
            None
        }
    }
}

/// A node as a number within bounds.
pub fn number(node: &Node, key: &str, bounds: std::ops::RangeInclusive<i64>, diagnostics: &mut Diagnostics) -> Option<Located<i64>> {
    let help = format!("write a number from {} to {}", bounds.start(), bounds.end());
    match node.value {
        Value::Integer(value) if bounds.contains(&value) => Some(Located::new(value, node.span)),
        Value::Integer(value) => {
            diagnostics.error(node.span, format!("`{key}` cannot be {value}"), "out of range", help);
            None
        }
        ref other => {
            wrong_kind(node.span, key, "a number", other, &help, diagnostics);
            None
        }
    }
}

/// What `parse` makes of a node's text.
pub fn parsed<T>(
    node: &Node,
    key: &str,
    parse: impl Fn(&str) -> Result<T, String>,
    example: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Located<T>> {
    let help = format!("write it like `{key} = \"{example}\"`");
    match &node.value {
        Value::String(text) => match parse(text) {
            Ok(value) => Some(Located::new(value, node.span)),
            Err(reason) => {
                diagnostics.error(node.span, format!("`{key}` cannot be \"{text}\""), reason, help);
                None
            }
        },
        other => {
            wrong_kind(node.span, key, "text with a unit", other, &help, diagnostics);
            None
        }
    }
}
