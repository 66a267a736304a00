//! Every example runs, against a real broker where it needs one.

use std::path::{Path, PathBuf};

use server::{Server, ServerConfig};
use tokio::process::Command;

/// Where cargo puts the examples it builds with these tests.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

async fn run(command: &mut Command) -> String {
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_producer_writes_what_the_consumer_reads() {
    let data_dir = tempfile::tempdir().unwrap();
    let mut config = ServerConfig { data_dir: data_dir.path().to_owned(), ..ServerConfig::default() };
    config.quic.set_port(0);
    config.runtime.announce = false;
    let server = Server::start(config).await.unwrap();
    let command = |name| {
        let mut command = Command::new(example(name));
        command.env("WEIR_BROKER", server.quic_addr().to_string()).env("WEIR_IDENTITY", server.identity_path());
        command
    };
    let produced = run(&mut command("producer")).await;
    assert!(produced.contains("1000 records acknowledged, 1000 stored, 0 dropped"), "{produced}");
    let consumed = run(&mut command("consumer")).await;
    assert!(consumed.contains("1000 records read"), "{consumed}");
    server.shutdown().await;
}

#[tokio::test]
async fn the_embedded_broker_answers_itself() {
    let output = run(&mut Command::new(example("embedded-broker"))).await;
    assert!(output.contains("read back: hello"), "{output}");
}

#[tokio::test]
async fn the_custom_plugin_keeps_drops_and_rejects() {
    let output = run(&mut Command::new(example("custom-plugin"))).await;
    assert!(output.contains("2 kept, 1 dropped, 1 rejected"), "{output}");
    assert!(output.contains(r#"{"sensor":"attic","celsius":34.2}"#), "{output}");
}
