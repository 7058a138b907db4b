//! The file of `--config`: TOML with the options of the command line under their own names.
//!
//! Each table is turned into the arguments that it stands for, and clap reads them. So a value means the same in
//! both places, and an option is described once. What is wrong is told with its line and column, and without its
//! value, which may be a secret.

use std::{error::Error, fs, ops::Range, path::Path};

use clap::{
    Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    options::{Process, RouteOptions},
    plan::Settings,
    routes::{Planned, Scope, twice},
};
use crate::failure::Failure;

/// The name of the tables that are routes.
const ROUTE: &str = "route";

/// What stands above the routes.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct OfProcess {
    #[command(flatten)]
    process: Process,
}

/// A table `[[route]]`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct OfRoute {
    #[command(flatten)]
    scope: Scope,

    #[command(flatten)]
    options: RouteOptions,
}

/// What is wrong, and where it begins in the text.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    at: usize,
    why: String,
}

impl Wrong {
    fn new(at: &Range<usize>, why: impl Into<String>) -> Wrong {
        let (at, why) = (at.start, why.into());
        Wrong { at, why }
    }
}

/// Reads a file. Nothing in it is tried out yet.
pub(super) fn read(file: &Path) -> Result<Settings, Failure> {
    let name = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Failure::work(format_args!("cannot read {name}: {error}")))?;
    parse(&text).map_err(|Wrong { at, why }| {
        let (line, column) = position(&text, at);
        Failure::usage(format_args!("{name}:{line}:{column}: {why}"))
    })
}

fn parse(text: &str) -> Result<Settings, Wrong> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().unwrap_or_default();
        Wrong::new(&at, error.message())
    })?;
    let document = document.get_ref();
    let OfProcess { process } = table(document, &OfRoute::command())?;
    if !process.clients.listen.base.is_empty() {
        let at = document
            .get("listen")
            .map(Spanned::span)
            .unwrap_or_default();
        let why = "`listen` has a path: give each route its `path` in place of that";
        return Err(Wrong::new(&at, why));
    }
    let mut routes = Vec::new();
    for (at, of_route) in tables(document)? {
        let OfRoute { scope, options } = table(of_route, &OfProcess::command())?;
        if options.to.is_none() {
            let why = "this route has no `to`, the server to pass on to";
            return Err(Wrong::new(&at, why));
        }
        let (line, _) = position(text, at.start);
        let line = Some(line);
        routes.push(Planned {
            scope,
            options,
            line,
        });
        if let Some(again) = twice(&routes) {
            let why = format!("another route is for {} already", again.scope);
            return Err(Wrong::new(&at, why));
        }
    }
    Ok(Settings { process, routes })
}

type Table<'t> = DeTable<'t>;

/// The tables of the routes, each with where it begins.
fn tables<'d, 't>(document: &'d Table<'t>) -> Result<Vec<(Range<usize>, &'d Table<'t>)>, Wrong> {
    let routes = document.get(ROUTE).ok_or_else(|| {
        let why = "there is no route: write [[route]], and below it to = \"ws://…\"";
        Wrong::new(&(0..0), why)
    })?;
    let why = "a route is written as [[route]], with two brackets";
    let DeValue::Array(array) = routes.get_ref() else {
        return Err(Wrong::new(&routes.span(), why));
    };
    let tables = array.iter().map(|route| match route.get_ref() {
        DeValue::Table(table) => Ok((route.span(), table)),
        _ => Err(Wrong::new(&route.span(), why)),
    });
    tables.collect()
}

/// Reads one table by the arguments that it stands for. `other`: the command of the other kind of table.
fn table<T: CommandFactory + FromArgMatches>(
    table: &Table<'_>,
    other: &Command,
) -> Result<T, Wrong> {
    let command = T::command();
    let mut words = Vec::new();
    for (name, value) in table.iter().filter(|(name, _)| name.get_ref() != ROUTE) {
        let argument = argument(&command, name.get_ref());
        let argument = argument.ok_or_else(|| unknown(name, &command, other))?;
        words.extend(arguments(argument, name.get_ref(), value)?);
    }
    let matches = command.try_get_matches_from(words);
    let read = matches.and_then(|matches| T::from_arg_matches(&matches));
    read.map_err(|error| explained(&error, table))
}

fn argument<'c>(command: &'c Command, name: &str) -> Option<&'c Arg> {
    let mut arguments = command.get_arguments();
    arguments.find(|argument| argument.get_long() == Some(name))
}

