//! Who may look.

use std::sync::{Arc, Mutex};

use unstall_dashboard::{Dashboard, Refusal};

use crate::common::{get, serve};

const DATA: [&str; 3] = [
    "/status.json",
    "/status/history.json",
    "/status/connections/1.json",
];

#[tokio::test]
async fn without_a_token_only_this_machine_may_look() {
    let address = serve(Dashboard::builder()).await;
    for path in ["/", "/status.json", "/status/history.json"] {
        assert_eq!(get(address, path, &[]).await.status, 200, "{path}");
        let local = format!("host: localhost:{}", address.port());
        assert_eq!(get(address, path, &[&local]).await.status, 200, "{path}");
    }
    // A name that leads here (DNS rebinding), a proxy, and a page of another site.
    for header in [
        "host: evil.example",
        "x-forwarded-for: 192.0.2.1",
        "forwarded: for=192.0.2.1",
        "via: 1.1 proxy",
        "origin: https://evil.example",
        "origin: null",
    ] {
        for path in DATA.into_iter().chain(["/"]) {
            let answer = get(address, path, &[header]).await;
            assert_eq!(answer.status, 403, "{path} {header}");
            assert!(answer.json()["error"].is_string());
        }
    }
    for site in ["sec-fetch-site: cross-site", "sec-fetch-site: same-site"] {
        for path in DATA {
            assert_eq!(get(address, path, &[site]).await.status, 403, "{path}");
        }
        // A link may lead to the page, which has no figure in it.
        assert_eq!(get(address, "/", &[site]).await.status, 200);
    }
}

#[tokio::test]
async fn with_a_token_only_its_bearer_may_look() {
    let address = serve(Dashboard::builder().token("s3cret")).await;
    let elsewhere = "host: feed.example";
    for path in DATA {
        for headers in [
            &[elsewhere][..],
            &[elsewhere, "authorization: Bearer s3cre"],
            &[elsewhere, "authorization: Bearer s3cret2"],
            &[elsewhere, "authorization: s3cret"],
        ] {
            let answer = get(address, path, headers).await;
            assert_eq!(answer.status, 401, "{path} {headers:?}");
            assert!(answer.head.contains("www-authenticate: bearer"));
        }
    }
    let shown = [elsewhere, "authorization: Bearer s3cret"];
    assert_eq!(get(address, "/status.json", &shown).await.status, 200);
    // The page asks for the token.
    assert_eq!(get(address, "/", &[elsewhere]).await.status, 200);
    let other_site = [shown[1], elsewhere, "origin: https://evil.example"];
    assert_eq!(get(address, "/status.json", &other_site).await.status, 403);
}

#[tokio::test]
async fn a_token_may_be_replaced_and_without_one_only_this_machine_may_look() {
    let token = Arc::new(Mutex::new(None));
    let current = token.clone();
    let now = move || current.lock().unwrap().clone();
    let address = serve(Dashboard::builder().token_of(now)).await;
    let elsewhere = "host: feed.example";
    let status = async |token: &str| {
        let token = format!("authorization: Bearer {token}");
        get(address, "/status.json", &[elsewhere, &token])
            .await
            .status
    };
    assert_eq!(status("first").await, 403);
    assert_eq!(get(address, "/status.json", &[]).await.status, 200);
    *token.lock().unwrap() = Some("first".into());
    assert_eq!((status("first").await, status("second").await), (200, 401));
    assert_eq!(get(address, "/status.json", &[]).await.status, 401);
    *token.lock().unwrap() = Some("second".into());
    assert_eq!((status("first").await, status("second").await), (401, 200));
}

#[tokio::test]
async fn the_application_decides_who_may_look() {
    let address = serve(Dashboard::builder().authorize(|asked| match asked.token {
        Some("operator") => Ok(()),
        Some(_) => Err(Refusal::Forbidden("you operate nothing".to_owned())),
        None => Err(Refusal::Unauthorized("who are you?".to_owned())),
    }))
    .await;
    let with = async |headers: &[&str]| {
        let answer = get(address, "/status.json", headers).await;
        (
            answer.status,
            answer.json()["error"].as_str().map(str::to_owned),
        )
    };
    assert_eq!(with(&["authorization: Bearer operator"]).await, (200, None));
    let (status, why) = with(&["authorization: Bearer reader"]).await;
    assert_eq!((status, why.as_deref()), (403, Some("you operate nothing")));
    let (status, why) = with(&[]).await;
    assert_eq!((status, why.as_deref()), (401, Some("who are you?")));
}

#[tokio::test]
async fn nothing_is_embedded_kept_or_run_from_elsewhere() {
    let address = serve(Dashboard::builder()).await;
    for path in ["/", "/status.json", "/nothing/of/this"] {
        let answer = get(address, path, &[]).await;
        if answer.status == 404 {
            continue;
        }
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(answer.head.contains(header), "{path}: {header}");
        }
    }
    let page = get(address, "/", &[]).await;
    let policy = page
        .head
        .lines()
        .find(|it| it.starts_with("content-security-policy:"));
    let policy = policy.expect("a policy");
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "connect-src 'self'",
        "'sha256-",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for elsewhere in [" src=\"", "href=\"http"] {
        assert!(!page.body.contains(elsewhere), "the page has {elsewhere}");
    }
    let (_, style) = page.body.split_once("<style>").unwrap();
    let (style, _) = style.split_once("</style>").unwrap();
    for elsewhere in ["@import", "url("] {
        assert!(!style.contains(elsewhere), "the style has {elsewhere}");
    }
}
