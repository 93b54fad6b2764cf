//! Where our TC programs are attached among those of others, how they stand now, and attaching them again
//! where others have come in front or taken them off.

use std::io;

use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::{CLSACT_PRIORITY, CaptureError, Programs, XDP, attach_error, error::Refusal, program};
use crate::capture::{
    AttachedHooks,
    chain::{self, Place},
};

/// Which place to take on a hook where others are attached too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcPlace {
    /// First on the way in and last on the way out: packets are seen as they are on the wire. Whether our
    /// program runs at all on the way out is up to the others.
    #[default]
    NearestToTheWire,
    /// In front of the others both ways: none of them can end the chain before our program has run.
    InFront,
}

impl TcPlace {
    pub(super) const fn order(self, hook: TcAttachType) -> LinkOrder {
        match (self, hook) {
            (Self::InFront, _) | (_, TcAttachType::Ingress) => LinkOrder::first(),
            _ => LinkOrder::last(),
        }
    }

    /// The priority on clsact. Of two programs of the same priority the newer one comes first.
    pub(super) fn priority(self, interface: &str, hook: TcAttachType) -> u16 {
        if self == Self::NearestToTheWire {
            return CLSACT_PRIORITY;
        }
        let ifindex = nix::net::if_::if_nametoindex(interface).unwrap_or(0);
        let others = chain::clsact(ifindex, hook).unwrap_or_default();
        let first = others.iter().map(|other| other.priority).min().unwrap_or(u16::MAX);
        first.saturating_sub(1).clamp(1, CLSACT_PRIORITY)
    }
}

impl Programs {
    /// Claims the programs in this network namespace, unless they are already.
    pub(super) fn claim(&mut self) {
        for (name, _) in self.hooks() {
            let id = program::<SchedClassifier>(&mut self.ebpf, name)
                .ok()
                .and_then(|program| Some(program.info().ok()?.id()));
            self.claims.extend(id.and_then(|id| chain::claim(id).ok()));
        }
    }

    /// How our programs stand on an interface to which they were attached: on the way in, on the way out.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn places(&mut self, ifindex: u32) -> io::Result<[Place; 2]> {
        let Some(attachment) = self.attached.get(&ifindex) else {
            return Ok([Place::Gone, Place::Gone]);
        };
        let hooks = self.hooks();
        let (interface, is_clsact) = (attachment.interface.clone(), attachment.clsact.is_some());
        let mut place = |(name, hook): (&'static str, TcAttachType)| {
            let program = program::<SchedClassifier>(&mut self.ebpf, name);
            let own = program.map_err(io::Error::other)?.info().map_err(io::Error::other)?.id();
            let chain = if is_clsact {
                chain::clsact(ifindex, hook)?
            } else {
                chain::tcx(&interface, ifindex, hook)?
            };
            io::Result::Ok(Place::of(own, &chain))
        };
        let [ingress, egress] = hooks;
        Ok([place(ingress)?, place(egress)?])
    }

    /// Attaches the TC programs of an interface again, in front of others from now on. What passes between
    /// taking them off and putting them back has no stamp.
    ///
    /// # Errors
    /// As [`Programs::attach`]. What could not be attached is not attached any more.
    pub fn attach_again(&mut self, ifindex: u32) -> Result<(), CaptureError> {
        self.options.place = TcPlace::InFront;
        let hooks = self.hooks();
        let Some(attachment) = self.attached.get_mut(&ifindex) else {
            return Ok(());
        };
        let interface = attachment.interface.clone();
        let is_tcx = attachment.clsact.is_none();
        let links = [attachment.ingress.take(), attachment.egress.take()];
        if let Some(clsact) = &mut attachment.clsact {
            clsact.renew(&interface).map_err(attach_error(hooks[0].0, &interface))?;
        }
        for ((name, hook), link) in hooks.into_iter().zip(links) {
            if let Some(link) = link {
                // That somebody has taken it off already is no error.
                let _ = program::<SchedClassifier>(&mut self.ebpf, name)?.detach(link);
            }
            let link = self.attach_tc(&interface, name, hook, is_tcx)?;
            let attachment = self.attachment(ifindex);
            match hook {
                TcAttachType::Ingress => attachment.ingress = Some(link),
                _ => attachment.egress = Some(link),
            }
        }
        Ok(())
    }

    /// As [`Programs::attach`], but where another program has the only place for XDP, without XDP: the
    /// other receive points do without.
    ///
    /// # Errors
    /// As [`Programs::attach`].
    pub fn attach_beside_xdp(&mut self, interface: &str) -> Result<AttachedHooks, CaptureError> {
        match self.attach(interface) {
            Err(CaptureError::Attach { program: XDP, source, .. })
                if source.downcast_ref().is_some_and(Refusal::is_taken) =>
            {
                tracing::warn!(
                    interface,
                    "another program has the place of XDP; receive stamps come from TC and the stack instead"
                );
                let wanted = self.options.xdp.take();
                let attached = self.attach(interface);
                self.options.xdp = wanted;
                attached
            }
            attached => attached,
        }
    }
}
