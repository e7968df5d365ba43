//! Sessions, accounts, roles, permissions, keys.

use super::{ListQuery, NoQuery, page, route};
use crate::{
    api::{
        Api, ApiError, COOKIE, Call, Needs,
        data::{KeyRecord, UserRecord, put},
        not_logged_in,
        route::{Created, Json, Route},
    },
    auth::{Outcome, PRIVILEGES, PasswordHash, SessionRecord, digest},
    http::{Body, Method, Response},
    model::{
        ApiKey, ApiKeyCreate, Login, Page, PasswordChange, Permission, PermissionCreate, Role, RoleCreate, RolePatch, Session, SessionInfo,
        Severity, User, UserCreate, UserPatch,
    },
    state::Change,
    time::rfc3339,
};
use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

type Result<T> = core::result::Result<T, ApiError>;
/// Sessions that can be open.
const MOST_SESSIONS: usize = 1024;
const MANAGE: Needs = Needs::Privilege("Authorization.Manage");
const READ: Needs = Needs::Privilege("System.Read");

pub(super) fn routes(all: &mut Vec<Route>) {
    all.extend([
        route(Method::Post, "/session", Needs::Nothing, "logIn", "Log in", log_in),
        route(Method::Get, "/session", Needs::LogIn, "getSession", "Who is logged in", get_session),
        route(Method::Delete, "/session", Needs::LogIn, "logOut", "Log out", log_out),
        route(
            Method::Post,
            "/session/password",
            Needs::LogIn,
            "changePassword",
            "Change one's own password",
            change_password,
        ),
        route(Method::Get, "/sessions", MANAGE, "listSessions", "Open sessions", list_sessions),
        route(
            Method::Delete,
            "/sessions/{session}",
            MANAGE,
            "endSession",
            "End a session",
            end_session,
        ),
        route(Method::Get, "/users", READ, "listUsers", "Accounts", list_users),
        route(Method::Post, "/users", MANAGE, "createUser", "Make an account", create_user),
        route(Method::Get, "/users/{user}", READ, "getUser", "An account", get_user),
        route(Method::Patch, "/users/{user}", MANAGE, "editUser", "Change an account", edit_user),
        route(
            Method::Delete,
            "/users/{user}",
            MANAGE,
            "deleteUser",
            "Remove an account",
            delete_user,
        ),
        route(Method::Get, "/roles", READ, "listRoles", "Roles", list_roles),
        route(Method::Post, "/roles", MANAGE, "createRole", "Make a role", create_role),
        route(Method::Patch, "/roles/{role}", MANAGE, "editRole", "Change a role", edit_role),
        route(Method::Delete, "/roles/{role}", MANAGE, "deleteRole", "Remove a role", delete_role),
        route(
            Method::Get,
            "/privileges",
            READ,
            "listPrivileges",
            "What roles can allow",
            list_privileges,
        ),
        route(
            Method::Get,
            "/permissions",
            READ,
            "listPermissions",
            "Who has which role where",
            list_permissions,
        ),
        route(
            Method::Post,
            "/permissions",
            MANAGE,
            "createPermission",
            "Give an account a role on an object",
            create_permission,
        ),
        route(
            Method::Delete,
            "/permissions/{permission}",
            MANAGE,
            "deletePermission",
            "Take a permission back",
            delete_permission,
        ),
        route(
            Method::Get,
            "/api-keys",
            Needs::LogIn,
            "listApiKeys",
            "One's own keys; of all accounts for administrators",
            list_keys,
        ),
        route(
            Method::Post,
            "/api-keys",
            Needs::LogIn,
            "createApiKey",
            "Make a key for programs",
            create_key,
        ),
        route(
            Method::Delete,
            "/api-keys/{key}",
            Needs::LogIn,
            "deleteApiKey",
            "Revoke a key",
            delete_key,
        ),
    ]);
}

/// Log-ins of one address that are looked at at a time: one that guesses leaves room for others.
const MOST_AT_ONCE: u32 = 2;

/// A place among them.
struct Place<'a>(&'a Api, &'a str);

