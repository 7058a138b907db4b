//! The proxy that the environment names, and the flags that overrule it. Each command is a process
//! of its own, so that its environment is too.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};

use support::{Ended, Running, Serve, unstall};

/// A proxy that knows CONNECT, connects every name to `server`, and reports the heads of requests.
fn proxy(server: &str) -> (SocketAddr, Receiver<String>) {
    let server: SocketAddr = server.trim_start_matches("ws://").parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, heads) = channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, seen) = (client.unwrap(), seen.clone());
            std::thread::spawn(move || tunnel(client, server, |head| seen.send(head).unwrap()));
        }
    });
    (address, heads)
}

fn tunnel(client: TcpStream, server: SocketAddr, seen: impl Fn(String)) {
    let mut head = String::new();
    let mut lines = BufReader::new(client.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).unwrap() == 0 {
            return;
        }
    }
    seen(head);
    (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let server = TcpStream::connect(server).unwrap();
    let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || copy(back.0, back.1));
    copy(client, server);
}

fn copy(mut from: impl Read, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}

/// `unstall cat URL` in an environment of these variables and no others of proxies.
fn cat(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = unstall(&[&["cat"], arguments].concat());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = Running {
        child: command.spawn().unwrap(),
    };
    running.write("hello\n");
    running.end()
}

#[test]
fn proxy_of_the_environment_is_used_and_resolves_the_name() {
    let serve = Serve::start(&[]);
    let (proxy, heads) = proxy(&serve.url);
    let url = format!("http://user:pw@{proxy}");
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        let ended = cat(&["ws://feed.invalid/echo"], &[(name, &url)]);
        assert_eq!(
            (ended.code, &*ended.stdout),
            (Some(0), "hello\n"),
            "{ended:?}"
        );
        let head = heads.recv().unwrap();
        assert!(
            head.starts_with("CONNECT feed.invalid:80 HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("Basic dXNlcjpwdw=="), "{head}");
    }
}

#[test]
fn wss_has_a_variable_of_its_own() {
    let (proxy, heads) = proxy("127.0.0.1:9");
    let proxy = proxy.to_string();
    for name in ["HTTPS_PROXY", "https_proxy"] {
        // The tunnel leads nowhere: the request to the proxy is enough.
        cat(&["wss://feed.invalid/"], &[(name, &proxy)]);
        let head = heads.recv().unwrap();
        assert!(
            head.starts_with("CONNECT feed.invalid:443 HTTP/1.1\r\n"),
            "{head}"
        );
    }
}

#[test]
fn no_proxy_the_flag_and_loopback_mean_a_direct_connection() {
    let serve = Serve::start(&[]);
    let (proxy, heads) = proxy(&serve.url);
    let all = ("ALL_PROXY", &*proxy.to_string());
    let here = serve.at("/echo");
    let ended = cat(&[&here], &[all]);
    assert_eq!(
        (ended.code, &*ended.stdout),
        (Some(0), "hello\n"),
        "{ended:?}"
    );
    for (arguments, variables) in [
        (
            &["ws://feed.invalid/"][..],
            &[all, ("NO_PROXY", "invalid")][..],
        ),
        (&["ws://feed.invalid/"], &[all, ("no_proxy", "*")]),
        (&["--no-proxy", "ws://feed.invalid/"], &[all]),
        (&["ws://feed.invalid/"], &[all, ("REQUEST_METHOD", "GET")]),
    ] {
        let ended = cat(arguments, variables);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("could not be resolved"), "{ended:?}");
    }
    assert!(heads.try_recv().is_err(), "nobody asked the proxy");
}

#[test]
fn proxy_of_the_command_line_goes_before_that_of_the_environment() {
    let serve = Serve::start(&[]);
    let (proxy, heads) = proxy(&serve.url);
    let url = format!("http://{proxy}");
    let arguments = ["--proxy", &url, "ws://feed.invalid/echo"];
    let ended = cat(
        &arguments,
        &[("ALL_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "*")],
    );
    assert_eq!(
        (ended.code, &*ended.stdout),
        (Some(0), "hello\n"),
        "{ended:?}"
    );
    heads.recv().unwrap();
}

#[test]
fn proxy_that_fails_is_named_with_its_variable_and_without_its_password() {
    // Nobody listens on the discard port.
    let ended = cat(
        &["ws://feed.invalid/"],
        &[("http_proxy", "http://user:hunter2@127.0.0.1:9")],
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("127.0.0.1:9"), "{ended:?}");
    assert!(ended.stderr.contains("http_proxy"), "{ended:?}");
    let ended_by_url = cat(&["ws://h.invalid/"], &[("ALL_PROXY", "ftp://u:hunter2@p")]);
    assert_eq!(ended_by_url.code, Some(2), "{ended_by_url:?}");
    assert!(
        ended_by_url.stderr.contains("ALL_PROXY"),
        "{ended_by_url:?}"
    );
    for stderr in [&ended.stderr, &ended_by_url.stderr] {
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

/// Once clap repeated an argument too many, with the password of its URL.
#[test]
fn arguments_that_are_wrong_are_told_without_their_secrets() {
    for (arguments, told) in [
        (["cat", "ws://a/", "ws://user:hunter2@b/?t=hunter2"], "b/"),
        (
            ["cat", "ws://a/", "Authorization: Bearer hunter2"],
            "Authorization: …",
        ),
        (["cat", "ws://a/", "user:hunter2@b"], "…"),
        (
            ["cat", "--connect-timeout", "ws://user:hunter2@b/"],
            "ws://…@b/",
        ),
    ] {
        let ended = support::run(&arguments);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
        assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
        assert!(
            ended.stderr.contains("Usage") || ended.stderr.contains("--help"),
            "{ended:?}"
        );
    }
}
