//! `MiniLm` against Python's reference.

use std::{
    env,
    num::NonZero,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use shared::embed::{EmbedError, Embedder, MiniLm};
use tokio::time::Instant;

use super::soon;

#[derive(Deserialize)]
struct Reference {
    tokens: Vec<Tokens>,
    sentences: Vec<String>,
    int8_first_components: Vec<Vec<f32>>,
    int8_cosines: Vec<Vec<f32>>,
    fp32_cosines: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Tokens {
    text: String,
    ids: Vec<i32>,
}

/// Written by `shared/local/model/reference.py`.
fn reference() -> Reference {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/embed/reference.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn model_folder() -> PathBuf {
    if let Some(folder) = env::var_os("EMBEDDING_MODEL_DIR") {
        return folder.into();
    }
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("LOCKSTEP_CACHE_DIR")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("lockstep")))
        .or_else(|| Some(variable("HOME")?.join(".cache/lockstep")))
        .expect("no HOME")
        .join("models/all-minilm-l6-v2-int8")
}

fn minilm() -> MiniLm {
    let folder = model_folder();
    assert!(
        folder.join("model.onnx").is_file(),
        "there is no model in {}: run shared/local/model/build, or set EMBEDDING_MODEL_DIR",
        folder.display()
    );
    MiniLm::new(folder)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn token_counts_equal_the_reference_on_awkward_strings() {
    let embedder = minilm();
    for Tokens { text, ids } in reference().tokens {
        // The reference's ids carry [CLS] and [SEP].
        assert_eq!(embedder.count_tokens(&text).unwrap(), ids.len() - 2, "{text:?}");
    }
}

#[tokio::test]
async fn minilm_vectors_equal_the_reference() {
    let reference = reference();
    let embedder = minilm();
    let vectors = embedder.embed_passages(reference.sentences.clone(), soon()).await.unwrap();
    assert_eq!(vectors.len(), reference.sentences.len());
    for (row, vector) in vectors.iter().enumerate() {
        assert_eq!(vector.len(), embedder.space().dimension);
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
        // Most vectors agree to five digits. Where a sum's order (it depends on the CPU) tips one
        // activation over a rounding edge, the cosine is 0.995.
        for (found, expected) in vector.iter().zip(&reference.int8_first_components[row]) {
            assert!((found - expected).abs() < 0.03, "{row}: {found} instead of {expected}");
        }
        for (column, other) in vectors.iter().enumerate() {
            let found = cosine(vector, other);
            let int8 = reference.int8_cosines[row][column];
            let fp32 = reference.fp32_cosines[row][column];
            assert!((found - int8).abs() < 0.03, "{row}, {column}: {found}, int8 {int8}");
            assert!((found - fp32).abs() < 0.06, "{row}, {column}: {found}, fp32 {fp32}");
        }
    }
}

#[tokio::test]
async fn a_text_has_one_vector_whatever_is_embedded_beside_it() {
    let embedder = minilm().with_threads(NonZero::new(2).unwrap());
    let mut passages = reference().sentences;
    passages.extend((1..20).map(|n| "a much longer passage about rain ".repeat(n * n % 37 + 1)));
    let together = embedder.embed_passages(passages.clone(), soon()).await.unwrap();
    for (passage, vector) in passages.into_iter().zip(together) {
        let alone = embedder.embed_query(passage, soon()).await.unwrap();
        assert_eq!(alone, vector);
    }
}

#[tokio::test]
async fn what_lies_beyond_the_last_token_does_not_reach_the_vector() {
    let embedder = minilm();
    // The model was trained on 256 with [CLS] and [SEP].
    assert_eq!(embedder.tokens_max(), 254);
    let full = "rain ".repeat(embedder.tokens_max());
    assert_eq!(embedder.count_tokens(&full).unwrap(), embedder.tokens_max());
    let shorter = "rain ".repeat(embedder.tokens_max() - 1) + "snow";
    let longer = format!("{full} and then something else entirely");
    let vectors = embedder.embed_passages(vec![full, longer, shorter], soon()).await.unwrap();
    assert_eq!(vectors[0], vectors[1]);
    assert_ne!(vectors[0], vectors[2]);
}

#[tokio::test]
async fn a_vector_does_not_hold_on_to_the_memory_that_made_it() {
    let embedder = minilm();
    let vector = embedder.embed_query("rain ".repeat(embedder.tokens_max()), soon()).await.unwrap();
    assert_eq!(vector.capacity(), embedder.space().dimension);
}

#[tokio::test]
async fn a_deadline_that_has_passed_stops_minilm() {
    let outcome = minilm().embed_query("rain".to_owned(), Instant::now()).await;
    assert!(matches!(outcome, Err(EmbedError::Timeout)), "{outcome:?}");
}

#[tokio::test]
async fn a_missing_or_damaged_model_is_named() {
    let folder = env::temp_dir().join(format!("lockstep-embed-{}", std::process::id()));
    let embedder = MiniLm::new(&folder);
    let error = embedder.embed_query("rain".to_owned(), soon()).await.unwrap_err();
    let vocabulary = folder.join("vocab.txt");
    assert!(matches!(&error, EmbedError::Model { path, .. } if *path == vocabulary), "{error:?}");
    assert!(!error.retryable());

    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(&vocabulary, "[UNK]\n[CLS]\n[SEP]\n").unwrap();
    std::fs::write(folder.join("model.onnx"), "not a graph").unwrap();
    let error = embedder.embed_query("rain".to_owned(), soon()).await.unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
    let model = folder.join("model.onnx");
    assert!(matches!(&error, EmbedError::Model { path, .. } if *path == model), "{error:?}");
}
