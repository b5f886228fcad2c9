//! `lockstep eval` as a real process, on a set of a few documents.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use local::folder::TempFolder;
use serde_json::Value;

#[test]
fn an_evaluation_ingests_a_set_and_measures_every_mode() {
    let folder = TempFolder::new().unwrap();
    let figures = folder.path().join("figures.json");
    let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eval/flowerpots");
    for skip in [&[][..], &["--skip-ingest"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .arg("eval")
            .args(skip)
            .arg("--json")
            .args([&figures, &set])
            .env("LOCKSTEP_DATA_DIR", folder.path())
            .env_remove("DATABASE_URL")
            .env_remove("QDRANT_URL")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("| flowerpots | hybrid | 4 | 1.000 |"), "{said}");
        let figures: Vec<Value> = serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap();
        let modes: Vec<&str> = figures.iter().map(|row| row["mode"].as_str().unwrap()).collect();
        assert_eq!(modes, ["sparse", "dense", "hybrid"]);
        assert!(figures.iter().all(|row| row["recall_5"].as_f64() == Some(1.0)), "{figures:?}");
    }
}
