//! The agreement on permessage-deflate (RFC 7692 section 7.1).

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_EXTENSIONS};

use crate::settings::Compression;

const NAME: &str = "permessage-deflate";
/// The window of a peer that does not bound it.
const LARGEST: u8 = 15;

/// What both sides agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompressionAgreed {
    pub(super) compression: Compression,
    /// What this side sends.
    pub(super) outgoing: Direction,
    /// What the peer sends.
    pub(super) incoming: Direction,
}

impl CompressionAgreed {
    /// The same, with messages of less than so many bytes sent as they are.
    pub(crate) fn not_below(mut self, bytes: usize) -> CompressionAgreed {
        self.compression.smallest = self.compression.smallest.max(bytes);
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) window_bits: u8,
    /// Whether a message may refer to the messages before it.
    pub(super) takeover: bool,
}

/// The parameters of one offer or answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    /// The inner value is the one that a client need not give.
    client_bits: Option<Option<u8>>,
}

/// What a client offers, the offer that it prefers first.
///
/// In the second no message refers to another. It is for servers that cannot bound their window, so
/// that this side would have to keep more than it wants, and for servers that want to keep nothing.
fn offers(compression: &Compression) -> [Parameters; 2] {
    let bits = compression.window_bits;
    let no_takeover = !compression.context_takeover;
    let first = Parameters {
        server_no_takeover: no_takeover,
        client_no_takeover: no_takeover,
        server_bits: (bits < LARGEST).then_some(bits),
        // Without a value, as browsers do: then no answer can go beyond the offer.
        client_bits: Some(None),
    };
    let second = Parameters {
        server_no_takeover: true,
        client_no_takeover: true,
        server_bits: None,
        ..first
    };
    [first, second]
}

/// The value of a client's `Sec-WebSocket-Extensions`.
pub(crate) fn offer(compression: &Compression) -> HeaderValue {
    let offers: Vec<_> = offers(compression).iter().map(Parameters::text).collect();
    value(&offers.join(", "))
}

/// What the server's answer says: `None` if it agreed to no extension.
///
/// # Errors
/// Why the answer does not fit to what was offered. The connection must fail (section 7.1).
pub(crate) fn check_answer(
    compression: &Compression,
    headers: &HeaderMap,
) -> Result<Option<CompressionAgreed>, String> {
    let chosen = listed(headers).ok_or("its Sec-WebSocket-Extensions cannot be read")?;
    let [chosen] = &chosen[..] else {
        return match chosen.len() {
            0 => Ok(None),
            _ => Err("it chose more extensions than were offered".into()),
        };
    };
    let wrong = |why: &str| format!("its answer to {NAME} {why}");
    if chosen.name != NAME {
        return Err(format!(
            "it chose the extension {}, which was not offered",
            chosen.name
        ));
    }
    let answer = Parameters::read(chosen).ok_or_else(|| wrong("has invalid parameters"))?;
    if answer.client_bits == Some(None) {
        return Err(wrong("has a client_max_window_bits without a value"));
    }
    if !offers(compression).iter().any(|offer| answer.fits(offer)) {
        return Err(wrong("goes beyond what was offered"));
    }
    let own = compression.window_bits;
    let asked = answer.client_bits.flatten().unwrap_or(LARGEST);
    // A server that agreed to the second offer need not repeat what that says of the client.
    let no_takeover = answer.client_no_takeover || answer.server_no_takeover;
    Ok(Some(CompressionAgreed {
        outgoing: Direction {
            window_bits: own.min(asked),
            takeover: compression.context_takeover && !no_takeover,
        },
        incoming: Direction {
            window_bits: answer.server_bits.unwrap_or(LARGEST),
            takeover: !answer.server_no_takeover,
        },
        compression: compression.clone(),
    }))
}

