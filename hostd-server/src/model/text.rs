//! Values with bounds: what does not keep them does not become one, and the API's description says the same.

use alloc::{format, string::String};
use core::ops::Deref;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// What a text may be.
pub trait Rule {
    /// Fewest characters.
    const LEAST: usize;
    /// Most characters.
    const MOST: usize;
    /// The rule as a regular expression (ECMA-262) for the description.
    const PATTERN: &'static str;
    /// What it is, in an error.
    const WHAT: &'static str;
    /// Whether the rule is kept; length is checked apart.
    fn allows(text: &str) -> bool;
}

/// A text that keeps a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Checked<R>(String, #[serde(skip)] core::marker::PhantomData<R>);

impl<R> Clone for Checked<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), core::marker::PhantomData)
    }
}

impl<R: Rule> Checked<R> {
    /// Checks a text.
    ///
    /// # Errors
    /// The rule that it breaks, a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let length = text.chars().count();
        if length < R::LEAST || length > R::MOST {
            return Err(format!("{} has {} to {} characters, not {length}", R::WHAT, R::LEAST, R::MOST));
        }
        if !R::allows(text) {
            return Err(format!("{} matches {}", R::WHAT, R::PATTERN));
        }
        Ok(Self(text.into(), core::marker::PhantomData))
    }

    /// The text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<R> Deref for Checked<R> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de, R: Rule> Deserialize<'de> for Checked<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(feature = "description")]
impl<R: Rule> schemars::JsonSchema for Checked<R> {
    fn schema_name() -> alloc::borrow::Cow<'static, str> {
        R::WHAT.replace(' ', "").into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut schema = schemars::json_schema!({ "type": "string", "minLength": R::LEAST, "maxLength": R::MOST });
        if !R::PATTERN.is_empty() {
            schema.insert("pattern".into(), R::PATTERN.into());
        }
        schema
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $rule:ident($what:literal, $least:literal..=$most:literal, $pattern:literal, $allows:expr);)*) => {
        $(
            #[doc = concat!("Rule of [`", stringify!($name), "`].")]
            #[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub struct $rule;
            impl Rule for $rule {
                const LEAST: usize = $least;
                const MOST: usize = $most;
                const PATTERN: &'static str = $pattern;
                const WHAT: &'static str = $what;
                fn allows(text: &str) -> bool {
                    let rule: fn(&str) -> bool = $allows;
                    rule(text)
                }
            }
            $(#[$doc])*
            pub type $name = Checked<$rule>;
        )*
    };
}

