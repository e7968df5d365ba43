//! Names to addresses, by DNS (RFC 1035).

use super::{Inner, Stack};
use alloc::{format, rc::Rc, string::String, vec::Vec};
use core::{cell::RefCell, future::poll_fn, net::IpAddr, task::Poll};
use smoltcp::{
    socket::dns::{self, GetQueryResultError, QueryHandle},
    wire::DnsQueryType,
};

/// Servers that are asked: as many as the stack is built for.
const MOST_SERVERS: usize = 4;
/// Names that are looked up at a time.
const MOST_QUERIES: usize = 16;

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// There is no name server to ask.
    NoServer,
    /// It cannot be a name.
    BadName,
    /// Too many are looked up already.
    Busy,
    /// No server knows it, or none answers.
    NotFound,
}

impl core::fmt::Display for NameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoServer => "there is no name server: set one, or have DHCP bring one",
            Self::BadName => "it cannot be the name of a host",
            Self::Busy => "too many names are being looked up: try again",
            Self::NotFound => "no name server knows it, or none answers",
        })
    }
}

/// A question, withdrawn if nobody waits for its answer any more.
struct Query {
    stack: Rc<RefCell<Inner>>,
    handle: Option<QueryHandle>,
}

impl Query {
    fn begin(stack: &Rc<RefCell<Inner>>, name: &str, kind: DnsQueryType) -> Result<Self, NameError> {
        let inner = &mut *stack.borrow_mut();
        if inner.queries >= MOST_QUERIES {
            return Err(NameError::Busy);
        }
        let context = inner.interface.context();
        let socket = inner.sockets.get_mut::<dns::Socket<'_>>(inner.dns);
        let handle = socket.start_query(context, name, kind).map_err(|error| match error {
            dns::StartQueryError::NoFreeSlot => NameError::Busy,
            dns::StartQueryError::InvalidName | dns::StartQueryError::NameTooLong => NameError::BadName,
        })?;
        inner.queries += 1;
        Ok(Self {
            stack: stack.clone(),
            handle: Some(handle),
        })
    }

    async fn answer(mut self) -> Vec<IpAddr> {
        poll_fn(|context| {
            let inner = &mut *self.stack.borrow_mut();
            let Some(handle) = self.handle else {
                return Poll::Ready(Vec::new());
            };
            let socket = inner.sockets.get_mut::<dns::Socket<'_>>(inner.dns);
            let answer = match socket.get_query_result(handle) {
                Err(GetQueryResultError::Pending) => {
                    socket.register_query_waker(handle, context.waker());
                    return Poll::Pending;
                }
                Err(GetQueryResultError::Failed) => Vec::new(),
                Ok(found) => found.into_iter().map(IpAddr::from).collect(),
            };
            // The socket has forgotten it.
            self.handle = None;
            inner.queries -= 1;
            Poll::Ready(answer)
        })
        .await
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        if let Some(handle) = self.handle {
            let inner = &mut *self.stack.borrow_mut();
            inner.sockets.get_mut::<dns::Socket<'_>>(inner.dns).cancel_query(handle);
            inner.queries -= 1;
        }
    }
}

/// Names to ask for: with the domains behind a name of one word, and as it is (`ndots:1`, as resolvers have it).
fn candidates(name: &str, search: &[String]) -> Vec<String> {
    let with = |domain: &String| format!("{name}.{domain}");
    let mut all: Vec<String> = search.iter().filter(|domain| !domain.is_empty()).map(with).collect();
    if name.contains('.') {
        all.insert(0, name.into());
    } else {
        all.push(name.into());
    }
    all
}

impl Stack {
    /// Sets the name servers; with `dhcp` those that DHCP brings come first.
    pub fn set_name_servers(&self, servers: &[IpAddr], dhcp: bool) {
        let inner = &mut *self.0.borrow_mut();
        inner.name_servers = (servers.to_vec(), dhcp);
        inner.tell_name_servers();
    }

    /// The name servers that are asked, in order.
    #[must_use]
    pub fn name_servers(&self) -> Vec<IpAddr> {
        self.0.borrow().servers_to_ask()
    }

    /// Addresses of a name, IPv4 first. An address is its own.
    ///
    /// # Errors
    /// There are none, or nobody can be asked.
    pub async fn resolve(&self, name: &str, search: &[String]) -> Result<Vec<IpAddr>, NameError> {
        if let Ok(address) = name.parse() {
            return Ok([address].into());
        }
        if self.name_servers().is_empty() {
            return Err(NameError::NoServer);
        }
        for name in candidates(name, search) {
            let four = Query::begin(&self.0, &name, DnsQueryType::A)?;
            let six = Query::begin(&self.0, &name, DnsQueryType::Aaaa)?;
            let mut found = four.answer().await;
            found.extend(six.answer().await);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(NameError::NotFound)
    }
}

impl Inner {
    fn servers_to_ask(&self) -> Vec<IpAddr> {
        let (own, dhcp) = &self.name_servers;
        let leased = self.leased_servers.iter().filter(|_| *dhcp);
        leased.chain(own).copied().take(MOST_SERVERS).collect()
    }

    pub(super) fn tell_name_servers(&mut self) {
        let servers: Vec<_> = self.servers_to_ask().into_iter().map(Into::into).collect();
        self.sockets.get_mut::<dns::Socket<'_>>(self.dns).update_servers(&servers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_stand_behind_names_of_one_word_first() {
        let search = ["a.example".into(), "b.example".into()];
        assert_eq!(candidates("host", &search), ["host.a.example", "host.b.example", "host"]);
        assert_eq!(
            candidates("host.lab", &search),
            ["host.lab", "host.lab.a.example", "host.lab.b.example"]
        );
    }
}
