//! Reads lines of a bounded length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Reads lines of at most `limit` bytes.
pub(crate) struct Lines<R> {
    reader: R,
    limit: usize,
    number: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self {
            reader,
            limit,
            number: 0,
        }
    }

    /// The number of the last line that [`next`](Self::next) returned, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line without its newline; `None` at the end. Text after the last newline is also a
    /// line. A line over the limit is an error. No more than the limit is kept in memory.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                if line.is_empty() {
                    return Ok(None);
                }
                break;
            }
            let newline = available.iter().position(|&byte| byte == b'\n');
            let part = &available[..newline.unwrap_or(available.len())];
            if line.len() + part.len() > self.limit {
                let (number, limit) = (self.number + 1, self.limit);
                return Err(io::Error::other(format!(
                    "line {number} is longer than {limit} bytes"
                )));
            }
            line.extend_from_slice(part);
            let consumed = part.len() + usize::from(newline.is_some());
            self.reader.consume(consumed);
            if newline.is_some() {
                break;
            }
        }
        self.number += 1;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    /// All lines, read through a buffer of 4 bytes, and the error at the end.
    async fn lines(input: &[u8], limit: usize) -> (Vec<String>, io::Result<()>) {
        let mut lines = Lines::new(BufReader::with_capacity(4, input), limit);
        let mut all = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => all.push(String::from_utf8_lossy(&line).into_owned()),
                Ok(None) => return (all, Ok(())),
                Err(error) => return (all, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn each_line_is_one_also_an_empty_one_and_one_without_an_end() {
        assert_eq!(lines(b"", 9).await.0, Vec::<String>::new());
        assert_eq!(lines(b"\n", 9).await.0, [""]);
        assert_eq!(
            lines(b"one\n\nthree and more\nlast", 99).await.0,
            ["one", "", "three and more", "last"]
        );
        assert_eq!(lines(b"a\r\n", 9).await.0, ["a\r"]);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_an_error_that_names_it() {
        let (before, end) = lines(b"12345\n123456\n", 5).await;
        assert_eq!(before, ["12345"]);
        assert_eq!(
            end.unwrap_err().to_string(),
            "line 2 is longer than 5 bytes"
        );
    }
}
