//! Screens of machines.
use super::text::{Few, Id, PastedText};
use alloc::string::String;

model! {
    /// Lets one viewer in, once, for a short while.
    pub struct ScreenTicket {
        /// To be sent as `ticket` of `/ws/screen`.
        pub ticket: String,
        /// When it is too late.
        pub expires: String,
    }

    /// What is typed at a machine's keyboard: first the keys, all at once, then the text.
    pub struct Typing {
        /// Keys, such as `ctrl`, `alt` and `delete`, that are pressed together.
        pub keys: Option<Few<Id, 8>>,
        /// Text, for a keyboard with US layout.
        pub text: Option<PastedText>,
    }
}
