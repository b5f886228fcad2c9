//! What our mails say.

use crate::{codes::EmailCode, mail::Mail};

/// A mail's occasion, with what it needs.
#[derive(Clone, Debug)]
pub enum Letter {
    /// A registration, or a new code for one.
    Verify(EmailCode),
    /// Somebody registered an address that has an account.
    AlreadyRegistered,
    /// Somebody asked for a new code, but the address is verified.
    AlreadyVerified,
    /// Somebody asked for a code, but there is no account.
    NoAccount,
    /// A code to set a new password.
    Reset(EmailCode),
    /// A code by which the account moves to this address.
    Change(EmailCode),
    /// To the old address: somebody who knows the password asked to move the account.
    ChangeRequested,
    /// To the old address: the account has moved.
    Changed,
    /// The password was changed or reset.
    PasswordChanged,
}

impl Letter {
    /// The mail for `to`.
    #[must_use]
    pub fn to(&self, to: &str) -> Mail {
        let (subject, text) = match self {
            Self::Verify(code) => (
                "Confirm your e-mail address",
                format!(
                    "Somebody registered an account with this address. If it was you, confirm the address with this code \
                     within 24 hours:\n\nCode: {}\n\nIf it was not you, do not use the code, and nothing happens.\n",
                    code.expose()
                ),
            ),
            Self::AlreadyRegistered => (
                "You have an account already",
                "Somebody registered an account with this address, but it has one. If it was you, log in, or reset your \
                 password. If it was not you, nothing has happened.\n"
                    .to_owned(),
            ),
            Self::AlreadyVerified => (
                "Your e-mail address is confirmed",
                "Somebody asked for a code to confirm this address, but it is confirmed already: just log in.\n".to_owned(),
            ),
            Self::NoAccount => (
                "There is no account with this address",
                "Somebody asked for a code for an account with this address, but there is none. If it was you, you may \
                 have registered with another address. If it was not you, nothing has happened.\n"
                    .to_owned(),
            ),
            Self::Reset(code) => (
                "Reset your password",
                format!(
                    "Somebody asked to reset the password of your account. If it was you, set a new one with this code \
                     within 10 minutes:\n\nCode: {}\n\nIf it was not you, do nothing: your password stays as it is.\n",
                    code.expose()
                ),
            ),
            Self::Change(code) => (
                "Confirm your new e-mail address",
                format!(
                    "Somebody wants to use this address for their account. If it was you, confirm it with this code \
                     within 24 hours:\n\nCode: {}\n\nIf it was not you, do not use the code, and nothing happens.\n",
                    code.expose()
                ),
            ),
            Self::ChangeRequested => (
                "Your account is to get another e-mail address",
                "Somebody who knows your password asked for another e-mail address for your account. If it was not you, \
                 change your password now.\n"
                    .to_owned(),
            ),
            Self::Changed => (
                "Your account has another e-mail address",
                "Your account was moved to another e-mail address; this one is not used any more. If it was not you, \
                 tell your operator at once.\n"
                    .to_owned(),
            ),
            Self::PasswordChanged => (
                "Your password was changed",
                "The password of your account was changed. If it was not you, reset it now.\n".to_owned(),
            ),
        };
        Mail { to: to.to_owned(), subject, text }
    }
}
