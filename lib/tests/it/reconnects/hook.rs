//! The hook runs on each connection, before everything else.

use super::*;

#[tokio::test]
async fn queued_messages_are_kept_and_sent_after_the_hook_at_every_connect() {
    limit(async {
        let (listener, address) = listen().await;
        let client = client(address).on_connect(|mut setup| async move {
            setup.send("subscribe").await?;
            setup.send("backfill").await?;
            let answer = setup.recv().await?;
            assert_eq!(answer.as_text(), Some("for the hook"));
            setup.send("thanks").await?;
            Ok(())
        });
        let (mut connection, mut server) = connect(client, &listener).await;
        let mut events = connection.events();
        connection.send("queued 0").await.unwrap();
        for round in 1..4 {
            for wanted in ["subscribe", "backfill"] {
                assert_eq!(text(&mut server).await, wanted);
            }
            // Queued messages wait for the hook, and the hook waits for its answer.
            say(&mut server, "for the hook").await;
            say(&mut server, &format!("for the stream {round}")).await;
            assert_eq!(text(&mut server).await, "thanks");
            assert_eq!(text(&mut server).await, format!("queued {}", round - 1));
            expect(&mut connection, &format!("for the stream {round}")).await;
            drop(server);
            // Messages that are sent before the loss is noticed may be lost with the old connection.
            disconnected(&mut events).await;
            connection.send(format!("queued {round}")).await.unwrap();
            server = upgrade(&listener).await;
            expect_gap(&mut connection).await;
        }
    })
    .await;
}

#[tokio::test]
async fn hook_that_fails_counts_as_a_loss_and_runs_again() {
    limit(async {
        let (listener, address) = listen().await;
        let runs = Arc::new(AtomicU32::new(0));
        let counter = runs.clone();
        let client = client(address).on_connect(move |setup| {
            let run = counter.fetch_add(1, Ordering::SeqCst);
            async move {
                setup.send(format!("run {run}")).await?;
                if run < 2 {
                    return Err("not yet".into());
                }
                Ok(())
            }
        });
        let (connection, mut server) = connect(client, &listener).await;
        connection.send("queued").await.unwrap();
        for run in 0..2 {
            assert_eq!(text(&mut server).await, format!("run {run}"));
            // No queued message was sent on a connection whose hook had not returned.
            assert_eq!(u16::from(closes(server).await.code), 1001);
            server = upgrade(&listener).await;
        }
        assert_eq!(text(&mut server).await, "run 2");
        assert_eq!(text(&mut server).await, "queued");
        let mut events = connection.events();
        let why = disconnected(&mut events).await;
        assert_eq!(why.to_string(), "the on_connect hook failed");
        let cause = std::error::Error::source(&*why).map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("not yet"));
    })
    .await;
}

#[tokio::test]
async fn hook_that_hangs_is_cut_after_the_setup_timeout() {
    limit(async {
        let (listener, address) = listen().await;
        let first = AtomicBool::new(true);
        let options = Options::default()
            .setup_timeout(Duration::from_millis(100))
            .close_timeout(Duration::from_millis(300));
        let client = client(address).options(options).on_connect(move |_setup| {
            let hangs = first.swap(false, Ordering::SeqCst);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        });
        let (connection, server) = connect(client, &listener).await;
        connection.send("queued").await.unwrap();
        let mut server_again = upgrade(&listener).await;
        assert_eq!(text(&mut server_again).await, "queued");
        let mut events = connection.events();
        let why = disconnected(&mut events).await;
        assert!(matches!(&*why, ConnectionError::Setup(why) if why.to_string().contains("100ms")));
        drop(server);
    })
    .await;
}

/// Once messages were accepted and lost that a `Setup` sent after its hook had returned.
#[tokio::test]
async fn setup_that_outlives_its_hook_refuses_and_the_connection_goes_on() {
    limit(async {
        let (listener, address) = listen().await;
        let kept = Arc::new(Mutex::new(None));
        let keep = kept.clone();
        let client = client(address).on_connect(move |setup| {
            let keep = keep.clone();
            async move {
                setup.send("in time").await?;
                *keep.lock().unwrap() = Some(setup);
                Ok(())
            }
        });
        let (connection, mut server) = connect(client, &listener).await;
        connection.send("queued").await.unwrap();
        assert_eq!(text(&mut server).await, "in time");
        assert_eq!(text(&mut server).await, "queued");
        let mut setup = kept.lock().unwrap().take().unwrap();
        let refused = setup.send("too late").await.unwrap_err();
        assert!(matches!(refused.reason, SendRefusal::Ended(_)), "{refused}");
        assert!(setup.recv().await.is_err());
        connection.send("goes on").await.unwrap();
        assert_eq!(text(&mut server).await, "goes on");
    })
    .await;
}
