//! Who may do what: refused, told, and never with a token in a text.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};
use unstall_topics::{
    Access, Delivery, Denied, Filter, Grants, Node, Permit, PublishError, Refusal, Start,
    Subscription, SubscriptionError, Topic, Topics, TopicsBuilder, TopicsEvent, Visitor,
};

use crate::common::{Served, in_time, log, message, next, number, numbered, soon, url};

/// Asks a function.
struct Hook<F>(F);

impl<F> Debug for Hook<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl<F> Access for Hook<F>
where
    F: Fn(String) -> BoxFuture<'static, Result<Arc<dyn Permit>, Denied>> + Send + Sync + 'static,
{
    fn enter<'a>(&'a self, visitor: Visitor<'a>) -> BoxFuture<'a, Result<Arc<dyn Permit>, Denied>> {
        (self.0)(visitor.token.to_owned())
    }
}

async fn guarded<F>(hook: F) -> (unstall_topics::Log, Served)
where
    F: Fn(String) -> BoxFuture<'static, Result<Arc<dyn Permit>, Denied>> + Send + Sync + 'static,
{
    let log = log().await;
    let served = Served::node(Node::new(&log).access(Hook(hook))).await;
    (log, served)
}

fn filter(name: &str) -> Filter {
    Filter::new(name).unwrap()
}

fn permit(grants: Grants) -> Result<Arc<dyn Permit>, Denied> {
    Ok(Arc::new(grants))
}

/// Lets in whoever has this token, to read `a.>` and to publish to `a.*`.
fn only(
    token: &'static str,
) -> impl Fn(String) -> BoxFuture<'static, Result<Arc<dyn Permit>, Denied>> {
    move |shown| {
        async move {
            match shown == token {
                true => permit(
                    Grants::none()
                        .subscribe(filter("a.>"))
                        .publish(filter("a.*")),
                ),
                false => Err(Denied("no such token".into())),
            }
        }
        .boxed()
    }
}

fn to(served: &Served) -> TopicsBuilder {
    Topics::builder([url(served.address)]).reconnect(soon())
}

async fn fails(feed: &mut Subscription) -> SubscriptionError {
    loop {
        match in_time(feed.recv()).await {
            Ok(Some(Delivery::CaughtUp(_))) => {}
            Ok(other) => panic!("an error, not {other:?}"),
            Err(error) => return error,
        }
    }
}

const SECRET: &str = "s3cret-t0ken";

/// Once a client with a fixed token tried without end, and its application waited for ever.
#[tokio::test]
async fn a_wrong_token_ends_the_client_and_says_so() {
    let (_log, served) = guarded(only(SECRET)).await;
    for token in [Some("wr0ng"), Some(""), None] {
        let builder = to(&served);
        let topics = match token {
            Some(token) => builder.token(token).start(),
            None => builder.start(),
        };
        let mut feed = topics.subscribe("a.b", Start::Beginning).unwrap();
        let publishing = in_time(topics.publish("a.b", "x")).await;
        assert!(
            matches!(publishing, Err(PublishError::NotSent)),
            "{publishing:?}"
        );
        let SubscriptionError::ClientEnded(why) = fails(&mut feed).await else {
            panic!("the client goes on");
        };
        assert!(why.contains("no such token"), "{why}");
        // And so does whatever comes later.
        assert!(matches!(
            in_time(topics.publish("a.b", "x")).await,
            Err(PublishError::NotSent)
        ));
        let mut late = topics.subscribe("a.b", Start::Beginning).unwrap();
        assert!(matches!(
            fails(&mut late).await,
            SubscriptionError::ClientEnded(_)
        ));
    }
}

#[tokio::test]
async fn a_function_that_gives_another_token_next_time_gets_in() {
    let (log, served) = guarded(only(SECRET)).await;
    log.publish("a.b", numbered(0, 8)).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    let topics = to(&served)
        .token_with(move || {
            let nth = counting.fetch_add(1, Relaxed);
            async move {
                match nth {
                    0 => Err("the token service is down".into()),
                    1 => Ok("0ld".to_owned()),
                    2 => Ok("0lder".to_owned()),
                    _ => Ok(SECRET.to_owned()),
                }
            }
        })
        .start();
    let mut feed = topics.subscribe("a.b", Start::Beginning).unwrap();
    assert_eq!(number(&message(&mut feed).await), 0);
    assert_eq!(asked.load(Relaxed), 4);
}

/// Once a function that panicked, or never came back, stopped its client without a word.
#[tokio::test]
async fn a_function_of_tokens_that_panics_is_told_and_asked_again() {
    let (log, served) = guarded(only(SECRET)).await;
    log.publish("a.b", numbered(0, 8)).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    let topics = to(&served)
        .token_with(move || {
            let nth = counting.fetch_add(1, Relaxed);
            assert!(nth != 0, "before there is a future");
            async move {
                assert!(nth != 1, "within the future");
                Ok(SECRET.to_owned())
            }
        })
        .start();
    let mut feed = topics.subscribe("a.b", Start::Beginning).unwrap();
    assert_eq!(number(&message(&mut feed).await), 0);
}

