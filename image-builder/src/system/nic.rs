//! `nics` of a `[[vm]]`: a list of tables, in the order in which the guest sees the network cards.

use crate::{
    reader::Reader,
    source::{Diagnostics, Located, Span},
    units,
};
use tessera_manifest::NicModel;
use tessera_vswitch::station_address;

/// A network card of a virtual machine.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Where its table stands.
    pub span: Span,
    /// `port-group`: the name of one.
    pub port_group: Located<String>,
    /// `mac`. Default: one that comes from the machine's name and the card's place, the same at each build.
    pub mac: Located<[u8; 6]>,
    /// `model`: "virtio" or "e1000e", what it is to the guest. Default "virtio".
    pub model: NicModel,
}

impl Nic {
    pub(super) fn from_reader(mut reader: Reader<'_>, owner: &str, place: usize, diagnostics: &mut Diagnostics) -> Option<Self> {
        let span = reader.span();
        let port_group = reader.require_text("port-group", "\"VM Network\"", diagnostics);
        let mac = reader.parsed("mac", units::mac, "02:54:00:12:34:56", diagnostics);
        let known = |word: &str| match word {
            "virtio" => Ok(NicModel::Virtio),
            "e1000e" => Ok(NicModel::E1000e),
            _ => Err("a card's model is \"virtio\" or \"e1000e\"".into()),
        };
        let model = reader.parsed("model", known, "e1000e", diagnostics);
        reader.finish(diagnostics);
        Some(Self {
            span,
            port_group: port_group?,
            mac: mac.unwrap_or(Located::new(station_address(owner, place), span)),
            model: model.map_or_else(NicModel::default, |model| model.value),
        })
    }
}
