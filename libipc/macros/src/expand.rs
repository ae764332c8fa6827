//! The code of a protocol.

use crate::model::{Method, Protocol};
use proc_macro2::{Ident, TokenStream};
use quote::{format_ident, quote};

/// The protocol's type, client, server trait and dispatcher.
pub fn protocol(protocol: &Protocol) -> TokenStream {
    let identity = identity(protocol);
    let client = client(protocol);
    let server = server(protocol);
    let dispatcher = dispatcher(protocol);
    quote! { #identity #client #server #dispatcher }
}

fn server_ident(protocol: &Protocol) -> Ident {
    format_ident!("{}Server", protocol.ident)
}

fn identity(protocol: &Protocol) -> TokenStream {
    let Protocol { name, version, docs, visibility, ident, methods } = protocol;
    let names = methods.iter().map(|method| method.ident.to_string());
    let shown = methods.iter().enumerate().map(|(number, method)| shown(number as u8, method));
    quote! {
        #(#docs)*
        #[derive(Clone, Copy, Debug)]
        #visibility enum #ident {}

        impl ::libipc::Protocol for #ident {
            const NAME: &'static str = #name;
            const VERSION: u16 = #version;
            const METHODS: &'static [&'static str] = &[#(#names),*];

            fn explore<E: ::libipc::explore::Explorer>(number: u8, explorer: &mut E) -> bool {
                match number {
                    #(#shown)*
                    _ => return false,
                }
                true
            }
        }
    }
}

