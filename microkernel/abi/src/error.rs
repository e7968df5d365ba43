//! What a system call answers when it does not do what it was asked.

macro_rules! errors {
    ($($(#[doc = $doc:literal])* $name:ident = $value:literal, $text:literal;)*) => {
        /// Why a system call failed. Zero is success and is not listed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Error { $($(#[doc = $doc])* $name = $value,)* }

        impl Error {
            /// Decodes the status register; `None` for success and for values the kernel never returns.
            #[must_use]
            pub const fn from_status(status: u64) -> Option<Self> {
                match status { $($value => Some(Self::$name),)* _ => None }
            }

            /// One line for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

errors! {
    /// The system-call number or the operation is not one of this object's.
    UnknownOperation = 1, "no such operation on this object";
    /// The slot number lies outside the capability table or the slot is empty.
    BadSlot = 2, "the slot is empty or outside the capability table";
    /// The capability is of another kind than the operation needs.
    WrongKind = 3, "the capability is of the wrong kind";
    /// The capability lacks a right that the operation needs.
    NoRight = 4, "the capability lacks the right";
    /// An argument is out of range, misaligned or contradicts another.
    BadArgument = 5, "an argument is out of range";
    /// The `Untyped` or the page-table pool has too little room left.
    NoMemory = 6, "the memory object has too little room left";
    /// The destination slot already holds a capability.
    SlotOccupied = 7, "the destination slot is occupied";
    /// The address range is already mapped, or the capability already is.
    AlreadyMapped = 8, "already mapped";
    /// Nothing is mapped there.
    NotMapped = 9, "not mapped";
    /// The deadline passed first.
    TimedOut = 10, "the deadline passed";
    /// The server ended before it answered; the request may or may not have been carried out.
    ServerDied = 11, "the server ended before it answered";
    /// The object was destroyed while the call waited for it.
    Deleted = 12, "the object was destroyed while waiting";
    /// The call would have to wait, and was asked not to.
    WouldBlock = 13, "nothing there yet";
    /// The object is in a state in which this cannot be done (a thread that is running, a reply already sent).
    BadState = 14, "the object is in the wrong state for this";
    /// This machine cannot do it (no virtualisation, no such processor).
    Unsupported = 15, "this machine cannot do that";
    /// The operation was interrupted part-way to let others run: ask again to go on.
    Again = 16, "interrupted part-way, ask again";
    /// A capability that came with the message could not be stored at the receiver.
    CapTransfer = 17, "a capability in the message could not be transferred";
    /// A mapping asked to be writable and executable at once.
    WriteExecute = 18, "memory may not be writable and executable";
}
