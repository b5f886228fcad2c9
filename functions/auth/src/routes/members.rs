//! Members of knowledge bases, and invitations.

use axum::{
    Extension, Router,
    routing::{delete, get, patch, post},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    App,
    domain::{InvitationId, KnowledgeBaseId, Role, UserId},
    http::{Admin, Invocation, Json, PathId, PathIds, Principal, Reader},
    problem::Problem,
};
use time::OffsetDateTime;

use crate::{
    email::Email,
    members::{Invitation, Member, Members},
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/knowledge-bases/{id}/members", get(list).post(invite))
        .route("/knowledge-bases/{id}/members/{user}", patch(change).delete(remove))
        .route("/knowledge-bases/{id}/invitations/{invitation}", delete(withdraw))
        .route("/auth/invitations", get(invitations))
        .route("/auth/invitations/{id}", post(accept).delete(decline))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InviteBody {
    email: String,
    role: Role,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    role: Role,
}

#[derive(Serialize)]
struct MemberBody {
    id: UserId,
    email: String,
    display_name: Option<String>,
    role: Role,
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

#[derive(Serialize)]
struct InvitationBody {
    id: InvitationId,
    knowledge_base: KnowledgeBaseId,
    name: String,
    email: String,
    role: Role,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

#[derive(Serialize)]
struct MembersBody {
    items: Vec<MemberBody>,
    invitations: Vec<InvitationBody>,
}

#[derive(Serialize)]
struct InvitationsBody {
    items: Vec<InvitationBody>,
}

#[derive(Serialize)]
struct JoinedBody {
    knowledge_base: KnowledgeBaseId,
}

async fn list(
    Extension(members): Extension<Members>,
    caller: Reader,
    PathId(id): PathId<KnowledgeBaseId>,
) -> Result<Json<MembersBody>, Problem> {
    let (found, invitations) = members.list(caller.user, id).await?;
    Ok(Json(MembersBody {
        items: found.into_iter().map(MemberBody::from).collect(),
        invitations: invitations.into_iter().map(InvitationBody::from).collect(),
    }))
}

/// `POST /knowledge-bases/{id}/members`: 202 and nothing else, whoever owns the address.
async fn invite(
    Extension(members): Extension<Members>,
    caller: Admin,
    call: Invocation,
    PathId(id): PathId<KnowledgeBaseId>,
    Json(body): Json<InviteBody>,
) -> Result<StatusCode, Problem> {
    let email: Email = body.email.parse().map_err(|error| Problem::invalid_field("email", error))?;
    members.invite(&call, caller.user, id, email, body.role).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn change(
    Extension(members): Extension<Members>,
    caller: Admin,
    call: Invocation,
    PathIds(id, member): PathIds<KnowledgeBaseId, UserId>,
    Json(body): Json<ChangeBody>,
) -> Result<StatusCode, Problem> {
    members.change(&call, caller.user, id, member, body.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    Extension(members): Extension<Members>,
    caller: Admin,
    call: Invocation,
    PathIds(id, member): PathIds<KnowledgeBaseId, UserId>,
) -> Result<StatusCode, Problem> {
    members.remove(&call, caller.user, id, member).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn withdraw(
    Extension(members): Extension<Members>,
    caller: Admin,
    call: Invocation,
    PathIds(id, invitation): PathIds<KnowledgeBaseId, InvitationId>,
) -> Result<StatusCode, Problem> {
    members.withdraw(&call, caller.user, id, invitation).await?;
    Ok(StatusCode::NO_CONTENT)
}

// What a person is invited to is the person's own affair: no key takes part.

async fn invitations(
    Extension(members): Extension<Members>,
    caller: Principal,
) -> Result<Json<InvitationsBody>, Problem> {
    let items = members.invitations(caller.user).await?;
    Ok(Json(InvitationsBody { items: items.into_iter().map(InvitationBody::from).collect() }))
}

/// `POST /auth/invitations/{id}`: from now on a member.
async fn accept(
    Extension(members): Extension<Members>,
    caller: Principal,
    call: Invocation,
    PathId(id): PathId<InvitationId>,
) -> Result<Json<JoinedBody>, Problem> {
    Ok(Json(JoinedBody { knowledge_base: members.accept(&call, caller.user, id).await? }))
}

async fn decline(
    Extension(members): Extension<Members>,
    caller: Principal,
    call: Invocation,
    PathId(id): PathId<InvitationId>,
) -> Result<StatusCode, Problem> {
    members.decline(&call, caller.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<Member> for MemberBody {
    fn from(of: Member) -> Self {
        Self { id: of.user, email: of.email, display_name: of.display_name, role: of.role, since: of.created_at }
    }
}

impl From<Invitation> for InvitationBody {
    fn from(of: Invitation) -> Self {
        Self {
            id: of.id,
            knowledge_base: of.knowledge_base,
            name: of.name,
            email: of.email,
            role: of.role,
            expires_at: of.expires_at,
        }
    }
}
