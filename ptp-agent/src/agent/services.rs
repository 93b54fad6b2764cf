//! Where a running command can be asked: metrics over HTTP, the status socket, the management socket.
//! None of them is needed to keep time, so what cannot be served is one line in the log and an alarm,
//! and is tried again now and then.

use std::{net::SocketAddr, path::PathBuf};

use ptp_common::time::{Mono, Time};

use crate::{
    publish::{
        attempt::{RETRY, Service},
        http::{Publication, Server},
        local::{ManagementServer, StatusServer, StatusSocket},
        management::Access,
    },
    security::Policy,
};

/// What is served, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    /// Metrics.
    pub metrics_address: Option<SocketAddr>,
    /// The status.
    pub status_socket: StatusSocket,
    /// Answers to management messages.
    pub management_socket: Option<PathBuf>,
    /// What they may do there.
    pub management_access: Access,
    /// The same for everybody, who may change nothing.
    pub public_socket: Option<PathBuf>,
    /// Keys for them.
    pub security: Option<Policy>,
}

/// See the module's paragraph. All ends when this is dropped.
pub(crate) struct Services {
    wanted: Serving,
    publication: Publication,
    metrics: Service<Server>,
    status: Service<StatusServer>,
    management: Service<ManagementServer>,
    public: Service<ManagementServer>,
    retry_at: Time<Mono>,
}

impl Services {
    /// Starts what can be started.
    pub(crate) fn start(wanted: Serving, publication: &Publication, now: Time<Mono>) -> Self {
        let mut this = Self {
            wanted,
            publication: publication.clone(),
            metrics: Service::default(),
            status: Service::default(),
            management: Service::default(),
            public: Service::default(),
            retry_at: now,
        };
        this.look_after(now);
        this
    }

    /// Serves something else from now on; what stays the same is not interrupted.
    pub(super) fn change(&mut self, wanted: Serving, now: Time<Mono>) {
        let old = std::mem::replace(&mut self.wanted, wanted);
        if old.metrics_address != self.wanted.metrics_address {
            self.metrics = Service::default();
        }
        if old.status_socket != self.wanted.status_socket {
            self.status = Service::default();
        }
        let management = |wanted: &Serving| {
            (wanted.management_socket.clone(), wanted.management_access, wanted.security.clone())
        };
        if management(&old) != management(&self.wanted) {
            self.management = Service::default();
        }
        let public = |wanted: &Serving| (wanted.public_socket.clone(), wanted.security.clone());
        if public(&old) != public(&self.wanted) {
            self.public = Service::default();
        }
        self.retry_at = now;
        self.look_after(now);
    }

    /// Tries again what could not be started, when it is time.
    pub(crate) fn look_after(&mut self, now: Time<Mono>) {
        if now < self.retry_at {
            return;
        }
        self.retry_at = now + RETRY;
        let Self { wanted, publication, metrics, status, management, public, .. } = self;
        if let Some(address) = wanted.metrics_address {
            let started = metrics.attempt(|| Server::start(address, publication.clone()));
            if let Some(server) = started {
                tracing::info!("metrics on http://{}/metrics", server.address());
            }
        }
        if let Some(path) = wanted.status_socket.path() {
            // Nobody has asked for the one in the default place.
            status.is_optional = wanted.status_socket == StatusSocket::Default;
            status.attempt(|| StatusServer::start(&path, publication));
        }
        let sockets = [
            (management, &wanted.management_socket, wanted.management_access),
            (public, &wanted.public_socket, Access::Public),
        ];
        for (service, path, access) in sockets {
            if let Some(path) = path {
                let security = wanted.security.clone();
                service.attempt(|| ManagementServer::start(path, access, security, publication));
            }
        }
    }

    /// Whether something is not served that was asked for.
    pub(crate) fn is_lacking(&self) -> bool {
        let is_managed = !self.management.is_lacking() && !self.public.is_lacking();
        self.metrics.is_lacking() || self.status.is_lacking() || !is_managed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_is_in_use_is_served_once_it_is_free() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let wanted = Serving {
            metrics_address: Some(taken.local_addr().unwrap()),
            status_socket: StatusSocket::Off,
            ..Serving::default()
        };
        let mut services = Services::start(wanted, &Publication::default(), Time::ZERO);
        assert!(services.is_lacking());
        drop(taken);
        services.look_after(Time::ZERO + RETRY.half());
        assert!(services.is_lacking(), "too early");
        services.look_after(Time::ZERO + RETRY);
        assert!(!services.is_lacking() && services.metrics.running.is_some());
    }

    #[test]
    fn change_moves_what_is_served_and_ends_what_is_not_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| StatusSocket::At(directory.path().join(name));
        let here = Serving { status_socket: at("here"), ..Serving::default() };
        let mut services = Services::start(here, &Publication::default(), Time::ZERO);
        let there = Serving { status_socket: at("there"), ..Serving::default() };
        services.change(there, Time::ZERO);
        let exists = |name: &str| directory.path().join(name).exists();
        assert!(!exists("here") && exists("there"));
        let nowhere = Serving { status_socket: StatusSocket::Off, ..Serving::default() };
        services.change(nowhere, Time::ZERO);
        assert!(!exists("there") && !services.is_lacking());
    }

    #[test]
    fn only_what_was_asked_for_is_missed() {
        let mut service = Service::<()>::default();
        for is_optional in [true, false] {
            service.is_optional = is_optional;
            service.attempt(|| Err("no"));
            assert_eq!(service.is_lacking(), !is_optional);
        }
        service.attempt(|| Ok::<_, String>(()));
        assert!(!service.is_lacking());
    }
}