/// A server's answer to the first of the client's offers that it can agree to, and what that means.
/// `None`: there is none, so the connection is not compressed.
pub(crate) fn answer(
    compression: &Compression,
    headers: &HeaderMap,
) -> Option<(CompressionAgreed, HeaderValue)> {
    let offers = listed(headers)?;
    let mut offers = offers.iter().filter(|offer| offer.name == NAME);
    let offer = offers.find_map(Parameters::read)?;
    let own = compression.window_bits;
    let no_takeover = !compression.context_takeover;
    // A client that does not offer to bound its window must not use it across messages.
    let unbounded = offer.client_bits.is_none() && own < LARGEST;
    let client_bits = offer.client_bits.map(|it| it.unwrap_or(LARGEST).min(own));
    let answer = Parameters {
        server_no_takeover: offer.server_no_takeover || no_takeover,
        client_no_takeover: offer.client_no_takeover || no_takeover || unbounded,
        server_bits: offer.server_bits.map(|bits| bits.min(own)),
        client_bits: client_bits.map(Some),
    };
    let agreed = CompressionAgreed {
        outgoing: Direction {
            window_bits: answer.server_bits.unwrap_or(own),
            takeover: !answer.server_no_takeover,
        },
        incoming: Direction {
            window_bits: client_bits.unwrap_or(LARGEST),
            takeover: !answer.client_no_takeover,
        },
        compression: compression.clone(),
    };
    Some((agreed, value(&answer.text())))
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("names and numbers fit in a header")
}

impl Parameters {
    /// `None` if a parameter is unknown, comes twice, or has an invalid value: such an offer is
    /// declined, and such an answer fails (section 7.1).
    fn read(extension: &Extension<'_>) -> Option<Parameters> {
        let mut found = Parameters::default();
        for (name, value) in &extension.parameters {
            let value = value.as_deref();
            match *name {
                "server_no_context_takeover" if value.is_none() && !found.server_no_takeover => {
                    found.server_no_takeover = true;
                }
                "client_no_context_takeover" if value.is_none() && !found.client_no_takeover => {
                    found.client_no_takeover = true;
                }
                "server_max_window_bits" if found.server_bits.is_none() => {
                    found.server_bits = Some(bits(value?)?);
                }
                "client_max_window_bits" if found.client_bits.is_none() => {
                    found.client_bits = Some(match value {
                        None => None,
                        Some(value) => Some(bits(value)?),
                    });
                }
                _ => return None,
            }
        }
        Some(found)
    }

    /// Whether this answer agrees to the offer and asks for nothing else.
    fn fits(&self, offer: &Parameters) -> bool {
        let server_bits = match (offer.server_bits, self.server_bits) {
            (Some(offered), Some(answered)) => answered <= offered,
            (Some(_), None) => false,
            (None, _) => true,
        };
        let client_bits = match (offer.client_bits, self.client_bits.flatten()) {
            (None, answered) => answered.is_none(),
            (Some(Some(offered)), Some(answered)) => answered <= offered,
            (Some(_), _) => true,
        };
        let takeover = self.server_no_takeover || !offer.server_no_takeover;
        server_bits && client_bits && takeover
    }

    fn text(&self) -> String {
        let mut text = NAME.to_owned();
        if self.server_no_takeover {
            text += "; server_no_context_takeover";
        }
        if self.client_no_takeover {
            text += "; client_no_context_takeover";
        }
        if let Some(bits) = self.server_bits {
            text += &format!("; server_max_window_bits={bits}");
        }
        match self.client_bits {
            None => {}
            Some(None) => text += "; client_max_window_bits",
            Some(Some(bits)) => text += &format!("; client_max_window_bits={bits}"),
        }
        text
    }
}

/// A decimal number from 8 to 15 without leading zeros (section 7.1.2).
fn bits(value: &str) -> Option<u8> {
    let number = value.parse().ok()?;
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    (plain && (8..=LARGEST).contains(&number)).then_some(number)
}

/// One element of a list of extensions.
#[derive(Debug, PartialEq, Eq)]
struct Extension<'h> {
    name: &'h str,
    parameters: Vec<(&'h str, Option<String>)>,
}

/// All extensions that the headers list. `None` if a list breaks the grammar of RFC 6455 section
/// 9.1.
fn listed(headers: &HeaderMap) -> Option<Vec<Extension<'_>>> {
    let mut all = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        let mut rest = value.to_str().ok()?.trim();
        while !rest.is_empty() {
            // Elements of a list may be empty.
            if let Some(more) = rest.strip_prefix(',') {
                rest = more.trim_start();
                continue;
            }
            let (extension, more) = read_extension(rest)?;
            all.push(extension);
            if !(more.is_empty() || more.starts_with(',')) {
                return None;
            }
            rest = more;
        }
    }
    Some(all)
}

