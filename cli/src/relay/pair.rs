//! What a relay says to another relay behind it, in headers.
//!
//! Between two relays the subprotocol is `unstall.v1`, so the one of the programs at both ends travels in a
//! header. And a request for a new session has to be told from one that resumes, because only the
//! former opens a connection further upstream.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// On a request: it opens a new stream through the relays.
const OPENS: HeaderName = HeaderName::from_static("unstall-relay-opens");

/// On a request: the subprotocols that the program at this end offers. On an answer: the one that the
/// program at the other end chose.
const SUBPROTOCOL: HeaderName = HeaderName::from_static("unstall-relay-subprotocol");

/// The subprotocol of sessions.
const SESSION: &str = "unstall.v1";

/// The subprotocols that a request offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// Those of the program.
    pub(super) names: Vec<String>,
    /// The client speaks sessions.
    pub(super) session: bool,
    /// The client is a relay that opens a new stream.
    pub(super) opens: bool,
}

impl Offer {
    /// Takes it out of the headers of a request.
    pub(super) fn take(headers: &mut HeaderMap) -> Offer {
        let of_request = list(headers, &header::SEC_WEBSOCKET_PROTOCOL);
        let session = of_request.iter().any(|name| name == SESSION);
        let mut names = match session {
            true => list(headers, &SUBPROTOCOL),
            false => of_request,
        };
        names.retain(|name| name != SESSION);
        let opens = headers.remove(OPENS).is_some();
        headers.remove(SUBPROTOCOL);
        Offer {
            names,
            session,
            opens,
        }
    }

    /// The headers for a relay upstream. `opens`: this request opens the stream.
    pub(super) fn headers(names: &[String], opens: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if opens {
            headers.insert(OPENS, HeaderValue::from_static("1"));
        }
        if let Ok(value) = HeaderValue::try_from(names.join(", "))
            && !names.is_empty()
        {
            headers.insert(SUBPROTOCOL, value);
        }
        headers
    }
}

/// Tells the relay in front which subprotocol was chosen.
pub(super) fn chosen(name: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((SUBPROTOCOL, HeaderValue::try_from(name).ok()?))
}

/// Takes what a relay upstream says was chosen out of its answer.
pub(super) fn take_chosen(headers: &mut HeaderMap) -> Option<String> {
    let value = headers.remove(SUBPROTOCOL)?;
    value.to_str().ok().map(str::to_owned)
}

fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_subprotocols_pass_through_a_session() {
        let names = ["a".to_owned(), "b".to_owned()];
        let mut headers = Offer::headers(&names, true);
        let offered = HeaderValue::from_static("unstall.v1");
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
        let offer = Offer::take(&mut headers);
        assert_eq!(offer.names, names);
        assert!(offer.session && offer.opens);
        assert_eq!(headers.len(), 1, "nothing of it goes further: {headers:?}");
        let resumes = Offer::take(&mut Offer::headers(&[], false));
        assert_eq!(resumes, Offer::default());
    }

    #[test]
    fn a_plain_request_offers_what_it_says_itself() {
        let mut headers = Offer::headers(&["inner".to_owned()], false);
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("x,y"),
        );
        let offer = Offer::take(&mut headers);
        assert_eq!(
            (offer.names, offer.session),
            (vec!["x".into(), "y".into()], false)
        );
    }
}
