//! Where the description of a system came from, and how mistakes in it are shown: file, line and column, the place itself, what is wrong there and
//! what to do.
//!
//! All text has one numbering: `system.toml` first, then each `--set` of the command line, so that a [`Span`] alone says where something stands.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, renderer::DecorStyle};
use std::{fmt, ops::Range};

/// Bytes of the [`Sources`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

impl Span {
    /// The span of `range` in a text that begins at `base`.
    #[must_use]
    pub fn at(base: usize, range: &Range<usize>) -> Self {
        Self {
            start: base + range.start,
            end: base + range.end,
        }
    }
}

/// A value with the place where it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> Located<T> {
    /// Puts a value to its place.
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// One text.
#[derive(Clone, Debug)]
struct Text {
    name: String,
    text: String,
    base: usize,
}

/// All texts that describe a system.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    texts: Vec<Text>,
}

impl Sources {
    /// Adds a text and answers where its numbering begins.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> usize {
        // One byte lies between two texts, so that "one past the last" of the first is not the second's first.
        let base = self.texts.last().map_or(0, |last| last.base + last.text.len() + 1);
        self.texts.push(Text {
            name: name.into(),
            text: text.into(),
            base,
        });
        base
    }

    fn find(&self, span: Span) -> Option<(&Text, Range<usize>)> {
        let text = self.texts.iter().rev().find(|text| text.base <= span.start)?;
        let end = text.text.len();
        let start = (span.start - text.base).min(end);
        Some((text, start..(span.end.max(span.start) - text.base).clamp(start, end)))
    }

    /// `file:line:column` of a place.
    #[must_use]
    pub fn position(&self, span: Span) -> String {
        self.find(span).map_or_else(String::new, |(text, range)| {
            let before = &text.text.as_bytes()[..range.start];
            let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let column = before
                .iter()
                .rev()
                .take_while(|&&byte| byte != b'\n')
                .filter(|&&byte| byte & 0xc0 != 0x80)
                .count()
                + 1;
            format!("{}:{line}:{column}", text.name)
        })
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// No image can be made.
    Error,
    /// An image can be made, but hardly the one that is meant.
    Warning,
}

/// A mistake.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, and with what.
    pub message: String,
    /// Where.
    pub span: Span,
    /// Said at the place.
    pub label: String,
    /// Other places that matter.
    pub others: Vec<(Span, String)>,
    /// What to do.
    pub help: String,
}

impl Diagnostic {
    /// An error.
    pub fn error(span: Span, message: impl Into<String>, label: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span,
            label: label.into(),
            others: Vec::new(),
            help: help.into(),
        }
    }

    /// A warning.
    pub fn warning(span: Span, message: impl Into<String>, label: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(span, message, label, help)
        }
    }

    /// Adds another place.
    #[must_use]
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.others.push((span, label.into()));
        self
    }

    /// The mistake for a terminal, with colours if asked.
    #[must_use]
    pub fn render(&self, sources: &Sources, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        if let Some((text, range)) = sources.find(self.span) {
            let mut snippet = Snippet::source(text.text.as_str())
                .path(text.name.as_str())
                .annotation(AnnotationKind::Primary.span(range).label(self.label.as_str()));
            let mut elsewhere = Vec::new();
            for (span, label) in &self.others {
                match sources.find(*span) {
                    Some((other, range)) if other.base == text.base => {
                        snippet = snippet.annotation(AnnotationKind::Context.span(range).label(label.as_str()));
                    }
                    Some((other, range)) => elsewhere.push(
                        Snippet::source(other.text.as_str())
                            .path(other.name.as_str())
                            .annotation(AnnotationKind::Context.span(range).label(label.as_str())),
                    ),
                    None => {}
                }
            }
            group = group.element(snippet).elements(elsewhere);
        }
        if !self.help.is_empty() {
            group = group.element(Level::HELP.message(self.help.as_str()));
        }
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }
}

/// All mistakes that were found.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Adds an error.
    pub fn error(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>, help: impl Into<String>) {
        self.push(Diagnostic::error(span, message, label, help));
    }

    /// All of them, in the order of their places.
    #[must_use]
    pub fn sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|diagnostic| diagnostic.span.start);
        self.list
    }

    /// Whether one of them forbids an image.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// A description with mistakes.
#[derive(Debug)]
pub struct Invalid {
    /// The texts.
    pub sources: Sources,
    /// The mistakes.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(formatter, "\n")?;
            }
            write!(formatter, "{}", diagnostic.render(&self.sources, formatter.alternate()))?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// "did you mean", if one of `known` is near.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, best) = known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()?;
    (distance <= best.len().max(3) / 3).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let mut sources = Sources::default();
        let base = sources.add("a.toml", "x = 1\nä = 2\n");
        assert_eq!(sources.position(Span::at(base, &(0..1))), "a.toml:1:1");
        assert_eq!(sources.position(Span::at(base, &(11..12))), "a.toml:2:5");
        let second = sources.add("--set", "vm.x = 1");
        assert_eq!(sources.position(Span::at(second, &(3..4))), "--set:1:4");
    }

    #[test]
    fn nearest_suggests_only_near_words() {
        assert_eq!(nearest("priorty", ["priority", "program"]), Some("priority"));
        assert_eq!(nearest("colour", ["priority", "program"]), None);
    }

    #[test]
    fn a_span_outside_the_text_does_not_panic() {
        let mut sources = Sources::default();
        sources.add("a", "x");
        let diagnostic = Diagnostic::error(Span { start: 50, end: 60 }, "m", "l", "h");
        assert!(diagnostic.render(&sources, false).contains('m'));
    }
}