fn read_extension(text: &str) -> Option<(Extension<'_>, &str)> {
    let (name, mut rest) = read_token(text)?;
    let mut parameters = Vec::new();
    while let Some(more) = rest.strip_prefix(';') {
        let (name, more) = read_token(more.trim_start())?;
        let (value, more) = match more.strip_prefix('=') {
            None => (None, more),
            Some(more) => {
                let (value, more) = read_value(more.trim_start())?;
                (Some(value), more)
            }
        };
        parameters.push((name, value));
        rest = more;
    }
    Some((Extension { name, parameters }, rest))
}

/// A token, and what follows it and its spaces.
fn read_token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    let (token, rest) = text.split_at(end);
    (!token.is_empty()).then_some((token, rest.trim_start()))
}

/// A token, or a quoted string that is a token without its quotes.
fn read_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = read_token(text)?;
        return Some((token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => {
                let whole = read_token(&value).is_some_and(|(token, _)| token == value);
                return whole.then(|| (value, quoted[at + 1..].trim_start()));
            }
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
impl CompressionAgreed {
    /// Both directions alike.
    pub(super) fn new(compression: Compression) -> CompressionAgreed {
        let direction = Direction {
            window_bits: compression.window_bits,
            takeover: compression.context_takeover,
        };
        CompressionAgreed {
            outgoing: direction,
            incoming: direction,
            compression,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        headers
    }

    /// The server's answer; what it sends, and what it expects.
    fn answered(compression: &Compression, offer: &str) -> Option<(String, Direction, Direction)> {
        let (agreed, value) = answer(compression, &headers(&[offer]))?;
        let text = value.to_str().unwrap().to_owned();
        Some((text, agreed.outgoing, agreed.incoming))
    }

    fn direction(window_bits: u8, takeover: bool) -> Direction {
        Direction {
            window_bits,
            takeover,
        }
    }

    #[test]
    fn client_and_server_of_this_library_agree_whatever_they_are_set_to() {
        for client_bits in 8..=15 {
            for server_bits in 8..=15 {
                for takeover in [(true, true), (true, false), (false, true), (false, false)] {
                    let set = |bits, takeover| {
                        Compression::default()
                            .window_bits(bits)
                            .context_takeover(takeover)
                    };
                    let client = set(client_bits, takeover.0);
                    let server = set(server_bits, takeover.1);
                    let offered = offer(&client);
                    let offered = headers(&[offered.to_str().unwrap()]);
                    let (at_server, answer) = answer(&server, &offered).unwrap();
                    let answer = headers(&[answer.to_str().unwrap()]);
                    let at_client = check_answer(&client, &answer).unwrap().unwrap();
                    let smaller = client_bits.min(server_bits);
                    let expected = direction(smaller, takeover == (true, true));
                    assert_eq!(at_client.outgoing, expected);
                    assert_eq!(at_server.outgoing, expected);
                    // Neither has to say that its window is smaller than what it may have.
                    assert_eq!(at_server.incoming.takeover, expected.takeover);
                    assert_eq!(at_server.incoming.window_bits, server_bits);
                    assert_eq!(at_client.incoming.takeover, expected.takeover);
                    let unsaid = client_bits == 15;
                    let window = if unsaid { 15 } else { smaller };
                    assert_eq!(at_client.incoming.window_bits, window);
                }
            }
        }
    }

    #[test]
    fn server_agrees_to_what_browsers_and_libraries_offer() {
        let ours = Compression::default();
        let cases = [
            // Chromium, Firefox, Python's websockets.
            (
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; client_max_window_bits=12",
                direction(12, true),
                direction(12, true),
            ),
            // A client that cannot bound its window keeps no context.
            (
                "permessage-deflate",
                "permessage-deflate; client_no_context_takeover",
                direction(12, true),
                direction(15, false),
            ),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                direction(12, false),
                direction(15, false),
            ),
            (
                "permessage-deflate;server_max_window_bits = \"10\" ; client_max_window_bits=9",
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9",
                direction(10, true),
                direction(9, true),
            ),
            (
                "permessage-deflate; server_max_window_bits=8; client_max_window_bits=8",
                "permessage-deflate; server_max_window_bits=8; client_max_window_bits=8",
                direction(8, true),
                direction(8, true),
            ),
            // The first offer that can be agreed to counts.
            (
                "x-webkit-deflate-frame, , permessage-deflate; mux=1, permessage-deflate; \
                 server_max_window_bits=15; client_max_window_bits=15",
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
                direction(12, true),
                direction(12, true),
            ),
        ];
        for (offer, text, outgoing, incoming) in cases {
            let expected = Some((text.to_owned(), outgoing, incoming));
            assert_eq!(answered(&ours, offer), expected, "{offer}");
        }
        let largest = Compression::default().window_bits(15);
        assert_eq!(
            answered(&largest, "permessage-deflate"),
            Some((
                "permessage-deflate".into(),
                direction(15, true),
                direction(15, true)
            )),
        );
        let two = headers(&["x-other; a=1", "permessage-deflate; client_max_window_bits"]);
        assert!(answer(&ours, &two).is_some(), "offers in two headers");
    }

    #[test]
    fn server_declines_an_offer_with_invalid_parameters() {
        for parameters in [
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=+9",
            "server_max_window_bits=",
            "server_max_window_bits=\"1 0\"",
            "client_max_window_bits=0",
            "client_max_window_bits=99999",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "client_no_context_takeover; client_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=10",
            "server_max_window_bits=10; server_max_window_bits=10",
            "unknown",
            "Server_No_Context_Takeover",
            "",
            "client_max_window_bits=\"10",
        ] {
            let offer = format!("permessage-deflate; {parameters}");
            assert_eq!(answered(&Compression::default(), &offer), None, "{offer}");
        }
        assert_eq!(answered(&Compression::default(), ""), None);
        assert_eq!(answered(&Compression::default(), "permessage-bzip2"), None);
    }

    #[test]
    fn client_refuses_an_answer_beyond_its_offer() {
        let ours = Compression::default();
        let check = |answer: &str| check_answer(&ours, &headers(&[answer]));
        for answer in [
            "permessage-deflate",
            "permessage-deflate; server_max_window_bits=13",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=12; server_max_window_bits=12",
            "permessage-deflate; server_max_window_bits=12; unknown",
            "permessage-deflate; server_max_window_bits=12, permessage-deflate",
            "permessage-bzip2",
            "permessage-deflate; \"",
        ] {
            assert!(check(answer).is_err(), "{answer}");
        }
        let none = check_answer(&ours, &HeaderMap::new());
        assert_eq!(none, Ok(None), "the server need not agree");

        let strict = Compression::default().context_takeover(false);
        let answer = "permessage-deflate; server_max_window_bits=12";
        assert!(check_answer(&strict, &headers(&[answer])).is_err());
    }

    #[test]
    fn client_takes_every_answer_that_its_offers_allow() {
        let ours = Compression::default();
        let check = |answer: &str| {
            let agreed = check_answer(&ours, &headers(&[answer]));
            let agreed = agreed
                .unwrap_or_else(|why| panic!("{answer}: {why}"))
                .unwrap();
            (agreed.outgoing, agreed.incoming)
        };
        assert_eq!(
            check("permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"),
            (direction(10, true), direction(9, true))
        );
        // The offer names no window of the client, so every answer fits.
        assert_eq!(
            check("permessage-deflate; server_max_window_bits=12; client_max_window_bits=15"),
            (direction(12, true), direction(12, true))
        );
        // What the client sends need not be bounded by the server.
        assert_eq!(
            check("permessage-deflate; server_max_window_bits=12; client_no_context_takeover"),
            (direction(12, false), direction(12, true))
        );
        // Servers that know no windows, such as those of Go, agree to the second offer. They need not
        // repeat that the client keeps no context.
        assert_eq!(
            check("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            (direction(12, false), direction(15, false))
        );
        assert_eq!(
            check("permessage-deflate; server_no_context_takeover"),
            (direction(12, false), direction(15, false))
        );
    }
}
