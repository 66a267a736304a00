//! Uploading, listing and deleting plugins.
//!
//! Owns the rule that a plugin in use stays. A new upload under an old name is for new deployments; what runs keeps the
//! module it was deployed with. See `admin.rs` for how a change becomes durable and visible.

use bytes::Bytes;
use protocol::{
    PluginDescription, PluginHash, PluginName,
    limits::{PLUGIN_BYTES_MAX, PLUGINS_MAX},
};
use storage::{Commit, CommitError};
use transform::Cancel;

use crate::{
    CatalogError, PluginError,
    admin::Admin,
    catalog::{PluginRow, put_plugin},
    plugin_files,
};

impl Admin {
    /// Checks, compiles and keeps a plugin. What is not kept leaves nothing behind: the module's file is written when the
    /// plugin was tried out, and its compiled form when the catalog names it.
    pub(crate) fn upload_plugin(
        &self,
        name: PluginName,
        wasm: &Bytes,
        cancel: &Cancel,
    ) -> Result<PluginDescription, PluginError> {
        if wasm.len() > PLUGIN_BYTES_MAX {
            return Err(PluginError::TooLarge { bytes: wasm.len() });
        }
        let hash = plugin_files::hash_of(wasm);
        if let Some(row) = self.kept(&name, hash)? {
            return Ok(row.describe(&name));
        }
        // Compiling takes long, so it is done before the turn: other admin operations go on meanwhile.
        let plugin = self.host.examine(wasm, cancel).map_err(PluginError::of_engine)?;
        let mut loaded = self.turn();
        // From here on it is done to its end.
        if cancel.is_cancelled() {
            return Err(PluginError::Cancelled);
        }
        if self.directory.plugin(&name).is_none() && self.directory.plugins().len() >= PLUGINS_MAX {
            return Err(PluginError::TooMany);
        }
        let row = PluginRow {
            hash,
            wasm_bytes: wasm.len() as u64,
            describe: plugin.describe().to_owned(),
            uploaded_at_ms: u64::try_from(self.core.store.now_ms()).unwrap_or(0),
        };
        self.commit_plugin(&name, &row, wasm)?;
        self.host.keep(&plugin);
        let description = row.describe(&name);
        self.directory.set_plugin(name, row);
        self.forget_unnamed(&mut loaded);
        Ok(description)
    }

    /// Makes file and row durable, in this order; or, when the row certainly is not, neither.
    fn commit_plugin(&self, name: &PluginName, row: &PluginRow, wasm: &Bytes) -> Result<(), PluginError> {
        let of_file = |source| PluginError::File { action: "write", source };
        let is_new = !self.files.list().map_err(of_file)?.contains(&row.hash);
        let written = self.files.write(row.hash, wasm).map_err(of_file);
        let commit = Commit { state: vec![put_plugin(name, Some(row))], ..Commit::default() };
        let done = written.and_then(|()| self.commit(commit).map_err(PluginError::from));
        match &done {
            // The row may be durable, and then names the file. If it is not, the next sweep takes it.
            Ok(()) | Err(PluginError::Catalog(CatalogError::Commit(CommitError::Failed { .. }))) => {}
            // One that was there before may be what a commit named whose outcome is not known yet.
            Err(_) if is_new => self.files.remove(row.hash),
            Err(_) => {}
        }
        done
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
