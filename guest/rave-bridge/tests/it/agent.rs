//! An agent is a process that shows that it lives, to the service manager and to anybody, and ends when told.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

#[test]
fn an_agent_lives_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_rave-bridge"))
        .args(["agent", "coder"])
        .env("RUNTIME_DIRECTORY", folder.path())
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .env("WATCHDOG_USEC", "300000")
        .env_remove("WATCHDOG_PID")
        .spawn()
        .unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let beat = || -> u64 {
        let text = fs::read(folder.path().join("heartbeat.json")).unwrap();
        let heartbeat: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((heartbeat["agent"].as_str(), heartbeat["pid"].as_u64()), (Some("coder"), Some(agent.id().into())));
        heartbeat["beat"].as_u64().unwrap()
    };
    assert!(heard().contains("READY=1"));
    let first = beat();
    for _ in 0..3 {
        assert!(heard().contains("WATCHDOG=1"));
    }
    assert!(beat() > first);
    let told = Command::new("kill").arg(agent.id().to_string()).status().unwrap();
    assert!(told.success());
    assert!(agent.wait().unwrap().success());
}

#[test]
fn there_are_no_other_agents() {
    let output = Command::new(env!("CARGO_BIN_EXE_rave-bridge"))
        .args(["agent", "boss", "--folder", "/nowhere"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("agents are: orchestrator, planner, coder"));
}
