//! What `std`'s prelude has and `core`'s does not, so that files need not list the allocating types one
//! by one.

pub(crate) use alloc::{
    borrow::ToOwned as _, boxed::Box, string::String, string::ToString as _, vec::Vec,
};
