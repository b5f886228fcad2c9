//! PostgreSQL in the model: the transactions of `ingest` as functions that happen at once.

use super::{
    Variant,
    ids::Ids,
    rows::{Answer, Chunk, Content, Document, Key, Revision, RevisionState, Text},
};

/// `saga::Lease`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Lease {
    pub document: u8,
    pub revision: u8,
    pub fence: u8,
}

/// `saga::Claimed`, and the errors of a claim that end a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claimed {
    Begun(Lease),
    Resumed(Lease),
    /// Document and revision.
    Unchanged(u8, u8),
    Replay(Answer),
    /// `DeletedMeanwhile`, or `Superseded`.
    Refused,
    /// `KeyInFlight`, or `Busy`: nothing was changed, the client comes again.
    InFlight,
}

/// All rows.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Postgres {
    pub document: Option<Document>,
    pub revisions: Vec<Revision>,
    pub chunks: Vec<Chunk>,
    /// `retired_points`.
    pub retired: Ids,
    /// Those whose `due_at` has passed.
    pub due: Ids,
    pub keys: [Option<Key>; 3],
    /// Leases that have not run out, by their fences.
    pub leases: Ids,
    fences_drawn: u8,
    documents_drawn: u8,
    /// Documents that a client deleted.
    pub deleted: Ids,
    /// The document of each id ever drawn, by id.
    pub drawn: Vec<u8>,
}

