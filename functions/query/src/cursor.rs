//! Where a page ended: opaque to clients.
//!
//! It holds the last hit's place in the order (tier, fused score, id), and not a count of hits: what was shown is not shown
//! again when documents come and go between two pages, unless its own score has changed. What comes to stand before the
//! cursor meanwhile is missed. It holds for the same request only.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use shared::{domain::ChunkId, problem::Problem};
use uuid::Uuid;

use crate::refill::Ranked;

/// Bytes of the request's fingerprint: enough to notice a mistake.
const FINGERPRINT_BYTES: usize = 8;

/// All bytes: fingerprint, tier, score, id.
const BYTES: usize = FINGERPRINT_BYTES + 1 + 4 + 16;

/// The place of a page's last hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cursor {
    pub(crate) tier: u8,
    fused: f32,
    id: ChunkId,
}

/// What a request is, but for its cursor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fingerprint([u8; FINGERPRINT_BYTES]);

impl Fingerprint {
    /// Of a request's description.
    pub(crate) fn of(description: &str) -> Self {
        let mut bytes = [0; FINGERPRINT_BYTES];
        for (byte, hashed) in bytes.iter_mut().zip(Sha256::digest(description)) {
            *byte = hashed;
        }
        Self(bytes)
    }
}

impl Cursor {
    /// Behind this hit.
    pub(crate) fn behind(ranked: &Ranked) -> Self {
        Self { tier: ranked.tier, fused: ranked.fused, id: ranked.id }
    }

    /// Whether `ranked` stands behind it.
    pub(crate) fn is_before(&self, ranked: &Ranked) -> bool {
        let order = self.tier.cmp(&ranked.tier).then(ranked.fused.total_cmp(&self.fused)).then(self.id.cmp(&ranked.id));
        order.is_lt()
    }

    /// As clients send it back.
    pub(crate) fn encode(&self, fingerprint: Fingerprint) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend(fingerprint.0);
        bytes.push(self.tier);
        bytes.extend(self.fused.to_be_bytes());
        bytes.extend(self.id.0.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(text: &str, fingerprint: Fingerprint) -> Result<Self, Problem> {
        let unreadable = || Problem::invalid_field("cursor", "is not one that an answer returned");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| unreadable())?;
        let (of, rest) = bytes.split_first_chunk::<FINGERPRINT_BYTES>().ok_or_else(unreadable)?;
        let (tier, rest) = rest.split_first().ok_or_else(unreadable)?;
        let (fused, id) = rest.split_first_chunk::<4>().ok_or_else(unreadable)?;
        let id = Uuid::from_slice(id).map_err(|_| unreadable())?;
        if *of != fingerprint.0 {
            return Err(Problem::invalid_field("cursor", "belongs to another request: send the same one with it"));
        }
        Ok(Self { tier: *tier, fused: f32::from_be_bytes(*fused), id: ChunkId(id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(tier: u8, fused: f32, n: u128) -> Ranked {
        Ranked { id: ChunkId(Uuid::from_u128(n)), fused, tier, score: fused }
    }

    #[test]
    fn a_cursor_survives_its_way_and_belongs_to_one_request() {
        let (one, other) = (Fingerprint::of("one"), Fingerprint::of("other"));
        let cursor = Cursor::behind(&ranked(1, 0.25, 7));
        let text = cursor.encode(one);
        assert_eq!(Cursor::decode(&text, one).unwrap(), cursor);
        for (text, fingerprint) in
            [(text.as_str(), other), ("", one), ("AAAA", one), ("%%%", one), (text.get(1..).unwrap(), one)]
        {
            assert!(Cursor::decode(text, fingerprint).is_err(), "{text}");
        }
    }

    #[test]
    fn behind_it_is_what_is_ranked_later() {
        let cursor = Cursor::behind(&ranked(1, 0.5, 7));
        for later in [ranked(1, 0.4, 1), ranked(1, 0.5, 8), ranked(2, 0.9, 1)] {
            assert!(cursor.is_before(&later), "{later:?}");
        }
        for shown in [ranked(1, 0.5, 7), ranked(1, 0.6, 9), ranked(0, 0.1, 9), ranked(1, 0.5, 6)] {
            assert!(!cursor.is_before(&shown), "{shown:?}");
        }
    }
}