fn plain(text: &str, others: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn starts_alphanumeric(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

rules! {
    /// Text that is typed at a keyboard.
    PastedText = PastedTextRule("a text to type", 1..=16384, "", |_| true);
    /// Name of a machine.
    VmName = VmNameRule("a machine's name", 1..=64, "^[A-Za-z0-9][A-Za-z0-9._-]*$", |text| starts_alphanumeric(text) && plain(text, "._-"));
    /// Name of something else in the inventory.
    Name = NameRule("a name", 1..=64, "^[A-Za-z0-9][A-Za-z0-9._ -]*$", |text| starts_alphanumeric(text) && plain(text, "._ -"));
    /// Name of an account.
    UserName = UserNameRule("an account's name", 1..=32, "^[a-z_][a-z0-9._-]*$", |text| text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c)));
    /// Free text of some lines.
    Notes = NotesRule("a text", 0..=1024, "", |_| true);
    /// A password that is being set.
    NewPassword = NewPasswordRule("a password", 8..=128, "", |_| true);
    /// A password that somebody claims.
    Password = PasswordRule("a password", 0..=128, "", |_| true);
    /// Number of an object, such as `vm-12`.
    Id = IdRule("an object's identifier", 1..=64, "^[A-Za-z0-9][A-Za-z0-9._-]*$", |text| starts_alphanumeric(text) && plain(text, "._-"));
    /// Path inside a datastore, without a slash at its begin.
    FilePath = FilePathRule("a path", 1..=512, "^[A-Za-z0-9_+-][A-Za-z0-9._ +-]*(/[A-Za-z0-9_+-][A-Za-z0-9._ +-]*)*$", |text| text.split('/').all(|part|
        part.starts_with(|c: char| c.is_ascii_alphanumeric() || "_+-".contains(c)) && plain(part, "._ +-")));
    /// A file of a datastore or of the image: `[datastore1] kernels/vmlinuz`, `[image] debian.kernel`.
    StoragePath = StoragePathRule("a datastore path", 4..=600, "^\\[[A-Za-z0-9][A-Za-z0-9._ -]*\\] [A-Za-z0-9_+-][A-Za-z0-9._ +-]*(/[A-Za-z0-9_+-][A-Za-z0-9._ +-]*)*$", |text|
        split_storage_path(text).is_some_and(|(store, path)| NameRule::allows(store) && FilePathRule::allows(path)));
    /// A kernel's command line.
    CommandLine = CommandLineRule("a command line", 0..=1024, "^[ -~]*$", |text| text.chars().all(|c| (' '..='~').contains(&c)));
    /// What a firmware boots from: `cdrom`, `disk`, `nic`, or `disk.1` for the second of its kind.
    BootDevice = BootDeviceRule("a boot device", 3..=6, "^(cdrom|(disk|nic)(\\.[0-7])?)$", |text| text == "cdrom" || ["disk", "nic"].iter().any(|kind|
        text.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || matches!(rest.as_bytes(), [b'.', b'0'..=b'7']))));
    /// Name of a machine on the network, or its address.
    HostName = HostNameRule("a host's name or address", 1..=253, "^[A-Za-z0-9:]([A-Za-z0-9.:-]*[A-Za-z0-9:])?$", |text| {
        let end = |c: char| c.is_ascii_alphanumeric() || c == ':';
        text.starts_with(end) && text.ends_with(end) && plain(text, ".:-")
    });
    /// Name of a guest on the network: one label of RFC 1123.
    GuestName = GuestNameRule("a guest's name", 1..=63, "^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$", |text| {
        let end = |c: char| c.is_ascii_alphanumeric();
        text.starts_with(end) && text.ends_with(end) && plain(text, "-")
    });
    /// A public key as OpenSSH writes it: kind, base64, a comment.
    SshKey = SshKeyRule("a public key of SSH", 9..=2048, "^(ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+ [A-Za-z0-9+/]+=*( [ -~]*)?$", |text| {
        let mut words = text.splitn(3, ' ');
        let kind = words.next().and_then(|kind| ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().find_map(|begin| kind.strip_prefix(begin)));
        let kind = kind.is_some_and(|kind| !kind.is_empty() && kind.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "@.-".contains(c)));
        let key = words.next().map_or("", |key| key.trim_end_matches('='));
        kind && !key.is_empty() && plain(key, "+/") && words.next().unwrap_or_default().chars().all(|c| (' '..='~').contains(&c))
    });
    /// User-data for cloud-init: what its first line has to begin with tells the kind.
    UserData = UserDataRule("user-data", 2..=65536, "^(#|Content-Type:|MIME-Version:)", |text|
        ["#", "Content-Type:", "MIME-Version:"].iter().any(|begin| text.starts_with(begin)));
    /// IPv4 address.
    Ipv4 = Ipv4Rule("an IPv4 address", 7..=15, "^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$", |text| text.parse::<core::net::Ipv4Addr>().is_ok());
    /// IPv6 address with the bits of its network.
    Ipv6Network = Ipv6NetworkRule("an IPv6 address with the bits of its network", 4..=43, "^[0-9a-fA-F:.]+/[0-9]{1,3}$", |text| text.split_once('/').is_some_and(|(address, bits)|
        address.parse::<core::net::Ipv6Addr>().is_ok() && bits.len() <= 3 && bits.bytes().all(|digit| digit.is_ascii_digit())));
    /// Ethernet address.
    Mac = MacRule("an Ethernet address", 17..=17, "^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$", |text| parse_mac(text).is_some_and(|mac| mac[0] & 1 == 0) && !text.chars().any(|c| c.is_ascii_uppercase()));
    /// Address of a PCI function: segment, bus, device and function.
    PciAddress = PciAddressRule("an address of a PCI function", 12..=12, "^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]$", |text| text.bytes().zip("ssss:ss:ds.f".bytes()).all(|(byte, place)| match place {
        b's' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        b'd' => matches!(byte, b'0' | b'1'),
        b'f' => (b'0'..=b'7').contains(&byte),
        place => byte == place,
    }));
    /// PEM of certificates or keys.
    Pem = PemRule("PEM text", 1..=65536, "", |_| true);
}

/// Datastore and path of `[store] path`.
#[must_use]
pub fn split_storage_path(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('[')?.split_once("] ")
}

/// Six bytes of an Ethernet address with colons.
#[must_use]
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// An Ethernet address with colons.
#[must_use]
pub fn show_mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// A number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ranged<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Ranged<MIN, MAX> {
    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number, which fits.
    #[must_use]
    pub fn get32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The nearest number in range.
    #[must_use]
    pub fn clamped(number: u64) -> Self {
        Self(number.clamp(MIN, MAX))
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Ranged<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(D::Error::custom(format!("{number} is not from {MIN} to {MAX}")))
        }
    }
}

#[cfg(feature = "description")]
impl<const MIN: u64, const MAX: u64> schemars::JsonSchema for Ranged<MIN, MAX> {
    fn schema_name() -> alloc::borrow::Cow<'static, str> {
        format!("From{MIN}To{MAX}").into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A list of at most `MOST`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Few<T, const MOST: usize>(pub alloc::vec::Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = alloc::vec::Vec::<T>::deserialize(deserializer)?;
        if list.len() > MOST {
            Err(D::Error::custom(format!("{} are more than the {MOST} there may be", list.len())))
        } else {
            Ok(Self(list))
        }
    }
}

#[cfg(feature = "description")]
impl<T: schemars::JsonSchema, const MOST: usize> schemars::JsonSchema for Few<T, MOST> {
    fn schema_name() -> alloc::borrow::Cow<'static, str> {
        format!("Few{}", T::schema_name()).into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let items = generator.subschema_for::<T>();
        schemars::json_schema!({ "type": "array", "items": items, "maxItems": MOST })
    }
}

/// A field of a change that may be left out, given, or given as null.
///
/// # Errors
/// Those of the value.
pub fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}