impl<'a> Place<'a> {
    fn take(api: &'a Api, peer: &'a str) -> Result<Self> {
        let mut all = api.logging_in.borrow_mut();
        let count = all.entry(peer.into()).or_default();
        if *count >= MOST_AT_ONCE {
            let message = format!("{count} log-ins from {peer} are being looked at already");
            return Err(ApiError::new(429, "tooManyAttempts", message, "Wait; others are not kept out."));
        }
        *count += 1;
        Ok(Self(api, peer))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut all = self.0.logging_in.borrow_mut();
        match all.get_mut(self.1) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                all.remove(self.1);
            }
        }
    }
}

async fn log_in(call: Call, _: NoQuery, Json(login): Json<Login>) -> Result<LoggedIn> {
    let api = &call.api;
    let (name, now) = (login.user.to_string(), api.platform.monotonic_ms());
    let wait = api.guesses.borrow().wait(&name, &call.peer, now);
    if wait > 0 {
        let message = format!(
            "Too many failed log-ins as {name} from {}, or from everywhere: the next is heard in {} seconds",
            call.peer,
            wait.div_ceil(1000)
        );
        return Err(ApiError::new(429, "tooManyAttempts", message, "Wait; others are not kept out."));
    }
    let place = Place::take(api, &call.peer)?;
    let record = api.data.borrow().users.get(&name).cloned();
    let password = login.password.into_string();
    let looked_at = api.offload(move || match record {
        Some(user) => user.password.matches(&password).map(|fits| fits && user.enabled),
        None => PasswordHash::waste(&password),
    });
    // What could not be looked at was no guess.
    let good = looked_at.await??;
    drop(place);
    if !good || !api.let_in(&name) {
        let outcome = if good {
            Outcome::Noted
        } else {
            api.guesses.borrow_mut().failed(&name, &call.peer, now)
        };
        let (severity, text) = match outcome {
            Outcome::Noted => (Severity::Warning, "failed log-in"),
            Outcome::Locked => (Severity::Error, "locked for 15 minutes after failed log-ins"),
            Outcome::Slowed => (
                Severity::Error,
                "heard only every 5 seconds after failed log-ins from many addresses, the last",
            ),
        };
        api.event(severity, "session.failed", format!("{name}: {text} from {}", call.peer), None, None)
            .await;
        return Err(ApiError::new(
            401,
            "logInFailed",
            "Account and password do not fit, or the account may not log in now",
            "Check both; after three failures the next tries are delayed.",
        ));
    }
    api.guesses.borrow_mut().succeeded(&name, &call.peer, now);
    let token = api.random_text(32);
    let record_id = digest(&token);
    let session = SessionRecord {
        id: format!("session-{}", &record_id[..12]),
        user: name.clone(),
        csrf: api.random_text(16),
        address: call.peer.clone(),
        created_ms: api.now(),
        used_ms: api.now(),
        used_monotonic: now,
        begun_monotonic: now,
    };
    let answer = shown(&call, &session, login.bearer.unwrap_or(false).then(|| token.clone()));
    {
        let mut sessions = api.sessions.borrow_mut();
        sessions.retain(|_, session| !session.is_over(now));
        if sessions.len() >= MOST_SESSIONS {
            let oldest = sessions
                .iter()
                .min_by_key(|(_, session)| session.used_monotonic)
                .map(|(id, _)| id.clone());
            oldest.map(|id| sessions.remove(&id));
        }
        sessions.insert(record_id, session);
    }
    api.event(
        Severity::Info,
        "session.begun",
        format!("{name} logged in from {}", call.peer),
        Some(&name),
        None,
    )
    .await;
    let secure = if call.secure { "; Secure" } else { "" };
    let cookie = (!login.bearer.unwrap_or(false)).then(|| format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"));
    Ok(LoggedIn(answer, cookie))
}

/// A session, with the cookie that stands for it.
struct LoggedIn(Session, Option<String>);

impl crate::api::route::Answer for LoggedIn {
    #[cfg(feature = "description")]
    const STATUS: u16 = 200;
    fn response(self) -> Response {
        let response = Response::new(200)
            .with("cache-control", "no-store")
            .with_body("application/json", Body::Bytes(serde_json::to_vec(&self.0).unwrap_or_default()));
        match self.1 {
            Some(cookie) => response.with("set-cookie", cookie),
            None => response,
        }
    }
    #[cfg(feature = "description")]
    fn shape(generator: &mut schemars::SchemaGenerator) -> Option<(&'static str, schemars::Schema)> {
        Some(("application/json", generator.subschema_for::<Session>()))
    }
}

fn shown(call: &Call, session: &SessionRecord, token: Option<String>) -> Session {
    let data = call.api.data.borrow();
    Session {
        user: session.user.clone(),
        csrf_token: session.csrf.clone(),
        token,
        expires: rfc3339(session.created_ms + crate::auth::WHOLE_MS),
        must_change_password: data.users.get(&session.user).is_some_and(|user| user.must_change),
        privileges: data.privileges(&session.user),
    }
}

async fn get_session(call: Call, _: NoQuery, (): ()) -> Result<Json<Session>> {
    let who = call.who.clone().ok_or_else(not_logged_in)?;
    let Some(id) = who.session else {
        let data = call.api.data.borrow();
        return Ok(Json(Session {
            privileges: data.privileges(&who.user),
            user: who.user,
            csrf_token: String::new(),
            token: None,
            expires: rfc3339(call.api.now() + crate::auth::WHOLE_MS),
            must_change_password: false,
        }));
    };
    let sessions = call.api.sessions.borrow();
    Ok(Json(shown(&call, sessions.get(&id).ok_or_else(not_logged_in)?, None)))
}

async fn log_out(call: Call, _: NoQuery, (): ()) -> Result<()> {
    if let Some(id) = call.who.as_ref().and_then(|who| who.session.as_ref()) {
        call.api.sessions.borrow_mut().remove(id);
    }
    Ok(())
}

async fn change_password(call: Call, _: NoQuery, Json(change): Json<PasswordChange>) -> Result<()> {
    let api = &call.api;
    let name = call.user();
    let find = || api.data.borrow().users.get(&name).cloned().ok_or_else(not_logged_in);
    let (known, current) = (find()?.password, change.current.into_string());
    if !api.offload(move || known.matches(&current)).await?? {
        return Err(ApiError::new(
            403,
            "wrongPassword",
            "The present password is another one",
            "Enter the password that you logged in with.",
        ));
    }
    let password = api.hash(&change.password).await?;
    let mut user = find()?;
    user.password = password;
    user.must_change = false;
    let own = call.who.as_ref().and_then(|who| who.session.clone());
    keep_user(&call, user).await?;
    api.sessions
        .borrow_mut()
        .retain(|id, session| session.user != name || own.as_ref() == Some(id));
    Ok(())
}

async fn list_sessions(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<SessionInfo>>> {
    let own = call.who.as_ref().and_then(|who| who.session.clone());
    let sessions = call.api.sessions.borrow();
    let items = sessions.iter().map(|(id, session)| SessionInfo {
        id: session.id.clone(),
        user: session.user.clone(),
        address: session.address.clone(),
        created: rfc3339(session.created_ms),
        last_used: rfc3339(session.used_ms),
        current: own.as_ref() == Some(id),
    });
    Ok(page(items.collect(), &query))
}

async fn end_session(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let id = call.parameter("session");
    let mut sessions = call.api.sessions.borrow_mut();
    let before = sessions.len();
    sessions.retain(|_, session| session.id != id);
    if sessions.len() == before {
        Err(ApiError::not_found("There is no such session"))
    } else {
        Ok(())
    }
}

fn user_shown(call: &Call, user: &UserRecord) -> User {
    let role = call.api.data.borrow().role_id(&user.name);
    User {
        name: user.name.clone(),
        description: user.description.clone(),
        role,
        enabled: user.enabled,
    }
}

fn user_record(call: &Call) -> Result<UserRecord> {
    call.api
        .data
        .borrow()
        .users
        .get(call.parameter("user"))
        .cloned()
        .ok_or_else(|| ApiError::not_found("There is no such account"))
}

fn check_role(call: &Call, role: &str) -> Result<()> {
    if call.api.data.borrow().roles.contains_key(role) {
        Ok(())
    } else {
        Err(ApiError::not_found(format!("There is no role {role}")))
    }
}

async fn keep_user(call: &Call, user: UserRecord) -> Result<()> {
    let name = user.name.clone();
    let change = put(format!("user/{name}"), &user);
    call.api.data.borrow_mut().users.insert(name.clone(), user);
    call.api.commit(vec![change]).await?;
    call.api.tell("user", &name, "updated");
    Ok(())
}

async fn list_users(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<User>>> {
    let users: Vec<UserRecord> = call.api.data.borrow().users.values().cloned().collect();
    Ok(page(users.iter().map(|user| user_shown(&call, user)).collect(), &query))
}

async fn get_user(call: Call, _: NoQuery, (): ()) -> Result<Json<User>> {
    Ok(Json(user_shown(&call, &user_record(&call)?)))
}

async fn create_user(call: Call, _: NoQuery, Json(made): Json<UserCreate>) -> Result<Created<User>> {
    let api = &call.api;
    let name = made.name.to_string();
    let role = made.role.map_or_else(|| "readOnly".into(), |role| role.into_string());
    let check = || {
        check_role(&call, &role)?;
        if api.data.borrow().users.contains_key(&name) {
            return Err(ApiError::conflict(format!("There is an account {name} already")));
        }
        Ok(())
    };
    check()?;
    let password = api.hash(&made.password).await?;
    // Others were heard meanwhile.
    check()?;
    let user = UserRecord {
        name: name.clone(),
        description: made.description.map_or_else(String::new, |text| text.into_string()),
        enabled: true,
        must_change: false,
        password,
    };
    let grant = api.data.borrow_mut().grant(&name, "host-1", &role, true);
    let changes = vec![put(format!("user/{name}"), &user), grant];
    api.data.borrow_mut().users.insert(name.clone(), user.clone());
    api.commit(changes).await?;
    api.tell("user", &name, "created");
    api.event(
        Severity::Info,
        "user.created",
        format!("Account {name} was made"),
        Some(&call.user()),
        None,
    )
    .await;
    Ok(Created(user_shown(&call, &user)))
}

/// Keeps somebody able to manage accounts.
fn check_not_last(call: &Call, name: &str) -> Result<()> {
    let data = call.api.data.borrow();
    let other = data
        .users
        .values()
        .any(|user| user.name != name && user.enabled && data.role_id(&user.name) == "admin");
    if other || data.role_id(name) != "admin" {
        Ok(())
    } else {
        Err(ApiError::conflict(format!("{name} is the last administrator")))
    }
}

async fn edit_user(call: Call, _: NoQuery, Json(change): Json<UserPatch>) -> Result<Json<User>> {
    let api = &call.api;
    user_record(&call)?;
    let password = match &change.password {
        Some(password) => Some(api.hash(password).await?),
        None => None,
    };
    let mut user = user_record(&call)?;
    let mut changes = Vec::new();
    if change.enabled == Some(false) || change.role.as_ref().is_some_and(|role| &**role != "admin") {
        check_not_last(&call, &user.name)?;
    }
    if let Some(role) = &change.role {
        check_role(&call, role)?;
    }
    if let Some(text) = change.description {
        user.description = text.into_string();
    }
    user.enabled = change.enabled.unwrap_or(user.enabled);
    if let Some(password) = password {
        user.password = password;
        api.sessions.borrow_mut().retain(|_, session| session.user != user.name);
    }
    if let Some(role) = change.role {
        changes.push(api.data.borrow_mut().grant(&user.name, "host-1", &role, true));
    }
    changes.push(put(format!("user/{}", user.name), &user));
    api.data.borrow_mut().users.insert(user.name.clone(), user.clone());
    api.commit(changes).await?;
    api.tell("user", &user.name, "updated");
    Ok(Json(user_shown(&call, &user)))
}

async fn delete_user(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let api = &call.api;
    let name = user_record(&call)?.name;
    check_not_last(&call, &name)?;
    let mut changes = vec![Change::Remove(format!("user/{name}"))];
    {
        let mut data = api.data.borrow_mut();
        data.users.remove(&name);
        changes.extend(
            data.permissions
                .values()
                .filter(|one| one.user == name)
                .map(|one| Change::Remove(format!("permission/{}", one.id))),
        );
        data.permissions.retain(|_, one| one.user != name);
        changes.extend(
            data.keys
                .values()
                .filter(|one| one.user == name)
                .map(|one| Change::Remove(format!("key/{}", one.id))),
        );
        data.keys.retain(|_, one| one.user != name);
    }
    api.sessions.borrow_mut().retain(|_, session| session.user != name);
    api.commit(changes).await?;
    api.tell("user", &name, "removed");
    api.event(
        Severity::Warning,
        "user.removed",
        format!("Account {name} was removed"),
        Some(&call.user()),
        None,
    )
    .await;
    Ok(())
}

async fn list_roles(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Role>>> {
    Ok(page(call.api.data.borrow().roles.values().cloned().collect(), &query))
}

fn check_privileges(names: &[crate::model::text::Id]) -> Result<Vec<String>> {
    names
        .iter()
        .map(|name| {
            if PRIVILEGES.contains(&&**name) {
                Ok(name.to_string())
            } else {
                Err(ApiError::invalid(format!("There is no privilege {}", &**name)))
            }
        })
        .collect()
}

async fn keep_role(call: &Call, role: Role) -> Result<Role> {
    let change = put(format!("role/{}", role.id), &role);
    call.api.data.borrow_mut().roles.insert(role.id.clone(), role.clone());
    call.api.commit(vec![change]).await?;
    Ok(role)
}

async fn create_role(call: Call, _: NoQuery, Json(made): Json<RoleCreate>) -> Result<Created<Role>> {
    let privileges = check_privileges(&made.privileges.0)?;
    if call.api.data.borrow().roles.values().any(|role| role.name == *made.name) {
        return Err(ApiError::conflict(format!("There is a role {} already", &*made.name)));
    }
    let id = format!("role-{}", call.api.data.borrow_mut().number());
    Ok(Created(
        keep_role(
            &call,
            Role {
                id,
                name: made.name.into_string(),
                built_in: false,
                privileges,
            },
        )
        .await?,
    ))
}

fn own_role(call: &Call) -> Result<Role> {
    let role = call
        .api
        .data
        .borrow()
        .roles
        .get(call.parameter("role"))
        .cloned()
        .ok_or_else(|| ApiError::not_found("There is no such role"))?;
    if role.built_in {
        Err(ApiError::conflict(format!("The role {} is built in", role.name)))
    } else {
        Ok(role)
    }
}

async fn edit_role(call: Call, _: NoQuery, Json(change): Json<RolePatch>) -> Result<Json<Role>> {
    let mut role = own_role(&call)?;
    if let Some(names) = &change.privileges {
        role.privileges = check_privileges(&names.0)?;
    }
    if let Some(name) = change.name {
        role.name = name.into_string();
    }
    Ok(Json(keep_role(&call, role).await?))
}

async fn delete_role(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let role = own_role(&call)?;
    if call.api.data.borrow().permissions.values().any(|one| one.role == role.id) {
        return Err(ApiError::conflict(format!("Accounts have the role {}", role.name)));
    }
    call.api.data.borrow_mut().roles.remove(&role.id);
    Ok(call.api.commit(vec![Change::Remove(format!("role/{}", role.id))]).await?)
}

async fn list_privileges(_: Call, query: ListQuery, (): ()) -> Result<Json<Page<String>>> {
    Ok(page(PRIVILEGES.iter().map(|name| (*name).into()).collect(), &query))
}

async fn list_permissions(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Permission>>> {
    Ok(page(call.api.data.borrow().permissions.values().cloned().collect(), &query))
}

async fn create_permission(call: Call, _: NoQuery, Json(made): Json<PermissionCreate>) -> Result<Created<Permission>> {
    let api = &call.api;
    check_role(&call, &made.role)?;
    let known = {
        let data = api.data.borrow();
        if !data.users.contains_key(&*made.user) {
            return Err(ApiError::not_found(format!("There is no account {}", &*made.user)));
        }
        &*made.entity == "host-1" || data.vms.contains_key(&*made.entity) || data.ids.values().any(|id| **id == *made.entity)
    };
    if !known {
        return Err(ApiError::not_found(format!("There is no object {}", &*made.entity)));
    }
    if &*made.entity == "host-1" && &*made.role != "admin" {
        check_not_last(&call, &made.user)?;
    }
    let change = api
        .data
        .borrow_mut()
        .grant(&made.user, &made.entity, &made.role, made.propagate.unwrap_or(true));
    api.commit(vec![change]).await?;
    let found = api
        .data
        .borrow()
        .permissions
        .values()
        .find(|one| one.user == *made.user && one.entity == *made.entity)
        .cloned();
    Ok(Created(
        found.ok_or_else(|| ApiError::not_found("The permission was removed meanwhile"))?,
    ))
}

async fn delete_permission(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let id = call.parameter("permission");
    let one = call
        .api
        .data
        .borrow()
        .permissions
        .get(id)
        .cloned()
        .ok_or_else(|| ApiError::not_found("There is no such permission"))?;
    if one.entity == "host-1" {
        check_not_last(&call, &one.user)?;
    }
    call.api.data.borrow_mut().permissions.remove(id);
    Ok(call.api.commit(vec![Change::Remove(format!("permission/{id}"))]).await?)
}

fn key_shown(key: &KeyRecord, secret: Option<String>) -> ApiKey {
    ApiKey {
        id: key.id.clone(),
        name: key.name.clone(),
        user: key.user.clone(),
        created: rfc3339(key.created_ms),
        expires: key.expires_ms.map(rfc3339),
        key: secret,
    }
}

async fn list_keys(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<ApiKey>>> {
    let (user, all) = (call.user(), call.may("Authorization.Manage", "host-1"));
    let data = call.api.data.borrow();
    Ok(page(
        data.keys
            .values()
            .filter(|key| all || key.user == user)
            .map(|key| key_shown(key, None))
            .collect(),
        &query,
    ))
}

async fn create_key(call: Call, _: NoQuery, Json(made): Json<ApiKeyCreate>) -> Result<Created<ApiKey>> {
    let api = &call.api;
    // An account that may only read makes no keys, which outlive its session.
    call.need("Authorization.Manage", "host-1")?;
    if api.data.borrow().keys.len() >= 1000 {
        return Err(ApiError::conflict("There are 1000 keys already"));
    }
    let secret = format!("tsk_{}", api.random_text(32));
    let now = api.now();
    let key = KeyRecord {
        id: format!("key-{}", api.data.borrow_mut().number()),
        name: made.name.into_string(),
        user: call.user(),
        digest: digest(&secret),
        created_ms: now,
        expires_ms: made.days.map(|days| now + days.get() * 86_400_000),
    };
    api.data.borrow_mut().keys.insert(key.id.clone(), key.clone());
    api.commit(vec![put(format!("key/{}", key.id), &key)]).await?;
    Ok(Created(key_shown(&key, Some(secret))))
}

async fn delete_key(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let id = call.parameter("key");
    let key = call
        .api
        .data
        .borrow()
        .keys
        .get(id)
        .cloned()
        .ok_or_else(|| ApiError::not_found("There is no such key"))?;
    if key.user != call.user() {
        call.need("Authorization.Manage", "host-1")?;
    }
    call.api.data.borrow_mut().keys.remove(id);
    Ok(call.api.commit(vec![Change::Remove(format!("key/{id}"))]).await?)
}
