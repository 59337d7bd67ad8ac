//! Reads a TOML file into settings and collects **every** problem of it, each with its field and line.
//!
//! Serde stops at the first error; an operator who fixes one line at a time is not served. So the file is parsed into values
//! with their places, and each setting is taken out of it by name: what is missing, of another type, out of range or left over
//! at the end is a problem.
//!
//! # Invariants
//! - A key that nobody took is a problem: an unknown setting never passes in silence.
//! - A problem never repeats a value: it may be a secret in the wrong place.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; absent where no line holds the fault.
    pub line: Option<usize>,
    /// The setting: `kafka.bootstrap_servers`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub constraint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if self.field.is_empty() {
            write!(f, "{}", self.constraint)
        } else {
            write!(f, "{}: {}", self.field, self.constraint)
        }
    }
}

/// The text of the file and the problems found so far.
#[derive(Debug)]
pub(super) struct Problems<'i> {
    text: &'i str,
    found: Vec<Problem>,
}

impl<'i> Problems<'i> {
    /// No problem yet.
    #[must_use]
    pub(super) fn new(text: &'i str) -> Self {
        Self {
            text,
            found: Vec::new(),
        }
    }

    /// Adds one.
    pub(super) fn add(
        &mut self,
        span: Option<Range<usize>>,
        field: &str,
        constraint: impl Into<String>,
    ) {
        let line = span.map(|span| {
            let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
            before.iter().filter(|byte| **byte == b'\n').count() + 1
        });
        self.found.push(Problem {
            line,
            field: field.to_owned(),
            constraint: constraint.into(),
        });
    }

    /// All of them, in the order of the file.
    #[must_use]
    pub(super) fn into_vec(mut self) -> Vec<Problem> {
        self.found
            .sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        self.found
    }
}

/// One table of the file, from which settings are taken by name.
#[derive(Debug)]
pub(super) struct Section<'t, 'i> {
    path: String,
    span: Option<Range<usize>>,
    table: Option<&'t DeTable<'i>>,
    taken: HashSet<&'static str>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// The whole file.
    #[must_use]
    pub(super) fn root(table: &'t DeTable<'i>) -> Self {
        Self {
            path: String::new(),
            span: None,
            table: Some(table),
            taken: HashSet::new(),
        }
    }