/// A name that is no option here. It may be one elsewhere, or nearly one.
fn unknown(name: &Spanned<DeString<'_>>, command: &Command, other: &Command) -> Wrong {
    let (at, name) = (name.span(), name.get_ref());
    let hyphens = name.replace('_', "-");
    let why = if argument(other, name).is_some() {
        match argument(other, "to") {
            Some(_) => format!("`{name}` is of a route: write it below a [[route]]"),
            None => format!("`{name}` is of the whole relay: write it above the first [[route]]"),
        }
    } else if argument(command, &hyphens).is_some() {
        format!("there is no option `{name}`: did you mean `{hyphens}`?")
    } else {
        let tried = command.clone().try_get_matches_from([format!("--{name}")]);
        let error = tried.err();
        let near = error.and_then(|error| names(&error, ContextKind::SuggestedArg).pop());
        match near {
            Some(near) => format!("there is no option `{name}`: did you mean `{near}`?"),
            None => format!("there is no option `{name}`; `unstall relay --help` lists them"),
        }
    };
    Wrong::new(&at, why)
}

/// The arguments that a value stands for.
fn arguments(
    argument: &Arg,
    name: &str,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<String>, Wrong> {
    let wrong = |why: &str| Wrong::new(&value.span(), format!("`{name}` {why}"));
    let optional = argument
        .get_num_args()
        .is_some_and(|it| it.min_values() == 0);
    let is_flag = !argument.get_action().takes_values();
    match value.get_ref() {
        DeValue::Boolean(true) if is_flag || optional => Ok(vec![format!("--{name}")]),
        DeValue::Boolean(false) if is_flag || optional => Ok(Vec::new()),
        _ if is_flag => Err(wrong("is either true or false")),
        DeValue::Array(items) if matches!(argument.get_action(), ArgAction::Append) => {
            let items = items.iter().map(|item| {
                let text = scalar(item.get_ref());
                let text = text.ok_or_else(|| wrong("is a list of texts"))?;
                Ok(format!("--{name}={text}"))
            });
            items.collect()
        }
        value => {
            let text = scalar(value).ok_or_else(|| wrong("is one text or number"))?;
            Ok(vec![format!("--{name}={text}")])
        }
    }
}

/// A text or a number, as it stands on the command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

/// What clap found wrong, without the value.
fn explained(error: &clap::Error, table: &Table<'_>) -> Wrong {
    let named = names(error, ContextKind::InvalidArg);
    let first = named.first().map_or("", String::as_str);
    let at = table.get_key_value(first);
    let (of_name, of_value) = at.map_or((0..0, 0..0), |(name, value)| (name.span(), value.span()));
    match error.kind() {
        ErrorKind::ValueValidation => {
            let why = error.source().map(ToString::to_string).unwrap_or_default();
            Wrong::new(&of_value, format!("`{first}`: {why}"))
        }
        ErrorKind::InvalidValue => {
            let one_of = names(error, ContextKind::ValidValue).join(", ");
            Wrong::new(&of_value, format!("`{first}` is one of {one_of}"))
        }
        ErrorKind::ArgumentConflict => {
            let other = names(error, ContextKind::PriorArg).join("` and `");
            Wrong::new(&of_name, format!("`{first}` cannot be used with `{other}`"))
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = named.join("` and `");
            Wrong::new(
                &first_of(table),
                format!("`{missing}` is missing, which is needed here"),
            )
        }
        kind => Wrong::new(&of_name, format!("`{first}` cannot be read: {kind}")),
    }
}

/// The names in the context of an error, which clap has as they are shown: `--name <VALUE>`.
fn names(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    let shown = match error.get(kind) {
        Some(ContextValue::String(one)) => std::slice::from_ref(one),
        Some(ContextValue::Strings(many)) => many,
        _ => &[],
    };
    let name = |shown: &String| {
        let name = shown.trim_start_matches('-');
        name.split([' ', '=', '['])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    shown.iter().map(name).collect()
}

/// Where the first name of a table is.
fn first_of(table: &Table<'_>) -> Range<usize> {
    let names = table.keys().map(Spanned::span);
    names.min_by_key(|span| span.start).unwrap_or_default()
}

/// The line and the column of a byte of a text, from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    let lines = before.matches('\n').count();
    (
        lines.saturating_add(1),
        line.chars().count().saturating_add(1),
    )
}

/// A route from its arguments.
#[cfg(test)]
pub(super) fn route_of(words: &[String]) -> (Scope, RouteOptions) {
    let OfRoute { scope, options } = OfRoute::try_parse_from(words).unwrap();
    (scope, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The position and the reason of what is wrong.
    fn wrong(text: &str) -> String {
        let Wrong { at, why } = parse(text).unwrap_err();
        let (line, column) = position(text, at);
        format!("{line}:{column}: {why}")
    }

    #[test]
    fn a_value_means_what_it_means_on_the_command_line() {
        let text = r#"
            listen = "ws://127.0.0.1:0"
            drain = 1.5
            session-life = "forever"
            max-message = "1MiB"
            max-connections = 1_000
            origin = ["https://a.example", "https://b.example"]
            trusted-proxy = "10.0.0.0/8"
            any-origin = false
            compress = "level=6"
            [[route]]
            to = "ws://up.example"
            path = "/-x"
            header = ["A: b"]
            gap-message = "--plain"
            reconnect = true
            plain = false
            compress-upstream = true
            buffer = 1024
        "#;
        let of_file = parse(text).unwrap();
        let arguments = [
            "--listen=ws://127.0.0.1:0",
            "--drain=1.5",
            "--session-life=forever",
            "--max-message=1MiB",
            "--max-connections=1000",
            "--origin=https://a.example",
            "--origin=https://b.example",
            "--trusted-proxy=10.0.0.0/8",
            "--compress=level=6",
        ];
        let of_line = OfProcess::try_parse_from(arguments).unwrap();
        let shown = |process: &Process| format!("{process:?}");
        assert_eq!(shown(&of_file.process), shown(&of_line.process));
        let arguments = [
            "--to=ws://up.example",
            "--path=/-x",
            "--header=A: b",
            "--gap-message=--plain",
            "--reconnect",
            "--compress-upstream",
            "--buffer=1KiB",
        ];
        let OfRoute { scope, options } = OfRoute::try_parse_from(arguments).unwrap();
        let [route] = &of_file.routes[..] else {
            panic!("one route");
        };
        assert_eq!(format!("{:?}", route.scope), format!("{scope:?}"));
        assert_eq!(format!("{:?}", route.options), format!("{options:?}"));
        assert_eq!(route.line, Some(11));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        const TO: &str = "[[route]]\nto = \"ws://x\"\n";
        for (text, expected) in [
            ("", "1:1: there is no route"),
            ("route = 1", "1:9: a route is written as [[route]]"),
            (
                "[route]\nto = \"ws://x\"",
                "1:1: a route is written as [[route]]",
            ),
            ("drain = ", "1:9: "),
            ("[[route]]\npath = \"/a\"", "1:1: this route has no `to`"),
            ("\n to = \"ws://x\"", "2:2: `to` is of a route"),
            (
                &format!("{TO}drain = 1"),
                "3:1: `drain` is of the whole relay",
            ),
            (
                &format!("trusted_proxy = \"x\"\n{TO}"),
                "1:1: there is no option `trusted_proxy`: did you mean `trusted-proxy`?",
            ),
            (
                &format!("origins = []\n{TO}"),
                "1:1: there is no option `origins`: did you mean `origin`?",
            ),
            (&format!("zzz = 1\n{TO}"), "1:1: there is no option `zzz`"),
            (
                &format!("json = true\n{TO}"),
                "1:1: there is no option `json`",
            ),
            (
                &format!("drain = \"soon\"\n{TO}"),
                "1:9: `drain`: not a number of seconds",
            ),
            (
                &format!("drain = [1]\n{TO}"),
                "1:9: `drain` is one text or number",
            ),
            (
                &format!("memory = 0x10\n{TO}"),
                "1:10: `memory` is one text or number",
            ),
            (
                &format!("any-origin = 1\n{TO}"),
                "1:14: `any-origin` is either true or false",
            ),
            (
                &format!("tls-key = \"k\"\n{TO}"),
                "1:1: `tls-cert` is missing",
            ),
            (
                &format!("listen = \"ws://:1/a\"\n{TO}"),
                "1:10: `listen` has a path",
            ),
            (
                &format!("{TO}overflow = \"drop\""),
                "3:12: `overflow` is one of close, pause",
            ),
            (
                &format!("{TO}header = [[]]"),
                "3:10: `header` is a list of texts",
            ),
            (
                &format!("{TO}plain = true\nrequire-session = true"),
                "`plain`",
            ),
            (
                &format!("{TO}gap-message = \"x\""),
                "`reconnect` is missing",
            ),
            (&format!("{TO}{TO}"), "3:1: another route is for / already"),
            (
                &format!("{TO}path = \"a\""),
                "3:8: `path`: a path begins with a slash",
            ),
        ] {
            let found = wrong(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn no_error_has_a_secret() {
        for line in [
            "header = [\"A: s3cret\"",
            "header = [\"A: s3cret\", []]",
            "header = { a = \"s3cret\" }",
            "proxy = [\"http://u:s3cret@p\", 1]",
            "buffer = \"s3cret\"",
            "overflow = \"s3cret\"",
            "record = \"s3cret\"",
            "plain = \"s3cret\"",
            "to = \"s3cret\"",
            "s3cret",
        ] {
            let text = format!("[[route]]\nto = \"ws://u:s3cret@x\"\n{line}\n");
            let found = wrong(&text);
            assert!(!found.contains("s3cret"), "{line}: {found}");
        }
    }
}
