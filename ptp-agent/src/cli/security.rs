//! What the command line says of authentication, and the keys that are meant.

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use super::{config::Config, merge::UsageError};
use crate::security::{
    Policy,
    file::{self, Choice},
};

/// Authentication of messages.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct SecurityArgs {
    /// Keys by which messages are signed and checked (IEEE 1588-2019 16.14): linuxptp's sa_file, or the same
    /// in TOML. Read again at SIGHUP.
    #[arg(long, value_name = "FILE")]
    pub(super) security: Option<PathBuf>,
    /// Drop messages that are not signed by a key of the association; otherwise only those that are signed
    /// wrongly.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) security_require: Option<bool>,
    /// The association (SPP) in use; default: what the file says, or its first.
    #[arg(long, value_name = "N")]
    pub(super) security_spp: Option<u8>,
    /// The key that signs; default: what the file says, or the first of the association.
    #[arg(long, value_name = "ID")]
    pub(super) security_key: Option<u32>,
}

impl SecurityArgs {
    /// The file with the keys, if there is to be one.
    pub(super) fn path(&self, config: &Config) -> Option<PathBuf> {
        self.security.clone().or_else(|| config.security.clone())
    }

    /// Reads the keys, if there are to be any. `domains` are the only ones that are judged; none of them: all.
    pub(super) fn policy(
        &self,
        config: &Config,
        domains: &[u8],
    ) -> Result<Option<Policy>, UsageError> {
        let is_required = self.security_require.or(config.security_require).unwrap_or(false);
        let Some(path) = &self.path(config) else {
            return if is_required { Err(UsageError::NoKeys) } else { Ok(None) };
        };
        let choice = Choice {
            spp: self.security_spp.or(config.security_spp),
            key_id: self.security_key.or(config.security_key),
        };
        let keys = file::read(path, choice)?;
        let (spp, key) = keys.active();
        tracing::info!(keys = keys.len(), spp, key, required = is_required, "authentication");
        Ok(Some(Policy { keys: Arc::new(keys), is_required, domains: domains.to_vec() }))
    }
}
