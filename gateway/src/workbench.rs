//! A plugin author's workbench: projects and their languages, builds, and orders judged without a gateway.
//!
//! # Not here
//!
//! What is printed (`cli`), and how plugins are loaded and run (`plugin`): the workbench uses the same host as a node.

pub mod changes;
pub mod compare;
pub mod costs;
pub mod desk;
pub mod language;
pub mod material;
pub mod orders;
pub mod project;
pub mod scaffold;
pub mod vectors;
