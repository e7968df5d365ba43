//! The API: who asks is found out, whether they may is checked, and the operation is carried out.

mod data;
#[cfg(feature = "description")]
mod description;
mod error;
mod operations;
pub mod query;
mod route;
mod stream;
mod work;

#[cfg(feature = "description")]
pub use description::describe;
pub use error::ApiError;
pub use route::{Needs, Route};

use crate::{
    auth::{Guesses, Identity, NoMemory, PasswordHash, SessionRecord, digest, hex},
    counters::Counters,
    host::Host,
    http::{Body, Method, Request, Response},
    model::Severity,
    platform::Platform,
    state::{Change, StateError, StateStore},
};
use alloc::{boxed::Box, collections::BTreeMap, format, rc::Rc, string::String, vec::Vec};
use core::cell::RefCell;
use data::Data;
use sha2::Digest as _;

/// Where the API's paths begin.
pub const BASE: &str = "/api/v1";
/// The description that is served.
pub const DESCRIPTION: &str = include_str!("../../api/openapi.json");
/// How often is looked what went wrong in machines, in milliseconds.
const INCIDENTS_MS: u64 = 5000;
const COOKIE: &str = "tessera-session";

/// When calls between servers were last counted, and how many there were by caller, callee and interface.
type Calls = (u64, BTreeMap<(String, String, String), u64>);

/// The API of a host.
pub struct Api {
    pub(crate) host: Rc<dyn Host>,
    pub(crate) platform: Rc<dyn Platform>,
    store: Rc<dyn StateStore>,
    routes: Vec<Route>,
    pub(crate) data: RefCell<Data>,
    sessions: RefCell<BTreeMap<String, SessionRecord>>,
    guesses: RefCell<Guesses>,
    counters: RefCell<Counters>,
    changes: RefCell<stream::Changes>,
    cancelled: RefCell<Vec<u64>>,
    /// What numbers of objects are made of, see [`Self::object_number`].
    secret: [u8; 16],
    /// Log-ins that are being looked at, by address.
    logging_in: RefCell<BTreeMap<String, u32>>,
    previous_calls: RefCell<Calls>,
    tickets: RefCell<Vec<operations::screen::Ticket>>,
    incidents: RefCell<operations::vms::Incidents>,
}

/// A request whose asker and path are known.
pub(crate) struct Call {
    api: Rc<Api>,
    who: Option<Identity>,
    parameters: Vec<(&'static str, String)>,
    method: Method,
    query: String,
    headers: Vec<(String, String)>,
    peer: String,
    secure: bool,
    upgrade: bool,
}

impl Call {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value)
    }
    fn user(&self) -> String {
        self.who.as_ref().map_or_else(String::new, |who| who.user.clone())
    }
    fn may(&self, privilege: &str, object: &str) -> bool {
        self.who
            .as_ref()
            .is_some_and(|who| self.api.data.borrow().may(&who.user, privilege, object))
    }
    fn need(&self, privilege: &'static str, object: &str) -> Result<(), ApiError> {
        if self.may(privilege, object) {
            Ok(())
        } else {
            Err(forbidden(privilege))
        }
    }
    /// Refuses a write that was made from an older version than `version` (RFC 9110, 13.1.1).
    fn check_version(&self, version: u64) -> Result<(), ApiError> {
        let Some(condition) = self.header("if-match") else { return Ok(()) };
        let current = format!("\"{version}\"");
        if condition.trim() == "*" || condition.split(',').any(|tag| tag.trim() == current) {
            return Ok(());
        }
        Err(ApiError::new(
            412,
            "changedMeanwhile",
            "Somebody else changed it since you read it",
            "Read it again and make your change from there.",
        ))
    }
}

fn forbidden(privilege: &str) -> ApiError {
    ApiError::new(
        403,
        "noPermission",
        format!("This needs the privilege {privilege}, which your role does not have here"),
        "Ask an administrator for a role that has it.",
    )
}

fn not_logged_in() -> ApiError {
    ApiError::new(
        401,
        "notLoggedIn",
        "Nobody is logged in with this request",
        "Log in with POST /api/v1/session, or send an API key.",
    )
}