/// The arm that shows a method to an explorer.
fn shown(number: u8, method: &Method) -> TokenStream {
    let result = &method.result;
    let (names, types): (Vec<_>, Vec<_>) = method.arguments.iter().cloned().unzip();
    let arguments = quote!((#(#types,)*));
    let (encode, decode) = if method.is_hot {
        let (offsets, total) = offsets(&types);
        let encode = quote! {
            |arguments| {
                #[allow(unused_mut)]
                let mut words = [0u64; 4];
                let (#(#names,)*) = arguments;
                #(::libipc::wire::Hot::put(#names, &mut words, #offsets);)*
                ::core::result::Result::Ok((words, #total))
            }
        };
        (encode, quote!(::libipc::explore::decode_hot::<#result>))
    } else {
        let encode = quote!(|arguments| ::libipc::wire::encode(arguments));
        (encode, quote!(::libipc::explore::decode::<#result>))
    };
    quote! {
        #number => explorer.method(&::libipc::explore::Method::<#arguments, #result> {
            number: #number,
            label: Self::ID.label(#number),
            encode: #encode,
            decode: #decode,
        }),
    }
}

fn client(protocol: &Protocol) -> TokenStream {
    let (visibility, ident) = (&protocol.visibility, &protocol.ident);
    let client = format_ident!("{ident}Client");
    let name = &protocol.name;
    let doc = format!("A client of the protocol `{name}`, over one session.");
    let methods = protocol
        .methods
        .iter()
        .enumerate()
        .map(|(number, method)| client_method(ident, number as u8, method));
    quote! {
        #[doc = #doc]
        #[derive(Clone, Copy, Debug)]
        #visibility struct #client {
            session: ::libipc::Session,
        }

        impl #client {
            /// A client over this session.
            pub const fn new(session: ::libipc::Session) -> Self {
                Self { session }
            }

            /// A client of this endpoint, without shared memory.
            pub const fn at(endpoint: ::libipc::abi::CPtr) -> Self {
                Self::new(::libipc::Session::of_endpoint(::libipc::Cap::new(endpoint)))
            }

            /// A client over the first session of the manifest's edge `edge`.
            ///
            /// # Errors
            /// `ServiceUnavailable` if the manifest grants none.
            pub fn connect(
                start: &::libipc::StartInfo,
                edge: &str,
            ) -> ::core::result::Result<Self, ::libipc::Error> {
                ::core::result::Result::Ok(Self::new(start.session(edge, 0)?))
            }

            /// The session.
            pub const fn session(&self) -> &::libipc::Session {
                &self.session
            }

            #(#methods)*
        }
    }
}

fn client_method(protocol: &Ident, number: u8, method: &Method) -> TokenStream {
    let Method { docs, ident, result, .. } = method;
    let (names, types): (Vec<_>, Vec<_>) = method.arguments.iter().cloned().unzip();
    let retry = if method.is_idempotent {
        quote!(::libipc::client::Retry::Idempotent)
    } else {
        quote!(::libipc::client::Retry::Never)
    };
    let label = quote!(<#protocol as ::libipc::Protocol>::ID.label(#number));
    let call = if method.is_hot {
        let (offsets, total) = offsets(&types);
        quote! {{
            const { assert!(#total <= 4, "a hot method's arguments take at most four words") };
            const {
                assert!(
                    <#result as ::libipc::wire::Hot>::WORDS <= 4,
                    "a hot method's result takes at most four words",
                )
            };
            #[allow(unused_mut)]
            let mut words = [0u64; 4];
            #(::libipc::wire::Hot::put(&#names, &mut words, #offsets);)*
            ::libipc::client::call_hot::<#result>(
                self.session.endpoint, #label, #retry, words, #total,
            )
        }}
    } else {
        quote! {
            ::libipc::client::call::<_, #result>(
                self.session.endpoint, #label, #retry, &(#(#names,)*),
            )
        }
    };
    let (output, body) = if method.is_result {
        let body = quote! {
            match #call {
                ::core::result::Result::Ok(result) => result,
                ::core::result::Result::Err(error) => {
                    ::core::result::Result::Err(::core::convert::From::from(error))
                }
            }
        };
        (quote!(#result), body)
    } else {
        (quote!(::core::result::Result<#result, ::libipc::Error>), call)
    };
    quote! {
        #(#docs)*
        #[allow(clippy::missing_errors_doc, clippy::too_many_arguments, clippy::useless_conversion)]
        #[inline]
        pub fn #ident(&self, #(#names: #types),*) -> #output {
            #body
        }
    }
}

/// For each hot argument the word where it begins, and the sum of all.
fn offsets(types: &[syn::Type]) -> (Vec<TokenStream>, TokenStream) {
    let mut at = quote!(0usize);
    let mut offsets = Vec::new();
    for argument in types {
        offsets.push(at.clone());
        at = quote!((#at + <#argument as ::libipc::wire::Hot>::WORDS));
    }
    (offsets, at)
}

fn server(protocol: &Protocol) -> TokenStream {
    let visibility = &protocol.visibility;
    let server = server_ident(protocol);
    let doc = format!("What a server of the protocol `{}` does.", protocol.name);
    let methods = protocol.methods.iter().map(|method| {
        let Method { docs, ident, result, .. } = method;
        let (names, types): (Vec<_>, Vec<_>) = method.arguments.iter().cloned().unzip();
        let lint = quote!(#[allow(clippy::missing_errors_doc, clippy::too_many_arguments)]);
        if method.is_deferred {
            quote! {
                #(#docs)*
                #lint
                fn #ident(
                    &mut self,
                    caller: ::libipc::Caller,
                    later: ::libipc::Later<#result>,
                    #(#names: #types),*
                );
            }
        } else {
            quote! {
                #(#docs)*
                #lint
                fn #ident(&mut self, caller: ::libipc::Caller, #(#names: #types),*) -> #result;
            }
        }
    });
    quote! {
        #[doc = #doc]
        #visibility trait #server {
            #(#methods)*
        }
    }
}

fn dispatcher(protocol: &Protocol) -> TokenStream {
    let ident = &protocol.ident;
    let server = server_ident(protocol);
    let arms = protocol
        .methods
        .iter()
        .enumerate()
        .map(|(number, method)| dispatch_arm(&server, number as u8, method));
    quote! {
        impl #ident {
            /// Decodes a request, has `server` handle it, and encodes the answer. A request that
            /// is none of this protocol's is refused with the reason.
            #[inline]
            pub fn dispatch<S: #server + ?Sized>(
                server: &mut S,
                request: &::libipc::Request<'_>,
            ) -> ::libipc::Outcome {
                let (protocol, method) = request.method();
                if protocol != <#ident as ::libipc::Protocol>::ID {
                    return ::libipc::Outcome::refuse(::libipc::protocol::Status::WrongProtocol);
                }
                #[allow(unused_mut, unused_variables)]
                let mut scratch = ::libipc::wire::Scratch::new();
                match method {
                    #(#arms)*
                    _ => ::libipc::Outcome::refuse(::libipc::protocol::Status::UnknownMethod),
                }
            }
        }
    }
}

fn dispatch_arm(server: &Ident, number: u8, method: &Method) -> TokenStream {
    let (ident, result) = (&method.ident, &method.result);
    let (names, types): (Vec<_>, Vec<_>) = method.arguments.iter().cloned().unzip();
    let refuse = |reason: TokenStream| quote!(return ::libipc::Outcome::refuse(#reason));
    let refuse_status = refuse(quote!(status));
    let malformed = refuse(quote!(::libipc::protocol::Status::Malformed));
    let decode = if method.is_hot {
        let (offsets, total) = offsets(&types);
        quote! {
            #[allow(unused_variables)]
            let words = match request.hot_arguments(#total) {
                ::core::result::Result::Ok(words) => words,
                ::core::result::Result::Err(status) => #refuse_status,
            };
            #(
                let #names = match <#types as ::libipc::wire::Hot>::get(words, #offsets) {
                    ::core::option::Option::Some(value) => value,
                    ::core::option::Option::None => #malformed,
                };
            )*
        }
    } else {
        quote! {
            let (#(#names,)*): (#(#types,)*) = match request.arguments(&mut scratch) {
                ::core::result::Result::Ok(arguments) => arguments,
                ::core::result::Result::Err(status) => #refuse_status,
            };
        }
    };
    let run = if method.is_deferred {
        quote! {
            let later = match request.later::<#result>() {
                ::core::result::Result::Ok(later) => later,
                ::core::result::Result::Err(status) => #refuse_status,
            };
            #server::#ident(server, request.caller(), later, #(#names),*);
            ::libipc::Outcome::Later
        }
    } else {
        let done = if method.is_hot {
            quote!(::libipc::Outcome::done_hot::<#result>(result))
        } else {
            quote!(::libipc::Outcome::done::<#result>(&result))
        };
        quote! {
            #[allow(clippy::let_unit_value)]
            let result = #server::#ident(server, request.caller(), #(#names),*);
            #done
        }
    };
    quote! { #number => { #decode #run } }
}
