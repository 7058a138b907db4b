//! cargo run -p unstall --features opentelemetry --example opentelemetry
//!
//! One trace over two processes: a client asks a server, which is started as a process of its own. Both
//! export their spans by OTLP to `OTEL_EXPORTER_OTLP_ENDPOINT`, which is <http://localhost:4318> unless
//! it is set. That is where a collector, or Jaeger, listens.

use std::process::Stdio;

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};
use unstall::{BoxError, Client, CloseCode, Connection, Incoming, Server};

/// Exports the spans of this process, and carries their context over upgrade requests.
fn export(service: &'static str) -> Result<SdkTracerProvider, BoxError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name(service).build())
        .build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("unstall"));
    tracing_subscriber::registry()
        .with(layer)
        .with(LevelFilter::INFO)
        .init();
    Ok(provider)
}

async fn shout(mut connection: Connection) {
    while let Ok(Some(Incoming::Message(message))) = connection.recv().await {
        let text = message.as_text().unwrap_or_default().to_owned();
        let work = async { text.to_uppercase() };
        let answer = work.instrument(info_span!("shout")).await;
        let _ = connection.send(answer).await;
    }
}

async fn serve() -> Result<(), BoxError> {
    let server = Server::bind("127.0.0.1:0").await?;
    println!("{}", server.local_addr());
    // It ends with its input, so that the client can end it.
    let mut line = String::new();
    let mut input = BufReader::new(tokio::io::stdin());
    let ended = async {
        let _ = input.read_line(&mut line).await;
    };
    let within = std::time::Duration::from_secs(5);
    server.serve_until(shout, ended, within).await;
    Ok(())
}

async fn ask() -> Result<(), BoxError> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let address = BufReader::new(output).lines().next_line().await?;
    let address = address.ok_or("the server did not start")?;

    let context = Span::current().context();
    println!("trace {}", context.span().span_context().trace_id());
    let mut connection = Client::new(format!("ws://{address}/?token=s3cret"))
        .header("authorization", "Bearer s3cret")
        .connect()
        .await?;
    connection.send("hello").await?;
    if let Some(Incoming::Message(message)) = connection.recv().await? {
        println!("{}", message.as_text().unwrap_or_default());
    }
    let _ = connection.close(CloseCode::NORMAL, "").await;
    drop(child.stdin.take());
    child.wait().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let provider = match std::env::args().nth(1).as_deref() {
        Some("serve") => {
            let provider = export("shouter")?;
            serve().await?;
            provider
        }
        _ => {
            let provider = export("asker")?;
            ask().instrument(info_span!("ask")).await?;
            provider
        }
    };
    // Spans that still wait are exported.
    tokio::task::spawn_blocking(move || provider.shutdown()).await??;
    Ok(())
}
