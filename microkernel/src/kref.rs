//! References to kernel objects.
//!
//! Objects live in memory that user level donated. They are reached through capability slots and through the kernel's own lists, and
//! destroying one (which only happens under the exclusive kernel lock, see [`crate::lock`]) first removes it from all of these. A
//! [`Ref`] therefore never outlives its object. All fields that change are cells, so shared references are all anyone needs.

use core::{fmt, marker::PhantomData, ops::Deref, ptr::NonNull};

/// A counted-elsewhere reference to a live kernel object.
#[repr(transparent)]
pub struct Ref<T>(NonNull<T>, PhantomData<T>);

impl<T> Ref<T> {
    /// Makes a reference.
    ///
    /// # Safety
    /// `pointer` is non-null, aligned, and names an initialised object that the kernel keeps alive as this module describes.
    #[inline(always)]
    pub const unsafe fn new(pointer: *mut T) -> Self {
        // SAFETY: the caller vouches that it is not null.
        Self(unsafe { NonNull::new_unchecked(pointer) }, PhantomData)
    }

    /// The reference to an object one has at hand.
    #[inline(always)]
    pub fn from(object: &T) -> Self {
        Self(NonNull::from(object), PhantomData)
    }

    /// The object's address.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }

    /// The object's address as a number: its identity.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0.as_ptr() as u64
    }
}

impl<T> Clone for Ref<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.0.as_ptr(), other.0.as_ptr())
    }
}
impl<T> Eq for Ref<T> {}

impl<T> Deref for Ref<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the module's invariant: whoever made the reference vouched for the object, and the kernel removes references before objects.
        unsafe { self.0.as_ref() }
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}", self.0.as_ptr())
    }
}
