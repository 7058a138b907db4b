//! Topics, filters, and which filter matches which topic.

use unstall_proto::topics::{Filter, Topic};

use crate::{list, read, text};

/// Whether each of these is a name by `is_name`. What is not UTF-8 cannot be one.
fn check(kind: &str, least: usize, expected: bool, is_name: impl Fn(&str) -> bool) {
    let vectors = read("topics-packets.json");
    let names = list(&vectors["names"][kind]);
    assert!(names.len() >= least);
    for name in names.iter().filter_map(|name| name.as_str()) {
        assert_eq!(is_name(name), expected, "{kind}: {name:?}");
    }
}

#[test]
fn every_topic_of_the_vectors_is_one_and_nothing_else() {
    check("topics", 10, true, |name| Topic::new(name).is_ok());
    check("topics", 10, true, |name| Filter::new(name).is_ok());
    check("no_topics", 25, false, |name| Topic::new(name).is_ok());
}

#[test]
fn every_filter_of_the_vectors_is_one_and_nothing_else() {
    check("filters", 9, true, |name| Filter::new(name).is_ok());
    check("no_filters", 13, false, |name| Filter::new(name).is_ok());
}

#[test]
fn filters_match_the_topics_that_the_vectors_say() {
    let vectors = read("topics-packets.json");
    let matches = list(&vectors["matches"]);
    assert!(matches.len() >= 26);
    for vector in matches {
        let filter = Filter::new(text(&vector["filter"])).expect("a filter");
        let got = filter.matches(text(&vector["topic"]));
        assert_eq!(got, vector["matches"] == true, "{vector}");
    }
}