impl Api {
    /// Reads the state and makes the host what it says. `password` is what `root` gets on a host without accounts; `None`: one is made and shown on the host's console.
    ///
    /// # Errors
    /// The state cannot be read.
    pub async fn start(
        host: Rc<dyn Host>,
        platform: Rc<dyn Platform>,
        store: Rc<dyn StateStore>,
        password: Option<&str>,
    ) -> Result<Rc<Self>, StateError> {
        let data = Data::read(&store.load().await?);
        let mut secret = [0; 16];
        platform.random(&mut secret);
        let api = Rc::new(Self {
            host,
            platform,
            store,
            routes: operations::routes(),
            data: RefCell::new(data),
            sessions: RefCell::default(),
            guesses: RefCell::default(),
            counters: RefCell::default(),
            changes: RefCell::default(),
            cancelled: RefCell::default(),
            logging_in: RefCell::default(),
            secret,
            previous_calls: RefCell::default(),
            tickets: RefCell::default(),
            incidents: RefCell::default(),
        });
        if api.data.borrow().users.is_empty() {
            let made = password.map_or_else(|| api.random_text(8), Into::into);
            let hash = PasswordHash::new(&made, api.salt()).map_err(|NoMemory| StateError::Full)?;
            let change = api.data.borrow_mut().add_root(hash, password.is_none());
            api.commit(change).await?;
            if password.is_none() {
                api.host.announce(&format!("{}{made}", crate::host::FIRST_PASSWORD));
            }
        }
        work::resume(&api).await;
        let weak = Rc::downgrade(&api);
        let platform = api.platform.clone();
        api.platform.spawn(Box::pin(async move {
            // The API may end while this sleeps.
            while let Some(api) = weak.upgrade() {
                operations::vms::find_fixed(&api).await;
                api.sample().await;
                drop(api);
                platform.sleep(20_000).await;
            }
        }));
        let weak = Rc::downgrade(&api);
        let platform = api.platform.clone();
        api.platform.spawn(Box::pin(async move {
            while let Some(api) = weak.upgrade() {
                operations::vms::watch(&api).await;
                drop(api);
                platform.sleep(INCIDENTS_MS).await;
            }
        }));
        Ok(api)
    }

