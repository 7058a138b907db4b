//! Headers that are made for each attempt to connect upstream: `--headers-file`, `--headers-command`.

use std::{path::PathBuf, process::Stdio, sync::Arc};

use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    sync::Semaphore,
};
use unstall::BoxError;

use super::limits;
use crate::failure::Failure;

/// Where fresh headers come from
#[derive(Clone, Debug, Args)]
pub(crate) struct FreshHeaders {
    /// Send the headers of this file upstream, a line `NAME: VALUE` for each. It is read for each
    /// attempt, so that a token in it can be renewed
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    headers_file: Option<PathBuf>,

    /// Send the headers that this command prints, a line `NAME: VALUE` for each. It runs for each
    /// attempt, without a shell, and has as long as the attempt
    #[arg(
        long,
        value_name = "COMMAND",
        conflicts_with = "headers_file",
        help_heading = "Connection"
    )]
    headers_command: Option<String>,
}

/// The source of fresh headers.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Nothing,
    File(Arc<PathBuf>),
    Command {
        words: Arc<[String]>,
        at_once: Arc<Semaphore>,
    },
}

impl FreshHeaders {
    /// The source, if the command can be run at all.
    pub(super) fn source(&self) -> Result<Source, Failure> {
        if let Some(file) = &self.headers_file {
            return Ok(Source::File(Arc::new(file.clone())));
        }
        let Some(command) = &self.headers_command else {
            return Ok(Source::Nothing);
        };
        let words = shlex::split(command).filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| {
            Failure::usage("--headers-command is empty, or a quote in it is not closed")
        })?;
        Ok(Source::Command {
            words: words.into(),
            at_once: Arc::new(Semaphore::new(limits::FRESH_HEADERS_COMMANDS)),
        })
    }
}

impl Source {
    /// The headers for one attempt. No error has a value of theirs.
    pub(super) async fn make(&self) -> Result<HeaderMap, BoxError> {
        match self {
            Source::Nothing => Ok(HeaderMap::new()),
            Source::File(file) => {
                let of_file = |why: BoxError| -> BoxError {
                    format!("the file {} of --headers-file: {why}", file.display()).into()
                };
                let read = async { whole(File::open(&**file).await?).await };
                read.await.and_then(|text| parse(&text)).map_err(of_file)
            }
            Source::Command { words, at_once } => {
                let of_command = |why: BoxError| -> BoxError {
                    // Its arguments may be secrets.
                    format!("the command {} of --headers-command: {why}", words[0]).into()
                };
                let _turn = at_once.acquire().await?;
                let text = output(words).await.map_err(of_command)?;
                parse(&text).map_err(of_command)
            }
        }
    }
}

/// What a command prints. If the future is dropped, the command is killed.
async fn output(words: &[String]) -> Result<String, BoxError> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or("it has no output")?;
    let text = whole(stdout).await?;
    match child.wait().await? {
        status if status.success() => Ok(text),
        status => Err(format!("it ended with {status}: run it by hand to see why").into()),
    }
}

/// A text of bounded size.
async fn whole(from: impl AsyncRead + Unpin) -> Result<String, BoxError> {
    let mut bytes = Vec::new();
    let most = limits::FRESH_HEADERS_BYTES;
    from.take(most + 1).read_to_end(&mut bytes).await?;
    match bytes.len() as u64 > most {
        true => Err(format!("it has more than {most} bytes: print headers only").into()),
        false => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".into()),
    }
}

/// Lines of `NAME: VALUE`. Empty lines and those that begin with `#` say nothing.
pub(super) fn parse(text: &str) -> Result<HeaderMap, BoxError> {
    let mut headers = HeaderMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = header(line).ok_or_else(|| {
            format!("line {number} is not a header: write NAME: VALUE in a line of its own")
        })?;
        headers.append(name, value);
    }
    match headers.is_empty() {
        true => Err("there is no header in it: write a line NAME: VALUE".into()),
        false => Ok(headers),
    }
}

/// A header, whose value is a secret.
pub(super) fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = HeaderName::try_from(name.trim()).ok()?;
    let mut value = HeaderValue::try_from(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_header_and_a_wrong_one_is_named_without_its_value() {
        let headers = parse("# token\n\nAuthorization: Bearer a:b\r\nx-a: 1\nX-A: 2\n").unwrap();
        assert_eq!(headers["authorization"], "Bearer a:b");
        assert_eq!(headers.get_all("x-a").iter().count(), 2);
        assert!(!format!("{headers:?}").contains("Bearer"));
        for (wrong, line) in [
            ("s3cret", "line 1"),
            ("\nx y: s3cret", "line 2"),
            ("a: s3cret\u{7f}", "line 1"),
            (": s3cret", "line 1"),
            ("#", "no header"),
        ] {
            let why = parse(wrong).unwrap_err().to_string();
            assert!(why.contains(line) && !why.contains("s3cret"), "{why}");
        }
    }

    fn command(text: &str) -> Source {
        let fresh = FreshHeaders {
            headers_file: None,
            headers_command: Some(text.to_owned()),
        };
        fresh.source().unwrap()
    }

    #[tokio::test]
    async fn a_command_that_fails_is_named_without_what_it_printed() {
        let made = command("printf 'x-token: %s\\n' s3cret").make().await;
        assert_eq!(made.unwrap()["x-token"], "s3cret");
        for (wrong, why) in [
            ("sh -c 'echo x-a: s3cret; exit 3'", "exit status: 3"),
            ("echo s3cret", "line 1"),
            ("head -c 100000 /dev/zero", "more than"),
            ("/no/such/command s3cret", "No such file"),
        ] {
            let text = command(wrong).make().await.unwrap_err().to_string();
            assert!(text.contains(why) && !text.contains("s3cret"), "{text}");
        }
    }
}
