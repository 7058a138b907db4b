//! The secrets of a request, hidden where a refusal repeats them.
//!
//! Many servers answer `Cannot GET /feed?token=…`, and such a body is a part of the error.

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;

use super::Target;
use crate::defaults::{SHORTEST_SECRET, SHORTEST_TOKEN};

/// Texts that must not be printed, the longest first.
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// The password and the query of the URL, and the values of the headers.
    pub(super) fn of(target: &Target, headers: &HeaderMap) -> Secrets {
        let query = target.path.query().unwrap_or_default();
        let mut tokens: Vec<String> = query.split('&').flat_map(parameter).collect();
        for (name, value) in headers.iter().chain(
            target
                .authorization
                .iter()
                .map(|it| (&header::AUTHORIZATION, it)),
        ) {
            // These say who asks, and an error that names them helps.
            if [header::HOST, header::ORIGIN, header::USER_AGENT].contains(name) {
                continue;
            }
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            // `Bearer TOKEN`, `name=value`: the secret may be repeated alone.
            for part in value.split([' ', ';', ',']) {
                tokens.extend(parameter(part));
                tokens.push(part.to_owned());
            }
            tokens.push(value);
        }
        tokens.retain(|token| token.len() >= SHORTEST_TOKEN);
        tokens.extend(target.password.clone());
        tokens.push(query.to_owned());
        Secrets::new(tokens)
    }

    pub(super) fn new(all: impl IntoIterator<Item = String>) -> Secrets {
        let long = all
            .into_iter()
            .filter(|secret| secret.len() >= SHORTEST_SECRET);
        let mut all: Vec<String> = long.collect();
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Secrets(all)
    }

    /// The text with an ellipsis in place of each secret. The text may end within one, because only
    /// the beginning of a body is kept.
    pub(super) fn hidden(&self, mut text: String) -> String {
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "…");
            }
        }
        if let Some(begun) = self.0.iter().filter_map(|it| begun(&text, it)).max() {
            text.truncate(text.len() - begun);
            text.push('…');
        }
        text
    }
}

/// The value of a parameter of a query, as it is written and as it is meant.
fn parameter(text: &str) -> [String; 2] {
    let value = text.split_once('=').map_or(text, |(_, value)| value);
    let meant = percent_decode_str(value).decode_utf8_lossy().into_owned();
    [value.to_owned(), meant]
}

/// With how many bytes of the secret's beginning the text ends, if they are enough to tell.
fn begun(text: &str, secret: &str) -> Option<usize> {
    let ends = secret.char_indices().map(|(at, _)| at).rev();
    ends.take_while(|len| *len >= SHORTEST_SECRET)
        .find(|len| text.ends_with(&secret[..*len]))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn secrets_that_a_server_repeats_are_hidden() {
        let url = "ws://user:hunter22@h/feed?token=s3cr3t%2Fs&room=1".into();
        let target = Target::parse(&url).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-key", HeaderValue::from_static("k3yk3yk3y"));
        headers.insert(
            "cookie",
            HeaderValue::from_static("id=c00kiec00kie; theme=dark"),
        );
        headers.insert("origin", HeaderValue::from_static("https://app.example"));
        let secrets = Secrets::of(&target, &headers);
        for (said, shown) in [
            (
                "Cannot GET /feed?token=s3cr3t%2Fs&room=1",
                "Cannot GET /feed?…",
            ),
            ("bad token s3cr3t/s", "bad token …"),
            ("user:hunter22 is locked", "user:… is locked"),
            ("no such key: k3yk3yk3y", "no such key: …"),
            ("session c00kiec00kie has ended", "session … has ended"),
            ("dXNlcjpodW50ZXIyMg== is not valid", "… is not valid"),
            (
                "https://app.example is not allowed",
                "https://app.example is not allowed",
            ),
            ("the room 1 is full", "the room 1 is full"),
            ("no theme dark", "no theme dark"),
            ("a body that is cut: s3cr3t", "a body that is cut: …"),
        ] {
            assert_eq!(secrets.hidden(said.to_owned()), shown);
        }
    }
}
