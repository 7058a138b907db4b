//! The flag `--compress` of every subcommand that opens connections.

use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};
use unstall::Compression;

/// Whether messages are compressed, and how
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct Compress {
    /// Compress messages (permessage-deflate) if the peer agrees. HOW is a list of level=1..9,
    /// window=8..15, takeover=on|off and smallest=BYTES; default level=1,window=12,takeover=on,smallest=128
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true,
          default_missing_value = "", help_heading = "Connection")]
    compress: Option<How>,
}

impl Compress {
    /// The option of the library.
    pub(crate) fn option(&self) -> Option<Compression> {
        self.compress.as_ref().map(How::compression)
    }

    /// As the user typed it, for another process.
    pub(crate) fn how(&self) -> Option<How> {
        self.compress.clone()
    }
}

/// The value of the flag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct How {
    level: Option<u32>,
    window: Option<u8>,
    takeover: Option<bool>,
    smallest: Option<usize>,
}

impl How {
    pub(crate) fn compression(&self) -> Compression {
        let mut compression = Compression::default();
        if let Some(level) = self.level {
            compression = compression.level(level);
        }
        if let Some(bits) = self.window {
            compression = compression.window_bits(bits);
        }
        if let Some(takeover) = self.takeover {
            compression = compression.context_takeover(takeover);
        }
        if let Some(bytes) = self.smallest {
            compression = compression.smallest(bytes);
        }
        compression
    }
}

impl FromStr for How {
    type Err = String;

    fn from_str(text: &str) -> Result<How, String> {
        let mut how = How::default();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            match name {
                "level" => how.level = Some(within(value, 1..=9, "level")?),
                "window" => how.window = Some(within(value, 8..=15, "window")?),
                "takeover" => {
                    how.takeover = Some(match value {
                        "on" => true,
                        "off" => false,
                        _ => return Err("takeover must be on or off".to_owned()),
                    });
                }
                "smallest" => how.smallest = Some(within(value, 0..=usize::MAX, "smallest")?),
                _ => {
                    return Err(format!(
                        "`{name}` is not one of level, window, takeover and smallest"
                    ));
                }
            }
        }
        Ok(how)
    }
}

fn within<N>(value: &str, range: std::ops::RangeInclusive<N>, name: &str) -> Result<N, String>
where
    N: FromStr + PartialOrd + std::fmt::Display,
{
    let number = value.parse().ok().filter(|it| range.contains(it));
    let (least, most) = (range.start(), range.end());
    number.ok_or_else(|| format!("{name} must be a number from {least} to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_may_be_given_in_any_order_or_left_out() {
        let how = |text: &str| How::from_str(text).map(|how| how.compression());
        assert_eq!(how(""), Ok(Compression::default()));
        let all = Compression::default()
            .level(6)
            .window_bits(15)
            .context_takeover(false)
            .smallest(0);
        assert_eq!(how("smallest=0,takeover=off,level=6,window=15"), Ok(all));
        for wrong in [
            "level=0",
            "level",
            "window=7",
            "window=16",
            "takeover",
            "fast",
            "level=x",
        ] {
            assert!(how(wrong).is_err(), "{wrong}");
        }
    }
}
