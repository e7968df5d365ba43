//! What the API shows and takes, with vSphere's concepts and names: the JSON of requests and answers. Sizes are bytes, clock rates MHz, times RFC 3339.

/// Gives items what all of the model has: JSON in camelCase that takes nothing it does not know, and a schema.
macro_rules! model {
    ($($item:item)*) => {
        $(
            #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
            #[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
            #[serde(rename_all = "camelCase", deny_unknown_fields)]
            $item
        )*
    };
}

mod host;
mod network;
mod policies;
mod screen;
mod security;
mod storage;
mod system;
pub mod text;
mod vm;

pub use host::*;
pub use network::*;
pub use policies::*;
pub use screen::*;
pub use security::*;
pub use storage::*;
pub use system::*;
pub use vm::*;
