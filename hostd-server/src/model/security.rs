//! Accounts, roles, permissions, sessions.
use super::text::{Few, Id, Name, NewPassword, Notes, Password, UserName};
use alloc::{string::String, vec::Vec};

model! {
    /// A log-in.
    pub struct Login {
        /// Account.
        pub user: UserName,
        /// Password.
        pub password: Password,
        /// Answer with a token for `Authorization: Bearer`, and set no cookie.
        pub bearer: Option<bool>,
    }

    /// A session.
    pub struct Session {
        /// Account.
        pub user: String,
        /// What writes must carry in `X-CSRF-Token` when the session is in a cookie.
        pub csrf_token: String,
        /// Token, if one was asked for; shown once.
        pub token: Option<String>,
        /// Ends at the latest.
        pub expires: String,
        /// The password is to be changed.
        pub must_change_password: bool,
        /// What the account may do to the whole host.
        pub privileges: Vec<String>,
    }

    /// A change of one's own password.
    pub struct PasswordChange {
        /// The one until now.
        pub current: Password,
        /// The new one.
        pub password: NewPassword,
    }

    /// An open session.
    pub struct SessionInfo {
        /// Identifier.
        pub id: String,
        /// Account.
        pub user: String,
        /// From where.
        pub address: String,
        /// Since.
        pub created: String,
        /// Last request.
        pub last_used: String,
        /// It is the one that asks.
        pub current: bool,
    }

    /// An account.
    pub struct User {
        /// Name.
        pub name: String,
        /// Description.
        pub description: String,
        /// Role on the whole host.
        pub role: String,
        /// May log in.
        pub enabled: bool,
    }

    /// An account to make.
    pub struct UserCreate {
        /// Name.
        pub name: UserName,
        /// Password.
        pub password: NewPassword,
        /// Description.
        pub description: Option<Notes>,
        /// Role on the whole host.
        pub role: Option<Id>,
    }

    /// A change of an account.
    pub struct UserPatch {
        /// Description.
        pub description: Option<Notes>,
        /// Role on the whole host.
        pub role: Option<Id>,
        /// May log in.
        pub enabled: Option<bool>,
        /// Password.
        pub password: Option<NewPassword>,
    }

    /// A role.
    pub struct Role {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// It cannot be changed.
        pub built_in: bool,
        /// What it allows.
        pub privileges: Vec<String>,
    }

    /// A role to make.
    pub struct RoleCreate {
        /// Name.
        pub name: Name,
        /// What it allows.
        pub privileges: Few<Id, 64>,
    }

    /// A change of a role.
    pub struct RolePatch {
        /// Name.
        pub name: Option<Name>,
        /// What it allows.
        pub privileges: Option<Few<Id, 64>>,
    }

    /// A role of an account on one object.
    pub struct Permission {
        /// Identifier.
        pub id: String,
        /// Account.
        pub user: String,
        /// Object.
        pub entity: String,
        /// Role.
        pub role: String,
        /// It holds for what is below, too.
        pub propagate: bool,
    }

    /// A permission to give.
    pub struct PermissionCreate {
        /// Account.
        pub user: UserName,
        /// Object.
        pub entity: Id,
        /// Role.
        pub role: Id,
        /// It holds for what is below, too.
        pub propagate: Option<bool>,
    }

    /// A key for programs.
    pub struct ApiKey {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// Account it acts for.
        pub user: String,
        /// Since.
        pub created: String,
        /// Until.
        pub expires: Option<String>,
        /// The key, shown once.
        pub key: Option<String>,
    }

    /// A key to make.
    pub struct ApiKeyCreate {
        /// Name.
        pub name: Name,
        /// Days it is good for; left out: for ever.
        pub days: Option<super::text::Ranged<1, 3650>>,
    }
}