    /// Full name of a setting in this table.
    #[must_use]
    pub(super) fn field(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Place of a setting, or of the table if the setting is not there.
    #[must_use]
    pub(super) fn span_of(&self, name: &str) -> Option<Range<usize>> {
        self.find(name)
            .map(Spanned::span)
            .or_else(|| self.span.clone())
    }

    fn find(&self, name: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        let table = self.table?;
        table
            .iter()
            .find(|(key, _)| key.get_ref() == name)
            .map(|(_, value)| value)
    }

    fn take(&mut self, name: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.taken.insert(name);
        self.find(name)
    }

    /// A table below this one; an absent one is an empty one.
    pub(super) fn section(
        &mut self,
        problems: &mut Problems<'_>,
        name: &'static str,
    ) -> Section<'t, 'i> {
        let value = self.take(name);
        let table = value.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                problems.add(Some(value.span()), &self.field(name), "must be a table");
            }
            table
        });
        let span = value.map(Spanned::span);
        Section {
            path: self.field(name),
            span,
            table,
            taken: HashSet::new(),
        }
    }

    /// Tables below this one whose names the user chose.
    pub(super) fn named_sections(
        &self,
        problems: &mut Problems<'_>,
    ) -> Vec<(String, Section<'t, 'i>)> {
        let mut sections = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let name = key.get_ref().to_string();
            let path = format!("{}.\"{name}\"", self.path);
            match value.get_ref().as_table() {
                Some(table) => sections.push((
                    name,
                    Section {
                        path,
                        span: Some(key.span()),
                        table: Some(table),
                        taken: HashSet::new(),
                    },
                )),
                None => problems.add(Some(key.span()), &path, "must be a table"),
            }
        }
        sections
    }

    /// A text that may be absent.
    pub(super) fn optional_text(
        &mut self,
        problems: &mut Problems<'_>,
        name: &'static str,
    ) -> Option<String> {
        let value = self.take(name)?;
        let text = value.get_ref().as_str();
        match text {
            Some("") => problems.add(Some(value.span()), &self.field(name), "must not be empty"),
            Some(text) => return Some(text.to_owned()),
            None => problems.add(
                Some(value.span()),
                &self.field(name),
                "must be a text in quotes",
            ),
        }
        None
    }

    /// A text that must be there; an empty one stands in for what is wrong.
    pub(super) fn text(&mut self, problems: &mut Problems<'_>, name: &'static str) -> String {
        if self.find(name).is_none() {
            self.taken.insert(name);
            problems.add(self.span.clone(), &self.field(name), "must be set");
            return String::new();
        }
        self.optional_text(problems, name).unwrap_or_default()
    }

    /// A whole number in `range`.
    pub(super) fn number(
        &mut self,
        problems: &mut Problems<'_>,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        self.optional_number(problems, name, range)
            .unwrap_or(default)
    }

    /// A whole number in `range` that may be absent.
    pub(super) fn optional_number(
        &mut self,
        problems: &mut Problems<'_>,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.take(name)?;
        let digits = value.get_ref().as_integer();
        let parsed = digits.and_then(|digits| {
            u64::from_str_radix(&digits.as_str().replace('_', ""), digits.radix()).ok()
        });
        match parsed {
            Some(number) if range.contains(&number) => Some(number),
            Some(_) | None => {
                let constraint = format!(
                    "must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                );
                problems.add(Some(value.span()), &self.field(name), constraint);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(
        &mut self,
        problems: &mut Problems<'_>,
        name: &'static str,
        default: bool,
    ) -> bool {
        let Some(value) = self.take(name) else {
            return default;
        };
        value.get_ref().as_bool().unwrap_or_else(|| {
            problems.add(
                Some(value.span()),
                &self.field(name),
                "must be true or false",
            );
            default
        })
    }

    /// A list of texts, each with its place.
    pub(super) fn texts(
        &mut self,
        problems: &mut Problems<'_>,
        name: &'static str,
    ) -> Vec<(String, Range<usize>)> {
        let Some(value) = self.take(name) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            problems.add(
                Some(value.span()),
                &self.field(name),
                "must be a list of texts: [\"…\"]",
            );
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) if !text.is_empty() => texts.push((text.to_owned(), item.span())),
                Some(_) | None => {
                    problems.add(
                        Some(item.span()),
                        &self.field(name),
                        "must hold texts in quotes",
                    );
                }
            }
        }
        texts
    }

    /// All keys of this table with texts, numbers or booleans as values, as text.
    pub(super) fn properties(&self, problems: &mut Problems<'_>) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        for (key, value) in self.table.into_iter().flatten() {
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(digits) => digits.as_str().to_owned(),
                DeValue::Float(digits) => digits.as_str().to_owned(),
                DeValue::Boolean(flag) => flag.to_string(),
                DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                    let field = format!("{}.\"{}\"", self.path, key.get_ref());
                    problems.add(
                        Some(value.span()),
                        &field,
                        "must be a text, a number or a boolean (quote names that hold a dot)",
                    );
                    continue;
                }
            };
            properties.insert(key.get_ref().to_string(), text);
        }
        properties
    }

    /// A secret by reference: `{ env = "NAME" }` or `{ file = "path" }`.
    pub(super) fn secret(
        &mut self,
        problems: &mut Problems<'_>,
        name: &'static str,
    ) -> Option<SecretReference> {
        let value = self.take(name)?;
        read_reference(problems, self.field(name), value)
    }

    /// All keys of this table as secrets by reference.
    pub(super) fn named_secrets(
        &self,
        problems: &mut Problems<'_>,
    ) -> Vec<(String, SecretReference)> {
        let mut references = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let field = format!("{}.\"{}\"", self.path, key.get_ref());
            if let Some(reference) = read_reference(problems, field, value) {
                references.push((key.get_ref().to_string(), reference));
            }
        }
        references
    }

    /// Reports every key that nobody took.
    pub(super) fn finish(self, problems: &mut Problems<'_>) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.taken.contains(name) {
                let mut known: Vec<_> = self.taken.iter().copied().collect();
                known.sort_unstable();
                let constraint = format!("unknown setting; known here: {}", known.join(", "));
                problems.add(Some(key.span()), &self.field(name), constraint);
            }
        }
    }
}

fn read_reference(
    problems: &mut Problems<'_>,
    field: String,
    value: &Spanned<DeValue<'_>>,
) -> Option<SecretReference> {
    const FORM: &str = "must be a reference, { env = \"NAME\" } or { file = \"path\" }";
    let span = value.span();
    let Some(table) = value.get_ref().as_table() else {
        problems.add(
            Some(span),
            &field,
            format!("{FORM}; a secret is not written into this file"),
        );
        return None;
    };
    let mut section = Section {
        path: field.clone(),
        span: Some(span.clone()),
        table: Some(table),
        taken: HashSet::new(),
    };
    let env = section.optional_text(problems, "env");
    let file = section.optional_text(problems, "file");
    section.finish(problems);
    match (env, file) {
        (Some(name), None) => Some(SecretReference::Environment { name, field, span }),
        (None, Some(path)) => Some(SecretReference::File { path, field, span }),
        (Some(_), Some(_)) | (None, None) => {
            problems.add(Some(span), &field, FORM);
            None
        }
    }
}

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretReference {
    /// In an environment variable.
    Environment {
        /// Name of the variable.
        name: String,
        /// The setting that asks for it.
        field: String,
        /// Its place in the file.
        span: Range<usize>,
    },
    /// In a file; a trailing line end is not part of it.
    File {
        /// Path of the file.
        path: String,
        /// The setting that asks for it.
        field: String,
        /// Its place in the file.
        span: Range<usize>,
    },
}