    /// Operations, for tests that walk all of them.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    pub(crate) fn now(&self) -> u64 {
        self.platform.unix_ms()
    }

    /// A number that is the same for the same object, tells nothing of where the kernel has it, and fits into a number of JSON.
    pub(crate) fn object_number(&self, object: u64) -> u64 {
        let mut hash = sha2::Sha256::new();
        hash.update(self.secret);
        hash.update(object.to_le_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, ..] = hash;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    fn random_text(&self, bytes: usize) -> String {
        let mut random = alloc::vec![0; bytes];
        self.platform.random(&mut random);
        hex(&random)
    }

    fn salt(&self) -> [u8; 16] {
        let mut salt = [0; 16];
        self.platform.random(&mut salt);
        salt
    }

    /// What is kept of a password.
    async fn hash(&self, password: &str) -> Result<PasswordHash, ApiError> {
        let (password, salt) = (String::from(password), self.salt());
        Ok(self.offload(move || PasswordHash::new(&password, salt)).await??)
    }

    /// Has something computed that takes long, while other requests are answered.
    async fn offload<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let outcome = self.platform.offload(Box::new(move || Box::new(work()))).await;
        outcome
            .and_then(|outcome| outcome.downcast().ok())
            .map(|outcome| *outcome)
            .ok_or_else(|| {
                let message = "Too many log-ins and changes of passwords are waiting already";
                ApiError::new(503, "busy", message, "Try again in a moment.")
            })
    }

    /// Keeps changes that were made in memory; takes them back there if they cannot be kept.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), StateError> {
        let keys: Vec<String> = changes.iter().map(|change| change.key().into()).collect();
        let kept = self.store.commit(changes).await;
        if kept.is_err() {
            let mut data = self.data.borrow_mut();
            for key in keys {
                data.put_back(&key, self.store.get(&key).as_deref());
            }
        }
        kept
    }

    async fn sample(&self) {
        if let Ok(usage) = self.host.usage().await {
            let ids: Vec<(String, String)> = self
                .data
                .borrow()
                .vms
                .values()
                .map(|vm| (vm.config.name.clone(), vm.id.clone()))
                .collect();
            self.counters
                .borrow_mut()
                .sample(self.platform.monotonic_ms(), self.now() / 1000, &usage, &ids);
        }
    }

    /// Notes what happened. Events are kept with the next change; the newest thousand are.
    pub(crate) async fn event(&self, severity: Severity, kind: &str, message: String, user: Option<&str>, target: Option<&str>) {
        let (id, change) = self.data.borrow_mut().add_event(self.now(), severity, kind, message, user, target);
        self.tell("event", &id, "created");
        // An event that cannot be kept is still told.
        let _ = self.commit(change).await;
    }

    pub(crate) fn tell(&self, kind: &str, id: &str, change: &str) {
        self.changes.borrow_mut().push(kind, id, change);
    }

    /// Answers a request below `/api`. Every answer is one of those that the description names.
    pub async fn answer(self: &Rc<Self>, request: Request) -> Response {
        let head = request.method == Method::Head;
        if request.path == "/api/openapi.json" && (head || request.method == Method::Get) {
            return Response::new(200)
                .with("cache-control", "no-cache")
                .with_body("application/json", Body::Static(DESCRIPTION.as_bytes()));
        }
        match self.dispatch(request).await {
            Ok(response) => response,
            Err(error) => error.response(),
        }
    }

    async fn dispatch(self: &Rc<Self>, request: Request) -> Result<Response, ApiError> {
        let path = request
            .path
            .strip_prefix(BASE)
            .ok_or_else(|| ApiError::not_found("There is no such path; the API's begin with /api/v1"))?;
        let wanted = if request.method == Method::Head {
            Method::Get
        } else {
            request.method
        };
        let mut allowed: Vec<&str> = Vec::new();
        let mut found: Option<(&Route, Vec<(&'static str, String)>)> = None;
        for route in &self.routes {
            let Some(parameters) = route::fit(route.path, path) else { continue };
            // A route without parameter is a better match than one with.
            if route.method == wanted && found.as_ref().is_none_or(|(_, earlier)| earlier.len() > parameters.len()) {
                found = Some((route, parameters));
            }
            allowed.push(route.method.name());
        }
        let Some((route, parameters)) = found else {
            if allowed.is_empty() {
                return Err(ApiError::not_found("There is no such path"));
            }
            let error = ApiError::new(
                405,
                "methodNotAllowed",
                format!("{} cannot be done to this", request.method.name()),
                "The Allow header says what can.",
            );
            return Ok(error.response().with("allow", allowed.join(", ")));
        };
        let upgrade = request.wants_web_socket();
        let mut call = Call {
            api: self.clone(),
            who: None,
            parameters,
            method: request.method,
            query: request.query,
            headers: request.headers,
            peer: request.peer,
            secure: request.secure,
            upgrade,
        };
        if route.needs != Needs::Nothing {
            call.who = Some(self.identify(&call)?);
            self.host.reached();
        } else if call.header("origin").is_some() {
            check_origin(&call)?;
        }
        if let Needs::Privilege(privilege) = route.needs {
            let object = call
                .parameters
                .first()
                .filter(|(name, _)| ["vm", "datastore", "network"].contains(name))
                .map_or("host-1", |(_, id)| id);
            call.need(privilege, object)?;
        }
        (route.handler)(call, request.body).await
    }

    fn identify(&self, call: &Call) -> Result<Identity, ApiError> {
        if let Some(value) = call.header("authorization") {
            let token = value
                .split_once(' ')
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim())
                .ok_or_else(not_logged_in)?;
            let id = digest(token);
            if let Some(key) = self.data.borrow().keys.values().find(|key| key.digest == id) {
                let good = key.expires_ms.is_none_or(|expires| self.now() < expires);
                let enabled = self.data.borrow().users.get(&key.user).is_some_and(|user| user.enabled);
                return if good && enabled && self.let_in(&key.user) {
                    Ok(Identity {
                        user: key.user.clone(),
                        session: None,
                    })
                } else {
                    Err(not_logged_in())
                };
            }
            return self.session(&id);
        }
        let cookie = call.header("cookie").unwrap_or("");
        let token = cookie
            .split(';')
            .find_map(|part| part.trim().strip_prefix(COOKIE)?.strip_prefix('='))
            .ok_or_else(not_logged_in)?;
        let id = digest(token);
        let who = self.session(&id)?;
        // A browser sends the cookie whoever wrote the page: what changes something must show that it was the Host Client.
        if !call.method.is_safe() || call.upgrade {
            check_origin(call)?;
        }
        if !call.method.is_safe() {
            let expected = self.sessions.borrow().get(&id).map(|session| session.csrf.clone());
            if expected.as_deref() != call.header("x-csrf-token") {
                return Err(ApiError::new(
                    403,
                    "csrf",
                    "The request does not carry the session's CSRF token",
                    "Send what the log-in gave in X-CSRF-Token.",
                ));
            }
        }
        Ok(who)
    }

    /// Whether lockdown lets an account in.
    fn let_in(&self, user: &str) -> bool {
        let data = self.data.borrow();
        !data.settings.lockdown || data.settings.lockdown_exceptions.iter().any(|name| name == user)
    }

    fn session(&self, id: &str) -> Result<Identity, ApiError> {
        let now = self.platform.monotonic_ms();
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.get_mut(id) else {
            return Err(not_logged_in());
        };
        let enabled = self.data.borrow().users.get(&session.user).is_some_and(|user| user.enabled);
        if session.is_over(now) || !enabled || !self.let_in(&session.user) {
            sessions.remove(id);
            return Err(not_logged_in());
        }
        session.used_monotonic = now;
        session.used_ms = self.now();
        Ok(Identity {
            user: session.user.clone(),
            session: Some(id.into()),
        })
    }
}

fn check_origin(call: &Call) -> Result<(), ApiError> {
    let Some(origin) = call.header("origin") else { return Ok(()) };
    let host = call.header("host").unwrap_or("");
    let scheme = if call.secure { "https://" } else { "http://" };
    if origin.strip_prefix(scheme) == Some(host) {
        return Ok(());
    }
    Err(ApiError::new(
        403,
        "foreignOrigin",
        "The request comes from a page of another host",
        "Open the Host Client at the address that you want to manage.",
    ))
}
