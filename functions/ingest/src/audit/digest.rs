//! A digest of ids in their order, which can be continued from where it was.

use sha2::{Digest, Sha256};
use shared::domain::{ChunkId, ContentHash};

/// The digest of no ids.
pub(super) const NONE: ContentHash = ContentHash([0; 32]);

/// The digest with one more id. A chain, so that it does not matter where pages end, and 32 bytes are all that an audit
/// has to keep when it is cut.
pub(super) fn with(digest: ContentHash, id: ChunkId) -> ContentHash {
    ContentHash(Sha256::new().chain_update(digest.0).chain_update(id.0.as_bytes()).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_other_ids_and_another_order() {
        let (a, b) = (ChunkId::draw(), ChunkId::draw());
        let of = |ids: &[ChunkId]| ids.iter().fold(NONE, |digest, id| with(digest, *id));
        assert_eq!(of(&[a, b]), of(&[a, b]));
        assert_ne!(of(&[a, b]), of(&[b, a]));
        assert_ne!(of(&[a]), of(&[a, b]));
    }
}
