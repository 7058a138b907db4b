//! A stream is a log only if it cannot have holes, and stays one.

use std::time::Duration;

use serde_json::{Value, json};
use unstall_proto::topics::Durability;
use unstall_topics::{
    jetstream::{JetStream, OpenError},
    store::{Store, StoreError},
};

use crate::{
    common::*,
    servers::{Servers, are_installed},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_may_get_holes_is_refused_and_every_reason_is_said() {
    if !are_installed() {
        return;
    }
    let servers = Servers::start(1);
    // The server is ready when a first stream can be made.
    open(JetStream::builder(servers.urls(), "OTHER")).await;
    let stream = json!({
        "name": "LOG",
        "subjects": ["LOG.>"],
        "retention": "limits",
        "storage": "file",
        "num_replicas": 1,
        "max_msgs_per_subject": 1,
        "allow_rollup_hdrs": true,
    });
    ask(&servers.url(0), "STREAM.CREATE.LOG", &stream).await;
    let error = JetStream::builder(servers.urls(), "LOG")
        .open()
        .await
        .unwrap_err();
    let OpenError::NotALog { stream, faults } = &error else {
        panic!("it is not a log: {error}");
    };
    assert_eq!(stream, "LOG");
    for setting in [
        "max_msgs_per_subject",
        "allow_rollup_hdrs",
        "deny_delete",
        "deny_purge",
        "metadata",
    ] {
        assert!(
            faults.iter().any(|fault| fault.starts_with(setting)),
            "{setting}: {faults:?}"
        );
    }
    assert_eq!(faults.len(), 5, "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_there_is_taken_as_it_is() {
    if !are_installed() {
        return;
    }
    let servers = Servers::start(1);
    let builder = JetStream::builder(servers.urls(), "LOG").prefix("hub.log");
    let first = open(
        builder
            .max_age(Duration::from_secs(3_600))
            .max_bytes(1 << 20),
    )
    .await;
    let made = config(&servers.url(0)).await;
    let again = open(JetStream::builder(servers.urls(), "LOG")).await;
    assert_eq!(config(&servers.url(0)).await, made);
    assert_eq!((again.prefix(), again.id()), ("hub.log", first.id()));
    let other = JetStream::builder(servers.urls(), "LOG")
        .prefix("other")
        .open()
        .await;
    let error = other.unwrap_err().to_string();
    assert!(
        error.contains("the prefix is hub.log, not other"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_says_why() {
    if !are_installed() {
        return;
    }
    let (servers, _store) = single().await;
    let open = async |builder: unstall_topics::jetstream::Builder| {
        builder.open().await.unwrap_err().to_string()
    };
    let absent = JetStream::builder(servers.urls(), "ABSENT").create(false);
    assert_eq!(
        open(absent).await,
        "there is no stream ABSENT; make it, or let it be made here"
    );
    let none = Vec::<String>::new();
    assert_eq!(
        open(JetStream::builder(none, "LOG")).await,
        "name at least one server of NATS"
    );
    let name = open(JetStream::builder(servers.urls(), "a.b")).await;
    assert!(name.contains("\"a.b\" is not"), "{name}");
    let secret = open(JetStream::builder(["nats://user:secret@[bad"], "LOG")).await;
    assert!(!secret.contains("secret"), "{secret}");
    let replicas = open(JetStream::builder(servers.urls(), "NEW").replicas(3)).await;
    assert!(
        replicas.contains("the stream NEW cannot be made"),
        "{replicas}"
    );
    assert!(replicas.contains("JetStream refused"), "{replicas}");
    let large = || JetStream::builder(servers.urls(), "NEW").max_bytes(1 << 50);
    let disk = open(large()).await;
    assert!(disk.contains("raise their max_file_store"), "{disk}");
    let memory = open(large().in_memory()).await;
    assert!(memory.contains("raise their max_memory_store"), "{memory}");
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_is_what_stream_and_servers_give() {
    if !are_installed() {
        return;
    }
    let (servers, file) = single().await;
    assert_eq!(file.durability(), Durability::DiskLater);
    let synced = open(JetStream::builder(servers.urls(), "LOG").servers_sync(true)).await;
    assert_eq!(synced.durability(), Durability::Disk);
    let memory = open(JetStream::builder(servers.urls(), "MEMORY").in_memory()).await;
    assert_eq!(memory.durability(), Durability::Memory);
    assert_eq!(memory.once(), Some(Duration::from_secs(90)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_stream_is_changed_ends_and_names_the_setting() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    append(&store, &["a"]).await;
    let mut config = config(&servers.url(0)).await;
    config["max_msgs_per_subject"] = json!(10);
    ask(&servers.url(0), "STREAM.UPDATE.LOG", &config).await;
    has_ended(&store, "max_msgs_per_subject is 10").await;
    let answer = store.append(vec![publication("a", "x")]).await;
    assert!(
        matches!(answer, Err(StoreError::Unavailable(_))),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_made_anew_is_another_log_also_with_the_same_settings() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    let config = config(&servers.url(0)).await;
    ask(&servers.url(0), "STREAM.DELETE.LOG", &Value::Null).await;
    ask(&servers.url(0), "STREAM.CREATE.LOG", &config).await;
    has_ended(&store, "made anew").await;
    let again = open(JetStream::builder(servers.urls(), "LOG")).await;
    assert_ne!(again.id(), store.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_stream_is_deleted_ends() {
    if !are_installed() {
        return;
    }
    let (servers, store) = single().await;
    ask(&servers.url(0), "STREAM.DELETE.LOG", &Value::Null).await;
    has_ended(&store, "was deleted").await;
}
