//! Messages that are made of remembered ones.

use serde_json::Value;
use unstall::Message;

/// Documents whose lists at these pointers have the combinations of elements that are left, and no
/// others. Often that is one. `left` is sorted.
pub(super) fn with_elements(document: Value, lists: &[String], left: &[&[usize]]) -> Vec<Value> {
    let Some((pointer, inner)) = lists.split_first() else {
        return vec![document];
    };
    // Elements that go with the same elements of the other lists can stay in one document.
    let mut alike: Vec<(Vec<usize>, Vec<&[usize]>)> = Vec::new();
    for group in left.chunk_by(|one, other| one[0] == other[0]) {
        let rest: Vec<_> = group.iter().map(|at| &at[1..]).collect();
        match alike.iter_mut().find(|(_, other)| *other == rest) {
            Some((elements, _)) => elements.push(group[0][0]),
            None => alike.push((vec![group[0][0]], rest)),
        }
    }
    let documents = alike.into_iter().flat_map(|(elements, rest)| {
        let mut document = document.clone();
        if let Some(Value::Array(list)) = document.pointer_mut(pointer) {
            let mut index = 0..;
            list.retain(|_| {
                elements
                    .binary_search(&index.next().unwrap_or_default())
                    .is_ok()
            });
        }
        with_elements(document, inner, &rest)
    });
    documents.collect()
}

/// The earlier message with the fields of the later one over its own. A `null` stays one, because it may
/// be how the client turns something off.
pub(super) fn merged(earlier: &Message, later: &Value) -> Message {
    let mut document = serde_json::from_slice(earlier.as_bytes()).unwrap_or_default();
    put_over(&mut document, later);
    Message::text(document.to_string())
}

fn put_over(earlier: &mut Value, later: &Value) {
    match (earlier, later) {
        (Value::Object(earlier), Value::Object(later)) => {
            for (name, value) in later {
                put_over(earlier.entry(name).or_insert(Value::Null), value);
            }
        }
        (earlier, later) => *earlier = later.clone(),
    }
}
