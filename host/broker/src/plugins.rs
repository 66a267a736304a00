//! Uploading, listing and deleting plugins.
//!
//! Owns the rule that a plugin in use stays. A new upload under an old name is for new deployments; what runs keeps the
//! module it was deployed with. See `admin.rs` for how a change becomes durable and visible.

use bytes::Bytes;
use protocol::{
    PluginDescription, PluginHash, PluginName,
    limits::{PLUGIN_BYTES_MAX, PLUGINS_MAX},
};
use storage::Commit;

use crate::{
    PluginError,
    admin::Admin,
    catalog::{PluginRow, put_plugin},
    plugin_files,
};

impl Admin {
    /// Checks, compiles and keeps a plugin.
    pub(crate) fn upload_plugin(&self, name: PluginName, wasm: &Bytes) -> Result<PluginDescription, PluginError> {
        if wasm.len() > PLUGIN_BYTES_MAX {
            return Err(PluginError::TooLarge { bytes: wasm.len() });
        }
        let hash = plugin_files::hash_of(wasm);
        if let Some(row) = self.kept(&name, hash)? {
            return Ok(row.describe(&name));
        }
        // Compiling takes long, so it is done before the turn: other admin operations go on meanwhile.
        let plugin = {
            let _one = self.compiling.lock();
            self.host.load(wasm).map_err(|error| PluginError::Refused(Box::new(error)))?
        };
        let mut loaded = self.turn();
        if self.directory.plugin(&name).is_none() && self.directory.plugins().len() >= PLUGINS_MAX {
            return Err(PluginError::TooMany);
        }
        let row = PluginRow {
            hash,
            wasm_bytes: wasm.len() as u64,
            describe: plugin.describe().to_owned(),
            uploaded_at_ms: u64::try_from(self.core.store.now_ms()).unwrap_or(0),
        };
        self.files.write(hash, wasm).map_err(|source| PluginError::File { action: "write", source })?;
        self.commit(Commit { state: vec![put_plugin(&name, Some(&row))], ..Commit::default() })?;
        let description = row.describe(&name);
        self.directory.set_plugin(name, row);
        self.forget_unnamed(&mut loaded);
        Ok(description)
    }

    /// The row of this very module under this name, if there is one.
    fn kept(&self, name: &PluginName, hash: PluginHash) -> Result<Option<PluginRow>, PluginError> {
        let _turn = self.turn();
        let known = self.directory.plugin(name).filter(|row| row.hash == hash);
        if known.is_some() {
            self.check_settled()?;
        }
        Ok(known)
    }

    /// All plugins, by name.
    pub(crate) fn list_plugins(&self) -> Vec<PluginDescription> {
        self.directory.plugins().iter().map(|(name, row)| row.describe(name)).collect()
    }

    /// Deletes a plugin that no transform uses.
    pub(crate) fn delete_plugin(&self, plugin: PluginName) -> Result<(), PluginError> {
        let mut loaded = self.turn();
        if self.directory.plugin(&plugin).is_none() {
            return Err(PluginError::Unknown(plugin));
        }
        if let Some((topic, spec)) = self.directory.find_transform(|_, spec| spec.plugin == plugin) {
            return Err(PluginError::InUse { plugin, transform: spec.name, topic });
        }
        self.commit(Commit { state: vec![put_plugin(&plugin, None)], ..Commit::default() })?;
        self.directory.remove_plugin(&plugin);
        self.forget_unnamed(&mut loaded);
        Ok(())
    }
}
