//! TLS towards the relay's clients.

use std::path::Path;

use futures_util::FutureExt;

use crate::{
    peers::{Upstream, echo},
    support::{Ended, Serve, in_background, pem::Pem, run_with},
};

fn by_name(server: &Serve) -> String {
    server.url.replace("127.0.0.1", "localhost")
}

/// Sends a line through a server that echoes, and trusts these roots.
async fn cat(url: &str, roots: Option<&Path>) -> Ended {
    let mut args = vec!["cat".to_owned(), url.to_owned()];
    if let Some(roots) = roots {
        args.extend(["--tls-roots".to_owned(), roots.to_str().unwrap().to_owned()]);
    }
    in_background(move || {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        run_with(&args, "hello\n")
    })
    .await
}

#[tokio::test]
async fn clients_that_trust_the_certificate_come_in_and_others_do_not() {
    let upstream = Upstream::start(echo).await;
    let pem = Pem::of(&["localhost"]);
    let args = pem.args();
    let listen = ["relay", "--listen", "wss://127.0.0.1:0", "--to"];
    let to = upstream.url();
    let args: Vec<_> = listen
        .into_iter()
        .chain([&*to])
        .chain(args.iter().map(String::as_str))
        .collect();
    let relay = Serve::of(&args);
    assert!(relay.url.starts_with("wss://127.0.0.1:"), "{}", relay.url);
    let trusting = cat(&by_name(&relay), Some(&pem.cert())).await;
    assert_eq!(trusting.stdout, "hello\n", "{trusting:?}");
    let requests = upstream.requests();
    assert_eq!(requests[0].headers()["x-forwarded-proto"], "https");
    let other = Pem::of(&["localhost"]);
    for roots in [None, Some(other.cert())] {
        let refused = cat(&by_name(&relay), roots.as_deref()).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("TLS"), "{refused:?}");
    }
    let plain = cat(&by_name(&relay).replace("wss://", "ws://"), None).await;
    assert_eq!(plain.code, Some(1), "{plain:?}");
    assert_eq!(upstream.requests().len(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_certificate_is_shown_after_a_signal_and_connections_stay() {
    let upstream = Upstream::start(echo).await;
    let to = upstream.url();
    for (command, path, done) in [
        (
            &["relay", "--to", &*to, "--listen", "ws://127.0.0.1:0"][..],
            "",
            "reloaded: ",
        ),
        (&["serve", "--listen", "127.0.0.1:0"], "/echo", "again"),
        (&["hub", "--listen", "127.0.0.1:0"], "/topics", "again"),
    ] {
        let pem = Pem::of(&["localhost"]);
        let args = pem.args();
        let args = args.iter().map(String::as_str);
        let args: Vec<_> = command.iter().copied().chain(args).chain(["-v"]).collect();
        let mut server = Serve::of(&args);
        let log = crate::reload::Log::of(&mut server);
        let url = by_name(&server) + path;
        let connect = async |roots: &Path| {
            let tls = unstall::client_config_from_pem(roots).unwrap();
            let client = unstall::Client::new(&url).tls(tls).plain();
            let client = client
                .subprotocol("unstall.topics.v1")
                .optional_subprotocol();
            client.connect().await
        };
        let first = pem.copy("first.pem");
        let open = connect(&first).await.unwrap();
        // A certificate without its key changes nothing.
        std::fs::write(pem.key(), "no key").unwrap();
        log.reload(&server, "stays as it was");
        drop(connect(&first).await.unwrap());
        pem.renew();
        log.reload(&server, done);
        drop(connect(&pem.cert()).await.unwrap());
        assert!(connect(&first).await.is_err(), "{command:?}");
        assert!(open.ended().now_or_never().is_none(), "{command:?}");
    }
}