#[tokio::test]
async fn filters_and_topics_that_are_not_allowed_are_refused_alone() {
    let (_log, served) = guarded(only(SECRET)).await;
    let topics = to(&served).token(SECRET).start();
    let mut allowed = topics.subscribe("a.*.c", Start::Beginning).unwrap();
    for wider in ["b.c", ">", "*.b", "*", "*.>", "a"] {
        let mut feed = topics.subscribe(wider, Start::Beginning).unwrap();
        assert_eq!(
            fails(&mut feed).await,
            SubscriptionError::NotAllowed,
            "{wider}"
        );
        // It stays so.
        assert_eq!(fails(&mut feed).await, SubscriptionError::NotAllowed);
    }
    for topic in ["a.b.c", "a", "b.c"] {
        let refused = in_time(topics.publish(topic, "x")).await;
        assert!(
            matches!(refused, Err(PublishError::Refused(Refusal::NotAllowed))),
            "{topic}: {refused:?}"
        );
    }
    let batch = ["a.b", "b.b", "a.c"].map(|topic| crate::common::publication(topic, "x"));
    let results = in_time(topics.publish_many(batch.into())).await;
    assert!(results[0].is_ok() && results[1].is_err() && results[2].is_ok());
    assert!(matches!(
        next(&mut allowed).await,
        Some(Delivery::CaughtUp(_))
    ));
}