impl Postgres {
    pub fn staged(&self) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.state == RevisionState::Staged)
    }

    pub fn active(&self) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.state == RevisionState::Active)
    }

    /// What a query may return: the chunks that stand in the document's active revision.
    pub fn visible(&self) -> Ids {
        let number = self.document.and_then(|document| document.active_revision);
        self.revisions.iter().filter(|revision| Some(revision.number) == number).flat_map(|r| r.ids().iter()).collect()
    }

    /// The ids in `chunk_metadata`.
    pub fn known(&self) -> Ids {
        self.chunks.iter().map(|chunk| chunk.id).collect()
    }

    pub fn drawn_for(&self, document: u8) -> Ids {
        (0_u8..).zip(&self.drawn).filter(|(_, owner)| **owner == document).map(|(id, _)| id).collect()
    }

    /// The unfinished revision that this lease was given for.
    fn of(&self, lease: Lease) -> Option<&Revision> {
        self.document.filter(|document| document.id == lease.document)?;
        self.revisions.iter().find(|revision| revision.number == lease.revision && revision.unfinished())
    }

    /// Whether this lease is still its revision's.
    pub fn holds(&self, lease: Lease) -> bool {
        self.of(lease).is_some_and(|revision| revision.fence == lease.fence)
    }

    /// `saga::hold`, and the same condition in the statements that name the fence.
    fn hold(&self, lease: Lease, variant: Variant) -> bool {
        match variant {
            Variant::NoFence => self.of(lease).is_some(),
            _ => self.holds(lease),
        }
    }

    fn revision_mut(&mut self, number: u8) -> &mut Revision {
        self.revisions.iter_mut().find(|revision| revision.number == number).expect("a revision")
    }

    fn draw_fence(&mut self) -> u8 {
        self.fences_drawn += 1;
        self.leases.insert(self.fences_drawn);
        self.fences_drawn
    }

    /// `saga::claim`. Where it returns without work, the transaction is rolled back.
    pub fn claim(&mut self, key: usize, content: Content, variant: Variant) -> Claimed {
        let mut next = self.clone();
        let claimed = next.attempt(key, content, variant);
        if !matches!(claimed, Claimed::InFlight | Claimed::Replay(_)) {
            *self = next;
        }
        claimed
    }

    fn attempt(&mut self, key: usize, content: Content, variant: Variant) -> Claimed {
        let fence = self.draw_fence();
        let claim = self.keys[key];
        if let Some(Key { answer: Some(answer), .. }) = claim {
            return Claimed::Replay(answer);
        }
        if claim.is_some_and(|key| self.leases.contains(key.fence)) {
            return Claimed::InFlight;
        }
        let began = claim.and_then(|key| key.began);
        if began.is_none() && self.document.is_none() {
            self.documents_drawn += 1;
            self.document = Some(Document { id: self.documents_drawn, active_revision: None, latest_revision: 0 });
        }
        let of_key = |document: &Document| began.is_none_or(|(began, _)| began == document.id);
        let Some(document) = self.document.filter(of_key) else { return self.refuse(key, fence) };
        let unfinished: Vec<Revision> =
            self.revisions.iter().filter(|revision| revision.unfinished()).cloned().collect();
        if unfinished.iter().any(|revision| self.leases.contains(revision.fence)) {
            return Claimed::InFlight;
        }
        let own = unfinished.iter().find(|revision| began.is_some_and(|(_, began)| began == revision.number));
        let newest = unfinished.iter().max_by_key(|revision| revision.number);
        let same = newest.filter(|revision| revision.content == content);
        let superseded = |revision: u8| {
            self.revisions.iter().any(|other| other.number > revision && other.state != RevisionState::Claimed)
        };
        let claimed = match (own.or(same), self.active()) {
            (Some(revision), _) => {
                self.revision_mut(revision.number).fence = fence;
                let lease = Lease { document: document.id, revision: revision.number, fence };
                match revision.state {
                    RevisionState::Claimed => Claimed::Begun(lease),
                    _ => Claimed::Resumed(lease),
                }
            }
            (None, Some(active)) if unfinished.is_empty() && active.content == content => {
                let (document, revision) = (document.id, active.number);
                self.leases.remove(fence);
                let answer = Some(Answer::Active { document, revision });
                self.keys[key] = Some(Key { fence, began: Some((document, revision)), answer });
                return Claimed::Unchanged(document, revision);
            }
            (None, _) if began.is_some_and(|(_, revision)| superseded(revision)) => return self.refuse(key, fence),
            (None, _) => {
                if variant == Variant::DiscardsInClaim {
                    self.discard_before(u8::MAX);
                }
                Claimed::Begun(self.open(content, fence))
            }
        };
        if let Claimed::Begun(lease) | Claimed::Resumed(lease) = claimed {
            self.keys[key] = Some(Key { fence, began: Some((lease.document, lease.revision)), answer: None });
        }
        claimed
    }

    /// `claim::refuse`: deleted meanwhile, or superseded. The key keeps it.
    fn refuse(&mut self, key: usize, fence: u8) -> Claimed {
        self.leases.remove(fence);
        let began = self.keys[key].and_then(|key| key.began);
        self.keys[key] = Some(Key { fence, began, answer: Some(Answer::Refused) });
        Claimed::Refused
    }

    fn open(&mut self, content: Content, fence: u8) -> Lease {
        let document = self.document.as_mut().expect("a document");
        document.latest_revision += 1;
        let (document, number) = (document.id, document.latest_revision);
        let state = RevisionState::Claimed;
        self.revisions.push(Revision { number, state, content, fence, positions: Vec::new(), embedded: 0 });
        Lease { document, revision: number, fence }
    }

    /// `revisions::discard`: what the revision brought in retires, due after the grace.
    fn discard(&mut self, number: u8) {
        self.retired = self.retired.or(self.brought_in_by(number));
        self.chunks.retain(|chunk| chunk.first_revision != number);
        self.revisions.retain(|revision| revision.number != number);
    }

    /// `revisions::discard_before`: those that are unfinished and older.
    fn discard_before(&mut self, number: u8) {
        let older = self.revisions.iter().filter(|revision| revision.unfinished() && revision.number < number);
        let older: Vec<u8> = older.map(|revision| revision.number).collect();
        for number in older {
            self.discard(number);
        }
    }

    fn brought_in_by(&self, revision: u8) -> Ids {
        self.chunks.iter().filter(|chunk| chunk.first_revision == revision).map(|chunk| chunk.id).collect()
    }

    /// `saga::take_over_expired`, for the sweeper. It does not touch the keys.
    pub fn take_over_expired(&mut self) -> Option<Lease> {
        let document = self.document?.id;
        let revision = self.staged().filter(|staged| !self.leases.contains(staged.fence))?.number;
        let fence = self.draw_fence();
        self.revision_mut(revision).fence = fence;
        Some(Lease { document, revision, fence })
    }

    /// `saga::give_up`; false when the lease is lost.
    pub fn give_up(&mut self, lease: Lease, variant: Variant) -> bool {
        if !self.hold(lease, variant) {
            return false;
        }
        self.discard(lease.revision);
        if self.revisions.is_empty() {
            self.document = None;
        }
        self.answer(lease, Answer::Refused);
        self.leases.remove(lease.fence);
        true
    }

    /// `stage::stage`; false when the lease is lost.
    pub fn stage(&mut self, lease: Lease, variant: Variant) -> bool {
        if !self.hold(lease, variant) {
            return false;
        }
        if variant != Variant::KeepsOlder {
            self.discard_before(lease.revision);
        }
        let texts = self.revision_mut(lease.revision).content.texts().expect("only what can be read is staged");
        let standing: Vec<Chunk> = self.chunks.iter().copied().filter(|c| self.visible().contains(c.id)).collect();
        let mut positions = Vec::new();
        for text in texts {
            let id = standing.iter().find(|chunk| chunk.text == *text).map(|chunk| chunk.id);
            positions.push(id.unwrap_or_else(|| self.insert_chunk(lease, *text, variant)));
        }
        let revision = self.revision_mut(lease.revision);
        (revision.state, revision.positions) = (RevisionState::Staged, positions);
        true
    }

    fn insert_chunk(&mut self, lease: Lease, text: Text, variant: Variant) -> u8 {
        let mut id = u8::try_from(self.drawn.len()).expect("few ids");
        if variant == Variant::ReusesIds {
            id = (0..id).find(|id| !self.known().contains(*id)).unwrap_or(id);
        }
        self.drawn.resize(self.drawn.len().max(usize::from(id) + 1), lease.document);
        self.drawn[usize::from(id)] = lease.document;
        self.chunks.push(Chunk { id, text, first_revision: lease.revision });
        id
    }

    /// `embed::pending` with batches of one: the next new chunk without a point, and the progress that it makes.
    pub fn pending(&self, lease: Lease) -> Option<(Ids, u8)> {
        let revision = self.of(lease)?;
        let brought_in = self.brought_in_by(revision.number);
        let mut positions = (1..).zip(&revision.positions).skip(usize::from(revision.embedded));
        positions.find(|(_, id)| brought_in.contains(**id)).map(|(embedded, id)| (Ids::from_iter([*id]), embedded))
    }

    /// `embed::write`'s transaction; false when the lease is lost.
    pub fn progress(&mut self, lease: Lease, embedded: u8, variant: Variant) -> bool {
        let held = self.hold(lease, variant) && self.of(lease).is_some_and(|revision| revision.embedded < embedded);
        if held {
            self.revision_mut(lease.revision).embedded = embedded;
        }
        held
    }

    /// `verify::page`: the ids of the lease's revision, if it still stands.
    pub fn page(&self, lease: Lease) -> Ids {
        let document = self.document.is_some_and(|document| document.id == lease.document);
        let revision = self.revisions.iter().find(|revision| document && revision.number == lease.revision);
        revision.map(Revision::ids).unwrap_or_default()
    }

    /// `activate::activate`; false when the lease is lost.
    pub fn activate(&mut self, lease: Lease, variant: Variant) -> bool {
        if !self.hold(lease, variant) {
            return false;
        }
        let former = self.active().map(|active| active.number);
        self.revisions.retain(|revision| revision.state != RevisionState::Active);
        self.revision_mut(lease.revision).state = RevisionState::Active;
        self.document.as_mut().expect("a document").active_revision = Some(lease.revision);
        self.leases.remove(lease.fence);
        if former.is_some() {
            let standing = self.visible();
            for id in self.known().without(standing).iter() {
                self.retired.insert(id);
            }
            self.chunks.retain(|chunk| standing.contains(chunk.id));
        }
        self.answer(lease, Answer::Active { document: lease.document, revision: lease.revision });
        true
    }

    /// `idempotency::finish_ingestion`.
    fn answer(&mut self, lease: Lease, answer: Answer) {
        for key in self.keys.iter_mut().flatten() {
            if key.began == Some((lease.document, lease.revision)) && key.answer.is_none() {
                key.answer = Some(answer);
            }
        }
    }

    /// `saga::release`.
    pub fn release(&mut self, lease: Lease, variant: Variant) {
        if self.hold(lease, variant) {
            let fence = self.of(lease).map_or(lease.fence, |revision| revision.fence);
            self.leases.remove(fence);
        }
        self.free_key(lease);
    }

    /// `idempotency::release_ingestion`, of who has the revision's lease or has lost it.
    pub fn free_key(&mut self, lease: Lease) {
        if self.keys.iter().flatten().any(|key| key.fence == lease.fence && key.answer.is_none()) {
            self.leases.remove(lease.fence);
        }
    }

    /// `documents::delete`: returns the document that is gone. Its keys forget their answers.
    pub fn delete(&mut self) -> Option<u8> {
        let document = self.document.take()?;
        self.retired = self.retired.or(self.known());
        self.chunks.clear();
        self.revisions.clear();
        self.deleted.insert(document.id);
        for key in self.keys.iter_mut().flatten() {
            if key.answer.is_some() && key.began.is_some_and(|(began, _)| began == document.id) {
                key.answer = None;
                self.leases.remove(key.fence);
            }
        }
        Some(document.id)
    }

    /// `clean`'s last transaction.
    pub fn forget(&mut self, ids: Ids, variant: Variant) {
        let gone = if variant == Variant::ForgetsAtOnce { ids } else { ids.and(self.due) };
        self.retired = self.retired.without(gone);
        self.due = self.due.without(gone);
    }
}
