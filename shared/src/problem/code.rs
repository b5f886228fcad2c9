//! The codes by which clients tell problems apart.

use http::StatusCode;
use serde::{Serialize, Serializer};

/// Makes the type of a table: name, HTTP status, whether the same request may succeed later, title.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $prospect:ident, $title:literal;)*) => {
        /// What went wrong, as clients tell it apart: stable, `snake_case`, listed in the API's contract.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            fn row(self) -> (&'static str, StatusCode, Prospect, &'static str) {
                match self {
                    $(Self::$variant => ($name, StatusCode::$status, Prospect::$prospect, $title),)*
                }
            }
        }
    };
}

/// Of the same request, sent again unchanged.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Prospect {
    Again,
    Final,
}

codes! {
    /// The request can not be understood.
    InvalidRequest = "invalid_request", BAD_REQUEST, Final, "The request can not be understood";
    /// A field, a parameter or a filter key that does not exist.
    UnknownField = "unknown_field", BAD_REQUEST, Final, "There is no such field";
    /// A value outside what its field takes.
    InvalidField = "invalid_field", BAD_REQUEST, Final, "A field has a value that it does not take";
    /// The text is not UTF-8.
    InvalidUtf8 = "invalid_utf8", BAD_REQUEST, Final, "The text is not UTF-8";
    /// A character that text does not have: NUL and other control characters.
    ControlCharacter = "control_character", BAD_REQUEST, Final, "The text contains a control character";
    /// A document without any text.
    EmptyDocument = "empty_document", UNPROCESSABLE_ENTITY, Final, "The document has no text";
    /// A document whose structure passes a limit (nesting, attributes).
    DocumentTooComplex = "document_too_complex", UNPROCESSABLE_ENTITY, Final, "The document is too complex";
    /// A document with pages and no text on them: pictures of a text.
    ScannedDocument = "scanned_document", UNPROCESSABLE_ENTITY, Final, "The document's pages have no text";
    /// A document that is encrypted.
    PasswordProtected = "password_protected", UNPROCESSABLE_ENTITY, Final, "The document is protected by a password";
    /// A document that is damaged, or not what it was said to be.
    MalformedDocument = "malformed_document", UNPROCESSABLE_ENTITY, Final, "The document is damaged";
    /// A document with more text than is kept.
    TextTooLarge = "text_too_large", UNPROCESSABLE_ENTITY, Final, "The document has too much text";
    /// A document that takes too long to read.
    ExtractionTimedOut = "extraction_timed_out", UNPROCESSABLE_ENTITY, Final, "The document takes too long to read";
    /// A document that takes too much memory to read.
    ExtractionOutOfMemory = "extraction_out_of_memory", UNPROCESSABLE_ENTITY, Final, "The document takes too much memory to read";
    /// A document over which its parser breaks down.
    ExtractionCrashed = "extraction_crashed", UNPROCESSABLE_ENTITY, Final, "The document breaks its parser";
    /// No token or key, or one that does not hold.
    Unauthenticated = "unauthenticated", UNAUTHORIZED, Final, "Authentication is required";
    /// E-mail or password is wrong.
    InvalidCredentials = "invalid_credentials", UNAUTHORIZED, Final, "E-mail or password is wrong";
    /// The caller may see the thing, but not do this with it.
    Forbidden = "forbidden", FORBIDDEN, Final, "This is not allowed to you";
    /// The API key lacks the scope, or the route takes no API keys.
    InsufficientScope = "insufficient_scope", FORBIDDEN, Final, "The API key does not reach this far";
    /// It does not exist, or it is somebody else's.
    NotFound = "not_found", NOT_FOUND, Final, "There is no such thing";
    /// The route does not take this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, Final, "The route does not take this method";
    /// The e-mail address has an account.
    EmailTaken = "email_taken", CONFLICT, Final, "The e-mail address has an account";
    /// The account's e-mail address is not confirmed yet.
    EmailUnverified = "email_unverified", FORBIDDEN, Final, "The e-mail address is not confirmed yet";
    /// The same idempotency key came with another request.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, Final, "The idempotency key was used with another request";
    /// A request with the same idempotency key is still running.
    IdempotencyKeyInFlight = "idempotency_key_in_flight", CONFLICT, Again, "A request with this idempotency key is running";
    /// Another ingestion of the same document is still running.
    DocumentBusy = "document_busy", CONFLICT, Again, "The document is being ingested";
    /// An audit of the same knowledge base is still running.
    AuditRunning = "audit_running", CONFLICT, Again, "An audit of the same is running";
    /// An ingestion that can not be gone on with: only the client has the text.
    NotResumable = "not_resumable", CONFLICT, Final, "The document must be sent again";
    /// A personal knowledge base goes only with its account.
    PersonalKnowledgeBase = "personal_knowledge_base", CONFLICT, Final, "The knowledge base goes only with its account";
    /// There are as many of these as there may be.
    LimitReached = "limit_reached", CONFLICT, Final, "There are as many as there may be";
    /// Nobody would be left who owns the knowledge base.
    LastOwner = "last_owner", CONFLICT, Final, "The knowledge base would have no owner";
    /// The document changed or went away after this request: it is not done, and never will be.
    Superseded = "superseded", CONFLICT, Final, "The document changed meanwhile";
    /// Somebody else took over this request's work, or the document went away meanwhile.
    LeaseLost = "lease_lost", CONFLICT, Again, "Another request has taken over";
    /// The body passes the limit.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, Final, "The body is too large";
    /// The media type is not one of those that are read.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, Final, "The media type is not supported";
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, Again, "Too many requests";
    /// A dependency is down, slow or refuses work; the member `dependency` names it.
    DependencyUnavailable = "dependency_unavailable", SERVICE_UNAVAILABLE, Again, "A service that is needed is not available";
    /// The work did not end within the invocation's time.
    DeadlineExceeded = "deadline_exceeded", SERVICE_UNAVAILABLE, Again, "The request took too long";
    /// A defect of ours.
    Internal = "internal", INTERNAL_SERVER_ERROR, Final, "Something is wrong on our side";
}

impl Code {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// Whether the same request may succeed later, unchanged.
    #[must_use]
    pub fn retryable(self) -> bool {
        self.row().2 == Prospect::Again
    }

    /// A short title, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().3
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