/// Tokens that live for some time, and are checked by their number.
fn expiring(
    life: Duration,
    newest: Arc<AtomicUsize>,
) -> impl Fn(String) -> BoxFuture<'static, Result<Arc<dyn Permit>, Denied>> {
    move |token| {
        let newest = newest.clone();
        async move {
            match token == newest.load(Relaxed).to_string() {
                true => permit(Grants::all().until(SystemTime::now() + life)),
                false => Err(Denied("an old token".into())),
            }
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_expire_are_replaced_and_nothing_is_lost() {
    let newest = Arc::new(AtomicUsize::new(0));
    let (log, served) = guarded(expiring(Duration::from_millis(150), newest.clone())).await;
    let counter = newest.clone();
    let topics = to(&served)
        .token_with(move || {
            let token = counter.fetch_add(1, Relaxed) + 1;
            async move { Ok(token.to_string()) }
        })
        .start();
    let mut feeds: Vec<_> = (0..5)
        .map(|_| topics.subscribe("n", Start::Beginning).unwrap())
        .collect();
    let local = tokio::spawn(async move {
        for at in 0..600 {
            log.publish("n", numbered(at, 8)).await.unwrap();
            // A second and a half in which tokens expire.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    for at in 0..600 {
        for feed in &mut feeds {
            assert_eq!(number(&message(feed).await), at);
        }
    }
    local.await.unwrap();
    let tokens = newest.load(Relaxed);
    assert!(tokens >= 4, "they did expire: {tokens}");
    // Once each subscription left the connection that another one had just made.
    assert!(tokens < 60, "{tokens} connections");
}

/// Once a client that only publishes kept its expired token for ever.
#[tokio::test]
async fn a_publisher_whose_token_expired_publishes_with_the_next_one() {
    let newest = Arc::new(AtomicUsize::new(0));
    let (log, served) = guarded(expiring(Duration::from_millis(100), newest.clone())).await;
    let topics = to(&served)
        .token_with(move || {
            let token = newest.fetch_add(1, Relaxed) + 1;
            async move { Ok(token.to_string()) }
        })
        .start();
    let (mut stored, mut refused) = (0, 0);
    for at in 0..60 {
        loop {
            match in_time(topics.publish("n", numbered(at, 8))).await {
                Ok(_) => break,
                Err(PublishError::Refused(Refusal::Expired)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stored += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stored, 60);
    assert!(refused < 100, "{refused} were refused");
    let mut feed = log.subscribe("n", Start::Beginning).unwrap();
    for at in 0..60 {
        assert_eq!(number(&message(&mut feed).await), at);
    }
    assert_eq!(log.bounds().last.get(), 60);
}

#[tokio::test]
async fn a_fixed_token_that_expires_ends_its_subscriptions() {
    let (log, served) = guarded(|_| {
        let until = SystemTime::now() + Duration::from_millis(200);
        async move { permit(Grants::all().until(until)) }.boxed()
    })
    .await;
    for builder in [to(&served).token(SECRET), to(&served)] {
        let topics = builder.start();
        let mut feed = topics.subscribe("n", Start::Now).unwrap();
        assert!(matches!(next(&mut feed).await, Some(Delivery::CaughtUp(_))));
        log.publish("n", numbered(1, 8)).await.unwrap();
        assert_eq!(number(&message(&mut feed).await), 1);
        assert_eq!(fails(&mut feed).await, SubscriptionError::Expired);
        let refused = in_time(topics.publish("n", "x")).await;
        assert!(
            matches!(refused, Err(PublishError::Refused(Refusal::Expired))),
            "{refused:?}"
        );
    }
}

/// Once the first messages on a connection were stored although its token had expired before.
#[tokio::test]
async fn a_token_that_had_expired_before_allows_nothing() {
    let (log, served) = guarded(|_| {
        let until = SystemTime::now() - Duration::from_secs(1);
        async move { permit(Grants::all().until(until)) }.boxed()
    })
    .await;
    for _ in 0..20 {
        let topics = to(&served).token(SECRET).start();
        let mut feed = topics.subscribe("n", Start::Beginning).unwrap();
        assert!(in_time(topics.publish("n", "x")).await.is_err());
        assert!(in_time(feed.recv()).await.is_err());
    }
    assert_eq!(log.bounds().last.get(), 0);
}

/// Once a hook that panicked cost the client its connection, without a word.
#[tokio::test]
async fn a_hook_that_panics_rejects_this_client_and_harms_no_other() {
    let panics = Arc::new(AtomicBool::new(false));
    let switch = panics.clone();
    let (log, served) = guarded(move |_| {
        let panics = switch.load(Relaxed);
        async move {
            assert!(!panics, "the hook");
            permit(Grants::all())
        }
        .boxed()
    })
    .await;
    log.publish("n", numbered(0, 8)).await.unwrap();
    let before = to(&served).start();
    let mut feed = before.subscribe("n", Start::Beginning).unwrap();
    message(&mut feed).await;
    panics.store(true, Relaxed);
    let topics = to(&served).start();
    let mut events = topics.events();
    let mut waits = topics.subscribe("n", Start::Beginning).unwrap();
    let Some(TopicsEvent::Disconnected { why }) = in_time(events.next()).await else {
        panic!("it goes on");
    };
    assert!(why.contains("rejects"), "{why}");
    log.publish("n", numbered(1, 8)).await.unwrap();
    assert_eq!(number(&message(&mut feed).await), 1);
    // It is the hook's fault and not the client's, so the client tries again.
    panics.store(false, Relaxed);
    assert_eq!(number(&message(&mut waits).await), 0);
    assert_eq!(served.server.stats().handler_panics, 0);
}

#[derive(Debug)]
struct Panics;

impl Permit for Panics {
    fn may_publish(&self, topic: &Topic) -> bool {
        assert!(topic.as_str() != "bad", "may_publish");
        true
    }

    fn may_subscribe(&self, filter: &Filter) -> bool {
        assert!(filter.as_str() != "bad", "may_subscribe");
        true
    }

    fn expires(&self) -> Option<SystemTime> {
        None
    }
}

#[tokio::test]
async fn a_permit_that_panics_allows_nothing() {
    let (log, served) =
        guarded(|_| async { Ok(Arc::new(Panics) as Arc<dyn Permit>) }.boxed()).await;
    let topics = to(&served).start();
    let mut good = topics.subscribe("good", Start::Beginning).unwrap();
    let mut bad = topics.subscribe("bad", Start::Beginning).unwrap();
    assert_eq!(fails(&mut bad).await, SubscriptionError::NotAllowed);
    let refused = in_time(topics.publish("bad", "x")).await;
    assert!(matches!(
        refused,
        Err(PublishError::Refused(Refusal::NotAllowed))
    ));
    in_time(topics.publish("good", numbered(3, 8)))
        .await
        .unwrap();
    assert_eq!(number(&message(&mut good).await), 3);
    assert_eq!(served.server.stats().handler_panics, 0);
    assert_eq!(log.bounds().last.get(), 1);
}

/// Once a hook that took too long said "not allowed", and ended clients for good.
#[tokio::test(start_paused = true)]
async fn a_slow_hook_holds_only_its_own_client_and_is_no_refusal() {
    let slow = Arc::new(AtomicBool::new(true));
    let switch = slow.clone();
    let (log, served) = guarded(move |token| {
        let slow = token == "slow" && switch.load(Relaxed);
        async move {
            if slow {
                std::future::pending::<()>().await;
            }
            permit(Grants::all())
        }
        .boxed()
    })
    .await;
    log.publish("n", numbered(0, 8)).await.unwrap();
    let topics = to(&served).token("slow").start();
    let mut events = topics.events();
    let mut waits = topics.subscribe("n", Start::Beginning).unwrap();
    let other = to(&served).token("fast").start();
    let mut feed = other.subscribe("n", Start::Beginning).unwrap();
    assert_eq!(number(&message(&mut feed).await), 0);
    let Some(TopicsEvent::Disconnected { why }) = in_time(events.next()).await else {
        panic!("no event");
    };
    assert!(why.contains("in time"), "{why}");
    slow.store(false, Relaxed);
    assert_eq!(number(&message(&mut waits).await), 0);
}

/// The words of a node may be meant for a terminal.
#[tokio::test]
async fn what_a_node_says_is_safe_to_print() {
    let answer = crate::common::fake::reject(1, 0, "go\x1b[2J\r\nWARN forged");
    let (served, _) = crate::common::fake::answering(answer).await;
    let topics = to(&served).start();
    let mut feed = topics.subscribe("n", Start::Now).unwrap();
    let error = fails(&mut feed).await.to_string();
    assert!(error.contains("forged"), "{error}");
    assert!(!error.chars().any(char::is_control), "{error:?}");
}
