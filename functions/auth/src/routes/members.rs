//! Members of knowledge bases, and invitations.

use axum::Extension;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::{
    domain::{InvitationId, KnowledgeBaseId, Role, UserId},
    http::{Admin, Invocation, Json, PathId, PathIds, Principal, Reader, Routes},
    problem::{Code, Problem},
    routes,
};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    email::Email,
    members::{Invitation, Member, Members},
};

pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, invite))
        .routes(routes!(change, remove))
        .routes(routes!(withdraw))
        .routes(routes!(invitations))
        .routes(routes!(accept, decline))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"email": "grace@example.com", "role": "editor"})))]
struct Invite {
    #[schema(value_type = Email)]
    email: String,
    role: Role,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"role": "viewer"})))]
struct ChangeMember {
    role: Role,
}

#[derive(Serialize, ToSchema)]
struct MemberBody {
    id: UserId,
    email: String,
    display_name: Option<String>,
    role: Role,
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
}

#[derive(Serialize, ToSchema)]
struct InvitationBody {
    id: InvitationId,
    knowledge_base: KnowledgeBaseId,
    name: String,
    email: String,
    role: Role,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"items": [{
    "id": "019ab1ee-5f0b-7a51-8c42-0d9e6b3f7a24", "email": "ada@example.com", "display_name": "Ada Lovelace", "role": "owner",
    "since": "2026-11-25T09:31:00Z"
}], "invitations": [{
    "id": "019ab1ef-2c10-7f00-9a6d-51b7e4c3d208", "knowledge_base": "019ab1ef-0a44-7d19-8f5b-c70e1d62b935", "name": "Handbooks",
    "email": "grace@example.com", "role": "editor", "expires_at": "2026-12-09T09:32:00Z"
}]})))]
struct MembersBody {
    items: Vec<MemberBody>,
    invitations: Vec<InvitationBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"items": [{
    "id": "019ab1ef-2c10-7f00-9a6d-51b7e4c3d208", "knowledge_base": "019ab1ef-0a44-7d19-8f5b-c70e1d62b935", "name": "Handbooks",
    "email": "grace@example.com", "role": "editor", "expires_at": "2026-12-09T09:32:00Z"
}]})))]
struct InvitationsBody {
    items: Vec<InvitationBody>,
}

#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"knowledge_base": "019ab1ef-0a44-7d19-8f5b-c70e1d62b935"})))]
struct JoinedBody {
    knowledge_base: KnowledgeBaseId,
}

/// Lists the members of a knowledge base; for its owners, also the open invitations.
#[utoipa::path(
    get,
    path = "/knowledge-bases/{id}/members",
    tag = "members",
    operation_id = "list_members",
    security(("access_token" = []), ("api_key" = ["read"])),
    params(("id" = KnowledgeBaseId, Path, description = "The knowledge base.")),
    responses((status = 200, description = "The members.", body = MembersBody)),
)]
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

/// Invites somebody into a knowledge base. Only its owners may.
///
/// The answer is the same whether or not the address has an account.
#[utoipa::path(
    post,
    path = "/knowledge-bases/{id}/members",
    tag = "members",
    operation_id = "invite_member",
    security(("access_token" = []), ("api_key" = ["admin"])),
    params(("id" = KnowledgeBaseId, Path, description = "The knowledge base.")),
    request_body = Invite,
    responses((status = 202, description = "The invitation stands.")),
    extensions(("x-codes" = json!([Code::Forbidden, Code::LimitReached]))),
)]
async fn invite(
    Extension(members): Extension<Members>,
    caller: Admin,
    call: Invocation,
    PathId(id): PathId<KnowledgeBaseId>,
    Json(body): Json<Invite>,
) -> Result<StatusCode, Problem> {
    let email: Email = body.email.parse().map_err(|error| Problem::invalid_field("email", error))?;
    members.invite(&call, caller.user, id, email, body.role).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Changes what a member may do. Only owners may.
#[utoipa::path(
    patch,
    path = "/knowledge-bases/{id}/members/{user}",
    tag = "members",
    operation_id = "change_member",
    security(("access_token" = []), ("api_key" = ["admin"])),
    params(("id" = KnowledgeBaseId, Path, description = "The knowledge base."), ("user" = UserId, Path, description = "The member.")),
    request_body = ChangeMember,
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::Forbidden, Code::LastOwner, Code::PersonalKnowledgeBase]))),
)]
async fn change(
    Extension(members): Extension<Members>,
    caller: Admin,
    call: Invocation,
    PathIds(id, member): PathIds<KnowledgeBaseId, UserId>,
    Json(body): Json<ChangeMember>,
) -> Result<StatusCode, Problem> {
    members.change(&call, caller.user, id, member, body.role).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a member. Owners remove, everyone may leave.
#[utoipa::path(
    delete,
    path = "/knowledge-bases/{id}/members/{user}",
    tag = "members",
    operation_id = "remove_member",
    security(("access_token" = []), ("api_key" = ["admin"])),
    params(("id" = KnowledgeBaseId, Path, description = "The knowledge base."), ("user" = UserId, Path, description = "The member.")),
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::Forbidden, Code::LastOwner, Code::PersonalKnowledgeBase]))),
)]
async fn remove(
    Extension(members): Extension<Members>,
    caller: Admin,
    call: Invocation,
    PathIds(id, member): PathIds<KnowledgeBaseId, UserId>,
) -> Result<StatusCode, Problem> {
    members.remove(&call, caller.user, id, member).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes an invitation back. Only owners may.
#[utoipa::path(
    delete,
    path = "/knowledge-bases/{id}/invitations/{invitation}",
    tag = "members",
    operation_id = "withdraw_invitation",
    security(("access_token" = []), ("api_key" = ["admin"])),
    params(("id" = KnowledgeBaseId, Path, description = "The knowledge base."), ("invitation" = InvitationId, Path, description = "The invitation.")),
    responses((status = 204, description = "Done.")),
    extensions(("x-codes" = json!([Code::Forbidden]))),
)]
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

/// Lists the open invitations of the caller.
#[utoipa::path(
    get,
    path = "/auth/invitations",
    tag = "members",
    operation_id = "list_invitations",
    security(("access_token" = [])),
    responses((status = 200, description = "The invitations.", body = InvitationsBody)),
)]
async fn invitations(
    Extension(members): Extension<Members>,
    caller: Principal,
) -> Result<Json<InvitationsBody>, Problem> {
    let items = members.invitations(caller.user).await?;
    Ok(Json(InvitationsBody { items: items.into_iter().map(InvitationBody::from).collect() }))
}

/// Accepts an invitation.
///
/// Who is a member already keeps the role.
#[utoipa::path(
    post,
    path = "/auth/invitations/{id}",
    tag = "members",
    operation_id = "accept_invitation",
    security(("access_token" = [])),
    params(("id" = InvitationId, Path, description = "The invitation.")),
    responses((status = 200, description = "The knowledge base of which the caller is a member now.", body = JoinedBody)),
)]
async fn accept(
    Extension(members): Extension<Members>,
    caller: Principal,
    call: Invocation,
    PathId(id): PathId<InvitationId>,
) -> Result<Json<JoinedBody>, Problem> {
    Ok(Json(JoinedBody { knowledge_base: members.accept(&call, caller.user, id).await? }))
}

/// Refuses an invitation.
#[utoipa::path(
    delete,
    path = "/auth/invitations/{id}",
    tag = "members",
    operation_id = "decline_invitation",
    security(("access_token" = [])),
    params(("id" = InvitationId, Path, description = "The invitation.")),
    responses((status = 204, description = "Done.")),
)]
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
