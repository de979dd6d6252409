//! A generation: which plugins judge the orders of which route, as a batch sees it from its start to its end.

use std::collections::HashMap;
use std::sync::Arc;

use super::PluginInfo;
use super::chain::Link;
use super::load::LoadedPlugin;

/// Chains of loaded plugins by route. Never changed: a new one takes its place.
#[derive(Debug, Default)]
pub struct Generation {
    number: u64,
    pub(super) plugins: Vec<LoadedPlugin>,
    chains: HashMap<Arc<str>, Arc<[Link]>>,
}

impl Generation {
    /// Links the chains of routes to plugins by name. A name that no plugin has stays in its chain: its orders are held.
    #[must_use]
    pub fn new<'names>(
        number: u64,
        plugins: Vec<LoadedPlugin>,
        chains: impl IntoIterator<Item = (&'names str, &'names [String])>,
    ) -> Self {
        let link = |name: &String| match plugins.iter().find(|plugin| *plugin.info().name == **name) {
            Some(plugin) => Link::Loaded(plugin.clone()),
            None => Link::Absent(name.as_str().into()),
        };
        let chains =
            chains.into_iter().map(|(route, names)| (route.into(), names.iter().map(link).collect())).collect();
        Self { number, plugins, chains }
    }

    /// Counts the generations of this process, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The plugins that serve.
    #[must_use]
    pub fn plugins(&self) -> Vec<PluginInfo> {
        self.plugins.iter().map(|plugin| plugin.info().clone()).collect()
    }

    /// The chain of a route; empty if the route asks no plugin. Orders of a route that is not known here do not pass.
    pub(super) fn chain(&self, route: &str) -> Arc<[Link]> {
        let unknown = || Arc::from([Link::Absent(format!("(those of {route})").into())]);
        self.chains.get(route).map_or_else(unknown, Arc::clone)
    }
}
