//! Where reading begins: `--from`, and `from` and `after` in a URL.

use std::str::FromStr;

use unstall_topics::{Delivery, Filter, LogId, Offset, Position, Start, StoredAt, Topics};

use crate::failure::Failure;

/// A place to begin at, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// It says all.
    Start(Start),
    /// Behind an offset of whatever log is there.
    Offset(Offset),
}

/// What people may write.
pub(crate) const FORMS: &str = "start, now, latest, last:N, since:MILLISECONDS (since 1970), an offset, \
or a position (LOG:OFFSET:TIME)";

impl From {
    /// Where to begin in the log that is there.
    pub(crate) fn in_log(self, log: LogId) -> Start {
        match self {
            From::Start(start) => start,
            From::Offset(offset) => Start::After(Position {
                log,
                offset,
                time: StoredAt::UNKNOWN,
            }),
        }
    }

    /// Where to begin in the log that is there. An offset alone does not say of which log it is, so
    /// the log is asked.
    pub(crate) async fn begin(self, topics: &Topics, filter: &Filter) -> Result<Start, Failure> {
        if let From::Start(start) = self {
            return Ok(start);
        }
        let now = topics.subscribe(filter.as_str(), Start::Now);
        let mut now = now.map_err(Failure::because)?;
        loop {
            match now.recv().await.map_err(Failure::because)? {
                Some(Delivery::CaughtUp(position)) => return Ok(self.in_log(position.log)),
                Some(Delivery::Message(message)) => {
                    return Ok(self.in_log(message.position().log));
                }
                Some(_) => {}
                None => return Err(Failure::work("the subscription ended before it began")),
            }
        }
    }
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        let wrong = || format!("it has to be {FORMS}");
        let number = |text: &str| match text.bytes().all(|digit| digit.is_ascii_digit()) {
            true => text.parse::<u64>().ok(),
            false => None,
        };
        let start = match text {
            "start" => Start::Beginning,
            "now" => Start::Now,
            "latest" => Start::Latest(None),
            _ => {
                if let Some(count) = text.strip_prefix("last:") {
                    let count = number(count).and_then(|count| u32::try_from(count).ok());
                    Start::Last(count.filter(|count| *count > 0).ok_or_else(wrong)?)
                } else if let Some(time) = text.strip_prefix("since:") {
                    Start::Since(number(time).and_then(StoredAt::new).ok_or_else(wrong)?)
                } else if let Some(offset) = number(text).and_then(Offset::new) {
                    return Ok(From::Offset(offset));
                } else {
                    Start::After(text.parse().map_err(|_| wrong())?)
                }
            }
        };
        Ok(From::Start(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_nothing_else() {
        let position = Position {
            log: LogId([7; 16]),
            offset: Offset::new(5).unwrap(),
            time: StoredAt::new(9).unwrap(),
        };
        let time = StoredAt::new(1000).unwrap();
        for (text, start) in [
            ("start", Start::Beginning),
            ("now", Start::Now),
            ("latest", Start::Latest(None)),
            ("last:3", Start::Last(3)),
            ("since:1000", Start::Since(time)),
            (&position.to_string(), Start::After(position)),
        ] {
            assert_eq!(text.parse(), Ok(From::Start(start)), "{text}");
        }
        let offset: From = "17".parse().unwrap();
        let Start::After(at) = offset.in_log(LogId([1; 16])) else {
            panic!("{offset:?}");
        };
        assert_eq!((at.log, at.offset.get()), (LogId([1; 16]), 17));
        for wrong in [
            "",
            "last:0",
            "last:",
            "last:+1",
            "last:4294967296",
            "since:x",
            "-1",
            "+1",
            "1:2:3",
            "99999999999999999999",
        ] {
            assert!(wrong.parse::<From>().is_err(), "{wrong}");
        }
    }
}
