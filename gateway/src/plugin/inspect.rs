//! Looks at a plugin's file without a gateway and without running it: for its author, and before an operator grants it.

use serde::Serialize;

use super::lane::{self, Lane};
use super::load::{UnusablePlugin, digest};
use super::manifest::Manifest;

/// What a file is, as far as can be told without compiling it.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Size of the file.
    pub bytes: usize,
    /// SHA-256 of the file, as `sha256:` and hexadecimal digits.
    pub digest: String,
    pub lane: Option<Lane>,
    /// The smallest world that has all that it imports: `validator`, `enricher` or `bytes`.
    pub world: Option<&'static str>,
    /// What it was built for: `sluice:plugin@1.1.0`, `bytes-abi@1`.
    pub contract: Option<String>,
    /// What it imports, in the words of the file; of a core module that becomes a component, of that component.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// What has to be granted to it: `log`, `metrics`, `lookup`.
    pub capabilities: Vec<String>,
    /// Imports of WASI, which it gets in a form that denies everything.
    pub denied: Vec<String>,
    pub manifest: Option<Manifest>,
    /// Why it cannot be used, and what its author should know; none if all is well.
    pub problems: Vec<String>,
}

/// What a plugin asks for, sorted out of its imports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) capabilities: Vec<String>,
    pub(super) denied: Vec<String>,
}

impl Wishes {
    /// Sorts imports.
    pub(super) fn of(imports: &[String]) -> Self {
        let mut wishes = Self::default();
        for import in imports {
            let capability = match import.strip_prefix("sluice:plugin/") {
                Some(interface) => interface.split('@').next().filter(|name| *name != "types"),
                None if import == "sluice.log" => Some("log"),
                None => None,
            };
            match capability {
                Some(capability) if wishes.capabilities.iter().any(|own| own == capability) => {}
                Some(capability) => wishes.capabilities.push(capability.to_owned()),
                None if lane::is_wasi(import) => wishes.denied.push(import.clone()),
                None => {}
            }
        }
        wishes.capabilities.sort_unstable();
        wishes
    }

    /// The smallest world with these capabilities.
    pub(super) fn world(&self, lane: Lane) -> &'static str {
        match lane {
            Lane::Bytes => "bytes",
            Lane::Component | Lane::Module if self.capabilities.iter().any(|name| name != "log") => "enricher",
            Lane::Component | Lane::Module => "validator",
        }
    }
}

/// Looks at a file of at most `bytes_max` bytes.
#[must_use]
pub fn inspect(file: &[u8], bytes_max: usize) -> Inspection {
    let mut inspection = Inspection {
        bytes: file.len(),
        digest: digest(file).to_string(),
        lane: None,
        world: None,
        contract: None,
        imports: Vec::new(),
        exports: Vec::new(),
        capabilities: Vec::new(),
        denied: Vec::new(),
        manifest: None,
        problems: Vec::new(),
    };
    if file.len() > bytes_max {
        let problem = UnusablePlugin::TooLarge { bytes: file.len(), bytes_max };
        inspection.problems.push(problem.to_string());
        return inspection;
    }
    match lane::unchecked(file) {
        Ok(prepared) => {
            let Wishes { capabilities, denied } = Wishes::of(&prepared.shape.imports);
            inspection.world = Some(Wishes::of(&prepared.shape.imports).world(prepared.lane));
            inspection.capabilities = capabilities;
            inspection.denied = denied;
            inspection.lane = Some(prepared.lane);
            inspection.contract = prepared.shape.contract(prepared.lane);
            inspection.problems.extend(lane::check(&prepared).err().map(|problem| problem.to_string()));
            inspection.imports = prepared.shape.imports;
            inspection.exports = prepared.shape.exports;
            inspection.manifest = prepared.manifest;
        }
        Err(problem) => inspection.problems.push(problem.to_string()),
    }
    inspection
}
