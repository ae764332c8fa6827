//! Procedural macros of libipc: [`macro@protocol`].
//!
//! One trait is the single source of a protocol: its client, its server's trait, its dispatcher
//! and its identity are generated from it, so they cannot disagree.
//!
//! Not here: what the generated code calls (`libipc::{client, server, wire, protocol}`).

mod expand;
mod model;

use proc_macro::TokenStream;

/// Makes a protocol of a trait.
///
/// ```ignore
/// #[libipc::protocol(name = "hello", version = 1)]
/// pub trait Hello {
///     /// Answers with a greeting.
///     #[idempotent]
///     fn greet(&self, name: &str) -> Result<Greeting, HelloError>;
/// }
/// ```
///
/// gives
/// * `enum Hello`, the protocol itself: `libipc::Protocol` with `NAME`, `VERSION`, `ID`,
///   `METHODS`, and `Hello::dispatch(server, request) -> Outcome`;
/// * `trait HelloServer`: the same methods, with `&mut self` and the `Caller`;
/// * `struct HelloClient`: the same methods, blocking, over a `libipc::Session`.
///
/// Arguments and results are anything that serde can encode into a message (about 3,900 bytes);
/// arguments may be `&str` or `&[u8]`. A method that returns `Result<T, E>` needs
/// `E: From<libipc::Error>`, since the call itself can fail; another one that returns `T` gives
/// the client `Result<T, libipc::Error>`.
///
/// Attributes of methods:
/// * `#[idempotent]`: may be executed twice, so the client sends it again when the server died
///   with it;
/// * `#[hot]`: arguments and result are `libipc::wire::Hot` values that fit four words, and travel
///   in registers only;
/// * `#[deferred]`: the server gets a `libipc::Later` for its answer and returns nothing.
///
/// Methods are numbered in their order: append new ones, and raise the version when an old one
/// changes.
#[proc_macro_attribute]
pub fn protocol(attribute: TokenStream, item: TokenStream) -> TokenStream {
    model::Protocol::parse(attribute.into(), item.into())
        .map(|protocol| expand::protocol(&protocol))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
