//! Under which keys a message is remembered or forgotten.

use std::collections::HashMap;

use serde_json::Value;

use crate::relay::{limits, rules::Match};

/// A group of rules, and the fields of a message in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    group: usize,
    fields: Box<[Field]>,
}

/// A field as JSON. `None`: the message has no such field.
type Field = Option<Box<str>>;

/// The fields of a key, and where those of `each` are in their lists.
type Combination = (Vec<Field>, Vec<usize>);

impl Key {
    /// Whether it names every field.
    pub(super) fn is_whole(&self) -> bool {
        self.fields.iter().all(Option::is_some)
    }

    /// What it costs in memory.
    pub(super) fn cost(&self) -> usize {
        let fields = self.fields.iter().flatten().map(|field| field.len());
        limits::REMEMBERED_KEY_BYTES + 2 * fields.sum::<usize>()
    }

    /// Whether they are the same where this one has fields.
    pub(super) fn agrees(&self, other: &Key) -> bool {
        let mut fields = self.fields.iter().zip(&other.fields);
        self.group == other.group && fields.all(|(one, other)| one.is_none() || one == other)
    }
}

/// The keys of a message, one for each combination of elements of its lists, and where these elements are
/// in their lists. `None`: there are more than one client may have.
pub(super) fn keys(group: usize, found: &Match<'_>) -> Option<HashMap<Key, Box<[usize]>>> {
    let Match { rule, document, .. } = found;
    let fixed = rule
        .key
        .iter()
        .map(|pointer| text_of(document.pointer(pointer)));
    let fixed: Vec<_> = fixed.collect();
    let lists = rule
        .each
        .iter()
        .map(|pointer| elements(document.pointer(pointer)));
    let lists: Vec<_> = lists.collect();
    let count = lists.iter().map(Vec::len).try_fold(1, usize::checked_mul);
    if count.is_none_or(|count| count > limits::REMEMBERED_KEYS) {
        return None;
    }
    let mut combinations: Vec<Combination> = vec![(fixed, Vec::new())];
    for list in lists {
        let longer = combinations.into_iter().flat_map(|(fields, at)| {
            let elements = list.iter().enumerate();
            let longer = elements.map(move |(index, element)| {
                let (mut fields, mut at) = (fields.clone(), at.clone());
                fields.push(element.clone());
                at.push(index);
                (fields, at)
            });
            longer.collect::<Vec<_>>()
        });
        combinations = longer.collect();
    }
    let keyed = combinations.into_iter().map(|(fields, at)| {
        let fields = fields.into();
        (Key { group, fields }, at.into())
    });
    Some(keyed.collect())
}

/// The elements of a list. What is no list is one element, and so is a field that is not there.
fn elements(value: Option<&Value>) -> Vec<Field> {
    match value {
        Some(Value::Array(values)) => values.iter().map(|value| text_of(Some(value))).collect(),
        value => vec![text_of(value)],
    }
}

fn text_of(value: Option<&Value>) -> Field {
    Some(value?.to_string().into())
}
